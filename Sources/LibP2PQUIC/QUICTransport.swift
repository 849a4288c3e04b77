internal import CLinux
internal import LibP2PConnection
public import LibP2PCore
public import Multiformats
public import NIOCore
public import PeerIdentity
internal import Synchronization

/// QUIC v1: `/ip4/…/udp/…/quic-v1` and `/ip6/…/udp/…/quic-v1`, with streams and datagrams of its own.
///
/// Dials leave from the socket that is listened on, where there is one that reaches the remote: a NAT then maps the very port that others
/// can reach. Otherwise one socket for each family is shared by all dials. A socket and its connections live on one event loop.
///
/// Spec: RFC 9000, 9001, 9002, 9221; libp2p/specs `quic/README.md`, `tls/tls.md`.
public final class QUICTransport: Transport {
    private let group: any EventLoopGroup
    private let localPeer: PeerID
    private let options: QUICOptions
    private let secrets: StatelessSecrets
    private let credentials: Result<TLSCredentials, any Error>
    private let sockets = Mutex(Sockets())

    private struct Sockets: Sendable {
        var listening: [QUICSocket] = []
        /// For dials that no listening socket can carry; by family.
        var shared: [IPAddress.Family: EventLoopFuture<QUICSocket>] = [:]
    }

    /// - Parameters:
    ///   - group: Loops that sockets are spread over.
    ///   - identity: Who we are. It signs the certificate, and the keys for packets without a connection come from it.
    public convenience init(group: any EventLoopGroup, identity: PrivateKey, options: QUICOptions = QUICOptions()) {
        self.init(
            group: group, identity: identity, options: options,
            credentials: Result { try TLSCredentials(identity: identity) })
    }

    init(
        group: any EventLoopGroup, identity: PrivateKey, options: QUICOptions,
        credentials: Result<TLSCredentials, any Error>
    ) {
        self.group = group
        self.localPeer = PeerID(identity.publicKey)
        self.options = options
        self.secrets = StatelessSecrets(identity: identity)
        self.credentials = credentials
    }

    /// A specific IP address and a port other than 0.
    public func canDial(_ address: Multiaddr) -> Bool {
        guard let remote = address.quicAddress else { return false }
        return remote.port > 0 && !remote.ip.isUnspecified
    }

    /// Any IP address; port 0 asks for a free one.
    public func canListen(on address: Multiaddr) -> Bool { address.quicAddress != nil }

    /// Dials; see ``LibP2PCore/Transport/dial(_:expecting:cancellation:)``.
    public func dial(_ address: Multiaddr, expecting peer: PeerID, cancellation: EventLoopFuture<Void>)
        -> EventLoopFuture<any Connection>
    {
        guard self.canDial(address), let remote = address.quicAddress else {
            return self.group.next().makeFailedFuture(TransportError.unsupportedAddress(address))
        }
        return self.socket(toReach: remote).flatMap { socket in
            socket.dial(remote, expecting: peer, cancellation: cancellation)
        }
    }

    /// Binds a port. Taken by another socket, it fails with ``LibP2PCore/TransportError/portBusy``.
    public func listen(on address: Multiaddr, accept: @escaping @Sendable (any Connection) -> Void)
        -> EventLoopFuture<any Listener>
    {
        guard let local = address.quicAddress else {
            return self.group.next().makeFailedFuture(TransportError.unsupportedAddress(address))
        }
        return self.bind(local).map { socket in
            socket.accept = accept
            self.sockets.withLock { $0.listening.append(socket) }
            return QUICListener(socket: socket) {
                self.sockets.withLock { $0.listening.removeAll { $0 === socket } }
            }
        }
    }

    /// The machine's addresses have changed: connections that we dialled go on from the new ones.
    public func localAddressesChanged() {
        let (listening, shared) = self.sockets.withLock { ($0.listening, Array($0.shared.values)) }
        for socket in listening { socket.eventLoop.execute { socket.migrateAll() } }
        for socket in shared { socket.whenSuccess { $0.migrateAll() } }
    }

    // MARK: Sockets

