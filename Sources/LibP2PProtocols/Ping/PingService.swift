public import LibP2PCore
public import LibP2PSwarm
public import NIOCore

/// `/ipfs/ping/1.0.0`: 32 random bytes and their echo, as often as wanted on one stream.
///
/// Spec: `ping/ping.md`.
public final class PingService: Sendable {
    /// The protocol's name.
    public static let protocolID: ProtocolID = "/ipfs/ping/1.0.0"
    /// Bytes of one ping.
    static let payloadBytes = 32
    /// Inbound ping streams of one peer; the spec asks dialers for one.
    static let maximumStreamsPerPeer = 2
    /// How long a ping may take.
    static let timeout = TimeAmount.seconds(10)

    private let inbound = StreamQuota(perPeer: PingService.maximumStreamsPerPeer)

    /// Makes the service.
    public init() {}

    /// Answers pings from now on.
    public func register(with registry: ProtocolRegistry) {
        registry.accept(Self.protocolID) { [self] stream in
            guard let peer = stream.connection?.remotePeer else { return stream.reset(.unspecified) }
            guard self.inbound.take(for: peer) else { return stream.reset(.resourceLimitExceeded) }
            PingEcho(stream) { self.inbound.giveBack(for: peer) }.start()
        }
    }

    /// Pings the far end of `connection` `count` times, one after the other.
    /// - Returns: The round-trip times.
    /// - Throws: ``PingError``, ``StreamReadError``, or why the stream closed.
    public func ping(_ connection: any Connection, count: Int = 1) async throws -> [TimeAmount] {
        let stream = try await connection.openStream([Self.protocolID]).get()
        let buffered = try await stream.eventLoop.submit { BufferedStream(stream) }.get()
        defer { buffered.close() }
        var times: [TimeAmount] = []
        for _ in 0..<count {
            let payload = (0..<Self.payloadBytes).map { _ in UInt8.random(in: 0...255) }
            let start = stream.eventLoop.now
            buffered.write(ByteBuffer(bytes: payload))
            let echo = try await buffered.within(Self.timeout) { try await $0.read(exactly: Self.payloadBytes) }
            times.append(stream.eventLoop.now - start)
            guard echo.readableBytesView.elementsEqual(payload) else { throw PingError.wrongEcho }
        }
        return times
    }
}

/// Why a ping failed, where the stream itself did not.
public enum PingError: Error, Hashable, Sendable {
    /// What came back is not what was sent.
    case wrongEcho
}

/// The answering side: sends back whole pings, however they arrive.
private final class PingEcho: ByteStreamReceiver {
    /// A stream on which nothing comes for this long is closed.
    private static let idleTimeout = TimeAmount.seconds(60)

    private let stream: any Stream
    private let onEnd: @Sendable () -> Void
    private var pending = ByteBuffer()
    private var idleTimer: Scheduled<Void>?
    private var isOver = false

    init(_ stream: any Stream, onEnd: @escaping @Sendable () -> Void) {
        self.stream = stream
        self.onEnd = onEnd
    }

    func start() {
        self.stream.receiver = self
        self.stream.setReading(true)
        self.restartTimer()
    }

    func received(_ bytes: ByteBuffer) {
        var bytes = bytes
        self.pending.writeBuffer(&bytes)
        while let ping = self.pending.readSlice(length: PingService.payloadBytes) { self.stream.write(ping) }
        self.pending.discardReadBytes()
        // A remote that sends without reading is not read from either.
        if !self.stream.isWritable { self.stream.setReading(false) }
        self.restartTimer()
    }

    func receiveComplete() { self.stream.flush() }

    func writabilityChanged() { if self.stream.isWritable { self.stream.setReading(true) } }

    func inputEnded() {
        if self.pending.readableBytes > 0 { return self.stream.reset(.protocolViolation) }
        self.stream.closeWrite()
    }

    func closed(_ error: (any Error)?) {
        guard !self.isOver else { return }
        self.isOver = true
        self.idleTimer?.cancel()
        self.onEnd()
    }

    private func restartTimer() {
        self.idleTimer?.cancel()
        let stream = self.stream
        self.idleTimer = stream.eventLoop.scheduleTask(in: Self.idleTimeout) { stream.reset(.garbageCollected) }
    }
}
