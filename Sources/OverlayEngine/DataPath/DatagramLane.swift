internal import LibP2PCore
internal import LibP2PProtocols
internal import NIOCore
internal import OverlayCore

/// Datagrams that carry packets to a peer, on a connection that has them: the opener's side.
///
/// The greeting runs on the control stream, as on a ``StreamLane``. Super-packets are cut; small packets share a datagram. Nothing waits
/// here: what the connection does not take now stays in the tunnel's queue.
///
/// Owned by the connection's event loop.
final class DatagramLane: DatagramFlowReceiver, @unchecked Sendable {
    /// What a lane tells its tunnel.
    protocol Delegate: AnyObject {
        /// The lane carries more, or less, or nothing now: see ``DatagramLane/carries(_:)``.
        func datagramLaneChanged(_ lane: DatagramLane)
        /// There is room again.
        func datagramLaneWritable(_ lane: DatagramLane)
        /// The lane is gone.
        func datagramLaneClosed(_ lane: DatagramLane)
    }

    let connection: any DatagramConnection

    private let flow: DatagramFlow
    private weak var delegate: (any Delegate)?
    private var opener: HelloOpener
    private var agreement: Agreement?
    private var helloTimer: Scheduled<Void>?
    private var isClosed = false
    private var batch = DatagramBatch()
    private let room: UnsafeMutableRawBufferPointer
    private var writer: DatagramWriter

    /// Takes a flow that this end has opened. ``start()`` says hello.
    init(_ flow: DatagramFlow, hello: Hello, delegate: any Delegate) {
        self.flow = flow
        self.connection = flow.connection
        self.delegate = delegate
        self.opener = HelloOpener(hello)
        self.room = .allocate(
            byteCount: DatagramWriter.roomBytes(forLimit: DatagramLimits.datagramBytes), alignment: 16)
        self.writer = DatagramWriter(room: self.room, limitBytes: 0)
    }

    deinit { self.room.deallocate() }

    func start() {
        self.helloTimer = self.connection.eventLoop.scheduleTask(in: StreamLane.helloTimeout) { [weak self] in
            self?.close()
        }
        self.flow.receiver = self
        self.perform(self.opener.start())
    }

    /// Whether packets of `bytes` bytes fit, as the path is proven now.
    func carries(_ bytes: Int) -> Bool { self.agreement != nil && self.writer.packetLimitBytes >= bytes }

    /// Whether packets can be sent now.
    var isWritable: Bool { self.agreement != nil && self.connection.takesDatagrams }

    /// Ends the lane.
    func close() {
        guard !self.isClosed else { return }
        self.isClosed = true
        self.helloTimer?.cancel()
        self.agreement = nil
        self.flow.close(.unspecified)
        self.delegate?.datagramLaneClosed(self)
    }

    // MARK: Sending

    /// Appends one packet to the burst, cut where it is a super-packet. The packet's bytes are copied; it stays the caller's.
    ///
    /// - Returns: `false` when it cannot be sent: it is to be dropped.
    func append(_ packet: PacketRef) -> Bool {
        let bytes = UnsafeRawBufferPointer(packet.bytes)
        guard packet.offload != .finished else {
            var result = self.writer.append(bytes)
            if result == .full {
                self.finishDatagram()
                result = self.writer.append(bytes)
            }
            return result == .written
        }
        guard let parsed = try? IPPacket(parsing: bytes),
            var segmenter = try? Segmenter(parsed, in: bytes, metadata: packet.offload)
        else { return false }
        while true {
            switch self.writer.append(nextOf: &segmenter) {
            case .written: break
            case .full: self.finishDatagram()
            case .tooLong: return false
            case .exhausted: return true
            }
        }
    }

    /// Bytes of the burst so far.
    var burstBytes: Int { self.batch.bytes.readableBytes }

    /// Sends the burst.
    func flush() {
        self.finishDatagram()
        guard !self.batch.isEmpty else { return }
        self.connection.sendDatagrams(self.batch)
        self.batch.removeAll()
    }

    /// Lets go of memory that an idle lane does not need. To be called now and then.
    func trim() { self.batch = DatagramBatch() }

    private func finishDatagram() {
        guard self.writer.packetCount > 0 else { return }
        self.flow.prefix.withUnsafeBytes { _ = self.batch.append($0, self.writer.datagram) }
        self.writer.reset()
    }

    private func measure() {
        let limit = self.flow.maximumPayloadBytes
        guard limit != self.writer.limitBytes else { return }
        self.flush()
        self.writer = DatagramWriter(room: self.room, limitBytes: limit)
        self.delegate?.datagramLaneChanged(self)
    }

    // MARK: DatagramFlowReceiver

    func received(_ bytes: ByteBuffer) {
        guard self.agreement == nil, !self.isClosed else { return }
        self.perform(self.opener.receive(Array(bytes.readableBytesView)))
    }

    func receiveComplete() {}

    func writabilityChanged() {}

    func inputEnded() { self.close() }

    func closed(_ error: (any Error)?) { self.close() }

    /// The acceptor sends no packets here.
    func received(datagram: UnsafeRawBufferPointer) {}

    func datagramsComplete() {}

    func maximumPayloadChanged() { if self.agreement != nil { self.measure() } }

    func datagramsWritable() { if self.isWritable { self.delegate?.datagramLaneWritable(self) } }

    private func perform(_ action: HelloOpener.Action) {
        switch action {
        case .wait:
            break
        case .send(let bytes):
            self.flow.control.write(ByteBuffer(bytes: bytes))
            self.flow.control.flush()
        case .open(let agreement, _):
            self.helloTimer?.cancel()
            self.agreement = agreement
            self.measure()
        case .refused, .fail:
            self.close()
        }
    }
}
