import LibP2PCore
import LibP2PSwarm
import Logging
import Multiformats
import NIOCore
import NIOEmbedded
import PeerIdentity
import TestKit
import Testing

@Suite(.timeLimit(.minutes(1))) struct SwarmTests {
    struct Refused: Error, CustomStringConvertible { var description: String { "refused" } }

    /// A swarm whose transport does what the test says.
    struct Bench {
        let clock = NIOAsyncTestingEventLoop()
        let transport: ScriptedTransport
        let store = PeerStore()
        let registry = ProtocolRegistry()
        let swarm: Swarm
        let events: Journal<SwarmEvent>
        let me: PeerID
        let peer: PeerID

        init(
            limits: ConnectionLimits = ConnectionLimits(), dialLimits: DialLimits = DialLimits(),
            obeysCancellation: Bool = true, hasQUIC: Bool = false, resolver: (any MultiaddrResolver)? = nil,
            gater: @escaping Swarm.Gater = { _, _, _ in true },
            dials: @escaping @Sendable (Multiaddr) -> Bool = { _ in true }
        ) throws {
            (self.me, self.peer) = (try PeerStoreTests.peer(100), try PeerStoreTests.peer(1))
            self.transport = ScriptedTransport(
                eventLoop: self.clock, obeysCancellation: obeysCancellation, hasQUIC: hasQUIC)
            self.swarm = Swarm(
                eventLoop: self.clock, localPeer: self.me, transports: [self.transport], registry: self.registry,
                peerStore: self.store, limits: limits, dialLimits: dialLimits, dialTimeout: .seconds(15),
                resolver: resolver, random: { 0 }, logger: Logger(label: "test"), dials: dials, gater: gater)
            self.events = self.swarm.journal()
        }

        func connection(to peer: PeerID? = nil, _ role: Role = .dialer, at number: Int = 1) -> ScriptedConnection {
            ScriptedConnection(
                to: peer ?? self.peer, at: PeerStoreTests.address(number), role: role, eventLoop: self.clock)
        }

        func connect(to peer: PeerID? = nil, at numbers: Int...) -> Task<any Connection, any Error> {
            Task { try await self.swarm.connect(to: peer ?? self.peer, at: PeerStoreTests.addresses(numbers)) }
        }

        /// Returns when all that was queued on the loop is done.
        func settle() async { await self.clock.run() }
    }

    // MARK: One dial

    @Test func oneDialHoweverManyAsk() async throws {
        let bench = try Bench()
        let calls = (0..<20).map { _ in bench.connect(at: 1) }
        let dial = try #require(await bench.transport.dials.wait(forCount: 1).first)
        #expect(dial.address == PeerStoreTests.address(1) && dial.peer == bench.peer)
        let connection = bench.connection()
        dial.promise.succeed(connection)
        for call in calls { #expect(try await call.value.id == connection.id) }
        #expect(bench.transport.dials.entries.count == 1)
        #expect(bench.events.entries.compactMap(\.connection?.id) == [connection.id])
        // It is there now: nobody dials.
        #expect(try await bench.connect(at: 2).value.id == connection.id)
        #expect(bench.transport.dials.entries.count == 1)
        #expect(bench.store.addresses(of: bench.peer) == [PeerStoreTests.address(1)])
        #expect(!connection.starts.entries.isEmpty)
    }

    @Test func laterCallersAddTheirHints() async throws {
        let bench = try Bench()
        let first = bench.connect(at: 1)
        await bench.transport.dials.wait(forCount: 1)
        let second = bench.connect(at: 1, 2)
        // Its new address comes one step later, whenever it has asked.
        while bench.transport.dials.entries.count < 2 { await bench.clock.advanceTime(by: .milliseconds(1)) }
        let dials = bench.transport.dials.entries
        #expect(dials.map(\.address) == PeerStoreTests.addresses([1, 2]))
        let connection = bench.connection(at: 2)
        dials[1].promise.succeed(connection)
        #expect(try await first.value.id == connection.id)
        #expect(try await second.value.id == connection.id)
    }

    @Test func dialsHintsBesideWhatIsKnownInTheTimesOfThePlan() async throws {
        let bench = try Bench()
        bench.store.add(PeerStoreTests.addresses([3]), of: bench.peer, from: .configured)
        let call = bench.connect(at: 1, 2)
        await bench.transport.dials.wait(forCount: 1)
        await bench.clock.advanceTime(by: .milliseconds(29))
        #expect(bench.transport.dials.entries.count == 1)
        await bench.clock.advanceTime(by: .milliseconds(1))
        #expect(bench.transport.dials.entries.map(\.address) == PeerStoreTests.addresses([1, 2, 3]))
        for dial in bench.transport.dials.entries { dial.promise.fail(Refused()) }
        await #expect(
            throws: DialError.allAttemptsFailed(
                PeerStoreTests.addresses([1, 2, 3]).map { .init(address: $0, reason: "refused") })
        ) { try await call.value }
        await bench.settle()
        guard case .dialFailed(bench.peer, .allAttemptsFailed(let attempts))? = bench.events.entries.first else {
            return #expect(Bool(false), "no event")
        }
        #expect(attempts.count == 3)
    }

    @Test func theBudgetEndsADial() async throws {
        let bench = try Bench()
        let call = bench.connect(at: 1, 2)
        await bench.transport.dials.wait(forCount: 1)
        await bench.clock.advanceTime(by: .seconds(15))
        await #expect(
            throws: DialError.allAttemptsFailed(
                PeerStoreTests.addresses([1, 2]).map { .init(address: $0, reason: "no answer in time") })
        ) { try await call.value }
        for dial in bench.transport.dials.entries {
            await #expect(throws: TransportError.cancelled) { try await dial.promise.futureResult.get() }
        }
    }

    @Test func losersAreCancelledAndTheWinnerIsNot() async throws {
        let bench = try Bench()
        let call = bench.connect(at: 1, 2, 3)
        await bench.transport.dials.wait(forCount: 1)
        await bench.clock.advanceTime(by: .seconds(1))
        let dials = bench.transport.dials.entries
        #expect(dials.count == 3)
        let connection = bench.connection(at: 2)
        dials[1].promise.succeed(connection)
        #expect(try await call.value.id == connection.id)
        for loser in [dials[0], dials[2]] {
            await #expect(throws: TransportError.cancelled) { try await loser.promise.futureResult.get() }
        }
        await bench.settle()
        #expect(connection.closes.entries.isEmpty)
        #expect(bench.events.entries.count == 1)
    }

    @Test func anInboundConnectionEndsAPendingDial() async throws {
        let bench = try Bench()
        _ = try await bench.swarm.listen(on: [PeerStoreTests.address(9)])
        let call = bench.connect(at: 1)
        let dial = try #require(await bench.transport.dials.wait(forCount: 1).first)
        let inbound = bench.connection(.listener)
        bench.transport.accept(inbound)
        #expect(try await call.value.id == inbound.id)
        await #expect(throws: TransportError.cancelled) { try await dial.promise.futureResult.get() }
        // What a remote dials from says nothing about where it listens.
        #expect(bench.store.addresses(of: bench.peer) == [])
    }

    @Test func aFailureOfAnEarlierDialDoesNotTouchALaterOne() async throws {
        let bench = try Bench(obeysCancellation: false)
        let first = bench.connect(at: 1)
        let old = try #require(await bench.transport.dials.wait(forCount: 1).first)
        await bench.clock.advanceTime(by: .seconds(15))
        await #expect(throws: DialError.self) { try await first.value }
        let second = bench.connect(at: 1)
        let dials = await bench.transport.dials.wait(forCount: 2)
        old.promise.fail(Refused())
        await bench.settle()
        let connection = bench.connection()
        dials[1].promise.succeed(connection)
        #expect(try await second.value.id == connection.id)
    }

    @Test func aLateWinnerIsKeptAsAnotherConnection() async throws {
        let bench = try Bench(obeysCancellation: false)
        let (inbound, late) = (bench.connection(.listener), bench.connection())
        let call = bench.connect(at: 1)
        let dial = try #require(await bench.transport.dials.wait(forCount: 1).first)
        bench.swarm.adopt(inbound)
        #expect(try await call.value.id == inbound.id)
        try await dial.cancellation.get()
        dial.promise.succeed(late)
        await bench.events.wait(forCount: 2)
        #expect(await bench.swarm.connections(to: bench.peer).map(\.id) == [inbound.id, late.id])
        #expect(late.closes.entries.isEmpty)
    }

    @Test func connectAnewMakesAnother() async throws {
        let bench = try Bench(limits: ConnectionLimits(perPeer: 2))
        let first = bench.connection()
        bench.swarm.adopt(first)
        let call = Task { try await bench.swarm.connectAnew(to: bench.peer, at: [PeerStoreTests.address(1)]) }
        let dial = try #require(await bench.transport.dials.wait(forCount: 1).first)
        let second = bench.connection()
        dial.promise.succeed(second)
        #expect(try await call.value.id == second.id)
        #expect(await bench.swarm.connections(to: bench.peer).map(\.id) == [first.id, second.id])
        #expect(await bench.swarm.connections().count == 2)
        await #expect(throws: DialError.tooManyConnections) {
            try await bench.swarm.connectAnew(to: bench.peer, at: [PeerStoreTests.address(1)])
        }
    }

    // MARK: What is refused at once

    @Test func whatCannotBeDialledFailsAtOnce() async throws {
        let bench = try Bench()
        await #expect(throws: DialError.dialToSelf) { try await bench.connect(to: bench.me, at: 1).value }
        await #expect(throws: DialError.noAddresses(bench.peer)) { try await bench.connect().value }
        let memory = Multiaddr(components: [.memory(1)])
        await #expect(throws: DialError.noTransport([memory])) {
            try await bench.swarm.connect(to: bench.peer, at: [memory])
        }
        #expect(bench.transport.dials.entries.isEmpty)
    }

    @Test func limitsHoldInBothDirections() async throws {
        let bench = try Bench(limits: ConnectionLimits(total: 3, perPeer: 2))
        let kept = [bench.connection(.listener), bench.connection(), bench.connection(to: try PeerStoreTests.peer(2))]
        for connection in kept[...1] { bench.swarm.adopt(connection) }
        let surplus = bench.connection(.listener)
        bench.swarm.adopt(surplus)
        #expect(await bench.events.first { $0.refusal } == .tooManyConnectionsOfPeer)
        #expect(surplus.closes.entries == [.resourceLimitExceeded])
        #expect(surplus.starts.entries.isEmpty, "no stream was accepted")
        bench.swarm.adopt(kept[2])
        let stranger = bench.connection(to: try PeerStoreTests.peer(3), .listener)
        bench.swarm.adopt(stranger)
        await bench.events.wait(forCount: 5)
        #expect(bench.events.entries.last?.refusal == .tooManyConnections)
        #expect(stranger.closes.entries == [.resourceLimitExceeded])
        await #expect(throws: DialError.tooManyConnections) {
            try await bench.connect(to: try PeerStoreTests.peer(4), at: 1).value
        }
        // Room again.
        kept[0].close(.none)
        await bench.events.wait(forCount: 6)
        let next = bench.connection(to: try PeerStoreTests.peer(3), .listener)
        bench.swarm.adopt(next)
        #expect(await bench.events.wait(forCount: 7).last?.connection?.id == next.id)
    }

    @Test func aDialWhoseConnectionIsOneTooManyFails() async throws {
        let bench = try Bench(limits: ConnectionLimits(total: 1))
        let call = bench.connect(at: 1)
        let dial = try #require(await bench.transport.dials.wait(forCount: 1).first)
        bench.swarm.adopt(bench.connection(to: try PeerStoreTests.peer(2), .listener))
        let surplus = bench.connection()
        dial.promise.succeed(surplus)
        await #expect(
            throws: DialError.allAttemptsFailed([
                .init(address: PeerStoreTests.address(1), reason: "too many connections are open")
            ])
        ) { try await call.value }
        #expect(surplus.closes.entries == [.resourceLimitExceeded])
    }

    @Test func theGaterRulesBothDirections() async throws {
        let stranger = try PeerStoreTests.peer(2)
        let asked = Journal<(PeerID, Multiaddr, Role)>()
        let bench = try Bench { peer, address, role in
            asked.write((peer, address, role))
            return peer != stranger
        }
        let inbound = bench.connection(to: stranger, .listener, at: 5)
        bench.swarm.adopt(inbound)
        #expect(await bench.events.first { $0.refusal } == .gated)
        #expect(inbound.closes.entries == [.gated] && inbound.starts.entries.isEmpty)
        let call = bench.connect(to: stranger, at: 6)
        let dial = try #require(await bench.transport.dials.wait(forCount: 1).first)
        dial.promise.succeed(bench.connection(to: stranger, at: 6))
        await #expect(
            throws: DialError.allAttemptsFailed([
                .init(address: PeerStoreTests.address(6), reason: "refused by a rule of this node")
            ])
        ) { try await call.value }
        #expect(asked.entries.map(\.0) == [stranger, stranger])
        #expect(asked.entries.map(\.1) == PeerStoreTests.addresses([5, 6]))
        #expect(asked.entries.map(\.2) == [.listener, .dialer])
    }

    @Test func ownIdentityAtTheFarEndIsAnEvent() async throws {
        let bench = try Bench()
        let twin = bench.connection(to: bench.me, .listener, at: 5)
        bench.swarm.adopt(twin)
        await bench.events.wait(forCount: 1)
        #expect(twin.closes.entries == [.gated])
        let call = bench.connect(at: 6)
        let dial = try #require(await bench.transport.dials.wait(forCount: 1).first)
        dial.promise.fail(TransportError.peerMismatch(expected: bench.peer, found: bench.me))
        await #expect(throws: DialError.self) { try await call.value }
        let refused = bench.events.entries.compactMap { event -> Multiaddr? in
            if case .refused(bench.me, let address, .ownIdentity) = event { address } else { nil }
        }
        #expect(refused == PeerStoreTests.addresses([5, 6]))
        // Anybody else at an address is no such event.
        let other = bench.connect(at: 7)
        let second = try #require(await bench.transport.dials.wait(forCount: 2).last)
        second.promise.fail(TransportError.peerMismatch(expected: bench.peer, found: try PeerStoreTests.peer(8)))
        await #expect(throws: DialError.self) { try await other.value }
        #expect(bench.events.entries.compactMap(\.refusal).count == 2)
    }

    // MARK: Ends

    @Test func tellsWhatIsLostAndWhatRemains() async throws {
        let bench = try Bench()
        let (a, b) = (bench.connection(), bench.connection())
        bench.swarm.adopt(a)
        bench.swarm.adopt(b)
        a.lose(Refused())
        b.close(.none)
        await bench.events.wait(forCount: 4)
        let ends = bench.events.entries.compactMap { event -> (ConnectionID, String?, Int)? in
            if case .disconnected(let connection, let reason, let rest) = event {
                (connection.id, reason, rest)
            } else {
                nil
            }
        }
        #expect(ends.map(\.0) == [a.id, b.id])
        #expect(ends.map(\.1) == ["refused", nil])
        #expect(ends.map(\.2) == [1, 0])
        #expect(await bench.swarm.connections(to: bench.peer).isEmpty)
    }

    @Test func aConnectionThatIsGoneAlreadyStillComesBeforeItGoes() async throws {
        let bench = try Bench()
        let dead = bench.connection()
        dead.lose(Refused())
        bench.swarm.adopt(dead)
        await bench.events.wait(forCount: 2)
        #expect(bench.events.entries[0].connection?.id == dead.id)
        #expect(bench.events.entries[1].lost?.id == dead.id)
    }

    @Test func disconnectClosesAllOfAPeer() async throws {
        let bench = try Bench()
        let mine = [bench.connection(), bench.connection(.listener)]
        let other = bench.connection(to: try PeerStoreTests.peer(2))
        for connection in mine + [other] { bench.swarm.adopt(connection) }
        bench.swarm.disconnect(bench.peer, .garbageCollected)
        await bench.events.wait(forCount: 5)
        #expect(mine.map(\.closes.entries) == [[.garbageCollected], [.garbageCollected]])
        #expect(other.closes.entries.isEmpty)
    }

    @Test func shutDownEndsEverything() async throws {
        let bench = try Bench()
        let stream = bench.swarm.events()
        let listening = try await bench.swarm.listen(on: [PeerStoreTests.address(9)])
        #expect(bench.swarm.boundAddresses == listening)
        let open = bench.connection(to: try PeerStoreTests.peer(2))
        bench.swarm.adopt(open)
        let call = bench.connect(at: 1)
        let dial = try #require(await bench.transport.dials.wait(forCount: 1).first)
        await bench.swarm.shutDown()
        #expect(bench.swarm.boundAddresses.isEmpty)
        #expect(open.closes.entries == [.shutdown])
        await #expect(throws: DialError.shutDown) { try await call.value }
        await #expect(throws: TransportError.cancelled) { try await dial.promise.futureResult.get() }
        var names: [String] = []
        for await event in stream { names.append(String(describing: event).prefix { $0 != "(" }.description) }
        #expect(names == ["listening", "connected", "dialFailed", "disconnected"])
        // Nothing begins any more.
        await #expect(throws: DialError.shutDown) { try await bench.connect(at: 1).value }
        await #expect(throws: DialError.shutDown) { try await bench.swarm.listen(on: [PeerStoreTests.address(9)]) }
        #expect(bench.swarm.boundAddresses.isEmpty)
        let late = bench.connection(.listener)
        bench.swarm.adopt(late)
        await bench.settle()
        #expect(late.closes.entries == [.shutdown])
        for await _ in bench.swarm.events() { Issue.record("an event after the end") }
        await bench.swarm.shutDown()
    }

    @Test func aSlowReaderOfEventsLosesTheOldest() async throws {
        let bench = try Bench(limits: ConnectionLimits(total: 1, perPeer: 1))
        let stream = bench.swarm.events()
        bench.swarm.adopt(bench.connection())
        for _ in 0..<300 { bench.swarm.adopt(bench.connection(.listener)) }
        await bench.events.wait(forCount: 301)
        await bench.swarm.shutDown()
        var count = 0
        for await event in stream {
            if count == 0 { #expect(event.refusal != nil, "the connection's own event is lost") }
            count += 1
        }
        #expect(count == 256)
    }

    // MARK: Listening

    @Test func anAddressNobodyListensOnIsNamed() async throws {
        let bench = try Bench()
        let memory = Multiaddr(components: [.memory(1)])
        let error = await #expect(throws: ListenError.self) {
            try await bench.swarm.listen(on: [PeerStoreTests.address(1), memory])
        }
        #expect(error?.address == memory && error?.isPortBusy == false)
        #expect(bench.swarm.boundAddresses.isEmpty)
    }
}
