import LibP2PCore
import NIOCore

/// The dialing half of multistream-select 1.0: proposes protocols in order until the listener accepts one.
///
/// Pure: bytes in, a ``NegotiationAction`` out. Call ``start()`` once, then ``receive(_:)`` for all input, until it answers with
/// `negotiated` or `fail`; after that the machine is of no more use.
///
/// With one protocol, what ``start()`` returns may be sent together with the first bytes of that protocol: nothing the listener
/// says can change them. Its input is only valid once both echoes are verified, which is when `negotiated` comes.
///
/// Spec: `connections/README.md` § multistream-select.
struct MultistreamDialer: Equatable {
    private enum State: Equatable {
        case idle
        case awaitingHeader
        case awaitingReply
        case finished
    }

    /// All we propose, in order of preference.
    let proposals: [ProtocolID]

    private var state = State.idle
    /// The proposal that the listener is to answer.
    private var current = 0
    private var received = ByteBuffer()

    /// A machine that proposes `proposals` in this order.
    init(proposing proposals: [ProtocolID]) {
        self.proposals = proposals
    }

    /// Begins: header and first proposal go out together, which saves a round trip.
    mutating func start() -> NegotiationAction {
        guard case .idle = self.state, let first = self.proposals.first else { return self.fail(.noProtocolsProposed) }
        for proposal in self.proposals where proposal.rawValue.utf8.count >= Multistream.maximumMessageBytes {
            return self.fail(.messageTooLong(bytes: proposal.rawValue.utf8.count + 1))
        }
        self.state = .awaitingHeader
        var out = ByteBuffer()
        out.writeMultistreamMessage(Multistream.header)
        out.writeMultistreamMessage(first.rawValue)
        return .send(out)
    }

    /// Consumes bytes from the listener.
    mutating func receive(_ bytes: ByteBuffer) -> NegotiationAction {
        self.received.writeImmutableBuffer(bytes)
        while true {
            let text: String
            do {
                guard let message = try self.received.readMultistreamMessage() else { return .wait }
                text = message
            } catch {
                return self.fail(error)
            }
            switch self.state {
            case .awaitingHeader:
                guard text == Multistream.header else { return self.fail(.unexpectedHeader(text)) }
                self.state = .awaitingReply
            case .awaitingReply where text == self.proposals[self.current].rawValue:
                self.state = .finished
                let leftover = self.received
                self.received = ByteBuffer()
                return .negotiated(self.proposals[self.current], reply: nil, leftover: leftover)
            case .awaitingReply where text == Multistream.refusal:
                guard self.current + 1 < self.proposals.count else { return self.fail(.unsupported(self.proposals)) }
                // The listener speaks only when spoken to: nothing can follow its refusal yet.
                guard self.received.readableBytes == 0 else { return self.fail(.unexpectedReply(text)) }
                self.current += 1
                var out = ByteBuffer()
                out.writeMultistreamMessage(self.proposals[self.current].rawValue)
                return .send(out)
            case .awaitingReply, .idle, .finished:
                return self.fail(.unexpectedReply(text))
            }
        }
    }

    /// The input has ended before an agreement; returns what that means.
    mutating func inputEnded() -> NegotiationError {
        self.state = .finished
        return .streamEnded
    }

    private mutating func fail(_ error: NegotiationError) -> NegotiationAction {
        self.state = .finished
        self.received = ByteBuffer()
        return .fail(error)
    }
}
