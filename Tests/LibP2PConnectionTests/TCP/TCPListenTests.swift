import LibP2PCore
import Multiformats
import NIOCore
import PeerIdentity
import TestKit
import Testing

@testable import LibP2PConnection

@Suite(.timeLimit(.minutes(1))) struct TCPListenTests {
    @Test(arguments: ["/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0", "/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"])
    func theBoundAddressHasTheRealPort(text: String) async throws {
        let node = try TCPNode()
        let listener = try await node.listen(on: text)
        let port = try #require(listener.address.tcpPort)
        #expect(port != 0)
        #expect(listener.address.ipAddress == (try Multiaddr(text)).ipAddress)
        try await listener.close().get()
    }

    @Test(arguments: ["127.0.0.1", "::1", "0.0.0.0", "::"]) func aPortCanBeAskedForAndAskedForAgain(ip: String)
        async throws
    {
        // Keeps others from being given the port, and no more than a dial from it does.
        let holder = try PlainSocket(bindingTo: ip)
        let (node, address) = (try TCPNode(), try holder.address())
        for _ in 0..<3 {
            let listener = try await node.listen(on: address)
            #expect(listener.address == address)
            try await listener.close().get()
        }
        holder.close()
    }

    @Test func bothFamiliesShareAPort() async throws {
        let node = try TCPNode()
        // The port that is free in one family may be another test's in the other: then one more is tried.
        for _ in 0..<20 {
            let four = try await node.listen(on: "/ip4/0.0.0.0/tcp/0")
            let port = try #require(four.address.tcpPort)
            let six: any Listener
            do {
                six = try await node.listen(on: "/ip6/::/tcp/\(port)")
            } catch TransportError.portBusy {
                try await four.close().get()
                continue
            }
            #expect(six.address.tcpPort == port)
            for listener in [four, six] { try await listener.close().get() }
            return
        }
        Issue.record("no port is free in both families")
    }

    /// Whoever holds the port already, and on which of its addresses.
    @Test(arguments: ["/ip4/127.0.0.1/tcp/0", "/ip4/0.0.0.0/tcp/0"], [true, false])
    func aBusyPortIsNamed(first: String, isOurs: Bool) async throws {
        var taken: Multiaddr
        var ours: (any Listener)?
        var theirs: RawListener?
        if isOurs {
            ours = try await TCPNode().listen(on: first)
            taken = try #require(ours?.address)
        } else {
            // One that would share its port with us, were we to ask.
            theirs = try await RawListener(on: first, reusingPort: true)
            taken = try #require(theirs?.address)
        }
        let port = try #require(taken.tcpPort)
        for text in ["/ip4/127.0.0.1/tcp/\(port)", "/ip4/0.0.0.0/tcp/\(port)"] {
            let second = try TCPNode()
            await #expect(throws: TransportError.portBusy) { try await second.listen(on: text) }
            // Without a listener there is no port to dial from.
            let silent = try await RawListener()
            let dial = second.dial(silent.address, expecting: second.peerID, cancellation: TCPNode.never)
            let remote = try #require(await silent.accepted.wait(forCount: 1).first?.remoteAddress?.port)
            #expect(remote != Int(port))
            try await silent.channel.close().get()
            for channel in silent.accepted.entries { channel.close(promise: nil) }
            await #expect(throws: (any Error).self) { try await dial.get() }
        }
        try await ours?.close().get()
        try await theirs?.channel.close().get()
    }

    @Test func aPortCanBeTakenAgainWhileItsConnectionsLive() async throws {
        let (a, b) = (try TCPNode(), try TCPNode())
        let holder = try PlainSocket(bindingTo: "127.0.0.1")
        let first = try await a.listen(on: try holder.address())
        _ = try await b.listen()
        let outbound = try await b.dial(first.address, expecting: a.peerID)
        let inbound = await a.accepted.first { $0 }
        try await first.close().get()
        let second = try await a.listen(on: first.address)
        #expect(second.address == first.address)
        holder.close()
        for connection in [outbound, inbound] { connection.close(.none) }
    }

    static let refused = [
        "/ip4/127.0.0.1/udp/1", "/memory/1", "/dns4/localhost/tcp/1", "/ip4/127.0.0.1/tcp/1/ws", "/tcp/1",
    ]

    @Test(arguments: refused) func listensAndDialsNowhereElse(text: String) async throws {
        let (node, address) = (try TCPNode(), try Multiaddr(text))
        #expect(!node.transport.canDial(address))
        #expect(!node.transport.canListen(on: address))
        await #expect(throws: TransportError.unsupportedAddress(address)) { try await node.listen(on: address) }
        await #expect(throws: TransportError.unsupportedAddress(address)) {
            try await node.dial(address, expecting: node.peerID)
        }
    }

    @Test(arguments: ["/ip4/0.0.0.0/tcp/1", "/ip6/::/tcp/1", "/ip4/127.0.0.1/tcp/0"])
    func doesNotDialWhatIsNoPlace(text: String) throws {
        #expect(!(try TCPNode().transport.canDial(try Multiaddr(text))))
    }

    // MARK: Inbound handshakes

    @Test func soManyHandshakesAtOnce() async throws {
        var options = TCPOptions()
        options.maximumPendingInbound = 2
        // Those that wait do so until they are told to leave, however slow the machine is.
        options.upgradeTimeout = .minutes(10)
        let node = try TCPNode(options)
        let listener = try await node.listen()
        var waiting: [RawConnection] = []
        for _ in 0..<2 {
            let raw = try await RawConnection.connect(to: listener.address)
            _ = await raw.receiver.bytes(atLeast: 20)
            waiting.append(raw)
        }
        #expect(node.transport.handshakes.count == 2)
        let surplus = try await RawConnection.connect(to: listener.address)
        _ = await surplus.receiver.calls.wait { calls in
            calls.contains { if case .inputEnd = $0 { true } else if case .closed = $0 { true } else { false } }
        }
        #expect(surplus.receiver.bytes.isEmpty, "it was not heard")
        surplus.close()
        // One that leaves makes room.
        waiting[0].close()
        while node.transport.handshakes.count > 1 { await Task.yield() }
        let next = try await RawConnection.connect(to: listener.address)
        #expect(await next.receiver.bytes(atLeast: 20).starts(with: Array("\u{13}/multistream/1.0.0\n".utf8)))
        // The rest ends with the listener.
        try await listener.close().get()
        for raw in [waiting[1], next] {
            await raw.receiver.calls.wait { calls in
                calls.contains { if case .inputEnd = $0 { true } else if case .closed = $0 { true } else { false } }
            }
            raw.close()
        }
        while node.transport.handshakes.count > 0 { await Task.yield() }
        #expect(node.accepted.entries.isEmpty)
    }

    @Test(arguments: [[], Array("\u{13}/multistr".utf8), Array("\u{13}/multistream/1.0.0\n\u{07}/noise\n".utf8)])
    func aHalfOpenHandshakeIsDropped(bytes: [UInt8]) async throws {
        var options = TCPOptions()
        options.upgradeTimeout = .milliseconds(50)
        let node = try TCPNode(options)
        let listener = try await node.listen()
        let raw = try await RawConnection.connect(to: listener.address)
        if !bytes.isEmpty { try await raw.send(bytes) }
        await raw.receiver.calls.wait { calls in
            calls.contains { if case .inputEnd = $0 { true } else if case .closed = $0 { true } else { false } }
        }
        raw.close()
        while node.transport.handshakes.count > 0 { await Task.yield() }
        #expect(node.accepted.entries.isEmpty)
        try await listener.close().get()
    }

    static let garbage: [[UInt8]] = [
        Array("GET /\(String(repeating: "a", count: 100)) HTTP/1.1\r\n\r\n".utf8), Array(repeating: 0xff, count: 100),
        [0], [0x80, 0x00],
        [0xff, 0x7f] + Array(repeating: 0x41, count: 16_383),
        Array("\u{13}/multistream/2.0.0\n".utf8),
        [0x16, 0x03, 0x01, 0x02, 0x00, 0x01] + Array(repeating: 7, count: 100),
        Array("\u{13}/multistream/1.0.0\n\u{07}/noise\n".utf8) + [0xff, 0xff] + Array(repeating: 0, count: 300),
        Array("\u{13}/multistream/1.0.0\n\u{07}/noise\n".utf8) + [0x00, 0x05, 1, 2, 3, 4, 5],
    ]

    @Test(arguments: garbage) func garbageIsDropped(bytes: [UInt8]) async throws {
        let node = try TCPNode()
        let listener = try await node.listen()
        let raw = try await RawConnection.connect(to: listener.address)
        try await raw.send(bytes)
        await raw.receiver.calls.wait { calls in
            calls.contains { if case .inputEnd = $0 { true } else if case .closed = $0 { true } else { false } }
        }
        raw.close()
        while node.transport.handshakes.count > 0 { await Task.yield() }
        #expect(node.accepted.entries.isEmpty)
        try await listener.close().get()
    }
}
