import LibP2PCore
import LibP2PSwarm
import Multiformats
import NIOCore
import NIOEmbedded
import PeerIdentity
import TestKit
import Testing

/// What a swarm does with addresses before it dials them, and what it remembers of the dials.
@Suite(.timeLimit(.minutes(1))) struct SwarmDiallingTests {
    typealias Bench = SwarmTests.Bench
    typealias Refused = SwarmTests.Refused

    static func address(_ number: Int) -> Multiaddr { PeerStoreTests.address(number) }
    static let quic = quic(0xc000_0201)
    static func quic(_ host: UInt32) -> Multiaddr {
        let udp = Multiaddr.udp(IPAddress(ipv4: host), port: 1)
        return (try? Multiaddr.Component(.quicV1, value: [])).map { udp.appending($0) } ?? udp
    }
    static let tcp = Multiaddr.tcp(IPAddress(ipv4: 0xc000_0201), port: 1)

    /// Fails a dial of each address, the way the network does.
    static func fail(_ addresses: [Multiaddr], on bench: Bench) async throws {
        let before = bench.transport.dials.entries.count
        let call = Task {
            try await bench.swarm.connect(to: bench.peer, at: addresses, options: DialOptions(backoff: .ignored))
        }
        for count in 1...addresses.count {
            let dial = try #require(await bench.transport.dials.wait(forCount: before + count).last)
            dial.promise.fail(Refused())
        }
        await #expect(throws: DialError.self) { try await call.value }
    }

    static func failures(of call: Task<any Connection, any Error>) async throws -> [String: String] {
        let error = await #expect(throws: DialError.self) { try await call.value }
        guard case .allAttemptsFailed(let attempts)? = error else {
            Issue.record("another error: \(String(describing: error))")
            return [:]
        }
        return Dictionary(attempts.map { ($0.address.description, $0.reason) }, uniquingKeysWith: { $0 + " and " + $1 })
    }

    // MARK: Back-off

    @Test func whatHasFailedIsLeftAloneForAWhile() async throws {
        let bench = try Bench()
        bench.store.add([Self.address(1)], of: bench.peer, from: .configured)
        try await Self.fail([Self.address(1)], on: bench)
        let refused = try await Self.failures(of: bench.connect())
        #expect(
            refused == [Self.address(1).description: "left alone for another 5 s after 1 failure, the last: refused"])
        await bench.clock.advanceTime(by: .seconds(4))
        #expect(try await Self.failures(of: bench.connect()).values.first?.contains("another 1 s") == true)
        #expect(bench.transport.dials.entries.count == 1)
        await bench.clock.advanceTime(by: .seconds(1))
        let call = bench.connect()
        let dial = try #require(await bench.transport.dials.wait(forCount: 2).last)
        dial.promise.fail(Refused())
        await #expect(throws: DialError.self) { try await call.value }
        #expect(bench.store.report(of: bench.peer).first?.dials.failures == 2)
    }

    @Test func callersMayInsist() async throws {
        let bench = try Bench()
        bench.store.add([Self.address(1)], of: bench.peer, from: .configured)
        try await Self.fail([Self.address(1)], on: bench)
        // Named by the caller: dialled, unless that is not wanted either.
        for (count, hints, backoff) in [
            (2, [Self.address(1)], .respectedUnlessNamed), (3, [], .ignored), (4, [], .heldAtMost(.seconds(1))),
        ] as [(Int, [Multiaddr], DialOptions.Backoff)] {
            let call = Task {
                try await bench.swarm.connect(to: bench.peer, at: hints, options: DialOptions(backoff: backoff))
            }
            let dial = try #require(await bench.transport.dials.wait(forCount: count).last)
            dial.promise.fail(Refused())
            await #expect(throws: DialError.self) { try await call.value }
        }
        await #expect(throws: DialError.self) {
            try await bench.swarm.connect(
                to: bench.peer, at: [Self.address(1)], options: DialOptions(backoff: .respected))
        }
        #expect(bench.transport.dials.entries.count == 4)
    }

    @Test func aHeldAddressComesLaterButNotMuch() async throws {
        let bench = try Bench()
        try await Self.fail([Self.address(1)], on: bench)
        let start = bench.clock.now
        let call = Task {
            try await bench.swarm.connectAnew(
                to: bench.peer, at: [Self.address(1), Self.address(2)],
                options: DialOptions(backoff: .heldAtMost(.seconds(1))))
        }
        let dials = await bench.transport.dials.wait(forCount: 2)
        #expect(dials.last?.address == Self.address(2))
        await bench.clock.advanceTime(to: start + .milliseconds(999))
        #expect(bench.transport.dials.entries.count == 2)
        await bench.clock.advanceTime(to: start + .seconds(1))
        let last = try #require(bench.transport.dials.entries.last)
        #expect(last.address == Self.address(1))
        let connection = bench.connection(at: 1)
        last.promise.succeed(connection)
        #expect(try await call.value.id == connection.id)
    }

    @Test func aSuccessOrAnotherNetworkEndsTheWaiting() async throws {
        let bench = try Bench()
        bench.store.add([Self.address(1), Self.address(2)], of: bench.peer, from: .configured)
        try await Self.fail([Self.address(1), Self.address(2)], on: bench)
        bench.swarm.networkChanged()
        let call = bench.connect()
        let dials = await bench.transport.dials.wait(forCount: 3)
        dials[2].promise.fail(Refused())
        let second = try #require(await bench.transport.dials.wait(forCount: 4).last)
        let connection = bench.connection(at: 2)
        second.promise.succeed(connection)
        #expect(try await call.value.id == connection.id)
        // The address that has failed is free again, and comes in its time.
        let another = Task { try await bench.swarm.connectAnew(to: bench.peer) }
        await bench.transport.dials.wait(forCount: 5)
        await bench.clock.advanceTime(by: .milliseconds(30))
        #expect(bench.transport.dials.entries.suffix(2).map(\.address) == [Self.address(2), Self.address(1)])
        await bench.swarm.shutDown()
        await #expect(throws: DialError.shutDown) { try await another.value }
    }

    // MARK: What is remembered

    @Test func remembersResultTimeAndHandshake() async throws {
        let bench = try Bench()
        let call = bench.connect(at: 1, 2)
        let first = try #require(await bench.transport.dials.wait(forCount: 1).first)
        await bench.clock.advanceTime(by: .milliseconds(10))
        first.promise.fail(Refused())
        let second = try #require(await bench.transport.dials.wait(forCount: 2).last)
        await bench.clock.advanceTime(by: .milliseconds(123))
        second.promise.succeed(bench.connection(at: 2))
        _ = try await call.value
        let report = bench.store.report(of: bench.peer)
        #expect(report.map(\.address) == [Self.address(2), Self.address(1)])
        #expect(report.map(\.source) == [.lastGood, nil])
        #expect(report.map(\.dials.handshake) == [.milliseconds(123), nil])
        #expect(report.map(\.dials.failure) == [nil, "refused"] && report.map(\.dials.failures) == [0, 1])
        #expect(bench.store.lastGoodAddress(of: bench.peer) == Self.address(2))
    }

    @Test func theBudgetsEndCountsForThoseUnderWay() async throws {
        let bench = try Bench(dialLimits: DialLimits(total: 1))
        let call = bench.connect(at: 1, 2)
        await bench.transport.dials.wait(forCount: 1)
        await bench.clock.advanceTime(by: .seconds(15))
        await #expect(throws: DialError.self) { try await call.value }
        // The second one had its turn in the plan, but no room.
        #expect(bench.transport.dials.entries.count == 1)
        let report = bench.store.report(of: bench.peer)
        #expect(report.map(\.address) == [Self.address(1)])
        #expect(report.first?.dials.failure == "no answer in time")
    }

    /// The address is not at fault.
    @Test(arguments: [TransportError.cancelled, .yieldedToRemote, .simultaneousOpen])
    func whatSaysNothingOfTheAddressIsForgotten(error: TransportError) async throws {
        let bench = try Bench()
        let call = bench.connect(at: 1)
        let dial = try #require(await bench.transport.dials.wait(forCount: 1).first)
        dial.promise.fail(error)
        await bench.clock.advanceTime(by: .seconds(3))
        await #expect(throws: DialError.self) { try await call.value }
        #expect(bench.store.report(of: bench.peer).isEmpty)
    }

    @Test func aRefusalOfOursIsNotTheAddressesFault() async throws {
        let bench = try Bench { _, _, _ in false }
        let call = bench.connect(at: 1)
        let dial = try #require(await bench.transport.dials.wait(forCount: 1).first)
        dial.promise.succeed(bench.connection(at: 1))
        await #expect(throws: DialError.self) { try await call.value }
        #expect(bench.store.report(of: bench.peer).isEmpty)
    }

    @Test func theLastGoodAddressDoesNotWait() async throws {
        let bench = try Bench(hasQUIC: true)
        bench.store.add([Self.quic], of: bench.peer, from: .configured)
        bench.store.recordSuccess(Self.tcp, of: bench.peer)
        let call = bench.connect()
        let dials = await bench.transport.dials.wait(forCount: 2)
        #expect(dials.map(\.address) == [Self.quic, Self.tcp])
        await bench.swarm.shutDown()
        await #expect(throws: DialError.shutDown) { try await call.value }
    }

    // MARK: Which addresses

    @Test func mappedAddressesAreWhatTheyStandFor() async throws {
        let overlay = Multiaddr.tcp(IPAddress(ipv4: 0x6440_0001), port: 1)
        let bench = try Bench(dials: { $0 != overlay })
        let mapped = try Multiaddr("/ip6/::ffff:100.64.0.1/tcp/1")
        await #expect(throws: DialError.noAddresses(bench.peer)) {
            try await bench.swarm.connect(to: bench.peer, at: [mapped])
        }
        #expect(bench.transport.dials.entries.isEmpty)
    }

    @Test func aLinkLocalAddressNeedsAZone() async throws {
        let bench = try Bench()
        let address = try Multiaddr("/ip6/fe80::1/tcp/1")
        await #expect(
            throws: DialError.allAttemptsFailed([.init(address: address, reason: "a link-local address needs a zone")])
        ) { try await bench.swarm.connect(to: bench.peer, at: [address]) }
    }

    @Test func aSimultaneousDialStartsEverywhereAtOnce() async throws {
        let bench = try Bench(hasQUIC: true)
        let call = Task {
            try await bench.swarm.connectAnew(
                to: bench.peer, at: [Self.tcp, Self.quic, Self.address(1)],
                options: DialOptions(isSimultaneous: true))
        }
        let dials = await bench.transport.dials.wait(forCount: 3)
        #expect(dials.map(\.address) == [Self.address(1), Self.quic, Self.tcp])
        await bench.swarm.shutDown()
        await #expect(throws: DialError.shutDown) { try await call.value }
    }

    // MARK: Progress, limits

    @Test func aHandshakeUnderWayHoldsOthersBack() async throws {
        let bench = try Bench()
        let other = Multiaddr.tcp(IPAddress(ipv4: 0xc000_0202), port: 2)
        let start = bench.clock.now
        let call = Task { try await bench.swarm.connect(to: bench.peer, at: [Self.tcp, other]) }
        let first = try #require(await bench.transport.dials.wait(forCount: 1).first)
        await bench.clock.advanceTime(to: start + .milliseconds(200))
        first.progress(.reached)
        await bench.settle()
        await bench.clock.advanceTime(to: start + .milliseconds(699))
        #expect(bench.transport.dials.entries.count == 1)
        await bench.clock.advanceTime(to: start + .milliseconds(700))
        #expect(bench.transport.dials.entries.map(\.address) == [Self.tcp, other])
        await bench.swarm.shutDown()
        await #expect(throws: DialError.shutDown) { try await call.value }
    }

    @Test func soManyDialsAtATimeInAll() async throws {
        let bench = try Bench(dialLimits: DialLimits(total: 2))
        let peers = try (1...4).map { try PeerStoreTests.peer($0) }
        var calls: [Task<any Connection, any Error>] = []
        for (index, peer) in peers.enumerated() {
            calls.append(bench.connect(to: peer, at: index + 1))
            // One after the other, so that their order is known.
            await bench.transport.dials.wait(forCount: min(index + 1, 2))
            while await bench.swarm.dialReport().waiting < index - 1 { await Task.yield() }
        }
        let report = await bench.swarm.dialReport()
        #expect(report.underWay == 2 && report.waiting == 2)
        let dials = bench.transport.dials.entries
        dials[1].promise.fail(Refused())
        #expect(await bench.transport.dials.wait(forCount: 3).last?.peer == peers[2])
        // Whoever gives up makes no room, and takes none.
        bench.swarm.adopt(bench.connection(to: peers[3], .listener))
        #expect(try await calls[3].value.remotePeer == peers[3])
        dials[0].promise.succeed(bench.connection(to: peers[0], at: 1))
        #expect(try await calls[0].value.remotePeer == peers[0])
        await bench.settle()
        let rest = await bench.swarm.dialReport()
        #expect(rest.underWay == 1 && rest.waiting == 0 && bench.transport.dials.entries.count == 3)
        await #expect(throws: DialError.self) { try await calls[1].value }
        await bench.swarm.shutDown()
        await #expect(throws: DialError.shutDown) { try await calls[2].value }
        // Cancelled dials have left.
        await bench.settle()
        #expect(await bench.swarm.dialReport().underWay == 0)
    }

    @Test func soManyDialsAtATimeToOnePeer() async throws {
        let bench = try Bench(dialLimits: DialLimits(perPeer: 2))
        let call = bench.connect(at: 1, 2, 3)
        await bench.transport.dials.wait(forCount: 1)
        await bench.clock.advanceTime(by: .seconds(1))
        let dials = await bench.transport.dials.wait(forCount: 2)
        #expect(await bench.swarm.dialReport().waiting == 1)
        dials[1].promise.fail(Refused())
        #expect(await bench.transport.dials.wait(forCount: 3).last?.address == Self.address(3))
        await bench.swarm.shutDown()
        await #expect(throws: DialError.shutDown) { try await call.value }
    }

    // MARK: Better paths

    @Test func aDialForABetterPathTakesNothingLess() async throws {
        let bench = try Bench(hasQUIC: true)
        bench.store.add([Self.tcp, Self.quic], of: bench.peer, from: .configured)
        let better = Task { try await bench.swarm.connectAnew(to: bench.peer, preferring: .quic) }
        let dial = try #require(await bench.transport.dials.wait(forCount: 1).first)
        #expect(dial.address == Self.quic)
        // Beside it anybody may dial anything.
        let any = bench.connect()
        await bench.transport.dials.wait(forCount: 2)
        let plain = ScriptedConnection(to: bench.peer, at: Self.tcp, role: .listener, eventLoop: bench.clock)
        bench.swarm.adopt(plain)
        #expect(try await any.value.id == plain.id)
        await bench.clock.advanceTime(by: .seconds(5))
        #expect(Set(bench.transport.dials.entries.map(\.address)) == [Self.quic])
        let best = ScriptedConnection(to: bench.peer, at: Self.quic, eventLoop: bench.clock)
        dial.promise.succeed(best)
        #expect(try await better.value.id == best.id)
        await #expect(throws: DialError.noAddresses(bench.peer)) {
            bench.store.remove(bench.peer)
            return try await bench.swarm.connectAnew(to: bench.peer, at: [Self.tcp], preferring: .quic)
        }
    }

    // MARK: Black holes

    @Test func whatTheNetworkSwallowsIsLeftOut() async throws {
        let bench = try Bench(hasQUIC: true)
        // One host after the other: each has addresses of its own.
        for number in 0..<100 {
            try await Self.fail([Self.quic(0xc633_6400 + UInt32(number))], on: bench)
        }
        let state = await bench.swarm.dialReport().blackHoles.first
        #expect(state?.isBlocked == true && state?.dials == 100 && state?.successes == 0 && state?.name == "UDP")
        let other = try PeerStoreTests.peer(2)
        let call = Task { try await bench.swarm.connect(to: other, at: [Self.tcp, Self.quic]) }
        let dial = try #require(await bench.transport.dials.wait(forCount: 101).last)
        #expect(dial.address == Self.tcp)
        dial.promise.fail(Refused())
        #expect(
            try await Self.failures(of: call) == [
                Self.tcp.description: "refused",
                Self.quic.description: "UDP does not get through here, as far as can be told",
            ])
        // Whoever has no other address is dialled all the same; a success means that the network is not so.
        let last = Task { try await bench.swarm.connect(to: other, at: [Self.quic]) }
        let probe = try #require(await bench.transport.dials.wait(forCount: 102).last)
        probe.promise.succeed(ScriptedConnection(to: other, at: Self.quic, eventLoop: bench.clock))
        _ = try await last.value
        #expect(await bench.swarm.dialReport().blackHoles.first?.isBlocked == false)
    }

    @Test func anotherNetworkIsTriedAnew() async throws {
        let bench = try Bench(hasQUIC: true)
        for number in 0..<100 {
            try await Self.fail([Self.quic(0xc633_6400 + UInt32(number))], on: bench)
        }
        bench.swarm.networkChanged()
        #expect(await bench.swarm.dialReport().blackHoles.first?.dials == 0)
        let call = Task { try await bench.swarm.connect(to: bench.peer, at: [Self.tcp, Self.quic]) }
        #expect(await bench.transport.dials.wait(forCount: 101).last?.address == Self.quic)
        await bench.swarm.shutDown()
        await #expect(throws: DialError.shutDown) { try await call.value }
    }
}
