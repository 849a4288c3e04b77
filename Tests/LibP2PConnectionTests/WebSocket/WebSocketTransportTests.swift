import LibP2PCore
import Multiformats
import NIOCore
import PeerIdentity
import TestKit
import Testing

@testable import LibP2PConnection

@Suite(.timeLimit(.minutes(1))) struct WebSocketTransportTests {
    @Test(arguments: ["/ip4/127.0.0.1/tcp/0/ws", "/ip6/::1/tcp/0/ws", "/ip4/0.0.0.0/tcp/0/ws"])
    func connectsBothEnds(text: String) async throws {
        let (a, b) = (try WebSocketNode(), try WebSocketNode())
        let there = try await b.listen(on: text)
        let port = try #require(there.address.tcpPort)
        #expect(port != 0 && there.address.protocols.last == .ws)
        #expect(there.address.ipAddress == (try Multiaddr(text)).ipAddress)
        let ip = text.hasPrefix("/ip6") ? "/ip6/::1" : "/ip4/127.0.0.1"
        let target = try Multiaddr("\(ip)/tcp/\(port)/ws")
        let outbound = try await a.dial(target.appending(b.peerID), expecting: b.peerID)
        let inbound = await b.accepted.first { $0 }
        #expect(outbound.remotePeer == b.peerID && inbound.remotePeer == a.peerID)
        #expect(outbound.remoteAddress == target && inbound.localAddress == target)
        #expect(outbound.localAddress == inbound.remoteAddress)
        #expect(outbound.localAddress.protocols.last == .ws)
        #expect(outbound.details.transport == "ws" && inbound.details.transport == "ws")
        try await Self.exchange(outbound, inbound)
        outbound.close(.none)
        try await outbound.closeFuture.get()
        _ = await inbound.closeFuture.result()
        while b.tcp.transport.handshakes.count > 0 { await Task.yield() }
        try await there.close().get()
    }

    /// Moves bytes both ways over a stream.
    static func exchange(_ outbound: any Connection, _ inbound: any Connection) async throws {
        let echo = EchoDelegate()
        try await inbound.eventLoop.submit { inbound.delegate = echo }.get()
        try await outbound.eventLoop.submit { outbound.delegate = echo }.get()
        let stream = try await outbound.openStream(["/echo"]).get()
        let buffered = try await stream.eventLoop.submit { BufferedStream(stream) }.get()
        let bytes = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
        buffered.write(ByteBuffer(bytes: bytes))
        let echoed = try await buffered.read(exactly: bytes.count)
        #expect(Array(echoed.readableBytesView) == bytes)
        buffered.close()
    }

    static let places: [(String, isOne: Bool)] = [
        ("/ip4/1.2.3.4/tcp/80/ws", true), ("/ip6/::1/tcp/80/ws", true),
        ("/ip4/1.2.3.4/tcp/80", false), ("/ip4/1.2.3.4/udp/80/ws", false), ("/ip4/1.2.3.4/ws", false),
        ("/ip4/1.2.3.4/tcp/80/ws/ws", false), ("/ip4/1.2.3.4/tcp/80/tls", false),
        ("/ip4/1.2.3.4/tcp/80/sni/a.example/ws", false), ("/dns4/localhost/tcp/80/ws", false),
        ("/ip4/1.2.3.4/tcp/80/ws/p2p-circuit", false), ("/memory/1", false),
    ]

    @Test(arguments: places.indices) func knowsItsAddresses(index: Int) async throws {
        let (text, isOne) = Self.places[index]
        let (node, address) = (try WebSocketNode(), try Multiaddr(text))
        #expect(node.webSocket.canDial(address) == isOne)
        #expect(node.webSocket.canListen(on: address) == isOne)
        #expect(node.webSocket.canDial(address.appending(node.peerID)) == isOne)
        guard !isOne else { return }
        await #expect(throws: TransportError.unsupportedAddress(address)) {
            try await node.webSocket.dial(address, expecting: node.peerID, cancellation: TCPNode.never).get()
        }
        await #expect(throws: TransportError.unsupportedAddress(address)) {
            try await node.webSocket.listen(on: address) { _ in }.get()
        }
    }

    @Test(arguments: ["/ip4/0.0.0.0/tcp/1/ws", "/ip6/::/tcp/1/ws", "/ip4/127.0.0.1/tcp/0/ws"])
    func doesNotDialWhatIsNoPlace(text: String) throws {
        #expect(!(try WebSocketNode().webSocket.canDial(try Multiaddr(text))))
    }

    static let hosts = [
        ("/ip4/1.2.3.4/tcp/80/ws", "1.2.3.4"), ("/ip4/1.2.3.4/tcp/443/ws", "1.2.3.4:443"),
        ("/ip6/2001:db8::1/tcp/80/ws", "[2001:db8::1]"), ("/ip6/2001:db8::1/tcp/8080/ws", "[2001:db8::1]:8080"),
        ("/ip4/1.2.3.4/tcp/443/wss", "1.2.3.4"), ("/ip4/1.2.3.4/tcp/80/wss", "1.2.3.4:80"),
        ("/ip4/1.2.3.4/tcp/443/tls/ws", "1.2.3.4"), ("/ip4/1.2.3.4/tcp/443/tls/sni/a.example/ws", "a.example"),
        ("/ip4/1.2.3.4/tcp/444/sni/A.Example/wss", "a.example:444"),
    ]

    @Test(arguments: hosts) func namesTheHost(text: String, host: String) throws {
        let address = try #require(WebSocketAddress(try Multiaddr(text)))
        #expect(address.host == host)
        #expect(address.named(on: try #require(Multiaddr(tcp: address.socket))) == (try Multiaddr(text)))
    }

    // MARK: Failures

    @Test func aWrongPeerIsNamed() async throws {
        let (a, b) = (try WebSocketNode(), try WebSocketNode())
        let there = try await b.listen()
        let expected = PeerID(try PrivateKey.generate().publicKey)
        await #expect(throws: TransportError.peerMismatch(expected: expected, found: b.peerID)) {
            try await a.dial(there.address, expecting: expected)
        }
        try await there.close().get()
    }

    @Test func dialingOneselfIsNamed() async throws {
        let node = try WebSocketNode()
        let here = try await node.listen()
        await #expect(throws: TransportError.ownAddress) { try await node.dial(here.address, expecting: node.peerID) }
        try await here.close().get()
    }

    @Test func aWebServerThatIsNoneOfOursIsNamed() async throws {
        let node = try WebSocketNode()
        let server = try await RawListener()
        let address = try Multiaddr("\(server.address)/ws")
        let dial = Task { try await node.dial(address, expecting: node.peerID) }
        let remote = try await server.connection()
        _ = await remote.receiver.bytes(atLeast: 100)
        #expect(String(decoding: remote.receiver.bytes, as: UTF8.self).contains("\r\nHost: 127.0.0.1:"))
        try await remote.send(Array("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".utf8))
        await #expect(throws: WebSocketError.refused(status: 403, reason: "Forbidden")) { try await dial.value }
        await remote.ended()
        remote.close()
        try await server.channel.close().get()
    }

    @Test(arguments: [true, false]) func aRemoteThatSaysNothingTimesOut(dials: Bool) async throws {
        var options = TCPOptions()
        options.upgradeTimeout = .milliseconds(50)
        let node = try WebSocketNode(options)
        if dials {
            let silent = try await RawListener()
            await #expect(throws: TransportError.timedOut) {
                try await node.dial(try Multiaddr("\(silent.address)/ws"), expecting: node.peerID)
            }
            try await silent.channel.close().get()
        } else {
            let listener = try await node.listen()
            let raw = try await RawConnection.connect(to: listener.address.tcp)
            await raw.ended()
            raw.close()
            while node.tcp.transport.handshakes.count > 0 { await Task.yield() }
            try await listener.close().get()
        }
    }

    @Test func aCancelledDialEnds() async throws {
        let node = try WebSocketNode()
        let silent = try await RawListener()
        let cancellation = TCPNode.never.eventLoop.makePromise(of: Void.self)
        let dial = Task {
            try await node.dial(
                try Multiaddr("\(silent.address)/ws"), expecting: node.peerID, cancellation: cancellation.futureResult)
        }
        let remote = try await silent.connection()
        cancellation.succeed()
        await #expect(throws: TransportError.cancelled) { try await dial.value }
        await remote.ended()
        remote.close()
        try await silent.channel.close().get()
    }

    /// Wherever the opening or the frames go wrong, nobody is accepted, and nothing stays behind.
    static let garbage: [[UInt8]] = [
        Array("\u{13}/multistream/1.0.0\n\u{07}/noise\n\r\n\r\n".utf8), Array(repeating: 0, count: 9_000),
        Array("GET / HTTP/1.1\r\n\r\n".utf8),
        WebSocketOpeningTests.bytes(WebSocketOpeningTests.request) + webSocketFrame(.binary, [1]),
        WebSocketOpeningTests.bytes(WebSocketOpeningTests.request)
            + webSocketFrame(.text, [1], mask: WebSocketMask(key: 1)),
        WebSocketOpeningTests.bytes(WebSocketOpeningTests.request)
            + webSocketFrame(.binary, Array(repeating: 0xff, count: 100), mask: WebSocketMask(key: 1)),
        WebSocketOpeningTests.bytes(WebSocketOpeningTests.request)
            + webSocketFrame(.close, [], mask: WebSocketMask(key: 1)),
    ]

    @Test(arguments: garbage.indices) func garbageIsDropped(index: Int) async throws {
        let node = try WebSocketNode()
        let listener = try await node.listen()
        let raw = try await RawConnection.connect(to: listener.address.tcp)
        try await raw.send(Self.garbage[index])
        await raw.ended()
        raw.close()
        while node.tcp.transport.handshakes.count > 0 { await Task.yield() }
        #expect(node.accepted.entries.isEmpty)
        try await listener.close().get()
    }
}

/// Sends back what comes in, on every stream.
final class EchoDelegate: ConnectionDelegate, Sendable {
    func connection(_ connection: any Connection, accepts protocolID: ProtocolID) -> Bool { true }

    func connection(_ connection: any Connection, accepted stream: any LibP2PCore.Stream) {
        stream.receiver = Echo(stream)
        stream.setReading(true)
    }

    private final class Echo: ByteStreamReceiver {
        private let stream: any ByteStream

        init(_ stream: any ByteStream) { self.stream = stream }

        func received(_ bytes: ByteBuffer) { self.stream.write(bytes) }
        func receiveComplete() { self.stream.flush() }
        func writabilityChanged() {}
        func inputEnded() { self.stream.closeWrite() }
        func closed(_ error: (any Error)?) {}
    }
}

extension Multiaddr {
    /// The TCP socket of a WebSocket's address.
    var tcp: Multiaddr { Multiaddr(components: self.components.prefix(2)) }
}
