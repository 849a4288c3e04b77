import LibP2P
import NIOCore
import TestKit
import Testing

/// Whole hosts on the loopback interface.
@Suite(.timeLimit(.minutes(2))) struct TCPHostTests {
    static func host(_ listen: String..., configure: (inout HostConfiguration) -> Void = { _ in }) async throws -> Host
    {
        var configuration = HostConfiguration(key: try PrivateKey.generate())
        configuration.listen = try listen.map { try Multiaddr($0) }
        configure(&configuration)
        let host = Host(configuration)
        try await host.start()
        return host
    }

    @Test(arguments: ["/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0"]) func everythingOverOneConnection(text: String)
        async throws
    {
        let (a, b) = (try await Self.host(text), try await Self.host(text))
        let events = b.swarm.journal()
        let outbound = try await a.connect(to: b.peerID, at: b.addresses)
        let inbound = await events.first { $0.connection }
        let (ofA, ofB) = (try await b.identify.info(of: inbound), try await a.identify.info(of: outbound))
        #expect(ofA.listenAddresses == a.addresses && ofB.listenAddresses == b.addresses)
        // Dials leave from the listening port: what the other side observes is where we listen.
        #expect(ofB.observedAddress == a.addresses.first)
        #expect(ofA.observedAddress == b.addresses.first)
        #expect(try await a.ping.ping(outbound, count: 2).count == 2)
        #expect(try await b.ping.ping(inbound, count: 2).count == 2)
        #expect(b.peerStore.addresses(of: a.peerID) == a.addresses)
        #expect(await b.swarm.connections(to: a.peerID).count == 1)
        for host in [a, b] { await host.shutDown() }
    }

    @Test func anUnspecifiedAddressStandsForAllOfTheMachine() async throws {
        let host = try await Self.host("/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0")
        let bound = host.swarm.boundAddresses
        #expect(bound.map(\.ipAddress?.description) == ["0.0.0.0", "::"])
        let addresses = host.addresses
        #expect(addresses.contains(.tcp(try #require(IPAddress("127.0.0.1")), port: try #require(bound[0].tcpPort))))
        #expect(addresses.contains(.tcp(try #require(IPAddress("::1")), port: try #require(bound[1].tcpPort))))
        #expect(!addresses.contains { $0.ipAddress?.isUnspecified == true || $0.ipAddress?.isIPv6LinkLocal == true })
        await host.shutDown()
    }

    @Test func aBusyPortIsANamedError() async throws {
        let host = try await Self.host("/ip4/127.0.0.1/tcp/0")
        let port = try #require(host.addresses.first?.tcpPort)
        for text in ["/ip4/127.0.0.1/tcp/\(port)", "/ip4/0.0.0.0/tcp/\(port)"] {
            let error = await #expect(throws: ListenError.self) { try await Self.host(text) }
            #expect(error?.isPortBusy == true)
            #expect(error?.description == "\(text): the port is in use")
        }
        let unheard = await #expect(throws: ListenError.self) { try await Self.host("/ip4/192.0.2.1/tcp/0") }
        #expect(unheard?.isPortBusy == false)
        await host.shutDown()
    }

    @Test(arguments: 0..<50) func bothDialAtOnce(round: Int) async throws {
        let text = round % 2 == 0 ? "/ip4/127.0.0.1/tcp/0" : "/ip6/::1/tcp/0"
        let (a, b) = (try await Self.host(text), try await Self.host(text))
        let calls = [
            Task { try await a.connect(to: b.peerID, at: b.addresses) },
            Task { try await b.connect(to: a.peerID, at: a.addresses) },
        ]
        for call in calls { _ = try await call.value.probe().get() }
        for host in [a, b] { await host.shutDown() }
    }

    /// An address that leads back here is no other machine with our key.
    @Test func anOwnAddressInAPeersListIsNoDuplicate() async throws {
        let host = try await Self.host("/ip4/0.0.0.0/tcp/0")
        let events = host.swarm.journal()
        let wanted = PeerID(try PrivateKey.generate().publicKey)
        let own = Multiaddr.tcp(
            try #require(IPAddress("127.0.0.1")), port: try #require(host.swarm.boundAddresses.first?.tcpPort))
        await #expect(
            throws: DialError.allAttemptsFailed([.init(address: own, reason: "this node itself listens there")])
        ) { try await host.connect(to: wanted, at: [own]) }
        await host.shutDown()
        #expect(events.entries.compactMap(\.refusal).isEmpty)
    }

    @Test func aCopyOfOurKeyElsewhereIsNoticed() async throws {
        let key = try PrivateKey.generate()
        let host = try await Self.host("/ip4/127.0.0.1/tcp/0") { $0.key = key }
        let twin = try await Self.host("/ip4/127.0.0.1/tcp/0") { $0.key = key }
        let events = host.swarm.journal()
        await #expect(throws: DialError.self) {
            try await host.connect(to: PeerID(try PrivateKey.generate().publicKey), at: twin.addresses)
        }
        #expect(await events.first { $0.refusal } == .ownIdentity)
        for host in [host, twin] { await host.shutDown() }
    }

    @Test func theListenerLimitsWhatOnePeerHolds() async throws {
        let a = try await Self.host()
        let b = try await Self.host("/ip4/127.0.0.1/tcp/0") { $0.limits = ConnectionLimits(perPeer: 2) }
        let events = b.swarm.journal()
        for _ in 0..<3 { _ = try await a.swarm.connectAnew(to: b.peerID, at: b.addresses) }
        #expect(await events.first { $0.refusal } == .tooManyConnectionsOfPeer)
        #expect(await b.swarm.connections(to: a.peerID).count == 2)
        for host in [a, b] { await host.shutDown() }
    }

    @Test func aLoserAddressDoesNotHoldUpTheWinner() async throws {
        let (a, b) = (try await Self.host(), try await Self.host("/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0"))
        let closed = Multiaddr.tcp(try #require(IPAddress("127.0.0.1")), port: 1)
        let connection = try await a.connect(to: b.peerID, at: [closed] + b.addresses)
        #expect(b.addresses.contains(connection.remoteAddress))
        // On a slow machine the other good address answers as well, a little later.
        #expect(b.addresses.contains(try #require(a.peerStore.addresses(of: b.peerID).first)))
        for host in [a, b] { await host.shutDown() }
    }
}
