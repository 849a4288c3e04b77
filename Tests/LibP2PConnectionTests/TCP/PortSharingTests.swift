import LibP2PCore
import Multiformats
import NIOCore
import NIOEmbedded
import TestKit
import Testing

@testable import LibP2PConnection

@Suite(.timeLimit(.minutes(1))) struct PortSharingTests {
    // MARK: What the first bytes tell

    static let all = Set(PortService.allCases)
    static let hello: [UInt8] = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03]
    /// What somebody sends, and after how many bytes of it that is known.
    static let beginnings: [(bytes: [UInt8], service: PortService, known: Int)] = [
        (Array("\u{13}/multistream/1.0.0\n".utf8), .plain, 1),
        (Array("GET / HTTP/1.1\r\n".utf8), .webSocket, 4),
        (hello, .secureWebSocket, 6),
        ([0x16, 0x03, 0x04, 0xff, 0xff, 0x01], .secureWebSocket, 6),
        (Array("GETS".utf8), .plain, 4), (Array("GO".utf8), .plain, 2), (Array("POST /".utf8), .plain, 1),
        ([0x16, 0x02, 0x01], .plain, 2), ([0x16, 0x03, 0x01, 0x00, 0x10, 0x02], .plain, 6),
        ([0], .plain, 1), (Array(repeating: 0xa7, count: 24), .plain, 1),
    ]

    @Test(arguments: beginnings.indices) func noMoreBytesAreNeededThanItTakes(index: Int) {
        let (bytes, service, known) = Self.beginnings[index]
        for count in 0...bytes.count {
            let ending = Ending.of(PortServiceReader(served: Self.all), [Array(bytes[..<count])]).ending
            #expect(ending == (count < known ? .open : .done(service, leftover: Array(bytes[..<count]))))
        }
        for cut in 0...bytes.count {
            let pieces = [Array(bytes[..<cut]), Array(bytes[cut...])]
            #expect(Ending.of(PortServiceReader(served: Self.all), pieces).ending == .done(service, leftover: bytes))
            let others = Self.all.subtracting([service])
            #expect(Ending.of(PortServiceReader(served: others), pieces).ending == .failed(.notServed(service)))
        }
    }

    @Test(arguments: [[], Array("GE".utf8), [0x16, 0x03, 0x01]]) func whoSaysTooLittleIsNotWaitedForLong(bytes: [UInt8])
    {
        let pipe = Pipe()
        let choice = OpeningDriver.run(
            PortServiceReader(served: Self.all), on: pipe.listener, timeout: .seconds(10))
        pipe.listener.inject(bytes)
        pipe.run { 1 }
        pipe.loop.advanceTime(by: .milliseconds(9_999))
        #expect(outcome(choice) == nil && !pipe.listener.isClosed)
        pipe.loop.advanceTime(by: .milliseconds(1))
        #expect(outcome(choice)?.failed() == TransportError.timedOut)
        #expect(pipe.listener.isClosed)
    }

    // MARK: Sockets

    /// A port that is ours, as far as that can be: nobody else is given it while this is open.
    static func freePort() throws -> (holder: PlainSocket, address: Multiaddr) {
        let holder = try PlainSocket(bindingTo: "127.0.0.1")
        return (holder, try holder.address())
    }

    @Test(arguments: [true, false]) func bothSharePort(plainFirst: Bool) async throws {
        let (a, b) = (try WebSocketNode(), try WebSocketNode())
        let (holder, plain) = try Self.freePort()
        defer { holder.close() }
        let webSocket = try Multiaddr("\(plain)/ws")
        var listeners: [Multiaddr: any Listener] = [:]
        for address in plainFirst ? [plain, webSocket] : [webSocket, plain] {
            listeners[address] = try await b.listen(on: address)
            #expect(listeners[address]?.address == address)
        }
        for address in [plain, webSocket, webSocket, plain] {
            let count = b.accepted.entries.count
            let outbound = try await a.dial(address, expecting: b.peerID)
            let inbound = try #require(await b.accepted.wait(forCount: count + 1).last)
            #expect(outbound.details.transport == (address == plain ? "tcp" : "ws"))
            #expect(inbound.localAddress == address && inbound.remotePeer == a.peerID)
            try await WebSocketTransportTests.exchange(outbound, inbound)
            outbound.close(.none)
        }
        // Each of them once.
        for address in [plain, webSocket] {
            await #expect(throws: TransportError.portBusy) { try await b.listen(on: address) }
        }
        // One leaves, the other stays.
        let (leaving, staying) = plainFirst ? (plain, webSocket) : (webSocket, plain)
        try await listeners[leaving]?.close().get()
        try await listeners[leaving]?.close().get()
        await #expect(throws: (any Error).self) { try await a.dial(leaving, expecting: b.peerID) }
        let outbound = try await a.dial(staying, expecting: b.peerID)
        outbound.close(.none)
        // And comes back.
        let again = try await b.listen(on: leaving)
        let back = try await a.dial(leaving, expecting: b.peerID)
        back.close(.none)
        try await listeners[staying]?.close().get()
        try await again.close().get()
        await #expect(throws: (any Error).self) { try await a.dial(staying, expecting: b.peerID) }
        let last = try await b.listen(on: staying)
        try await last.close().get()
    }

    @Test func listenersMayComeAtOnceAndLeaveAtOnce() async throws {
        let node = try WebSocketNode()
        let (holder, plain) = try Self.freePort()
        defer { holder.close() }
        for _ in 0..<20 {
            async let first = node.listen(on: plain)
            async let second = node.listen(on: try Multiaddr("\(plain)/ws"))
            let listeners = try await [first, second]
            // The next round asks for the port while this one still gives it back.
            for listener in listeners { _ = listener.close() }
        }
        let listener = try await node.listen(on: plain)
        try await listener.close().get()
    }

    @Test func portZeroIsNotShared() async throws {
        let node = try WebSocketNode()
        let first = try await node.listen(on: "/ip4/127.0.0.1/tcp/0")
        let second = try await node.listen(on: "/ip4/127.0.0.1/tcp/0/ws")
        #expect(first.address.tcpPort != second.address.tcpPort)
        for listener in [first, second] { try await listener.close().get() }
    }

    @Test func aPortOfAnotherSocketIsBusy() async throws {
        let (a, b) = (try WebSocketNode(), try WebSocketNode())
        let first = try await a.listen(on: "/ip4/127.0.0.1/tcp/0")
        for text in ["\(first.address)/ws", "\(first.address)"] {
            await #expect(throws: TransportError.portBusy) { try await b.listen(on: text) }
        }
        try await first.close().get()
        // What failed stands in nobody's way.
        let second = try await b.listen(on: "\(first.address)/ws")
        #expect(second.address.tcpPort == first.address.tcpPort)
        try await second.close().get()
    }

    @Test func onlyPortsForPlainConnectionsAreLeftFrom() async throws {
        let (a, b) = (try WebSocketNode(), try WebSocketNode())
        let (here, there) = (try await a.listen(), try await b.listen(on: "/ip4/127.0.0.1/tcp/0"))
        let outbound = try await a.dial(there.address, expecting: b.peerID)
        #expect(outbound.localAddress.tcpPort != here.address.tcpPort)
        outbound.close(.none)
        for listener in [here, there] { try await listener.close().get() }
    }

    @Test(arguments: [[], Array("GET".utf8), hello]) func aSharedPortDropsWhoStays(bytes: [UInt8]) async throws {
        var options = TCPOptions()
        options.upgradeTimeout = .milliseconds(50)
        let node = try WebSocketNode(options)
        let (holder, plain) = try Self.freePort()
        defer { holder.close() }
        let listeners = [try await node.listen(on: plain), try await node.listen(on: try Multiaddr("\(plain)/ws"))]
        let raw = try await RawConnection.connect(to: plain)
        if !bytes.isEmpty { try await raw.send(bytes) }
        await raw.ended()
        raw.close()
        while node.tcp.transport.handshakes.count > 0 { await Task.yield() }
        #expect(node.accepted.entries.isEmpty)
        for listener in listeners { try await listener.close().get() }
    }
}
