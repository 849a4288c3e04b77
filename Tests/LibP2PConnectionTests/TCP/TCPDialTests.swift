import Foundation
import LibP2PCore
import Multiformats
import NIOCore
import NIOPosix
import PeerIdentity
import TestKit
import Testing

@testable import LibP2PConnection

@Suite(.timeLimit(.minutes(1))) struct TCPDialTests {
    static let loopbacks = ["/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0"]

    /// The address to dial a listener at, which may listen everywhere.
    static func reachable(_ listener: any Listener) throws -> Multiaddr {
        let (ip, port) = (try #require(listener.address.ipAddress), try #require(listener.address.tcpPort))
        guard ip.isUnspecified else { return listener.address }
        return .tcp(try #require(IPAddress(ip.family == .ipv4 ? "127.0.0.1" : "::1")), port: port)
    }

    @Test(arguments: loopbacks + ["/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"])
    func leavesFromTheListeningPort(text: String) async throws {
        let (a, b) = (try TCPNode(), try TCPNode())
        let (here, there) = (try await a.listen(on: text), try await b.listen(on: text))
        let target = try Self.reachable(there)
        let outbound = try await a.dial(target.appending(b.peerID), expecting: b.peerID)
        let inbound = await b.accepted.first { $0 }
        #expect(outbound.remotePeer == b.peerID && inbound.remotePeer == a.peerID)
        #expect(outbound.role == .dialer && inbound.role == .listener)
        #expect(outbound.remoteAddress == target && inbound.localAddress == target)
        #expect(outbound.localAddress == inbound.remoteAddress)
        #expect(outbound.localAddress == (try Self.reachable(here)))
        #expect(outbound.details.transport == "tcp" && outbound.details.security == "/noise")
        #expect(outbound.details.muxer == "/yamux/1.0.0")
        #expect(outbound.id != inbound.id)
        for connection in [outbound, inbound] { connection.close(.none) }
        for listener in [here, there] { try await listener.close().get() }
    }

    @Test(arguments: [true, false]) func leavesFromAnyPortWhereThereIsNone(reusesPort: Bool) async throws {
        // Either nothing is listened on in that family, or the option says so.
        let (a, b) = (try TCPNode(TCPOptions(reusesPort: reusesPort)), try TCPNode())
        let here = try await a.listen(on: reusesPort ? "/ip6/::1/tcp/0" : "/ip4/127.0.0.1/tcp/0")
        let there = try await b.listen()
        let outbound = try await a.dial(there.address, expecting: b.peerID)
        #expect(outbound.localAddress.tcpPort != here.address.tcpPort)
        outbound.close(.none)
        for listener in [here, there] { try await listener.close().get() }
    }

    @Test func takesAnotherPortWhenThePairOfAddressesIsInUse() async throws {
        let (a, b) = (try TCPNode(), try TCPNode())
        let (here, there) = (try await a.listen(), try await b.listen())
        let first = try await a.dial(there.address, expecting: b.peerID)
        let second = try await a.dial(there.address, expecting: b.peerID)
        #expect(first.localAddress == here.address)
        #expect(second.localAddress.tcpPort != here.address.tcpPort)
        #expect(second.remotePeer == b.peerID)
        for connection in [first, second] { connection.close(.none) }
        for listener in [here, there] { try await listener.close().get() }
    }

    @Test func tellsWhenSomebodyAnswers() async throws {
        let (a, b) = (try TCPNode(), try TCPNode())
        let there = try await b.listen()
        let progress = Journal<DialProgress>()
        let outbound = try await a.transport.dial(
            there.address, expecting: b.peerID, cancellation: TCPNode.never, progress: { progress.write($0) }
        ).get()
        #expect(progress.entries == [.reached])
        let closed = try PlainSocket(bindingTo: "127.0.0.1")
        let address = try closed.address()
        await #expect(throws: IOError.self) {
            try await a.transport.dial(
                address, expecting: b.peerID, cancellation: TCPNode.never, progress: { progress.write($0) }
            ).get()
        }
        #expect(progress.entries.count == 1)
        closed.close()
        outbound.close(.none)
        try await there.close().get()
    }

    // MARK: Failures

    @Test(arguments: loopbacks) func aWrongPeerIsNamed(text: String) async throws {
        let (a, b) = (try TCPNode(), try TCPNode())
        let there = try await b.listen(on: text)
        let expected = PeerID(try PrivateKey.generate().publicKey)
        await #expect(throws: TransportError.peerMismatch(expected: expected, found: b.peerID)) {
            try await a.dial(there.address, expecting: expected)
        }
        while b.transport.handshakes.count > 0 { await Task.yield() }
        #expect(b.accepted.entries.isEmpty)
        try await there.close().get()
    }

    @Test func aClosedPortRefuses() async throws {
        let node = try TCPNode()
        // Bound, so that nobody else takes the port, but not listened on.
        let socket = try PlainSocket(bindingTo: "127.0.0.1")
        let error = await #expect(throws: IOError.self) {
            try await node.dial(try socket.address(), expecting: node.peerID)
        }
        #expect(error?.errnoCode == ECONNREFUSED)
        socket.close()
    }

    @Test func aRemoteThatSaysNothingTimesOut() async throws {
        var options = TCPOptions()
        options.upgradeTimeout = .milliseconds(50)
        let node = try TCPNode(options)
        let listener = try await RawListener()
        await #expect(throws: TransportError.timedOut) {
            try await node.dial(listener.address, expecting: node.peerID)
        }
        let remote = try await listener.connection()
        await remote.receiver.calls.wait { calls in calls.contains { if case .inputEnd = $0 { true } else { false } } }
        remote.close()
        try await listener.channel.close().get()
    }

    @Test func aPlaceThatDoesNotAnswerTimesOut() async throws {
        var options = TCPOptions()
        options.connectTimeout = .milliseconds(50)
        let node = try TCPNode(options)
        let deaf = try PlainSocket(bindingTo: "127.0.0.1")
        try deaf.listenDeaf()
        await #expect(throws: TransportError.timedOut) {
            try await node.dial(try deaf.address(), expecting: node.peerID)
        }
        deaf.close()
    }

    @Test(arguments: [
        (Array("HTTP/1.1 400 \(String(repeating: "a", count: 100))\r\n\r\n".utf8), NegotiationError.malformedMessage),
        (Array("\u{13}/multistream/2.0.0\n".utf8), .unexpectedHeader("/multistream/2.0.0")),
        (Array("\u{13}/multistream/1.0.0\n\u{03}na\n".utf8), .unsupported(["/noise"])),
    ])
    func garbageEndsADial(bytes: [UInt8], error: NegotiationError) async throws {
        let node = try TCPNode()
        let listener = try await RawListener()
        let dial = node.dial(listener.address, expecting: node.peerID, cancellation: TCPNode.never)
        let remote = try await listener.connection()
        try await remote.send(bytes)
        await #expect(throws: error) { try await dial.get() }
        remote.close()
        try await listener.channel.close().get()
    }

    @Test func aRemoteThatLeavesEndsADial() async throws {
        let node = try TCPNode()
        let listener = try await RawListener()
        let dial = node.dial(listener.address, expecting: node.peerID, cancellation: TCPNode.never)
        try await listener.connection().close()
        await #expect(throws: (any Error).self) { try await dial.get() }
        try await listener.channel.close().get()
    }

    @Test(arguments: loopbacks + ["/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"], [true, false])
    func doesNotTalkToItself(text: String, reusesPort: Bool) async throws {
        let node = try TCPNode(TCPOptions(reusesPort: reusesPort))
        let listener = try await node.listen(on: text)
        let stranger = PeerID(try PrivateKey.generate().publicKey)
        await #expect(throws: TransportError.ownAddress) {
            try await node.dial(try Self.reachable(listener), expecting: stranger)
        }
        try await listener.close().get()
        #expect(node.accepted.entries.isEmpty)
    }

    // MARK: Cancellation

    @Test(arguments: [true, false]) func aCancelledDialEndsWithItsSocket(isBefore: Bool) async throws {
        let node = try TCPNode()
        let listener = try await RawListener()
        let cancellation = MultiThreadedEventLoopGroup.singleton.any().makePromise(of: Void.self)
        if isBefore { cancellation.succeed() }
        let dial = node.dial(listener.address, expecting: node.peerID, cancellation: cancellation.futureResult)
        if !isBefore {
            let remote = try await listener.connection()
            _ = await remote.receiver.bytes(atLeast: 20)
            cancellation.succeed()
            await remote.receiver.calls.wait { calls in
                calls.contains { if case .inputEnd = $0 { true } else if case .closed = $0 { true } else { false } }
            }
            remote.close()
        }
        await #expect(throws: TransportError.cancelled) { try await dial.get() }
        try await listener.channel.close().get()
    }

    @Test func aDialThatHasSucceededIsNotCancelled() async throws {
        let (a, b) = (try TCPNode(), try TCPNode())
        let there = try await b.listen()
        let cancellation = MultiThreadedEventLoopGroup.singleton.any().makePromise(of: Void.self)
        let outbound = try await a.dial(there.address, expecting: b.peerID, cancellation: cancellation.futureResult)
            .get()
        let inbound = await b.accepted.first { $0 }
        cancellation.succeed()
        let (asker, answerer) = (Acceptor(), Acceptor())
        try await outbound.eventLoop.submit { outbound.delegate = asker }.get()
        try await inbound.eventLoop.submit { inbound.delegate = answerer }.get()
        _ = try await outbound.probe().get()
        for connection in [outbound, inbound] { connection.close(.none) }
        try await there.close().get()
    }

    // MARK: Socket options

    @Test func saysWhichCongestionControlItGot() async throws {
        func kernel(_ name: String) throws -> [String] {
            try String(contentsOfFile: "/proc/sys/net/ipv4/tcp_\(name)_congestion_control", encoding: .utf8)
                .split(whereSeparator: \.isWhitespace).map(String.init)
        }
        let standard = try #require(
            try String(contentsOfFile: "/proc/sys/net/ipv4/tcp_congestion_control", encoding: .utf8)
                .split(whereSeparator: \.isWhitespace).first.map(String.init))
        var expected: [(asked: String?, got: String)] = [(nil, standard), ("nonsense", standard), ("reno", "reno")]
        expected += try kernel("allowed").map { ($0, $0) }
        for (asked, got) in expected {
            let (a, b) = (try TCPNode(TCPOptions(congestion: asked)), try TCPNode(TCPOptions(congestion: asked)))
            let there = try await b.listen()
            let outbound = try await a.dial(there.address, expecting: b.peerID)
            let inbound = await b.accepted.first { $0 }
            #expect(outbound.details.congestion == got && inbound.details.congestion == got)
            for connection in [outbound, inbound] { connection.close(.none) }
            try await there.close().get()
        }
    }
}

/// Accepts some protocols and notes the streams.
final class Acceptor: ConnectionDelegate, Sendable {
    let protocols: [ProtocolID]
    let streams = Journal<any LibP2PCore.Stream>()

    init(_ protocols: ProtocolID...) {
        self.protocols = protocols
    }

    func connection(_ connection: any Connection, accepts protocolID: ProtocolID) -> Bool {
        self.protocols.contains(protocolID)
    }

    func connection(_ connection: any Connection, accepted stream: any LibP2PCore.Stream) {
        stream.receiver = RecordingReceiver()
        self.streams.write(stream)
    }
}
