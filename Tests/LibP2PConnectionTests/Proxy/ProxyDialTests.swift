import LibP2PCore
import Multiformats
import NIOCore
import NIOPosix
import PeerIdentity
import TestKit
import Testing

@testable import LibP2PConnection

/// A proxy on loopback: reads what a script expects, answers, and then joins the connection to where it should lead.
private struct ScriptedProxy {
    let listener: RawListener
    var port: UInt16 { self.listener.address.tcpPort ?? 0 }
    var isUnused: Bool { self.listener.accepted.entries.isEmpty }

    init() async throws {
        self.listener = try await RawListener()
    }

    /// Serves one connection: waits for what `script` expects in turn, and answers. With the last answer it is joined to `target`.
    func serve(_ script: [(expecting: [UInt8], answer: [UInt8])], joining target: Multiaddr) async throws {
        let near = try await self.listener.connection()
        let far = try await ClientBootstrap(group: near.channel.eventLoop)
            .channelOption(.autoRead, value: false)
            .channelOption(.allowRemoteHalfClosure, value: true)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(ChannelByteStream(eventLoop: channel.eventLoop))
                }
            }.connect(to: try target.socketAddress()).get()
        var expected: [UInt8] = []
        for (index, step) in script.enumerated() {
            expected += step.expecting
            let bytes = await near.receiver.bytes(atLeast: expected.count)
            #expect(bytes == expected)
            let answer = ByteBuffer(bytes: step.answer)
            let isLast = index == script.count - 1
            try await near.channel.eventLoop.submit {
                if isLast {
                    let other = try far.pipeline.syncOperations.handler(type: ChannelByteStream.self)
                    near.stream.receiver = Forwarder(to: other)
                    other.receiver = Forwarder(to: near.stream)
                    // What the target says without being asked comes with the answer.
                    near.stream.write(answer)
                    other.setReading(true)
                } else {
                    near.stream.write(answer)
                }
                near.stream.flush()
            }.get()
        }
    }

    /// The first connection that came in.
    func connection() async throws -> RawConnection { try await self.listener.connection() }

    func close() async throws { try await self.listener.channel.close().get() }
}

/// Passes on whatever comes.
private final class Forwarder: ByteStreamReceiver {
    private let stream: ChannelByteStream

    init(to stream: ChannelByteStream) { self.stream = stream }

    func received(_ bytes: ByteBuffer) { self.stream.write(bytes) }
    func receiveComplete() { self.stream.flush() }
    func writabilityChanged() {}
    func inputEnded() { self.stream.closeWrite() }
    func closed(_ error: (any Error)?) { self.stream.close(error) }
}

