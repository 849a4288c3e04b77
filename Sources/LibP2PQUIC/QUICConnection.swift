internal import CLinux
internal import LibP2PConnection
package import LibP2PCore
package import Multiformats
package import NIOCore
package import PeerIdentity

/// A QUIC connection as those above hold it. Negotiates the protocol of each of its streams.
package final class QUICConnection: DatagramConnection, @unchecked Sendable {
    /// How long a stream's protocol may take to settle.
    private static let negotiationTimeout = TimeAmount.seconds(15)

    package let id: ConnectionID
    package let eventLoop: any EventLoop
    package let role: Role
    package let remotePeer: PeerID
    package let localAddress: Multiaddr
    package let remoteAddress: Multiaddr
    package let details: ConnectionDetails
    package let closeFuture: EventLoopFuture<Void>

    let session: QUICSession
    private let closePromise: EventLoopPromise<Void>
    private var hasEnded = false

    init(session: QUICSession, remotePeer: PeerID) {
        self.id = ConnectionIDs.next()
        self.eventLoop = session.eventLoop
        self.role = session.role
        self.remotePeer = remotePeer
        self.localAddress = session.local.multiaddr
        self.remoteAddress = session.remote.multiaddr
        self.details = ConnectionDetails(
            transport: "quic-v1", security: "/tls/1.0.0", muxer: "quic", hasEarlyMuxer: true,
            congestion: session.options.congestion.name)
        self.session = session
        self.closePromise = session.eventLoop.makePromise()
        self.closeFuture = self.closePromise.futureResult
    }

    /// A connection that nobody holds has nobody to close it.
    deinit {
        guard !self.hasEnded else { return }
        self.closePromise.fail(ConnectionClosedError(code: .garbageCollected, byRemote: false))
        let session = self.session
        self.eventLoop.execute { session.close(.garbageCollected) }
    }

    /// Streams are taken from the moment there is somebody to take them.
    package var delegate: (any ConnectionDelegate)? {
        didSet { if self.delegate != nil { self.eventLoop.execute { self.session.settle() } } }
    }

    package var streamCount: Int { self.session.streams.count }

    package var roundTripTime: TimeAmount? { self.session.roundTripTime }

    package func probe() -> EventLoopFuture<TimeAmount> { self.eventLoop.flatSubmit { self.session.probe() } }

    package func openStream(_ protocols: [ProtocolID]) -> EventLoopFuture<any LibP2PCore.Stream> {
        self.eventLoop.flatSubmit { self.openStreamOnLoop(protocols) }
    }

    package func close(_ code: ConnectionErrorCode) {
        if self.eventLoop.inEventLoop {
            self.session.close(code)
        } else {
            self.eventLoop.execute { self.close(code) }
        }
    }

    // MARK: Datagrams

    package var maximumDatagramSize: Int { self.session.maximumDatagramSize }

    package var datagramReceiver: (any DatagramReceiver)? {
        get { self.session.datagramReceiver }
        set { self.session.datagramReceiver = newValue }
    }

    package var takesDatagrams: Bool { self.session.takesDatagrams }

    package func sendDatagrams(_ datagrams: DatagramBatch) { self.session.send(datagrams) }

    package var datagramCounters: DatagramCounters { self.session.counters }

    // MARK: Path and keys

    /// Goes on from the address that this machine would use now to reach the remote, where that has changed. Only who dialled can do
    /// that. Event loop only.
    /// - Returns: Whether the connection has moved.
    @discardableResult
    package func migrate() -> Bool { self.session.migrate() }

    /// Begins to use new keys. Event loop only.
    /// - Returns: `false` while it is too early: before the handshake is confirmed, or while the last change is under way.
    @discardableResult
    package func updateKeys() -> Bool { self.session.updateKeys() }

    // MARK: For the session

    func accept(_ stream: QUICStream) {
        stream.connection = self
        let registered = self.delegate
        StreamNegotiator.listenStream(
            stream, accepts: { registered?.connection(self, accepts: $0) ?? false }, timeout: Self.negotiationTimeout
        ).whenSuccess { negotiated in
            guard let delegate = self.delegate else { return negotiated.reset(.protocolNegotiationFailed) }
            delegate.connection(self, accepted: negotiated)
        }
    }

    func ended(_ error: (any Error)?) {
        self.hasEnded = true
        self.delegate = nil
        if let closed = error as? ConnectionClosedError, closed.code == .none {
            self.closePromise.succeed()
        } else if let error {
            self.closePromise.fail(error)
        } else {
            self.closePromise.succeed()
        }
    }

    // MARK: Details

    private func openStreamOnLoop(_ protocols: [ProtocolID]) -> EventLoopFuture<any LibP2PCore.Stream> {
        guard let first = protocols.first else {
            return self.eventLoop.makeFailedFuture(NegotiationError.noProtocolsProposed)
        }
        do {
            let stream = try self.session.openStream()
            stream.connection = self
            if protocols.count == 1 {
                let negotiated = try StreamNegotiator.dialStreamOptimistically(
                    stream, protocolID: first, timeout: Self.negotiationTimeout)
                return self.eventLoop.makeSucceededFuture(negotiated)
            }
            return StreamNegotiator.dialStream(stream, protocols: protocols, timeout: Self.negotiationTimeout)
                .map { $0 }
        } catch {
            return self.eventLoop.makeFailedFuture(error)
        }
    }
}

extension QUICOptions.CongestionControl {
    /// As people know it.
    var name: String {
        switch self {
        case .cubic: "cubic"
        case .bbr: "bbr"
        case .bbr2: "bbr2"
        }
    }
}

extension QUICSession {
    /// Moves to the address that the system would choose now.
    func migrate() -> Bool {
        guard let path = self.currentPath, let source = UDPAddress.source(toReach: path.remote, mark: self.options.mark)
        else { return false }
        var local = source
        local.port = self.socket.bound.port
        guard !local.isEqual(to: path.local) else { return false }
        return self.migrate(to: local)
    }
}

extension UDPAddress {
    /// The address this machine would send from; `nil` when it cannot.
    static func source(toReach remote: UDPAddress, mark: UInt32) -> UDPAddress? {
        var (remote, local) = (remote, UDPAddress())
        return clinux_udp_source(&remote, mark, &local) == 0 ? local : nil
    }
}
