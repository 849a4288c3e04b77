import LibP2PCore
import NIOCore

/// The listening half of multistream-select 1.0: answers proposals until one is accepted.
///
/// Pure: bytes in, a ``NegotiationAction`` out. Call ``start()`` once, then ``receive(_:accepts:)`` for all input, until it
/// answers with `negotiated` or `fail`; after that the machine is of no more use.
///
/// Spec: `connections/README.md` § multistream-select.
struct MultistreamListener: Equatable {
    private enum State: Equatable {
        case awaitingHeader
        case awaitingProposal
        case finished
    }

    private var state = State.awaitingHeader
    /// What `ls` is answered with.
    private let listed: [ProtocolID]
    private var refused: [ProtocolID] = []
    private var answers = 0
    private var received = ByteBuffer()

    /// A machine that answers `ls` with `listed`, as far as one message holds them.
    init(listed: [ProtocolID] = []) {
        self.listed = listed
    }

    /// Begins: returns the header, which does not wait for the dialer's.
    func start() -> ByteBuffer {
        var out = ByteBuffer()
        out.writeMultistreamMessage(Multistream.header)
        return out
    }

    /// Consumes bytes from the dialer; `accepts` says whether a protocol is spoken here.
    mutating func receive(_ bytes: ByteBuffer, accepts: (ProtocolID) -> Bool) -> NegotiationAction {
        self.received.writeImmutableBuffer(bytes)
        var out = ByteBuffer()
        while true {
            let text: String
            do {
                guard let message = try self.received.readMultistreamMessage() else {
                    return out.readableBytes > 0 ? .send(out) : .wait
                }
                text = message
            } catch {
                return self.fail(error)
            }
            switch self.state {
            case .awaitingHeader:
                guard text == Multistream.header else { return self.fail(.unexpectedHeader(text)) }
                self.state = .awaitingProposal
            case .awaitingProposal:
                guard self.answers < Multistream.maximumProposals else { return self.fail(.tooManyProposals) }
                self.answers += 1
                if text == Multistream.list {
                    self.writeList(to: &out)
                    continue
                }
                let proposal = ProtocolID(rawValue: text)
                guard accepts(proposal) else {
                    self.refused.append(proposal)
                    out.writeMultistreamMessage(Multistream.refusal)
                    continue
                }
                self.state = .finished
                out.writeMultistreamMessage(text)
                let leftover = self.received
                self.received = ByteBuffer()
                return .negotiated(proposal, reply: out, leftover: leftover)
            case .finished:
                return self.fail(.unexpectedReply(text))
            }
        }
    }

    /// The input has ended before an agreement; returns what that means. A dialer that runs out of proposals ends so.
    mutating func inputEnded() -> NegotiationError {
        self.state = .finished
        return self.refused.isEmpty ? .streamEnded : .unsupported(self.refused)
    }

    /// One message whose text is a message for each protocol.
    private func writeList(to out: inout ByteBuffer) {
        var body = ByteBuffer()
        for protocolID in self.listed {
            var entry = ByteBuffer()
            entry.writeMultistreamMessage(protocolID.rawValue)
            guard body.readableBytes + entry.readableBytes < Multistream.maximumMessageBytes else { break }
            body.writeImmutableBuffer(entry)
        }
        out.writeMultistreamMessage(String(buffer: body))
    }

    private mutating func fail(_ error: NegotiationError) -> NegotiationAction {
        self.state = .finished
        self.received = ByteBuffer()
        return .fail(error)
    }
}
