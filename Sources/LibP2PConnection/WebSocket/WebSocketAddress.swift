internal import LibP2PCore
internal import Multiformats
internal import NIOCore

/// What a multiaddr says about a WebSocket.
///
/// `/ip4|ip6/…/tcp/…` and then `/ws`, `/tls/ws`, `/tls/sni/<name>/ws`, or with the deprecated spelling `/wss` and `/sni/<name>/wss`;
/// with or without `/p2p/…` at the end.
///
/// Spec: libp2p `websockets/README.md` § Addressing.
struct WebSocketAddress: Hashable, Sendable {
    /// Where the socket is.
    let socket: SocketAddress
    let ip: IPAddress
    let port: UInt16
    /// Whether it is within TLS.
    let isSecure: Bool
    /// The name that the server's certificate has to have, in lower case and without a dot at the end.
    let serverName: String?
    /// What stands behind `/tcp/…`, without `/p2p/…`.
    private let suffix: [Multiaddr.Component]

    init?(_ address: Multiaddr) {
        let components = address.removingTrailingP2P().address.components
        guard components.count > 2, components[1].protocol == .tcp,
            let socket = Multiaddr(components: components.prefix(2)).tcpSocketAddress, let ip = socket.ip,
            let port = socket.port.flatMap({ UInt16(exactly: $0) })
        else { return nil }
        self.socket = socket
        self.ip = ip
        self.port = port
        self.suffix = Array(components.dropFirst(2))
        switch self.suffix.map(\.protocol) {
        case [.ws]: self.isSecure = false
        case [.wss], [.sni, .wss], [.tls, .ws], [.tls, .sni, .ws]: self.isSecure = true
        default: return nil
        }
        let name = self.suffix.first { $0.protocol == .sni }?.text?.lowercased()
        self.serverName = name.map { $0.hasSuffix(".") ? String($0.dropLast()) : $0 }
        // An address is no name: it goes without one.
        if let name = self.serverName, !HostAndPort.isHost(name) || IPAddress(name) != nil { return nil }
    }

    /// Whether something can be there.
    var isSpecific: Bool { !self.ip.isUnspecified && self.port > 0 }

    /// What an HTTP request says of the server: its name or address, and its port where that is not the usual one.
    var host: String {
        let host = self.serverName ?? self.ip.description
        let joined = HostAndPort.join(host, self.port)
        return self.port == (self.isSecure ? 443 : 80) ? String(joined.dropLast(self.port == 443 ? 4 : 3)) : joined
    }

    /// `ws` or `wss`.
    var transport: String { self.isSecure ? "wss" : "ws" }

    /// The WebSocket on the TCP socket `address`, by the name given here.
    func named(on address: Multiaddr) -> Multiaddr { Multiaddr(components: address.components + self.suffix) }

    /// A WebSocket of this kind on the TCP socket `address`, whose name nobody knows.
    func nameless(on address: Multiaddr) -> Multiaddr {
        Multiaddr(components: address.components + self.suffix.filter { $0.protocol != .sni })
    }
}
