import LibP2PCore
import Multiformats
import NIOCore
import Testing

@testable import LibP2PSwarm

@Suite struct DialSessionTests {
    struct Refused: Error, CustomStringConvertible { var description: String { "refused" } }

    /// Numbered addresses that start 10 s after one another.
    static func plan(_ numbers: [UInt32], step: Int64 = 10) -> [DialPlanner.Step] {
        numbers.enumerated().map { .init(address($1), after: .seconds(step * Int64($0))) }
    }

    static func address(_ number: UInt32) -> Multiaddr { .tcp(IPAddress(ipv4: number), port: 1) }
    static func start(_ numbers: UInt32...) -> [DialSession.Action] { numbers.map { .start(address($0)) } }
    static func lost(_ reasons: (UInt32, String)...) -> DialSession.Action {
        .fail(reasons.map { DialError.Attempt(address: address($0), reason: $1) })
    }
    static func at(_ seconds: Int64) -> NIODeadline { .uptimeNanoseconds(0) + .seconds(seconds) }

    @Test func startsEachAttemptInItsTime() {
        var session = DialSession(plan: Self.plan([1, 2, 3]), now: Self.at(0))
        #expect(session.nextDeadline == Self.at(0))
        #expect(session.advance(to: Self.at(0)) == Self.start(1))
        #expect(session.nextDeadline == Self.at(10))
        #expect(session.advance(to: Self.at(9)) == [])
        #expect(session.advance(to: Self.at(20)) == Self.start(2, 3))
        #expect(session.nextDeadline == nil)
    }

