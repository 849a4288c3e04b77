public import LibP2PCore
public import Multiformats
public import NIOCore
public import PeerIdentity

/// WebSockets: `/ip4|ip6/…/tcp/…/ws`, `…/tls/ws` and their other spellings, for networks that let only the web through.
///
/// 1. TCP, by the sockets of a ``TCPTransport``: with its options, through its proxy, and on its listening ports, which both share.
/// 2. TLS as the web has it, for addresses that say so.
/// 3. The opening handshake, HTTP.
/// 4. Security and muxer by a ``ConnectionUpgrader``, as on any other stream.
///
/// Dials leave from any port: what a NAT maps for a WebSocket helps nobody else to come in.
public final class WebSocketTransport: Transport {
    private let tcp: TCPTransport
    private let upgrader: ConnectionUpgrader
    private let certificate: WebCertificate?
    private let trust: Result<WebTrust, WebCertificateError>

    /// - Parameters:
    ///   - tcp: Whose sockets are used; addresses without `/ws` stay its own.
    ///   - options: For WebSockets within TLS.
    public init(
        over tcp: TCPTransport, upgrader: ConnectionUpgrader, options: WebSocketOptions = WebSocketOptions()
    ) {
        self.tcp = tcp
        self.upgrader = upgrader
        self.certificate = options.certificate
        self.trust = options.trust.map { .success($0) } ?? Self.systemTrust
    }

    /// Made once, as the system has many authorities.
    private static let systemTrust = Result { () throws(WebCertificateError) in try WebTrust() }

    /// Whether its upgrader has one.
    public var hasPreSharedKey: Bool { self.upgrader.hasPreSharedKey }

    /// A specific IP address and a port other than 0.
    public func canDial(_ address: Multiaddr) -> Bool {
        WebSocketAddress(address)?.isSpecific ?? false
    }

    /// Any IP address; port 0 asks for a free one. Within TLS it takes a certificate.
    public func canListen(on address: Multiaddr) -> Bool {
        WebSocketAddress(address).map { !$0.isSecure || self.certificate != nil } ?? false
    }

    /// Dials; see ``Transport/dial(_:expecting:cancellation:)``.
    public func dial(_ address: Multiaddr, expecting peer: PeerID, cancellation: EventLoopFuture<Void>)
        -> EventLoopFuture<any Connection>
    {
        let loop = self.tcp.nextLoop()
        guard let remote = WebSocketAddress(address) else {
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
        guard let local = WebSocketAddress(address), self.canListen(on: address) else {
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
        self.secureDialing(socket, remote).flatMap { stream in
            var randomness = SystemRandomNumberGenerator()
            let nonce = (0..<16).map { _ in UInt8.random(in: .min ... .max, using: &randomness) }
            return OpeningDriver.run(
                WebSocketOpeningDialer(host: remote.host, nonce: nonce), on: stream, timeout: socket.timeLeft
            ).map { WebSocketStream(stream, role: .dialer, earlyInput: $0.leftover) }
        }
    }

    private func openListening(_ socket: ConnectedSocket, _ local: WebSocketAddress) -> EventLoopFuture<WebSocketStream>
    {
        self.secureListening(socket, local).flatMap { stream in
            OpeningDriver.run(WebSocketOpeningListener(), on: stream, timeout: socket.timeLeft)
                .map { WebSocketStream(stream, role: .listener, earlyInput: $0.leftover) }
        }
    }

    private func secureDialing(_ socket: ConnectedSocket, _ remote: WebSocketAddress)
        -> EventLoopFuture<any ByteStream>
    {
        guard remote.isSecure else { return socket.stream.eventLoop.makeSucceededFuture(socket.stream) }
        let server = remote.serverName.map { WebTLSContext.ServerName.name($0) } ?? .address(remote.ip)
        return self.secure(socket) { try TLSSession(self.trust.get().context, role: .dialer, server: server) }
    }

    private func secureListening(_ socket: ConnectedSocket, _ local: WebSocketAddress)
        -> EventLoopFuture<any ByteStream>
    {
        guard local.isSecure, let certificate = self.certificate else {
            return socket.stream.eventLoop.makeSucceededFuture(socket.stream)
        }
        return self.secure(socket) { try TLSSession(certificate.context, role: .listener, server: nil) }
    }

    private func secure(_ socket: ConnectedSocket, _ makeSession: () throws -> TLSSession)
        -> EventLoopFuture<any ByteStream>
    {
        let stream = socket.stream
        let opening: WebTLSOpening
        do {
            opening = WebTLSOpening(session: try makeSession())
        } catch {
            stream.close(error)
            return stream.eventLoop.makeFailedFuture(error)
        }
        return OpeningDriver.run(opening, on: stream, timeout: socket.timeLeft).map { result in
            let secured = TLSStream(stream, protection: opening.session, earlyInput: result.leftover)
            stream.receiver = secured
            return secured
        }
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
