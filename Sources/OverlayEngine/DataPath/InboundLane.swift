internal import LibP2PCore
internal import NIOCore
internal import OverlayCore

/// A stream on which a peer sends us packets: the acceptor's side of `/warren/packet/1.0.0`.
///
/// Reads the peer's hello, lets its tunnel decide, then hands each packet to the gate. Probes are echoed on the same stream.
///
/// Owned by the connection's event loop.
final class InboundLane: ByteStreamReceiver, @unchecked Sendable {
    /// What a lane asks and tells its owner.
    protocol Delegate: AnyObject {
        /// The peer said hello: the tunnel it belongs to, or a refusal.
        func lane(_ lane: InboundLane, saidHello hello: Hello) -> HelloVerdict
        /// The lane is gone.
        func laneClosed(_ lane: InboundLane)
    }

    /// How long the peer may take to say hello.
    static let helloTimeout = TimeAmount.seconds(10)
    /// Probes answered per chunk of input.
    static let maximumEchoesPerRead = 16

    let connection: any Connection
    /// Tells it from the peer's other lanes.
    let number: UInt64
    private(set) var agreement: Agreement?
    private(set) weak var tunnel: PeerTunnel?

    private let stream: any Stream
    private weak var delegate: (any Delegate)?
    private var acceptor = HelloAcceptor()
    private var reader = FrameReader()
    private var helloTimer: Scheduled<Void>?
    private var isClosed = false
    /// Whether packets are delivered as they come; else the tunnel is asked.
    private var isDelivering = false
    /// Frames of packets that wait for the lane before this one.
    private var held = ByteBuffer()
    private var heldPackets: UInt64 = 0
    private var echoes: [UInt64] = []

    init(_ stream: any Stream, number: UInt64, of connection: any Connection, delegate: any Delegate) {
        self.stream = stream
        self.number = number
        self.connection = connection
        self.delegate = delegate
    }

    func start() {
        self.stream.receiver = self
        self.helloTimer = self.stream.eventLoop.scheduleTask(in: Self.helloTimeout) { [weak self] in
            self?.end(.protocolViolation)
        }
        self.stream.setReading(true)
    }

    /// Ends the lane, telling the peer why.
    func close(_ code: CloseCode) {
        guard !self.isClosed else { return }
        self.send(.close(code))
        self.end(.supplanted)
    }

    /// Asks the tunnel again before the next packet is delivered: the lane may no longer be the current one.
    func reconsider() { self.isDelivering = false }

    /// Delivers what was held.
    ///
    /// - Returns: How many packets.
    func releaseHeld() -> UInt64 {
        guard let tunnel = self.tunnel, self.held.readableBytes > 0 else { return 0 }
        defer { if !self.isClosed { self.stream.setReading(true) } }
        var held = ByteBuffer()
        swap(&held, &self.held)
        let packets = self.heldPackets
        self.heldPackets = 0
        var reader = FrameReader()
        held.withUnsafeReadableBytes { bytes in
            // These frames have been read once and were written here.
            try? reader.read(bytes) { frame in
                switch frame {
                case .packet(let packet): tunnel.received(packet, .finished)
                case .superPacket(let metadata, let packet): tunnel.received(packet, metadata)
                case .move, .probe, .echo, .close: break
                }
            }
        }
        return packets
    }

    /// Lets go of memory that an idle lane does not need. To be called now and then.
    func trim() { self.reader.trim() }

    // MARK: ByteStreamReceiver

    func received(_ bytes: ByteBuffer) {
        guard self.agreement != nil else { return self.greet(self.acceptor.receive(Array(bytes.readableBytesView))) }
        bytes.withUnsafeReadableBytes { self.read($0) }
    }

    func receiveComplete() {}

    func writabilityChanged() {}

    func inputEnded() { self.end(.unspecified) }

    func closed(_ error: (any Error)?) { self.end(.unspecified) }

    // MARK: Details

    private func greet(_ action: HelloAcceptor.Action) {
        switch action {
        case .wait:
            break
        case .decide(let hello, let leftover):
            switch self.delegate?.lane(self, saidHello: hello) ?? .refuse(.shuttingDown) {
            case .accept(let tunnel):
                self.tunnel = tunnel
                self.greet(self.acceptor.accept(tunnel.answer(to: hello)))
                leftover.withUnsafeBytes { self.read($0) }
            case .refuse(let code):
                self.greet(self.acceptor.refuse(code))
            }
        case .open(let agreement, let answer):
            self.helloTimer?.cancel()
            self.agreement = agreement
            self.stream.write(ByteBuffer(bytes: answer))
            self.stream.flush()
            self.tunnel?.inboundOpened(self)
        case .refuse(let answer, _):
            self.stream.write(ByteBuffer(bytes: answer))
            self.stream.flush()
            self.finish()
        case .fail(_, let answer):
            if !answer.isEmpty {
                self.stream.write(ByteBuffer(bytes: answer))
                self.stream.flush()
            }
            self.end(.protocolViolation)
        }
    }