    @Test func doesNotWaitWhenNothingIsUnderWay() {
        var session = DialSession(plan: Self.plan([1, 2, 3]), now: Self.at(0))
        #expect(session.advance(to: Self.at(0)) == Self.start(1))
        #expect(session.failed(Self.address(1), Refused(), now: Self.at(1)) == Self.start(2))
        #expect(session.failed(Self.address(2), Refused(), now: Self.at(2)) == Self.start(3))
        #expect(
            session.failed(Self.address(3), Refused(), now: Self.at(3))
                == [Self.lost((1, "refused"), (2, "refused"), (3, "refused"))])
        #expect(session.nextDeadline == nil)
    }

    @Test func aFailureBesideOthersWaitsForTheNextTime() {
        var session = DialSession(plan: Self.plan([1, 2, 3]), now: Self.at(0))
        #expect(session.advance(to: Self.at(10)) == Self.start(1, 2))
        #expect(session.failed(Self.address(1), Refused(), now: Self.at(11)) == [])
        #expect(session.nextDeadline == Self.at(20))
    }

    @Test func runsSoManyAtATime() {
        let limit = UInt32(DialSession.maximumConcurrent)
        var session = DialSession(plan: Self.plan(Array(1...limit + 2), step: 0), now: Self.at(0))
        #expect(session.advance(to: Self.at(0)) == (1...limit).map { .start(Self.address($0)) })
        #expect(session.nextDeadline == nil)
        #expect(session.advance(to: Self.at(5)) == [])
        #expect(session.failed(Self.address(3), Refused(), now: Self.at(6)) == Self.start(limit + 1))
        #expect(session.failed(Self.address(1), Refused(), now: Self.at(7)) == Self.start(limit + 2))
        #expect(session.failed(Self.address(2), Refused(), now: Self.at(8)) == [])
    }

    @Test func reportsInTheOrderOfThePlan() {
        var session = DialSession(plan: Self.plan([1, 2, 3], step: 0), now: Self.at(0))
        #expect(session.advance(to: Self.at(0)) == Self.start(1, 2, 3))
        #expect(session.failed(Self.address(3), Refused(), now: Self.at(1)) == [])
        #expect(session.failed(Self.address(1), Refused(), now: Self.at(1)) == [])
        #expect(
            session.failed(Self.address(2), Refused(), now: Self.at(1))
                == [Self.lost((1, "refused"), (2, "refused"), (3, "refused"))])
    }

    @Test func theBudgetsEndNamesEveryAddress() {
        var session = DialSession(plan: Self.plan([1, 2, 3]), now: Self.at(0))
        #expect(session.advance(to: Self.at(0)) == Self.start(1))
        #expect(session.failed(Self.address(1), Refused(), now: Self.at(1)) == Self.start(2))
        #expect(session.timedOut() == [Self.lost((1, "refused"), (2, "no answer in time"), (3, "not tried in time"))])
        #expect(session.timedOut() == [])
        #expect(session.failed(Self.address(2), Refused(), now: Self.at(2)) == [])
        #expect(session.advance(to: Self.at(100)) == [])
    }

    @Test func aConnectionEndsAll() {
        var session = DialSession(plan: Self.plan([1, 2]), now: Self.at(0))
        #expect(session.advance(to: Self.at(0)) == Self.start(1))
        session.connected()
        #expect(session.nextDeadline == nil)
        #expect(session.advance(to: Self.at(100)) == [])
        #expect(session.failed(Self.address(1), Refused(), now: Self.at(100)) == [])
        #expect(session.timedOut() == [])
    }

    @Test func ignoresWhatIsNotUnderWay() {
        var session = DialSession(plan: Self.plan([1, 2]), now: Self.at(0))
        #expect(session.advance(to: Self.at(0)) == Self.start(1))
        #expect(session.failed(Self.address(2), Refused(), now: Self.at(1)) == [])
        #expect(session.failed(Self.address(9), Refused(), now: Self.at(1)) == [])
        #expect(session.failed(Self.address(1), Refused(), now: Self.at(1)) == Self.start(2))
        #expect(session.failed(Self.address(1), Refused(), now: Self.at(1)) == [])
    }

    @Test func waitsForTheRemoteItYieldedTo() {
        var session = DialSession(plan: Self.plan([1]), now: Self.at(0))
        #expect(session.advance(to: Self.at(0)) == Self.start(1))
        #expect(session.failed(Self.address(1), TransportError.yieldedToRemote, now: Self.at(1)) == [])
        #expect(session.nextDeadline == Self.at(4))
        #expect(session.advance(to: Self.at(3)) == [])
        #expect(
            session.advance(to: Self.at(4))
                == [Self.lost((1, TransportError.yieldedToRemote.description))])
    }

    @Test func whileYieldingOtherAddressesKeepTheirTimes() {
        var session = DialSession(plan: Self.plan([1, 2, 3], step: 2), now: Self.at(0))
        #expect(session.advance(to: Self.at(0)) == Self.start(1))
        #expect(session.failed(Self.address(1), TransportError.yieldedToRemote, now: Self.at(0)) == [])
        #expect(session.nextDeadline == Self.at(2))
        #expect(session.advance(to: Self.at(2)) == Self.start(2))
        #expect(session.failed(Self.address(2), Refused(), now: Self.at(2)) == [])
        // The end of yielding comes before the third one's time.
        #expect(session.nextDeadline == Self.at(3))
        #expect(session.advance(to: Self.at(3)) == Self.start(3))
    }

    @Test func takesMoreAddressesInTheMiddle() {
        var session = DialSession(plan: Self.plan([1, 2]), now: Self.at(0))
        #expect(session.advance(to: Self.at(0)) == Self.start(1))
        session.add(Self.plan([2, 3, 1]), now: Self.at(1))
        // Known ones are left out; new ones go last.
        #expect(session.nextDeadline == Self.at(10))
        #expect(session.advance(to: Self.at(11)) == Self.start(2, 3))
        session.add(Self.plan([4]), now: Self.at(12))
        #expect(session.advance(to: Self.at(12)) == Self.start(4))
        #expect(
            session.timedOut()
                == [
                    Self.lost(
                        (1, "no answer in time"), (2, "no answer in time"), (3, "no answer in time"),
                        (4, "no answer in time"))
                ])
    }

    @Test func takesSoManyAddressesOnly() {
        var session = DialSession(plan: [], now: Self.at(0))
        session.add(Self.plan(Array(1...100), step: 0), now: Self.at(0))
        guard case .fail(let attempts) = session.timedOut().first else { return #expect(Bool(false)) }
        #expect(attempts.count == DialPlanner.maximumAddresses)
    }

    @Test func anEmptyPlanFailsAtOnce() {
        var session = DialSession(plan: [], now: Self.at(0))
        #expect(session.advance(to: Self.at(0)) == [.fail([])])
    }

    // MARK: Handshakes

    /// A public address, which unlike those of `plan` is not in 0.0.0.0/8.
    static let reached = Multiaddr.tcp(IPAddress(ipv4: 0xc000_0201), port: 1)

    @Test func aHandshakeGetsTimeBeforeOthersStart() {
        var session = DialSession(
            plan: [.init(Self.reached, after: .zero)]
                + Self.plan([2, 3], step: 1).map { .init($0.address, after: $0.delay + .seconds(10)) },
            now: Self.at(0))
        #expect(session.advance(to: Self.at(0)) == [.start(Self.reached)])
        session.reached(Self.reached, now: Self.at(10) - .milliseconds(1))
        #expect(session.nextDeadline == Self.at(10) + .milliseconds(499))
        #expect(session.advance(to: Self.at(10)) == [])
        #expect(session.advance(to: Self.at(10) + .milliseconds(499)) == Self.start(2))
        // By then the patience is over, and it is not the others' fault.
        #expect(session.nextDeadline == Self.at(11))
        #expect(session.advance(to: Self.at(11)) == Self.start(3))
    }

    @Test func aHandshakeThatFailsHoldsNothingUp() {
        var session = DialSession(
            plan: [.init(Self.reached, after: .zero), .init(Self.address(2), after: .zero)] + Self.plan([3]),
            now: Self.at(0))
        #expect(session.advance(to: Self.at(0)) == [.start(Self.reached)] + Self.start(2, 3))
        session.add([.init(Self.address(4), after: .seconds(1))], now: Self.at(0))
        session.reached(Self.reached, now: Self.at(1))
        #expect(session.advance(to: Self.at(1)) == [])
        #expect(session.failed(Self.reached, Refused(), now: Self.at(1)) == Self.start(4))
    }

    @Test func privateHandshakesAreFastEnough() throws {
        let near = try Multiaddr("/ip4/10.0.0.1/tcp/1")
        let nameless = Multiaddr(components: [.memory(1)])
        var session = DialSession(
            plan: [
                .init(near, after: .zero), .init(nameless, after: .zero), .init(Self.address(3), after: .seconds(1)),
            ],
            now: Self.at(0))
        #expect(session.advance(to: Self.at(0)) == [.start(near), .start(nameless)])
        session.reached(near, now: Self.at(1))
        session.reached(nameless, now: Self.at(1))
        session.reached(Self.address(3), now: Self.at(1))
        #expect(session.advance(to: Self.at(1)) == Self.start(3))
    }

    // MARK: What is not dialled, and names

    static let name = try? Multiaddr("/dns4/example.org/tcp/1")

    @Test func tellsWhatWasNotDialled() {
        var session = DialSession(plan: Self.plan([1]), now: Self.at(0))
        session.refuse([
            .init(address: Self.address(8), reason: "left alone"), .init(address: Self.address(1), reason: "known"),
        ])
        #expect(session.advance(to: Self.at(0)) == Self.start(1))
        #expect(
            session.failed(Self.address(1), Refused(), now: Self.at(1)) == [
                Self.lost((1, "refused"), (8, "left alone"))
            ])
    }

    @Test func whatWasLeftOutMayBeAddedLater() {
        var session = DialSession(plan: Self.plan([1]), now: Self.at(0))
        session.refuse([.init(address: Self.address(8), reason: "left alone")])
        #expect(session.advance(to: Self.at(0)) == Self.start(1))
        session.add(Self.plan([8]), now: Self.at(0))
        #expect(session.advance(to: Self.at(0)) == Self.start(8))
        #expect(session.timedOut() == [Self.lost((1, "no answer in time"), (8, "no answer in time"))])
    }

    @Test func earlierAddressesGoBeforeThoseThatWait() {
        var session = DialSession(plan: Self.plan([1, 2, 3]), now: Self.at(0))
        #expect(session.advance(to: Self.at(0)) == Self.start(1))
        session.add(
            [.init(Self.address(4), after: .seconds(2)), .init(Self.address(5), after: .seconds(9))], now: Self.at(1))
        #expect(session.nextDeadline == Self.at(3))
        #expect(session.advance(to: Self.at(10)) == Self.start(4, 2, 5))
        #expect(session.advance(to: Self.at(20)) == Self.start(3))
    }

    @Test func isNotLostWhileANameIsLookedUp() throws {
        let name = try #require(Self.name)
        var session = DialSession(plan: [], now: Self.at(0))
        #expect(session.lookUp([name]) == [name])
        #expect(session.lookUp([name]) == [])
        #expect(session.isBarren)
        #expect(session.advance(to: Self.at(0)) == [])
        #expect(session.nextDeadline == nil)
        session.add(Self.plan([1]), now: Self.at(1))
        #expect(session.lookedUp(name, failure: nil, now: Self.at(1)) == Self.start(1))
        #expect(!session.isBarren)
        #expect(session.lookedUp(name, failure: "twice", now: Self.at(1)) == [])
        #expect(session.failed(Self.address(1), Refused(), now: Self.at(2)) == [Self.lost((1, "refused"))])
    }

    @Test func aNameThatStandsForNothingIsAFailure() throws {
        let name = try #require(Self.name)
        var session = DialSession(plan: Self.plan([1]), now: Self.at(0))
        _ = session.lookUp([name])
        #expect(session.advance(to: Self.at(0)) == Self.start(1))
        #expect(session.lookedUp(name, failure: "no such name", now: Self.at(0)) == [])
        #expect(
            session.failed(Self.address(1), Refused(), now: Self.at(2))
                == [
                    .fail([
                        .init(address: Self.address(1), reason: "refused"),
                        .init(address: name, reason: "no such name"),
                    ])
                ])
        #expect(session.lookUp([name]) == [])
    }

    @Test func theBudgetsEndNamesTheNames() throws {
        let name = try #require(Self.name)
        var session = DialSession(plan: [], now: Self.at(0))
        _ = session.lookUp([name])
        #expect(
            session.timedOut()
                == [.fail([.init(address: name, reason: "the name was not resolved in time")])])
        #expect(session.lookedUp(name, failure: nil, now: Self.at(1)) == [])
    }
}
