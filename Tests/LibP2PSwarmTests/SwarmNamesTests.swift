import LibP2PCore
import LibP2PSwarm
import Multiformats
import NIOCore
import NIOEmbedded
import PeerIdentity
import Synchronization
import TestKit
import Testing

/// Names in addresses are looked up before they are dialled.
@Suite(.timeLimit(.minutes(1))) struct SwarmNamesTests {
    typealias Bench = SwarmTests.Bench
    typealias Refused = SwarmTests.Refused

    /// Answers when the test says so.
    final class ScriptedResolver: MultiaddrResolver {
        struct Question: Sendable {
            let name: String
            let answer: AsyncStream<Result<[String], NameError>>.Continuation
        }

        let questions = Journal<Question>()

        func addresses(of name: String, _ family: IPAddress.Family?) async throws -> [IPAddress] {
            try await self.ask(name).compactMap { IPAddress($0) }
        }

        func texts(of name: String) async throws -> [String] { try await self.ask(name) }

        /// Answers the question for `name`, as soon as it is asked.
        func answer(_ name: String, _ result: Result<[String], NameError>) async {
            let question = await self.questions.first { $0.name == name ? $0 : nil }
            question.answer.yield(result)
            question.answer.finish()
        }

        private func ask(_ name: String) async throws -> [String] {
            let (stream, continuation) = AsyncStream.makeStream(of: Result<[String], NameError>.self)
            self.questions.write(Question(name: name, answer: continuation))
            for await result in stream { return try result.get() }
            throw CancellationError()
        }
    }

    static func bench(
        _ resolver: ScriptedResolver, hasQUIC: Bool = false,
        dials: @escaping @Sendable (Multiaddr) -> Bool = { _ in true }
    ) throws -> Bench {
        try Bench(hasQUIC: hasQUIC, resolver: resolver, dials: dials)
    }

    static func connect(_ bench: Bench, _ addresses: String...) throws -> Task<any Connection, any Error> {
        let addresses = try addresses.map { try Multiaddr($0) }
        return Task { try await bench.swarm.connect(to: bench.peer, at: addresses) }
    }

    static func texts(_ bench: Bench) -> [String] { bench.transport.dials.entries.map(\.address.description) }

    @Test func dialsWhatANameStandsFor() async throws {
        let resolver = ScriptedResolver()
        let bench = try Self.bench(resolver)
        let call = try Self.connect(bench, "/dns4/a.example/tcp/7")
        await resolver.answer("a.example", .success(["192.0.2.1"]))
        let dial = try #require(await bench.transport.dials.wait(forCount: 1).first)
        let address = try Multiaddr("/ip4/192.0.2.1/tcp/7")
        #expect(dial.address == address)
        dial.promise.succeed(ScriptedConnection(to: bench.peer, at: address, eventLoop: bench.clock))
        #expect(try await call.value.remoteAddress == address)
        let report = try #require(bench.store.report(of: bench.peer).first)
        #expect(report.address == address && report.dials.name?.description == "/dns4/a.example/tcp/7")
        #expect(bench.store.lastGoodAddress(of: bench.peer) == address)
    }

    @Test func doesNotWaitForNamesWithWhatItKnows() async throws {
        let resolver = ScriptedResolver()
        let bench = try Self.bench(resolver)
        let call = try Self.connect(bench, "/dns4/a.example/tcp/7", "/ip4/192.0.2.9/tcp/9")
        await bench.transport.dials.wait(forCount: 1)
        #expect(Self.texts(bench) == ["/ip4/192.0.2.9/tcp/9"])
        // Nor does a failure of that end the dial.
        bench.transport.dials.entries[0].promise.fail(Refused())
        await resolver.answer("a.example", .success(["192.0.2.1"]))
        let second = try #require(await bench.transport.dials.wait(forCount: 2).last)
        second.promise.fail(Refused())
        #expect(
            try await SwarmDiallingTests.failures(of: call)
                == ["/ip4/192.0.2.9/tcp/9": "refused", "/ip4/192.0.2.1/tcp/7": "refused"])
    }

    @Test func answersThatComeTogetherAreRankedTogether() async throws {
        let resolver = ScriptedResolver()
        let bench = try Self.bench(resolver, hasQUIC: true)
        let call = try Self.connect(bench, "/dns4/a.example/tcp/7", "/dns4/b.example/udp/7/quic-v1")
        await resolver.answer("a.example", .success(["192.0.2.1"]))
        await resolver.answer("b.example", .success(["192.0.2.2"]))
        await bench.transport.dials.wait(forCount: 1)
        await bench.clock.advanceTime(by: .milliseconds(249))
        #expect(Self.texts(bench) == ["/ip4/192.0.2.2/udp/7/quic-v1"])
        await bench.clock.advanceTime(by: .milliseconds(1))
        #expect(Self.texts(bench) == ["/ip4/192.0.2.2/udp/7/quic-v1", "/ip4/192.0.2.1/tcp/7"])
        await bench.swarm.shutDown()
        await #expect(throws: DialError.shutDown) { try await call.value }
    }

    @Test func aSlowNameDoesNotHoldUpTheOthersForLong() async throws {
        let resolver = ScriptedResolver()
        let bench = try Self.bench(resolver)
        let call = try Self.connect(bench, "/dns4/a.example/tcp/7", "/dns4/slow.example/tcp/7")
        await resolver.questions.wait(forCount: 2)
        await resolver.answer("a.example", .success(["192.0.2.1"]))
        while await bench.swarm.dialReport().lookups == 2 { await Task.yield() }
        #expect(bench.transport.dials.entries.isEmpty)
        await bench.clock.advanceTime(by: .milliseconds(50))
        #expect(Self.texts(bench) == ["/ip4/192.0.2.1/tcp/7"])
        bench.transport.dials.entries[0].promise.fail(Refused())
        // The slow one is given up after its time, and named.
        await bench.clock.advanceTime(by: .seconds(5))
        #expect(
            try await SwarmDiallingTests.failures(of: call) == [
                "/ip4/192.0.2.1/tcp/7": "refused", "/dns4/slow.example/tcp/7": "no name server has answered",
            ])
    }

    @Test func everyNameHasItsError() async throws {
        let resolver = ScriptedResolver()
        let bench = try Self.bench(resolver, dials: { $0.ipAddress?.description != "100.64.0.1" })
        let call = try Self.connect(
            bench, "/dns4/gone.example/tcp/7", "/dns4/overlay.example/tcp/7", "/dnsaddr/x.example",
            "/dns6/b.example/tcp/7")
        await resolver.answer("gone.example", .failure(.notFound))
        await resolver.answer("overlay.example", .success(["100.64.0.1", "::ffff:100.64.0.1"]))
        await resolver.answer("_dnsaddr.x.example", .success(["dnsaddr=/ip4/192.0.2.1/udp/7/quic-v1"]))
        await resolver.answer("b.example", .failure(.busy(limit: 64)))
        let nothing = "the name stands for no address that this node dials"
        #expect(
            try await SwarmDiallingTests.failures(of: call) == [
                "/dns4/gone.example/tcp/7": "no such name", "/dns4/overlay.example/tcp/7": nothing,
                "/dnsaddr/x.example": nothing, "/dns6/b.example/tcp/7": "64 names are being looked up already",
            ])
        #expect(bench.transport.dials.entries.isEmpty)
        // A name that was not found is not asked for again at once.
        let known = bench.store.report(of: bench.peer)
        #expect(Set(known.compactMap(\.dials.failure)) == ["no such name", "64 names are being looked up already"])
        bench.store.add([try Multiaddr("/dns4/gone.example/tcp/7")], of: bench.peer, from: .configured)
        #expect(
            try await SwarmDiallingTests.failures(of: bench.connect()).values.first?.contains("left alone") == true)
        #expect(resolver.questions.entries.count == 4)
    }

    @Test func whatNobodyCouldDialIsNotLookedUp() async throws {
        let resolver = ScriptedResolver()
        let bench = try Self.bench(resolver)
        let address = try Multiaddr("/dns4/a.example/udp/7/quic-v1")
        await #expect(throws: DialError.noTransport([address])) {
            try await bench.swarm.connect(to: bench.peer, at: [address])
        }
        #expect(!bench.swarm.canDial(address))
        #expect(bench.swarm.canDial(try Multiaddr("/dns6/a.example/tcp/7")))
        #expect(resolver.questions.entries.isEmpty)
    }

    @Test func withoutAResolverANameIsAnError() async throws {
        let bench = try Bench()
        let call = try Self.connect(bench, "/dns4/a.example/tcp/7")
        #expect(
            try await SwarmDiallingTests.failures(of: call) == ["/dns4/a.example/tcp/7": "this node looks up no names"])
    }

    /// A peer that names itself must not lead us to doors in our own network.
    @Test(arguments: [(PeerStore.Source.configured, 2), (.lastGood, 2), (.signedRecord, 1), (.identify, 1)])
    func aPeersClaimLeadsToPublicAddressesOnly(source: PeerStore.Source, count: Int) async throws {
        let resolver = ScriptedResolver()
        let bench = try Self.bench(resolver)
        bench.store.add([try Multiaddr("/dns4/a.example/tcp/7")], of: bench.peer, from: source)
        let call = bench.connect()
        await resolver.answer("a.example", .success(["127.0.0.1", "192.0.2.1"]))
        for number in 1...count {
            try #require(await bench.transport.dials.wait(forCount: number).last).promise.fail(Refused())
        }
        await #expect(throws: DialError.self) { try await call.value }
        #expect(Set(Self.texts(bench)) == Set(["/ip4/192.0.2.1/tcp/7", "/ip4/127.0.0.1/tcp/7"].prefix(count)))
    }

    @Test func aConnectionEndsTheLookup() async throws {
        let resolver = ScriptedResolver()
        let bench = try Self.bench(resolver)
        let call = try Self.connect(bench, "/dns4/a.example/tcp/7")
        let question = try #require(await resolver.questions.wait(forCount: 1).first)
        let isOver = Journal<Void>()
        question.answer.onTermination = { _ in isOver.write(()) }
        let inbound = bench.connection(.listener)
        bench.swarm.adopt(inbound)
        #expect(try await call.value.id == inbound.id)
        await isOver.wait(forCount: 1)
        await bench.settle()
        #expect(bench.transport.dials.entries.isEmpty)
    }

    @Test func soManyNamesOnly() async throws {
        let resolver = ScriptedResolver()
        let bench = try Self.bench(resolver)
        let names = try (1...10).map { try Multiaddr("/dns4/\($0).example/tcp/7") }
        let call = Task { try await bench.swarm.connect(to: bench.peer, at: names) }
        await resolver.questions.wait(forCount: 8)
        for number in 1...8 { await resolver.answer("\(number).example", .failure(.notFound)) }
        let failures = try await SwarmDiallingTests.failures(of: call)
        #expect(failures.values.filter { $0 == "too many names to look up" }.count == 2 && failures.count == 10)
        #expect(resolver.questions.entries.count == 8)
    }
}
