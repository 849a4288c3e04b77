internal import LibP2PCore
internal import Multiformats
internal import NIOCore

extension Multiaddr {
    /// `/ip4|ip6/…/tcp/…`, with or without `/p2p/…` behind; `nil` for every other address.
    var tcpSocketAddress: SocketAddress? {
        let components = self.withoutPeerID.components
        guard components.count == 2, components[1].protocol == .tcp, let ip = self.ipAddress, let port = self.tcpPort
        else { return nil }
        return try? SocketAddress(ipAddress: ip.description, port: Int(port))
    }

    /// The address of a TCP socket.
    init?(tcp address: SocketAddress) {
        guard let ip = address.ip, let port = address.port.flatMap({ UInt16(exactly: $0) }) else { return nil }
        self = .tcp(ip, port: port)
    }
}

extension SocketAddress {
    /// The IP address; `nil` for a Unix socket.
    var ip: IPAddress? { self.ipAddress.flatMap { IPAddress($0) } }
}