    private func bind(_ address: UDPAddress) -> EventLoopFuture<QUICSocket> {
        let loop = self.group.next()
        switch self.credentials {
        case .failure(let error):
            return loop.makeFailedFuture(error)
        case .success(let credentials):
            return QUICSocket.bind(
                to: address, on: loop, options: self.options, localPeer: self.localPeer, secrets: self.secrets,
                credentials: credentials)
        }
    }

    private func socket(toReach remote: UDPAddress) -> EventLoopFuture<QUICSocket> {
        let (toLoopback, isIPv6) = (remote.ip.isLoopback, remote.isIPv6)
        let listening = self.sockets.withLock { sockets in
            sockets.listening.first {
                $0.bound.isIPv6 == isIPv6
                    && ($0.bound.ip.isUnspecified || $0.bound.ip.isLoopback == toLoopback)
            }
        }
        if let listening { return listening.eventLoop.makeSucceededFuture(listening) }
        return self.sharedSocket(remote.ip.family)
    }

    private func sharedSocket(_ family: IPAddress.Family) -> EventLoopFuture<QUICSocket> {
        let promise = self.group.next().makePromise(of: QUICSocket.self)
        let existing = self.sockets.withLock { sockets in
            if let existing = sockets.shared[family] { return Optional.some(existing) }
            sockets.shared[family] = promise.futureResult
            return nil
        }
        if let existing {
            promise.fail(QUICError.socketClosed)
            return existing
        }
        let unspecified = family == .ipv4 ? IPAddress(ipv4: 0) : IPAddress(ipv6High: 0, low: 0)
        let made = self.bind(UDPAddress(unspecified, port: 0)).map { socket in
            socket.closeWhenUnused(after: Self.unusedTime) { self.forgetShared(promise.futureResult) }
            return socket
        }
        made.whenFailure { _ in self.forgetShared(promise.futureResult) }
        promise.completeWith(made)
        return promise.futureResult
    }

    private static let unusedTime = TimeAmount.seconds(10)

    private func forgetShared(_ future: EventLoopFuture<QUICSocket>) {
        self.sockets.withLock { sockets in
            sockets.shared = sockets.shared.filter { $0.value != future }
        }
    }
}

extension QUICSocket {
    /// Dials from this socket.
    func dial(_ remote: UDPAddress, expecting peer: PeerID, cancellation: EventLoopFuture<Void>)
        -> EventLoopFuture<any Connection>
    {
        let promise = self.eventLoop.makePromise(of: (any Connection).self)
        self.eventLoop.execute {
            guard self.isOpen else { return promise.fail(QUICError.socketClosed) }
            // The remote's packets come to one of our addresses, which the library compares: it has to know which.
            guard var local = UDPAddress.source(toReach: remote, mark: self.options.mark) else {
                return promise.fail(QUICError.system(call: "connect", errno: 0))
            }
            if !self.bound.ip.isUnspecified { local = self.bound }
            local.port = self.bound.port
            let request = QUICSession.Request(role: .dialer, local: local, remote: remote, expectedPeer: peer)
            do {
                let session = try QUICSession(request, socket: self, credentials: self.credentials) {
                    promise.completeWith($0.map { $0 as any Connection })
                }
                cancellation.hop(to: self.eventLoop).whenSuccess { [weak session] in session?.cancel() }
                session.settle()
            } catch {
                promise.fail(error)
            }
        }
        return promise.futureResult
    }
}

extension QUICSession {
    /// Nobody waits for the handshake any more.
    func cancel() {
        guard self.state == .handshaking else { return }
        self.end(.locally(.none, TransportError.cancelled))
    }
}

/// A bound UDP port.
final class QUICListener: Listener {
    let address: Multiaddr
    private let socket: QUICSocket
    private let onClose: @Sendable () -> Void

    init(socket: QUICSocket, onClose: @escaping @Sendable () -> Void) {
        self.address = socket.bound.multiaddr
        self.socket = socket
        self.onClose = onClose
    }

    /// The socket stays as long as there are connections on it.
    func close() -> EventLoopFuture<Void> {
        self.onClose()
        return self.socket.eventLoop.flatSubmit { self.socket.stopAccepting() }
    }
}
