import LibP2P
import NIOCore
import TestKit
import Testing

/// Whole hosts that speak through WebSockets.
@Suite(.timeLimit(.minutes(2))) struct WebSocketHostTests {
    @Test(arguments: ["/ip4/127.0.0.1/tcp/0/ws", "/ip6/::1/tcp/0/ws"]) func everythingOverOneConnection(text: String)
        async throws
    {
        let (a, b) = (try await TCPHostTests.host(text), try await TCPHostTests.host(text))
        let events = b.swarm.journal()
        let outbound = try await a.connect(to: b.peerID, at: b.addresses)
        let inbound = await events.first { $0.connection }
        let (ofA, ofB) = (try await b.identify.info(of: inbound), try await a.identify.info(of: outbound))
        #expect(ofA.listenAddresses == a.addresses && ofB.listenAddresses == b.addresses)
        #expect(ofB.observedAddress == outbound.localAddress && outbound.localAddress.contains(.ws))
        #expect(outbound.details.transport == "ws" && inbound.details.transport == "ws")
        #expect(try await a.ping.ping(outbound, count: 2).count == 2)
        #expect(try await b.ping.ping(inbound, count: 2).count == 2)
        #expect(b.peerStore.addresses(of: a.peerID) == a.addresses)
        for host in [a, b] { await host.shutDown() }
    }

    /// One port for both; where one way is blocked the other leads there.
    @Test(arguments: [true, false], [true, false]) func aPortForBoth(plainFirst: Bool, isPrivate: Bool) async throws {
        // In a private network what comes first on a plain connection looks like nothing at all.
        let key = isPrivate ? try PreSharedKey(bytes: [UInt8](repeating: 7, count: 32)) : nil
        let (b, listen) = try await Self.sharing(plainFirst: plainFirst, key)
        #expect(b.addresses == listen)
        for address in listen {
            let a = try await TCPHostTests.host {
                $0.dials = { $0 == address }
                $0.preSharedKey = key
            }
            let connection = try await a.connect(to: b.peerID, at: b.addresses)
            #expect(connection.remoteAddress == address)
            #expect(try await a.ping.ping(connection, count: 1).count == 1)
            await a.shutDown()
        }
        await b.shutDown()
    }

    /// A host that listens for both on one port.
    private static func sharing(plainFirst: Bool, _ key: PreSharedKey?) async throws -> (Host, [Multiaddr]) {
        // Somebody else may be given the port between the two: then one more is tried.
        for _ in 0..<20 {
            let first = try await TCPHostTests.host("/ip4/127.0.0.1/tcp/0")
            let plain = try #require(first.addresses.first)
            await first.shutDown()
            let both = [plain, try Multiaddr("\(plain)/ws")]
            let listen = plainFirst ? both : both.reversed()
            do {
                let host = try await TCPHostTests.host {
                    $0.listen = listen
                    $0.preSharedKey = key
                }
                return (host, listen)
            } catch let error as ListenError where error.isPortBusy {
                continue
            }
        }
        throw NoPortIsFree()
    }

    private struct NoPortIsFree: Error {}
}
