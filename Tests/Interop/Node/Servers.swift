import LibP2PCore
import NIOCore
import Synchronization

/// The test protocols that the node serves, and what became of the streams on them.
final class Servers: Sendable {
    /// Every byte comes back at once, and the end after the end.
    static let echo: ProtocolID = "/echo/1"
    /// All comes back, but only after the end.
    static let afterEnd: ProtocolID = "/after-end/1"
    /// Is reset as soon as something comes.
    static let reset: ProtocolID = "/reset/1"

    /// How many streams of one protocol came, and how they ended.
    struct Count {
        var opened = 0
        var ended = 0
        /// By the remote.
        var reset = 0
    }

    private let counts = Mutex<[ProtocolID: Count]>([
        Servers.echo: Count(), Servers.afterEnd: Count(), Servers.reset: Count(),
    ])

    /// The counts so far.
    var served: [ProtocolID: Count] { self.counts.withLock { $0 } }

    /// Serves `stream`, whose protocol is one of ours.
    func serve(_ stream: any LibP2PCore.Stream) {
        guard let protocolID = stream.protocolID else { return stream.reset(.unspecified) }
        self.counts.withLock { $0[protocolID, default: Count()].opened += 1 }
        let server = TestServer(stream, kind: protocolID) { error in
            self.counts.withLock {
                if let error = error as? StreamResetError, error.byRemote {
                    $0[protocolID, default: Count()].reset += 1
                } else {
                    $0[protocolID, default: Count()].ended += 1
                }
            }
        }
        stream.receiver = server
        stream.setReading(true)
    }
}

/// The server's side of one stream.
private final class TestServer: ByteStreamReceiver {
    private static let maximumKept = 16 << 20

    private let stream: any LibP2PCore.Stream
    private let kind: ProtocolID
    private let onEnd: (_ error: (any Error)?) -> Void
    private var kept = ByteBuffer()

    init(_ stream: any LibP2PCore.Stream, kind: ProtocolID, onEnd: @escaping (_ error: (any Error)?) -> Void) {
        self.stream = stream
        self.kind = kind
        self.onEnd = onEnd
    }

    func received(_ bytes: ByteBuffer) {
        switch self.kind {
        case Servers.echo:
            self.stream.write(bytes)
            if !self.stream.isWritable { self.stream.setReading(false) }
        case Servers.afterEnd where self.kept.readableBytes + bytes.readableBytes <= Self.maximumKept:
            self.kept.writeImmutableBuffer(bytes)
        default:
            self.stream.reset(.unspecified)
        }
    }

    func receiveComplete() { self.stream.flush() }

    func writabilityChanged() {
        if self.kind == Servers.echo { self.stream.setReading(self.stream.isWritable) }
    }

    func inputEnded() {
        self.stream.write(self.kept)
        self.kept = ByteBuffer()
        self.stream.flush()
        self.stream.closeWrite()
    }

    func closed(_ error: (any Error)?) { self.onEnd(error) }
}
