import Multiformats
import NIOCore

/// The header of an mplex message. The data follows it on the wire and travels beside it here, uncopied.
///
/// ```
/// uvarint: stream number << 3 | flag | uvarint: length | data
/// ```
///
/// Spec: `mplex/README.md` § Message format.
struct MplexFrame: Hashable {
    /// What a message is for.
    enum Kind: Hashable {
        /// Opens a stream; the data is a name that means nothing.
        case newStream
        /// A stream's bytes.
        case message
        /// Ends the sender's direction of the stream.
        case close
        /// Kills the stream at once.
        case reset
    }

    var kind: Kind
    /// What the stream's opener numbered it. Both sides may use the same number.
    var number: UInt64
    /// Whether the sender of the message has opened the stream. With ``Kind/newStream`` it has.
    var isFromOpener: Bool
    /// How much data follows, in bytes.
    var length: Int

    init(_ kind: Kind, number: UInt64, isFromOpener: Bool, length: Int = 0) {
        self.kind = kind
        self.number = number
        self.isFromOpener = isFromOpener || kind == .newStream
        self.length = length
    }

    /// Takes a header apart.
    init(head: UInt64, length: UInt64) throws(MplexError) {
        let flag = UInt8(truncatingIfNeeded: head & 7)
        switch flag {
        case 0: self.kind = .newStream
        case 1, 2: self.kind = .message
        case 3, 4: self.kind = .close
        case 5, 6: self.kind = .reset
        default: throw .unknownFlag(flag)
        }
        guard length <= Self.maximumBodyBytes else { throw .messageTooLong(bytes: length) }
        self.isFromOpener = flag & 1 == 0
        self.number = head >> 3
        self.length = Int(length)
    }

    /// The header's first part.
    var head: UInt64 {
        let flag: UInt64 =
            switch self.kind {
            case .newStream: 0
            case .message: 1
            case .close: 3
            case .reset: 5
            }
        return self.number << 3 | (self.isFromOpener && flag > 0 ? flag + 1 : flag)
    }
}

extension MplexFrame {
    /// The longest header: two varints.
    static let maximumHeaderBytes = 2 * Varint.maximumBytes

    /// The longest message taken: the limit that the specification names for reference.
    static let maximumBodyBytes = 1024 * 1024

    /// The longest message we send: behind a new stream's header and its own it fills one Noise record of 65,519 bytes of plaintext.
    static let maximumSentBodyBytes = 65_519 - 2 * maximumHeaderBytes

    /// The largest number a header can hold.
    static let maximumNumber = Varint.maximumValue >> 3
}

extension ByteBuffer {
    /// Reads one header; `nil`, and nothing read, when it is not all at hand.
    mutating func readMplexFrame() throws(MplexError) -> MplexFrame? {
        let view = self.readableBytesView
        var end = view.startIndex
        let head: UInt64
        let length: UInt64
        do {
            head = try Varint.decode(view, at: &end)
            length = try Varint.decode(view, at: &end)
        } catch .truncated {
            return nil
        } catch {
            throw .malformedHeader
        }
        let frame = try MplexFrame(head: head, length: length)
        self.moveReaderIndex(forwardBy: end - view.startIndex)
        return frame
    }

    /// Appends a header.
    mutating func writeMplexFrame(_ frame: MplexFrame) {
        self.writeBytes(Varint.encode(frame.head))
        self.writeBytes(Varint.encode(UInt64(frame.length)))
    }
}
