import LibP2PCore
import Multiformats
import NIOCore
import PeerIdentity
import TestKit
import Testing

@testable import LibP2PQUIC

@Suite(.timeLimit(.minutes(15))) struct QUICHandshakeTests {
    @Test(arguments: [
        ("/ip4/127.0.0.1/udp/0/quic-v1", "127.0.0.1"), ("/ip6/::1/udp/0/quic-v1", "::1"),
        ("/ip4/0.0.0.0/udp/0/quic-v1", "127.0.0.1"), ("/ip6/::/udp/0/quic-v1", "::1"),
    ])
    func bothSidesKnowEachOther(listen: String, dial: String) async throws {
        let (a, b) = (try QUICNode(), try QUICNode())
        let listener = try await b.listen(on: listen)
        let port = try #require(listener.address.udpPort)
        #expect(port != 0)
        #expect(listener.address.ipAddress == (try Multiaddr(listen)).ipAddress)
        let ip = try #require(IPAddress(dial))
        let address = Multiaddr.udp(ip, port: port).appending(.quicV1)
        let outbound = try await a.dial(address, expecting: b.peerID)
        let inbound = try await b.connection()
        #expect([outbound.remotePeer, inbound.remotePeer] == [b.peerID, a.peerID])
        #expect([outbound.role, inbound.role] == [.dialer, .listener])
        #expect(outbound.remoteAddress == address)
        #expect(outbound.localAddress == inbound.remoteAddress)
        #expect(inbound.localAddress == address)
        #expect(
            [outbound.details.transport, outbound.details.security.rawValue, outbound.details.muxer.rawValue]
                == ["quic-v1", "/tls/1.0.0", "quic"])
        #expect(try await outbound.onLoop { $0.roundTripTime } != nil)
        outbound.close(.none)
        #expect(await outbound.ending() == nil)
        #expect(await inbound.ending() == nil)
        try await listener.close().get()
    }

    @Test func dialsLeaveFromTheListeningPort() async throws {
        let (a, b) = (try QUICNode(), try QUICNode())
        let (own, far) = (try await a.listen(), try await b.listen())
        let outbound = try await a.dial(far.address, expecting: b.peerID)
        let inbound = try await b.connection()
        #expect(inbound.remoteAddress == own.address)
        // And back over the same pair of addresses.
        let back = try await b.dial(own.address, expecting: a.peerID)
        #expect(try await a.connection().remoteAddress == far.address)
        for connection in [outbound, back] { connection.close(.none) }
        for listener in [own, far] { try await listener.close().get() }
    }

    @Test func somebodyElseIsThere() async throws {
        let (a, b, expected) = (try QUICNode(), try QUICNode(), try QUICNode().peerID)
        let listener = try await b.listen()
        await #expect(throws: TransportError.peerMismatch(expected: expected, found: b.peerID)) {
            try await a.dial(listener.address, expecting: expected)
        }
        #expect(b.accepted.entries.isEmpty)
        try await listener.close().get()
    }

    @Test func weAreThere() async throws {
        let (a, b) = (try QUICNode(), try QUICNode())
        let listener = try await a.listen()
        await #expect(throws: TransportError.ownAddress) {
            try await a.dial(listener.address, expecting: b.peerID)
        }
        try await listener.close().get()
    }

    @Test func nobodyIsThere() async throws {
        let (a, b) = (try QUICNode { $0.handshakeTimeout = .milliseconds(200) }, try QUICNode())
        let silent = try await PlainUDP.bind()
        await #expect(throws: TransportError.timedOut) { try await a.dial(try silent.address, expecting: b.peerID) }
        try await silent.close()
    }

    @Test func nobodyWaits() async throws {
        let (a, b) = (try QUICNode(), try QUICNode())
        let silent = try await PlainUDP.bind()
        let cancellation = QUICNode.never.eventLoop.makePromise(of: Void.self)
        let dial = a.start(try silent.address, expecting: b.peerID, cancellation: cancellation.futureResult)
        await silent.received.wait(forCount: 1)
        cancellation.succeed()
        await #expect(throws: TransportError.cancelled) { try await dial.get() }
        try await silent.close()
    }

    @Test func aBusyPortIsNamed() async throws {
        let (a, b) = (try QUICNode(), try QUICNode())
        let listener = try await a.listen()
        let port = try #require(listener.address.udpPort)
        await #expect(throws: TransportError.portBusy) {
            try await b.listen(on: "/ip4/127.0.0.1/udp/\(port)/quic-v1")
        }
        try await listener.close().get()
    }

    @Test func onlyAddressesOfItsOwn() throws {
        let transport = try QUICNode().transport
        let table: [(String, canDial: Bool, canListen: Bool)] = [
            ("/ip4/192.0.2.1/udp/4001/quic-v1", true, true),
            ("/ip6/2001:db8::1/udp/4001/quic-v1", true, true),
            ("/ip4/192.0.2.1/udp/0/quic-v1", false, true),
            ("/ip4/0.0.0.0/udp/4001/quic-v1", false, true),
            ("/ip4/192.0.2.1/udp/4001/quic", false, false),
            ("/ip4/192.0.2.1/udp/4001", false, false),
            ("/ip4/192.0.2.1/tcp/4001", false, false),
            ("/ip4/192.0.2.1/udp/4001/quic-v1/webtransport", false, false),
        ]
        for (text, canDial, canListen) in table {
            let address = try Multiaddr(text)
            #expect(transport.canDial(address) == canDial, "\(text)")
            #expect(transport.canListen(on: address) == canListen, "\(text)")
        }
    }

    // MARK: What strangers send

    /// A long header of some version, and a body.
    private static func long(version: UInt32, id: [UInt8], count: Int) -> [UInt8] {
        var bytes: [UInt8] = [0xc0]
        bytes += (0..<4).map { UInt8(truncatingIfNeeded: version >> (24 - 8 * $0)) }
        bytes += [UInt8(id.count)] + id + [4, 1, 2, 3, 4]
        return bytes + [UInt8](repeating: 0, count: max(0, count - bytes.count))
    }

    @Test func unknownVersionsAreToldOurs() async throws {
        let node = try QUICNode()
        let listener = try await node.listen()
        let plain = try await PlainUDP.bind()
        // Too short for a first packet: an answer would be larger than what it answers.
        try await plain.send(Self.long(version: 0x0a1a_2a3a, id: pattern(8, seed: 2), count: 600), to: listener.address)
        let id = pattern(8, seed: 3)
        try await plain.send(Self.long(version: 0x0a1a_2a3a, id: id, count: 1200), to: listener.address)
        let answer = try #require(await plain.received.wait(forCount: 1).first)
        #expect(answer.count < 64)
        #expect(answer[0] & 0x80 != 0)
        #expect(answer[1..<5].elementsEqual([0, 0, 0, 0]))
        #expect(answer[5..<10].elementsEqual([4, 1, 2, 3, 4]))
        #expect(answer[10..<19].elementsEqual([8] + id))
        #expect(answer[19...].elementsEqual([0, 0, 0, 1]))
        try await plain.close()
        try await listener.close().get()
    }

    @Test func rubbishHurtsNobody() async throws {
        let (a, b) = (try QUICNode(), try QUICNode())
        let listener = try await b.listen()
        let plain = try await PlainUDP.bind()
        for index in 0..<400 {
            var bytes = pattern([0, 1, 5, 8, 9, 20, 21, 60, 600, 1200, 1472][index % 11], seed: UInt64(index) + 1)
            // Some look like first packets for a while.
            if index % 3 == 0, bytes.count > 30 {
                bytes.replaceSubrange(0..<6, with: [0xc0 | bytes[0] & 0x3f, 0, 0, 0, 1, 8])
            }
            try await plain.send(bytes, to: listener.address)
        }
        let outbound = try await a.dial(listener.address, expecting: b.peerID)
        #expect(await b.accepted.wait(forCount: 1).count == 1)
        outbound.close(.none)
        try await plain.close()
        try await listener.close().get()
    }

    @Test func whoeverComesInACrowdProvesItsAddress() async throws {
        let (a, b) = (try QUICNode(), try QUICNode { $0.retryThreshold = 0 })
        let listener = try await b.listen()
        let forwarder = Forwarder()
        let address = try await forwarder.start(towards: listener.address)
        let outbound = try await a.dial(address, expecting: b.peerID)
        #expect(try await b.connection().remotePeer == a.peerID)
        let first = try #require(forwarder.seen.entries.first { $0.direction == .toDialer })
        #expect(first.bytes[0] & 0xf0 == 0xf0)
        outbound.close(.none)
        try await forwarder.stop()
        try await listener.close().get()
    }

    @Test func aTokenIsGoodForOneAddress() async throws {
        let (a, b) = (try QUICNode { $0.handshakeTimeout = .seconds(2) }, try QUICNode { $0.retryThreshold = 0 })
        let listener = try await b.listen()
        let forwarder = Forwarder()
        let address = try await forwarder.start(towards: listener.address)
        let retries = Journal<Void>()
        forwarder.treat { direction, bytes in
            if direction == .toDialer, bytes[0] & 0xf0 == 0xf0 { retries.write(()) }
            return [bytes]
        }
        // The dialer's first packet gets a Retry; from another port the token that came with it is refused.
        let dial = a.start(address, expecting: b.peerID)
        await retries.wait(forCount: 1)
        try await forwarder.rebind()
        do {
            let connection = try await dial.get()
            // The token overtook the change of port.
            connection.close(.none)
        } catch {
            #expect(b.accepted.entries.isEmpty)
        }
        try await forwarder.stop()
        try await listener.close().get()
    }

    /// Before an address is proven, no more than three times as much goes there as came from it.
    @Test func strangersGetLittle() async throws {
        let (a, b) = (try QUICNode { $0.handshakeTimeout = .seconds(3) }, try QUICNode())
        let listener = try await b.listen()
        // A first packet as a dialer makes it; the answers go to a socket that says nothing more.
        let silent = try await PlainUDP.bind()
        let dial = a.start(try silent.address, expecting: b.peerID)
        let packet = try #require(await silent.received.wait(forCount: 1).first)
        let plain = try await PlainUDP.bind()
        try await plain.send(packet, to: listener.address)
        await plain.received.wait(forCount: 1)
        // Repeats of the server's come until it gives up; the dialer's time-out is as good a clock as any.
        _ = try? await dial.get()
        let bytes = plain.received.entries.reduce(0) { $0 + $1.count }
        #expect(bytes > 0)
        #expect(bytes <= 3 * packet.count)
        #expect(b.accepted.entries.isEmpty)
        for socket in [silent, plain] { try await socket.close() }
        try await listener.close().get()
    }

    @Test func halfOpenHandshakesAreBounded() async throws {
        let (a, b) = (try QUICNode { $0.handshakeTimeout = .seconds(2) }, try QUICNode { $0.maximumPendingInbound = 1 })
        let listener = try await b.listen()
        let silent = try await PlainUDP.bind()
        let first = a.start(try silent.address, expecting: b.peerID)
        let packet = try #require(await silent.received.wait(forCount: 1).first)
        let plain = try await PlainUDP.bind()
        try await plain.send(packet, to: listener.address)
        await plain.received.wait(forCount: 1)
        // The only place is taken.
        await #expect(throws: TransportError.timedOut) { try await a.dial(listener.address, expecting: b.peerID) }
        _ = try? await first.get()
        for socket in [silent, plain] { try await socket.close() }
        try await listener.close().get()
    }
}
