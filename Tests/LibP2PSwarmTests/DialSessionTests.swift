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
}
