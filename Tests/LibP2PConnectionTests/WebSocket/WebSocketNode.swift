import LibP2PCore
import Multiformats
import NIOCore
import PeerIdentity
import TestKit

@testable import LibP2PConnection

/// A node with TCP and WebSockets on the same sockets, and what it has accepted.
struct WebSocketNode {
    let tcp: TCPNode
    let webSocket: WebSocketTransport
    var peerID: PeerID { self.tcp.peerID }
    /// What came in, whichever way.
    var accepted: Journal<any Connection> { self.tcp.accepted }

    init(
        _ options: TCPOptions = TCPOptions(), webSocket: WebSocketOptions = WebSocketOptions(), key: PrivateKey? = nil
    ) throws {
        let key = try key ?? PrivateKey.generate()
        let upgrader = ConnectionUpgrader(securities: [NoiseUpgrader(identity: key)], muxers: [YamuxMuxer()])
        self.tcp = try TCPNode(options, key: key, upgrader: upgrader)
        self.webSocket = WebSocketTransport(over: self.tcp.transport, upgrader: upgrader, options: webSocket)
    }

    private func transport(for address: Multiaddr) -> any Transport {
        self.tcp.transport.canListen(on: address) ? self.tcp.transport : self.webSocket
    }

    func listen(on address: Multiaddr) async throws -> any Listener {
        try await self.transport(for: address).listen(on: address) { self.accepted.write($0) }.get()
    }

    func listen(on address: String = "/ip4/127.0.0.1/tcp/0/ws") async throws -> any Listener {
        try await self.listen(on: try Multiaddr(address))
    }

    func dial(
        _ address: Multiaddr, expecting peer: PeerID, cancellation: EventLoopFuture<Void> = TCPNode.never
    ) async throws -> any Connection {
        try await self.transport(for: address).dial(address, expecting: peer, cancellation: cancellation).get()
    }
}

extension RawConnection {
    /// Returns once the far end has ended its direction, or all.
    func ended() async {
        await self.receiver.calls.wait { calls in
            calls.contains { if case .inputEnd = $0 { true } else if case .closed = $0 { true } else { false } }
        }
    }
}