@Suite(.timeLimit(.minutes(1))) struct ProxyDialTests {
    static func options(_ proxy: ScriptedProxyURL) -> TCPOptions {
        var options = TCPOptions()
        options.proxy = proxy.proxy
        options.proxy?.includesLoopback = true
        return options
    }

    /// What a proxy is called, and how it talks for a target.
    struct ScriptedProxyURL {
        var proxy: Proxy
        var script: [(expecting: [UInt8], answer: [UInt8])]

        static func make(_ kind: String, port: UInt16, target: Multiaddr) throws -> ScriptedProxyURL {
            let to = try target.tcp.socketAddress()
            let place = "127.0.0.1:\(to.port ?? 0)"
            let number = UInt16(to.port ?? 0)
            let connect = Array("CONNECT \(place) HTTP/1.1\r\nHost: \(place)\r\n".utf8)
            let request: [UInt8] = [5, 1, 0, 1, 127, 0, 0, 1, UInt8(number >> 8), UInt8(number & 0xff)]
            let established = Array("HTTP/1.1 200 OK\r\n\r\n".utf8)
            switch kind {
            case "http":
                return ScriptedProxyURL(
                    proxy: try Proxy("http://127.0.0.1:\(port)"),
                    script: [(connect + Array("\r\n".utf8), established)])
            case "http by name":
                return ScriptedProxyURL(
                    proxy: try Proxy("http://localhost:\(port)"),
                    script: [(connect + Array("\r\n".utf8), established)])
            case "http with credentials":
                let line = Array("Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n".utf8)
                return ScriptedProxyURL(
                    proxy: try Proxy("http://Aladdin:open%20sesame@127.0.0.1:\(port)"),
                    script: [(connect + line, established)])
            case "socks5":
                return ScriptedProxyURL(
                    proxy: try Proxy("socks5://127.0.0.1:\(port)"),
                    script: [([5, 1, 0], [5, 0]), (request, ProxyOpeningTests.ok)])
            default:
                return ScriptedProxyURL(
                    proxy: try Proxy("socks5://Aladdin:open%20sesame@127.0.0.1:\(port)"),
                    script: [
                        ([5, 2, 0, 2], [5, 2]), (ProxyOpeningTests.login, [1, 0]), (request, ProxyOpeningTests.ok),
                    ])
            }
        }
    }

    @Test(
        arguments: ["http", "http by name", "http with credentials", "socks5", "socks5 with credentials"],
        ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws"])
    func connectsThroughAProxy(kind: String, text: String) async throws {
        let b = try WebSocketNode()
        let there = try await b.listen(on: text)
        let proxy = try await ScriptedProxy()
        let scripted = try ScriptedProxyURL.make(kind, port: proxy.port, target: there.address)
        let a = try WebSocketNode(Self.options(scripted))
        // A listening port is not left from: it is the proxy that the remote sees.
        let here = try await a.listen(on: "/ip4/127.0.0.1/tcp/0")
        let dial = Task { try await a.dial(there.address, expecting: b.peerID) }
        try await proxy.serve(scripted.script, joining: there.address.tcp)
        let (outbound, inbound) = (try await dial.value, await b.accepted.first { $0 })
        #expect(outbound.remotePeer == b.peerID && inbound.remotePeer == a.peerID)
        #expect(outbound.remoteAddress == there.address)
        #expect(outbound.localAddress.tcpPort != here.address.tcpPort)
        try await WebSocketTransportTests.exchange(outbound, inbound)
        outbound.close(.none)
        for listener in [here, there] { try await listener.close().get() }
        try await proxy.close()
    }

    @Test func loopbackAndExceptionsAreReachedWithoutIt() async throws {
        let b = try WebSocketNode()
        let there = try await b.listen(on: "/ip4/127.0.0.1/tcp/0")
        let proxy = try await ScriptedProxy()
        var loopback = TCPOptions()
        loopback.proxy = try Proxy("http://127.0.0.1:\(proxy.port)")
        var exception = loopback
        exception.proxy?.includesLoopback = true
        exception.proxy?.exceptions = try ProxyException.list("127.0.0.0/8")
        for options in [loopback, exception] {
            let a = try WebSocketNode(options)
            let outbound = try await a.dial(there.address, expecting: b.peerID)
            outbound.close(.none)
        }
        #expect(proxy.isUnused)
        try await there.close().get()
        try await proxy.close()
    }

    // MARK: Failures

    static let refusals: [(url: String, script: [([UInt8], [UInt8])], ProxyError)] = [
        (
            "http", [([], Array("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n".utf8))], .authenticationFailed
        ),
        ("http", [([], Array("HTTP/1.1 502 Bad Gateway\r\n\r\n".utf8))], .refused(status: 502, reason: "Bad Gateway")),
        ("http", [([], Array("what?\r\n\r\n".utf8))], .malformedReply),
        ("socks5", [([5, 1, 0], [5, 0xff])], .authenticationFailed),
        ("socks5", [([5, 1, 0], [5, 0, 5, 4])], .refusedBySOCKS(code: 4)),
        ("socks5", [([5, 1, 0], [4, 0])], .malformedReply),
    ]

    @Test(arguments: refusals.indices) func refusalsAreNamed(index: Int) async throws {
        let (kind, script, error) = Self.refusals[index]
        let proxy = try await ScriptedProxy()
        var options = TCPOptions()
        options.proxy = try Proxy("\(kind)://127.0.0.1:\(proxy.port)")
        options.proxy?.includesLoopback = true
        let a = try WebSocketNode(options)
        let dial = Task { try await a.dial(try Multiaddr("/ip4/127.0.0.1/tcp/9"), expecting: a.peerID) }
        async let served: Void = Self.answer(proxy, script)
        await #expect(throws: error) { try await dial.value }
        try await served
        try await proxy.close()
    }

    private static func answer(_ proxy: ScriptedProxy, _ script: [([UInt8], [UInt8])]) async throws {
        let near = try await proxy.connection()
        for (expecting, answer) in script {
            _ = await near.receiver.bytes(atLeast: max(1, expecting.count))
            try await near.send(answer)
        }
        await near.ended()
        near.close()
    }

    @Test func aProxyThatIsNotThereIsNamed() async throws {
        let socket = try PlainSocket(bindingTo: "127.0.0.1")
        defer { socket.close() }
        var options = TCPOptions()
        let port = try #require(try socket.address().tcpPort)
        options.proxy = try Proxy("http://127.0.0.1:\(port)")
        options.proxy?.includesLoopback = true
        let a = try WebSocketNode(options)
        let error = await #expect(throws: ProxyError.self) {
            try await a.dial(try Multiaddr("/ip4/127.0.0.1/tcp/9"), expecting: a.peerID)
        }
        guard case .unreachable(proxy: "127.0.0.1:\(port)", _) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
    }

    @Test func aProxyThatSaysNothingTimesOut() async throws {
        let proxy = try await ScriptedProxy()
        var options = TCPOptions()
        options.connectTimeout = .seconds(3)
        options.proxy = try Proxy("socks5://127.0.0.1:\(proxy.port)")
        options.proxy?.includesLoopback = true
        let a = try WebSocketNode(options)
        await #expect(throws: TransportError.timedOut) {
            try await a.dial(try Multiaddr("/ip4/127.0.0.1/tcp/9"), expecting: a.peerID)
        }
        try await proxy.close()
    }

    @Test func aCancelledDialEndsAtTheProxy() async throws {
        let proxy = try await ScriptedProxy()
        var options = TCPOptions()
        options.proxy = try Proxy("socks5://127.0.0.1:\(proxy.port)")
        options.proxy?.includesLoopback = true
        let a = try WebSocketNode(options)
        let cancellation = TCPNode.never.eventLoop.makePromise(of: Void.self)
        let dial = Task {
            try await a.dial(
                try Multiaddr("/ip4/127.0.0.1/tcp/9"), expecting: a.peerID, cancellation: cancellation.futureResult)
        }
        let near = try await proxy.connection()
        cancellation.succeed()
        await #expect(throws: TransportError.cancelled) { try await dial.value }
        await near.ended()
        near.close()
        try await proxy.close()
    }
}
