import LibP2PCore
import Multiformats
import NIOCore

/// What multistream-select 1.0 is made of, and the limits we keep.
///
/// A message is an unsigned varint with the length of what follows, then text, then a newline; the length counts the newline.
///
/// Spec: `connections/README.md` § multistream-select.
enum Multistream {
    /// What both sides say first, without waiting for each other.
    static let header = "/multistream/1.0.0"
    /// The listener's answer to a proposal it does not take.
    static let refusal = "na"
    /// The dialer's question for all protocols that the listener speaks.
    static let list = "ls"

    /// The longest message, in bytes, newline counted and length not. The specification sets none; this is what go-libp2p reads.
    static let maximumMessageBytes = 1024
    /// How many proposals (and questions for the list) a listener answers. The specification sets no limit.
    static let maximumProposals = 32
}

/// What the driver of a multistream-select machine does next.
enum NegotiationAction: Equatable {
    /// More input is needed.
    case wait
    /// Write these bytes, then wait for input.
    case send(ByteBuffer)
    /// Agreed. `reply`, if any, is to be written first; `leftover` belongs to the agreed protocol already.
    case negotiated(ProtocolID, reply: ByteBuffer?, leftover: ByteBuffer)
    /// No agreement: the stream is of no more use.
    case fail(NegotiationError)
}

extension ByteBuffer {
    /// Appends `text` as one message.
    mutating func writeMultistreamMessage(_ text: String) {
        self.writeBytes(Varint.encode(UInt64(text.utf8.count + 1)))
        self.writeString(text)
        self.writeInteger(UInt8(ascii: "\n"))
    }

    /// Consumes the first message and returns its text without the newline; `nil` when more bytes are needed.
    mutating func readMultistreamMessage() throws(NegotiationError) -> String? {
        let view = self.readableBytesView
        var start = view.startIndex
        let length: UInt64
        do {
            length = try Varint.decode(view, at: &start)
        } catch .truncated {
            return nil
        } catch {
            throw .malformedMessage
        }
        guard length <= Multistream.maximumMessageBytes else { throw .messageTooLong(bytes: Int(length)) }
        guard length > 0 else { throw .malformedMessage }
        let message = view[start...].prefix(Int(length))
        guard message.count == length else { return nil }
        let text = message.dropLast()
        guard message.last == UInt8(ascii: "\n"), !text.contains(UInt8(ascii: "\n")),
            let string = String(validating: text, as: UTF8.self)
        else { throw .malformedMessage }
        self.moveReaderIndex(forwardBy: start - view.startIndex + Int(length))
        return string
    }
}
