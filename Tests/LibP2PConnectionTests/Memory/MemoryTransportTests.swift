import LibP2PCore
import Multiformats
import NIOCore
import NIOEmbedded
import PeerIdentity
import TestKit
import Testing

@testable import LibP2PConnection

@Suite(.timeLimit(.minutes(1))) struct MemoryTransportTests {
    /// A transport and what it has accepted.
    struct Node {
        let key: PrivateKey
        let transport: MemoryTransport
        let accepted = Journal<any Connection>()
        var peerID: PeerID { PeerID(self.key.publicKey) }

        init(_ network: MemoryNetwork, _ loop: any EventLoop) throws {
            self.key = try PrivateKey.generate()
            self.transport = MemoryTransport(
                network: network, eventLoop: loop,
                upgrader: ConnectionUpgrader(securities: [NoiseUpgrader(identity: self.key)], muxers: [YamuxMuxer()]))
        }

        func listen(_ number: UInt64) async throws -> any Listener {
            try await self.transport.listen(on: Multiaddr(components: [.memory(number)])) { self.accepted.write($0) }
                .get()
        }

        func dial(_ address: Multiaddr, _ peer: PeerID, _ cancellation: EventLoopPromise<Void>? = nil)
            -> EventLoopFuture<any Connection>
        {
            let never = cancellation ?? TCPNode.neverPromise
            return self.transport.dial(address, expecting: peer, cancellation: never.futureResult)
        }
    }

    let loop = NIOAsyncTestingEventLoop()
    let network = MemoryNetwork()

    @Test func bothEndsHaveAddressesOfTheirOwn() async throws {
        let (a, b) = (try Node(self.network, self.loop), try Node(self.network, self.loop))
        let (here, there) = (try await b.listen(7), try await b.listen(0))
        #expect(here.address != there.address)
        for listener in [here, there] {
            let outbound = try await a.dial(listener.address.appending(b.peerID), b.peerID).get()
            let inbound = try #require(b.accepted.entries.last)
            #expect(outbound.remoteAddress == listener.address && inbound.localAddress == listener.address)
            #expect(outbound.localAddress == inbound.remoteAddress)
            #expect(outbound.localAddress != outbound.remoteAddress)
            #expect(outbound.remotePeer == b.peerID && inbound.remotePeer == a.peerID)
            #expect(outbound.details.transport == "memory")
            for connection in [outbound, inbound] { connection.close(.none) }
        }
    }

    @Test func aNumberHasOneListener() async throws {
        let (a, b) = (try Node(self.network, self.loop), try Node(self.network, self.loop))
        let listener = try await a.listen(3)
        await #expect(throws: TransportError.portBusy) { try await b.listen(3) }
        await #expect(throws: MemoryTransportError.nobodyListens) {
            try await a.dial(Multiaddr(components: [.memory(4)]), b.peerID).get()
        }
        try await listener.close().get()
        await #expect(throws: MemoryTransportError.nobodyListens) { try await b.dial(listener.address, a.peerID).get() }
        _ = try await b.listen(3)
        let tcp = Multiaddr.tcp(try #require(IPAddress("127.0.0.1")), port: 1)
        #expect(!a.transport.canDial(tcp) && !a.transport.canListen(on: tcp))
    }

    @Test func aCancelledDialEnds() async throws {
        let (a, b) = (try Node(self.network, self.loop), try Node(self.network, self.loop))
        let listener = try await b.listen(0)
        let cancellation = self.loop.makePromise(of: Void.self)
        cancellation.succeed()
        await #expect(throws: TransportError.cancelled) {
            try await a.dial(listener.address, b.peerID, cancellation).get()
        }
        await self.loop.run()
        #expect(b.accepted.entries.isEmpty)
        // Once it has succeeded there is nothing to cancel.
        let late = self.loop.makePromise(of: Void.self)
        let outbound = try await a.dial(listener.address, b.peerID, late).get()
        late.succeed()
        try await self.loop.submit { outbound.delegate = Acceptor() }.get()
        let inbound = await b.accepted.first { $0 }
        try await self.loop.submit { inbound.delegate = Acceptor() }.get()
        _ = try await outbound.probe().get()
        for connection in [outbound, inbound] { connection.close(.none) }
    }

    @Test func aWrongPeerIsNamed() async throws {
        let (a, b) = (try Node(self.network, self.loop), try Node(self.network, self.loop))
        let listener = try await b.listen(0)
        await #expect(throws: TransportError.peerMismatch(expected: a.peerID, found: b.peerID)) {
            try await a.dial(listener.address, a.peerID).get()
        }
    }
}
