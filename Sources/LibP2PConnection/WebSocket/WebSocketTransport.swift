public import LibP2PCore
public import Multiformats
public import NIOCore
public import PeerIdentity

/// WebSockets: `/ip4|ip6/…/tcp/…/ws`, for networks that let only the web through.
///
/// 1. TCP, by the sockets of a ``TCPTransport``: with its options, through its proxy, and on its listening ports, which both share.
/// 2. The opening handshake, HTTP.
/// 3. Security and muxer by a ``ConnectionUpgrader``, as on any other stream.
///
/// Dials leave from any port: what a NAT maps for a WebSocket helps nobody else to come in.
public final class WebSocketTransport: Transport {
    private let tcp: TCPTransport
    private let upgrader: ConnectionUpgrader

    /// - Parameter tcp: Whose sockets are used; addresses without `/ws` stay its own.
    public init(over tcp: TCPTransport, upgrader: ConnectionUpgrader) {
        self.tcp = tcp
        self.upgrader = upgrader
    }

    /// Whether its upgrader has one.
    public var hasPreSharedKey: Bool { self.upgrader.hasPreSharedKey }

    /// A specific IP address and a port other than 0.
    public func canDial(_ address: Multiaddr) -> Bool {
        WebSocketAddress(address).map { $0.isSpecific && self.supports($0) } ?? false
    }

    /// Any IP address; port 0 asks for a free one.
    public func canListen(on address: Multiaddr) -> Bool {
        WebSocketAddress(address).map(self.supports) ?? false
    }

    private func supports(_ address: WebSocketAddress) -> Bool { !address.isSecure }

    /// Dials; see ``Transport/dial(_:expecting:cancellation:)``.
    public func dial(_ address: Multiaddr, expecting peer: PeerID, cancellation: EventLoopFuture<Void>)
        -> EventLoopFuture<any Connection>
    {
        let loop = self.tcp.nextLoop()
        guard let remote = WebSocketAddress(address), self.supports(remote) else {
            return loop.makeFailedFuture(TransportError.unsupportedAddress(address))
        }
        let dial = TCPTransport.Dial(
            remote: remote.socket, peer: peer, loop: loop, cancellation: cancellation, name: remote.serverName)
        return self.tcp.upgrade(self.tcp.connect(dial, from: nil), dial) { socket in
            self.openDialing(socket, remote).flatMap { self.upgrade($0, socket, .dialer, remote, expecting: peer) }
        }
    }

    /// Binds a port, or joins in with those who listen there already. Taken by another socket, it fails with
    /// ``TransportError/portBusy``.
    public func listen(on address: Multiaddr, accept: @escaping @Sendable (any Connection) -> Void)
        -> EventLoopFuture<any Listener>
    {
        guard let local = WebSocketAddress(address), self.supports(local) else {
            return self.tcp.nextLoop().makeFailedFuture(TransportError.unsupportedAddress(address))
        }
        let service = ListeningPorts.Service(
            upgrade: { socket in
                self.openListening(socket, local).flatMap {
                    self.upgrade($0, socket, .listener, local, expecting: nil)
                }
            }, accept: accept)
        return self.tcp.ports.listen(
            for: local.isSecure ? .secureWebSocket : .webSocket, on: local.socket, service
        ) { local.named(on: $0) }
    }

    // MARK: Details

    private func openDialing(_ socket: ConnectedSocket, _ remote: WebSocketAddress) -> EventLoopFuture<WebSocketStream>
    {
        var randomness = SystemRandomNumberGenerator()
        let nonce = (0..<16).map { _ in UInt8.random(in: .min ... .max, using: &randomness) }
        return OpeningDriver.run(
            WebSocketOpeningDialer(host: remote.host, nonce: nonce), on: socket.stream, timeout: socket.timeLeft
        ).map { WebSocketStream(socket.stream, role: .dialer, earlyInput: $0.leftover) }
    }

    private func openListening(_ socket: ConnectedSocket, _ local: WebSocketAddress) -> EventLoopFuture<WebSocketStream>
    {
        OpeningDriver.run(WebSocketOpeningListener(), on: socket.stream, timeout: socket.timeLeft)
            .map { WebSocketStream(socket.stream, role: .listener, earlyInput: $0.leftover) }
    }

    private func upgrade(
        _ stream: WebSocketStream, _ socket: ConnectedSocket, _ role: Role, _ address: WebSocketAddress,
        expecting peer: PeerID?
    ) -> EventLoopFuture<any Connection> {
        let (local, remote) = (socket.localAddress, socket.remoteAddress)
        return self.upgrader.upgrade(
            stream,
            as: ConnectionUpgrader.Request(
                role: role, expectedPeer: peer, localAddress: address.nameless(on: local),
                remoteAddress: role == .dialer ? address.named(on: remote) : address.nameless(on: remote),
                transport: address.transport, congestion: socket.congestion, timeout: socket.timeLeft))
    }
}
