public import LibP2PCore
public import LibP2PSwarm
public import NIOCore

/// `/perf/1.0.0`: how many bytes a second go over a connection, each way.
///
/// Whoever is let in may have this node send and receive as much as the line carries: it is off until ``register(with:from:)``.
///
/// Spec: `perf/perf.md`.
public final class PerfService: Sendable {
    /// The protocol's name.
    public static let protocolID: ProtocolID = "/perf/1.0.0"
    /// Inbound streams of one peer.
    static let maximumStreamsPerPeer = 2
    /// How long a stream of a client may last.
    static let maximumTime = TimeAmount.hours(2)
    /// A stream on which nothing moves for this long is given up; a server may take up to twice as long to notice.
    static let stallTime = TimeAmount.seconds(30)
    /// From one report of a client's progress to the next.
    static let reportInterval = TimeAmount.seconds(1)

    private let inbound = StreamQuota(perPeer: PerfService.maximumStreamsPerPeer)

    /// Makes the service.
    public init() {}

    /// Serves the peers that `admits` lets in from now on.
    public func register(with registry: ProtocolRegistry, from admits: @escaping ProtocolRegistry.Admission) {
        registry.accept(Self.protocolID, from: admits) { [self] stream in
            guard let peer = stream.connection?.remotePeer else { return stream.reset(.unspecified) }
            guard self.inbound.take(for: peer) else { return stream.reset(.resourceLimitExceeded) }
            PerfServer(stream) { self.inbound.giveBack(for: peer) }.start()
        }
    }

    /// Measures one direction of `connection` on a stream of its own.
    ///
    /// The time runs from the first byte until the server has confirmed the last one (upload), or until that is here (download). A download
    /// of so much time ends with a reset when the time is up; an upload then waits for the server to take what is under way.
    ///
    /// - Parameter progress: Called on the connection's loop once a second.
    /// - Throws: ``PerfError``, `CancellationError`, ``NegotiationError/unsupported(_:)``, or why the stream closed.
    public func measure(
        _ direction: PerfDirection, of connection: any Connection, _ amount: PerfAmount,
        progress: @escaping @Sendable (PerfProgress) -> Void = { _ in }
    ) async throws -> PerfTransfer {
        let stream = try await connection.openStream([Self.protocolID]).get()
        let client = PerfClient(stream, direction, amount, report: progress)
        return try await withTaskCancellationHandler {
            stream.eventLoop.execute { client.start() }
            return try await client.result.get()
        } onCancel: {
            stream.eventLoop.execute { client.cancel() }
        }
    }
}

/// Which way bytes go, as the client sees it.
public enum PerfDirection: String, Hashable, Sendable, CaseIterable {
    /// From the client to the server.
    case upload
    /// From the server to the client.
    case download
}

/// How long a measurement goes on.
public enum PerfAmount: Hashable, Sendable {
    /// Until so many bytes are through.
    case bytes(UInt64)
    /// For so long.
    case time(TimeAmount)
}

/// What went through, and in which time.
public struct PerfTransfer: Hashable, Sendable {
    /// Bytes of the stream.
    public var bytes: UInt64
    /// Since the measurement began.
    public var time: TimeAmount

    /// Makes a result.
    public init(bytes: UInt64, time: TimeAmount) {
        self.bytes = bytes
        self.time = time
    }

    /// Bits a second; 0 where no time has passed.
    public var bitsPerSecond: Double {
        self.time > .zero ? Double(self.bytes) * 8e9 / Double(self.time.nanoseconds) : 0
    }
}

/// How far a measurement is. An upload counts what was handed to the connection, part of which may still be queued there.
public struct PerfProgress: Hashable, Sendable {
    /// Which way.
    public var direction: PerfDirection
    /// Since the beginning.
    public var total: PerfTransfer

    /// Makes a report.
    public init(direction: PerfDirection, total: PerfTransfer) {
        self.direction = direction
        self.total = total
    }
}
