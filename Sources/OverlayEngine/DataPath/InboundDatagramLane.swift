internal import LibP2PCore
internal import LibP2PProtocols
internal import NIOCore
internal import OverlayCore

/// Datagrams in which a peer sends us packets: the acceptor's side.
///
/// Owned by the connection's event loop.
final class InboundDatagramLane: DatagramFlowReceiver, @unchecked Sendable {
    /// What a lane asks and tells its owner.
    protocol Delegate: AnyObject {
        /// The peer said hello: the tunnel it belongs to, or a refusal.
        func datagramLane(_ lane: InboundDatagramLane, saidHello hello: Hello) -> HelloVerdict
    }

    let connection: any DatagramConnection

    private let flow: DatagramFlow
    private weak var delegate: (any Delegate)?
    private weak var tunnel: PeerTunnel?
    private var acceptor = HelloAcceptor()
    private var isOpen = false
    private var helloTimer: Scheduled<Void>?

    init(_ flow: DatagramFlow, delegate: any Delegate) {
        self.flow = flow
        self.connection = flow.connection
        self.delegate = delegate
    }

    func start() {
        let flow = self.flow
        self.helloTimer = self.connection.eventLoop.scheduleTask(in: InboundLane.helloTimeout) {
            flow.close(.protocolViolation)
        }
        self.flow.receiver = self
    }

    /// Ends the lane.
    func close() {
        self.completeBurst()
        self.isOpen = false
        self.helloTimer?.cancel()
        self.flow.close(.supplanted)
    }

    // MARK: DatagramFlowReceiver

    func received(datagram: UnsafeRawBufferPointer) {
        guard self.isOpen, let tunnel = self.tunnel else { return }
        do {
            try DatagramReader.read(datagram) { tunnel.receivedDatagram($0) }
        } catch {
            tunnel.countMalformedStream()
        }
    }

    func datagramsComplete() {
        guard self.isOpen, let tunnel = self.tunnel else { return }
        tunnel.datagramsComplete()
        tunnel.heard(on: self.connection)
    }

    func maximumPayloadChanged() {}

    func datagramsWritable() {}

    func received(_ bytes: ByteBuffer) {
        guard !self.isOpen else { return }
        self.greet(self.acceptor.receive(Array(bytes.readableBytesView)))
    }

    func receiveComplete() {}

    func writabilityChanged() {}

    func inputEnded() { self.end() }

    func closed(_ error: (any Error)?) { self.end() }

    // MARK: Details

    /// What came before the end, in the same turn of the loop, still waits to be written.
    private func completeBurst() { if self.isOpen { self.tunnel?.datagramsComplete() } }

    private func end() {
        self.completeBurst()
        self.helloTimer?.cancel()
        self.isOpen = false
        self.flow.close(.unspecified)
        self.tunnel?.inboundDatagramsClosed(self)
    }

    private func greet(_ action: HelloAcceptor.Action) {
        switch action {
        case .wait:
            break
        case .decide(let hello, _):
            switch self.delegate?.datagramLane(self, saidHello: hello) ?? .refuse(.shuttingDown) {
            case .accept(let tunnel):
                self.tunnel = tunnel
                self.greet(self.acceptor.accept(tunnel.answer(to: hello)))
            case .refuse(let code):
                self.greet(self.acceptor.refuse(code))
            }
        case .open(_, let answer):
            self.helloTimer?.cancel()
            self.isOpen = true
            self.send(answer)
            self.tunnel?.inboundDatagramsOpened(self)
        case .refuse(let answer, _), .fail(_, let answer):
            if !answer.isEmpty { self.send(answer) }
            self.flow.control.closeWrite()
            self.helloTimer?.cancel()
            let flow = self.flow
            self.helloTimer = self.connection.eventLoop.scheduleTask(in: .seconds(5)) { flow.close(.unspecified) }
        }
    }

    private func send(_ bytes: [UInt8]) {
        self.flow.control.write(ByteBuffer(bytes: bytes))
        self.flow.control.flush()
    }
}
