import LibP2P
import NIOCore
import TestKit
import Testing

/// Whole hosts that speak QUIC alone.
@Suite(.timeLimit(.minutes(15))) struct QUICHostTests {
    @Test(arguments: ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip6/::1/udp/0/quic-v1"])
    func hostsMeetOverQUIC(listen: String) async throws {
        func host() async throws -> Host {
            var configuration = HostConfiguration(key: try .generate())
            configuration.listen = [try Multiaddr(listen)]
            let host = Host(configuration)
            try await host.start()
            return host
        }
        let (a, b) = (try await host(), try await host())
        b.accept("/echo/1.0.0") { stream in
            stream.receiver = Echo(stream)
            stream.setReading(true)
        }
        #expect(b.addresses.allSatisfy { $0.contains(.quicV1) })
        let stream = try await a.openStream(to: b.peerID, at: b.addresses, ["/echo/1.0.0"])
        let receiver = try await stream.read()
        try await stream.onLoop {
            $0.write(ByteBuffer(bytes: pattern(100_000)))
            $0.flush()
            $0.closeWrite()
        }
        #expect(await receiver.bytes(atLeast: 100_000) == pattern(100_000))
        #expect(await receiver.closed() == nil)
        #expect(stream.connection?.details.transport == "quic-v1")
        for host in [a, b] { await host.shutDown() }
    }
}
