internal import LibP2PCore
internal import NIOCore
internal import OverlayCore

/// A stream that carries packets to a peer: the opener's side of `/warren/packet/1.0.0`.
///
/// Says hello, waits for the answer, then turns packets into frames, many small ones to a muxer frame, a super-packet whole. The
/// acceptor answers on the same stream, with echoes only.
///
/// Owned by the connection's event loop.
final class StreamLane: ByteStreamReceiver, @unchecked Sendable {
    /// What a lane tells its tunnel.
    protocol Delegate: AnyObject {
        /// The peer has agreed: packets may be sent.
        func laneOpened(_ lane: StreamLane)
        /// There is room again.
        func laneWritable(_ lane: StreamLane)
        /// The answer to a probe, or anything else, has come from the peer.
        func lane(_ lane: StreamLane, heard echo: UInt64?)
        /// The lane is gone.
        func laneClosed(_ lane: StreamLane, _ reason: LaneClosure)
        /// The peer has read all of a lane that was left with ``StreamLane/leave(for:)``.
        func laneDrained(_ lane: StreamLane)
    }

    private enum Phase {
        /// Greeting, or open.
        case active
        /// Our side has ended with a MOVE; the peer still reads.
        case draining
        case closed
    }

    /// How long the peer may take to answer the hello.
    static let helloTimeout = TimeAmount.seconds(10)
    /// How long the peer may take to read what was sent before a MOVE.
    static let drainTimeout = TimeAmount.seconds(30)

    let connection: any Connection
    let epoch: UInt64
    private(set) var agreement: Agreement?
    private(set) var sentAt: UInt64 = 0

    private let stream: any Stream
    private weak var delegate: (any Delegate)?
    private var opener: HelloOpener
    private var reader = FrameReader(packetBodyLimit: FrameLimits.controlBodyBytes)
    private var buffers = BurstBuffers()
    private var burst: ByteBuffer?
    private var segmentScratch: SegmentScratch?
    private var helloTimer: Scheduled<Void>?
    private var phase = Phase.active

    /// Takes a negotiated stream. ``start()`` says hello.
    init(_ stream: any Stream, of connection: any Connection, hello: Hello, delegate: any Delegate) {
        self.stream = stream
        self.connection = connection
        self.epoch = hello.epoch
        self.delegate = delegate
        self.opener = HelloOpener(hello)
    }

    func start() {
        self.stream.receiver = self
        self.helloTimer = self.stream.eventLoop.scheduleTask(in: Self.helloTimeout) { [weak self] in
            self?.end(.failed("no answer to the hello in \(Self.helloTimeout.nanoseconds / 1_000_000_000) s"))
        }
        self.perform(self.opener.start())
        self.stream.setReading(true)
    }

    /// Whether packets can be sent now.
    var isWritable: Bool { self.agreement != nil && self.phase == .active && self.stream.isWritable }

    /// Ends the lane in order, telling the peer why.
    func close(_ code: CloseCode) {
        guard self.phase == .active else { return self.reset() }
        self.phase = .closed
        self.helloTimer?.cancel()
        self.send(.close(code))
        self.stream.closeWrite()
        // What the peer still sends is read and dropped; a peer that never ends its side is cut off.
        let stream = self.stream
        stream.eventLoop.scheduleTask(in: .seconds(5)) { stream.reset(.garbageCollected) }
    }

    /// Ends the lane with a MOVE: what follows travels on the lane of `epoch`.
    func leave(for epoch: UInt64) {
        guard self.phase == .active else { return }
        self.send(.move(epoch: epoch))
        self.phase = .draining
        self.stream.closeWrite()
        self.helloTimer = self.stream.eventLoop.scheduleTask(in: Self.drainTimeout) { [weak self] in self?.drained() }
    }

    /// Drops the lane, and what was sent on it and not read.
    func reset() {
        guard self.phase != .closed else { return }
        self.phase = .closed
        self.helloTimer?.cancel()
        self.stream.reset(.supplanted)
    }

    // MARK: Sending

    /// Appends one packet to the burst. The packet's bytes are copied; it stays the caller's.
    ///
    /// - Returns: `false` when the peer cannot take it, not even cut up: it is to be dropped.
    func append(_ packet: PacketRef) -> Bool {
        guard let agreement = self.agreement else { return false }
        if agreement.takes(packet) {
            guard FrameWriter.prependHeader(to: packet) else { return false }
            self.appendFrame(UnsafeRawBufferPointer(packet.bytes))
            return true
        }
        return self.appendInPieces(packet)
    }

    /// Sends the burst.
    func flush(now: UInt64) {
        self.handBurstOver()
        self.stream.flush()
        self.sentAt = now
    }

    /// Sends a control frame at once.
    func send(_ frame: ControlFrame) {
        self.handBurstOver()
        var buffer = ByteBuffer()
        buffer.write(frame)
        self.stream.write(buffer)
        self.stream.flush()
    }