    private func read(_ bytes: UnsafeRawBufferPointer) {
        guard !bytes.isEmpty, !self.isClosed, let tunnel = self.tunnel else { return }
        var isOver = false
        do {
            try self.reader.read(bytes) { frame in
                switch frame {
                case .packet(let packet):
                    if self.mayDeliver(to: tunnel) {
                        tunnel.received(packet, .finished)
                    } else {
                        self.hold(packet, nil)
                    }
                case .superPacket(let metadata, let packet):
                    if self.mayDeliver(to: tunnel) {
                        tunnel.received(packet, metadata)
                    } else {
                        self.hold(packet, metadata)
                    }
                case .probe(let id):
                    self.echo(id)
                case .close:
                    isOver = true
                case .move(let epoch):
                    tunnel.inbound.moved(self, to: epoch)
                case .echo:
                    break
                }
            }
        } catch {
            tunnel.countMalformedStream()
            return self.end(.protocolViolation)
        }
        self.sendEchoes()
        tunnel.heard(on: self.connection)
        if isOver { self.end(.unspecified) }
    }

    @inline(__always)
    private func mayDeliver(to tunnel: PeerTunnel) -> Bool {
        if self.isDelivering { return true }
        self.isDelivering = self.held.readableBytes == 0 && tunnel.inbound.mayDeliver(from: self)
        return self.isDelivering
    }

    /// Keeps a packet, as the frame that it came in.
    private func hold(_ packet: UnsafeRawBufferPointer, _ metadata: OffloadMetadata?) {
        self.heldPackets += 1
        self.held.writeWithUnsafeMutableBytes(minimumWritableBytes: FrameLimits.headRoomBytes) { room in
            guard let place = room.baseAddress else { return 0 }
            if let metadata {
                FrameWriter.writeSuperPacketHeader(packetBytes: packet.count, offload: metadata, at: place)
                return FrameLimits.headRoomBytes
            }
            FrameWriter.writePacketHeader(packetBytes: packet.count, at: place)
            return FrameLimits.headerBytes
        }
        self.held.writeBytes(packet)
        if self.held.readableBytes > LaneOrder.maximumHeldBytes { self.stream.setReading(false) }
    }

    /// Queues the answer to a probe. One chunk of input gets a few: a peer that asks more than that only costs time.
    private func echo(_ id: UInt64) {
        guard self.echoes.count < Self.maximumEchoesPerRead else { return }
        self.echoes.append(id)
    }

    private func sendEchoes() {
        guard !self.echoes.isEmpty else { return }
        defer { self.echoes.removeAll(keepingCapacity: true) }
        // A peer that sends probes and reads no echoes gets no more of them.
        guard self.stream.isWritable else { return }
        var buffer = ByteBuffer()
        for id in self.echoes { buffer.write(.echo(id)) }
        self.stream.write(buffer)
        self.stream.flush()
    }

    private func send(_ frame: ControlFrame) {
        guard self.stream.isWritable else { return }
        var buffer = ByteBuffer()
        buffer.write(frame)
        self.stream.write(buffer)
        self.stream.flush()
    }

    /// Ends our side in order: the refusal must arrive.
    private func finish() {
        guard !self.isClosed else { return }
        self.isClosed = true
        self.helloTimer?.cancel()
        self.stream.closeWrite()
        let stream = self.stream
        stream.eventLoop.scheduleTask(in: .seconds(5)) { stream.reset(.unspecified) }
        self.delegate?.laneClosed(self)
    }

    private func end(_ code: StreamErrorCode) {
        guard !self.isClosed else { return }
        self.isClosed = true
        self.helloTimer?.cancel()
        self.stream.reset(code)
        self.tunnel?.inboundClosed(self)
        self.delegate?.laneClosed(self)
    }
}

/// What becomes of a peer's hello.
enum HelloVerdict {
    /// The lane belongs to this tunnel.
    case accept(PeerTunnel)
    /// The peer is told this.
    case refuse(RefuseCode)
}