    /// Lets go of memory that an idle lane does not need. To be called now and then.
    func trim() {
        self.reader.trim()
        self.buffers.release()
        self.segmentScratch = nil
    }

    private func appendFrame(_ frame: UnsafeRawBufferPointer) {
        var buffer = self.burst.take() ?? self.buffers.take()
        if buffer.readableBytes > 0, buffer.readableBytes + frame.count > BurstBuffers.bytes {
            self.stream.write(buffer)
            self.buffers.put(buffer)
            buffer = self.buffers.take()
        }
        buffer.writeBytes(frame)
        self.burst = buffer
    }

    private func handBurstOver() {
        guard let buffer = self.burst.take() else { return }
        self.stream.write(buffer)
        self.buffers.put(buffer)
    }

    /// For a peer that takes no super-packets, or no pending checksums.
    private func appendInPieces(_ packet: PacketRef) -> Bool {
        let scratch = self.segmentScratch ?? SegmentScratch()
        self.segmentScratch = scratch
        return scratch.cut(packet) { self.appendFrame($0) }
    }

    // MARK: ByteStreamReceiver

    func received(_ bytes: ByteBuffer) {
        guard self.agreement != nil else { return self.perform(self.opener.receive(Array(bytes.readableBytesView))) }
        bytes.withUnsafeReadableBytes { self.read($0) }
    }

    func receiveComplete() {}

    func writabilityChanged() {
        if self.isWritable { self.delegate?.laneWritable(self) }
    }

    func inputEnded() {
        if self.phase == .draining { return self.drained() }
        self.end(.failed("the peer ended the stream"))
    }

    func closed(_ error: (any Error)?) {
        if self.phase == .draining { return self.drained() }
        if let error, ConnectionClosedError.meansStranger(error) { return self.end(.refused(.unknownNetworkOrMember)) }
        self.end(.failed(error.map { String(describing: $0) } ?? "the connection ended"))
    }

    // MARK: Details

    private func perform(_ action: HelloOpener.Action) {
        switch action {
        case .wait:
            break
        case .send(let bytes):
            self.stream.write(ByteBuffer(bytes: bytes))
            self.stream.flush()
        case .open(let agreement, let leftover):
            self.helloTimer?.cancel()
            self.agreement = agreement
            self.delegate?.laneOpened(self)
            leftover.withUnsafeBytes { self.read($0) }
        case .refused(let code):
            self.end(.refused(code))
        case .fail(let error):
            self.end(.failed(error.description))
        }
    }

    private func read(_ bytes: UnsafeRawBufferPointer) {
        guard !bytes.isEmpty, self.phase != .closed else { return }
        var closure: LaneClosure?
        var echoes: [UInt64] = []
        do {
            try self.reader.read(bytes) { frame in
                switch frame {
                case .echo(let id): echoes.append(id)
                case .close(let code): closure = .closedByPeer(code)
                // The acceptor sends no packets here, and its probes have their own lane.
                case .packet, .superPacket, .move, .probe: break
                }
            }
        } catch {
            return self.end(.failed(error.description))
        }
        self.delegate?.lane(self, heard: nil)
        for id in echoes { self.delegate?.lane(self, heard: id) }
        if let closure { self.end(closure) }
    }

    private func drained() {
        guard self.phase == .draining else { return }
        self.reset()
        self.delegate?.laneDrained(self)
    }

    private func end(_ reason: LaneClosure) {
        guard self.phase == .active else { return }
        self.phase = .closed
        self.helloTimer?.cancel()
        self.agreement = nil
        self.stream.reset(.unspecified)
        self.delegate?.laneClosed(self, reason)
    }
}

extension ByteBuffer {
    /// Appends a control frame.
    mutating func write(_ frame: ControlFrame) {
        self.writeWithUnsafeMutableBytes(minimumWritableBytes: FrameWriter.maximumControlFrameBytes) {
            FrameWriter.write(frame, into: $0)
        }
    }
}

extension ConnectionClosedError {
    /// Whether the peer closed the connection because it does not know us.
    static func meansStranger(_ error: any Error) -> Bool {
        guard let closed = error as? ConnectionClosedError else { return false }
        return closed.byRemote && closed.code == .gated
    }
}

/// Why a lane ended.
enum LaneClosure: Equatable, CustomStringConvertible {
    /// The peer answered the hello with a refusal.
    case refused(RefuseCode)
    /// The peer closed the lane.
    case closedByPeer(CloseCode)
    /// The stream, or the exchange on it, failed.
    case failed(String)

    var description: String {
        switch self {
        case .refused(let code): "refused: \(code)"
        case .closedByPeer(let code): "closed by the peer: \(code)"
        case .failed(let reason): reason
        }
    }
}
