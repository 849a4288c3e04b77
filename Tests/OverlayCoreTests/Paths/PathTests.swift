import PeerIdentity
import Testing

@testable import OverlayCore

private let millisecond: UInt64 = 1_000_000
private let second: UInt64 = 1_000_000_000

@Suite struct LivenessTests {
    @Test func asksNothingOfIdlePath() {
        var path = Liveness()
        #expect(path.nextDeadline == nil)
        #expect(path.tick(now: .max) == .none)
        path.heard()
        #expect(path.nextDeadline == nil)
    }

    @Test func probesTwiceThenGivesUp() {
        var path = Liveness(firstProbe: 10)
        path.sent(now: 1000)
        path.sent(now: 1000 + 200 * millisecond)
        // The first packet without an answer counts, not the last.
        let first = 1000 + 300 * millisecond
        #expect(path.nextDeadline == first)
        #expect(path.tick(now: first - 1) == .none)
        #expect(path.tick(now: first) == .probe(10))
        #expect(path.nextDeadline == first + 300 * millisecond)
        path.sent(now: first + 1)
        #expect(path.tick(now: first + 300 * millisecond - 1) == .none)
        #expect(path.tick(now: first + 300 * millisecond) == .probe(11))
        #expect(path.tick(now: first + 600 * millisecond) == .dead)
        #expect(path.isDead && path.nextDeadline == nil)
        // Nothing but hearing something revives it.
        path.sent(now: first + second)
        #expect(path.isDead && path.tick(now: .max) == .none)
        #expect(path.heard() == true)
        #expect(!path.isDead && path.heard() == false)
    }

    @Test(
        arguments: [(0, 300), (50, 300), (100, 300), (101, 303), (400, 1200), (20_000, 30_000)] as [(UInt64, UInt64)])
    func waitsThreeRoundTrips(rtt: UInt64, timeout: UInt64) {
        var path = Liveness()
        path.measured(rtt: rtt * millisecond)
        #expect(path.timeout == timeout * millisecond)
        path.sent(now: 5)
        #expect(path.nextDeadline == 5 + timeout * millisecond)
    }

    @Test func anythingHeardStopsTheProbing() {
        for afterProbes in 0...2 {
            var path = Liveness()
            path.sent(now: 0)
            for probe in 0..<UInt64(afterProbes) {
                #expect(path.tick(now: (probe + 1) * 300 * millisecond) == .probe(probe))
            }
            path.heard()
            #expect(path.nextDeadline == nil && !path.isDead)
            path.sent(now: 10 * second)
            #expect(path.nextDeadline == 10 * second + 300 * millisecond, "the misses start anew")
        }
    }

    @Test func measuresByEcho() {
        var path = Liveness()
        path.sent(now: 0)
        #expect(path.tick(now: second) == .probe(0))
        #expect(path.echoed(7, now: 2 * second) == nil, "not our probe, but something heard")
        #expect(path.nextDeadline == nil && path.rtt == nil)
        #expect(path.probe(now: 3 * second) == .probe(1))
        #expect(path.probe(now: 3 * second) == .none, "one at a time")
        #expect(path.echoed(1, now: 3 * second + 80 * millisecond) == 80 * millisecond)
        #expect(path.rtt == 80 * millisecond)
        #expect(path.echoed(1, now: 4 * second) == nil, "an echo counts once")
        #expect(path.probe(now: 5 * second) == .probe(2))
        #expect(path.echoed(2, now: 5 * second + 160 * millisecond) == 160 * millisecond)
        #expect(path.rtt == 90 * millisecond)
    }

    @Test func probesDeadPathAnew() {
        var path = Liveness()
        path.sent(now: 0)
        for now in 1...3 { _ = path.tick(now: UInt64(now) * second) }
        #expect(path.isDead)
        #expect(path.probe(now: 4 * second) == .probe(2))
        #expect(path.tick(now: 5 * second) == .probe(3))
        #expect(path.tick(now: 6 * second) == .dead)
    }

    /// Whatever happens in whatever order: no trap at the clock's end, and a deadline exactly while something is awaited.
    @Test func survivesRandomEvents() {
        var random = SeededGenerator(state: 4)
        for _ in 0..<200 {
            var path = Liveness(firstProbe: .max)
            var now = UInt64.max - 20 * second
            for _ in 0..<100 {
                now = now.addingClamped(random.next() % second)
                switch random.next() % 6 {
                case 0: path.sent(now: now)
                case 1: path.heard()
                case 2: _ = path.echoed(random.next() % 3, now: now)
                case 3: path.measured(rtt: random.next())
                case 4: _ = path.probe(now: now)
                default: if path.tick(now: now) == .dead { #expect(path.isDead && path.nextDeadline == nil) }
                }
                #expect(path.timeout >= Liveness.minimumTimeout && path.timeout <= 30 * second)
            }
        }
    }
}

@Suite struct RedialScheduleTests {
    @Test func dialsAtOnceAndOnce() {
        var schedule = RedialSchedule()
        #expect(schedule.nextDeadline == nil && schedule.tick(now: .max) == false)
        schedule.wanted(now: 5)
        #expect(schedule.nextDeadline == 5)
        #expect(schedule.tick(now: 4) == false)
        #expect(schedule.tick(now: 5) == true)
        #expect(schedule.isDialling && schedule.tick(now: 6) == false)
        schedule.wanted(now: 7)
        schedule.trafficWaits(now: 7)
        #expect(schedule.isDialling && schedule.nextDeadline == nil)
        schedule.connected()
        #expect(schedule == RedialSchedule())
    }

    @Test func dialsEverySecondWhileTrafficWaits() {
        var schedule = RedialSchedule()
        schedule.trafficWaits(now: 0)
        var now: UInt64 = 0
        for _ in 0..<50 {
            #expect(schedule.tick(now: now) == true)
            schedule.failed(now: now + 10, random: .random(in: 0 ... .max))
            #expect(schedule.nextDeadline == now + 10 + second)
            now += 10 + second
        }
    }

    @Test func backsOffBetweenHalfAndAll() {
        for (random, share) in [(UInt64(0), UInt64(1)), (.max, 2)] {
            var schedule = RedialSchedule()
            schedule.wanted(now: 0)
            for whole in [1, 2, 4, 8, 16, 30, 30, 30] as [UInt64] {
                #expect(schedule.tick(now: .max) == true)
                schedule.failed(now: 100 * second, random: random)
                let least = 100 * second + whole * second / 2
                let wait = schedule.nextDeadline ?? 0
                #expect(wait >= least && wait <= 100 * second + whole * second)
                if share == 1 { #expect(wait == least) }
            }
        }
        var endless = RedialSchedule()
        endless.wanted(now: 0)
        for _ in 0..<1000 {
            #expect(endless.tick(now: .max) == true)
            endless.failed(now: .max - 5, random: 3)
            #expect(endless.nextDeadline == .max)
        }
    }

    @Test func trafficShortensBackoff() {
        var schedule = RedialSchedule()
        schedule.wanted(now: 0)
        for _ in 0..<10 {
            _ = schedule.tick(now: .max)
            schedule.failed(now: 100 * second, random: .max)
        }
        #expect((schedule.nextDeadline ?? 0) > 110 * second)
        schedule.trafficWaits(now: 100 * second + 1)
        #expect(schedule.nextDeadline == 101 * second)
        schedule.trafficWaits(now: 100 * second + 2)
        #expect(schedule.nextDeadline == 101 * second)
        schedule.trafficGone()
        #expect(schedule.tick(now: 101 * second) == true)
        schedule.failed(now: 102 * second, random: 0)
        #expect(schedule.nextDeadline == 117 * second)
        schedule.trafficWaits(now: 110 * second)
        #expect(schedule.nextDeadline == 110 * second)
        schedule.unwanted()
        #expect(schedule.nextDeadline == nil && !schedule.hasTraffic)
        // Who asks again just after a failure does not get around the second.
        schedule.wanted(now: 102 * second + 3)
        #expect(schedule.nextDeadline == 103 * second)
    }

    @Test func networkChangeDialsAtOnce() {
        var schedule = RedialSchedule()
        schedule.wanted(now: 0)
        _ = schedule.tick(now: 0)
        schedule.networkChanged(now: 4)
        schedule.failed(now: 5, random: .max)
        #expect(schedule.nextDeadline == 5, "the dial under way does not know the new link")
        _ = schedule.tick(now: 5)
        schedule.failed(now: 6, random: 0)
        #expect(schedule.nextDeadline == 6 + second / 2)
        schedule.networkChanged(now: 7)
        #expect(schedule.nextDeadline == 7 && schedule.failures == 0)
        _ = schedule.tick(now: 7)
        schedule.connected()
        schedule.networkChanged(now: 9)
        #expect(schedule.nextDeadline == 9, "beside a connection that may be dead")
        schedule.failed(now: 10, random: 0)
        #expect(schedule.nextDeadline == 9, "no dial was under way")
    }
}

@Suite struct PathSelectorTests {
    static func path(_ id: UInt64, _ change: (inout Path) -> Void = { _ in }) -> Path {
        var path = Path(id: id, establishedAt: 0)
        path.carriesDatagrams = true
        path.rtt = 20 * millisecond
        change(&path)
        return path
    }

    /// Each pair differs by one rule, and the better one is worse by all the rules behind it.
    static let pairs: [(better: Path, worse: Path)] = [
        (
            path(1) { ($0.isRetiring, $0.isRelayed, $0.isLimited, $0.isPaced) = (true, true, true, false) },
            path(2) { $0.isAlive = false }
        ),
        (
            path(1) { ($0.isRelayed, $0.isLimited, $0.isPaced, $0.rtt) = (true, true, false, nil) },
            path(2) { $0.isRetiring = true }
        ),
        (path(1) { ($0.isLimited, $0.isPaced, $0.rtt) = (true, false, nil) }, path(2) { $0.isRelayed = true }),
        (
            path(1) { ($0.isRelayed, $0.isPaced, $0.rtt) = (true, false, second) },
            path(2) { ($0.isRelayed, $0.isLimited) = (true, true) }
        ),
        (path(1) { ($0.rtt, $0.carrier) = (second, .webSocket) }, path(2) { $0.isPaced = false }),
        (
            path(1) { ($0.rtt, $0.carrier, $0.establishedAt) = (14 * millisecond, .webSocket, 0) },
            path(2) { ($0.carrier, $0.establishedAt) = (.tcp, 5) }
        ),
        (path(1) { $0.rtt = 25 * millisecond }, path(2) { ($0.carrier, $0.establishedAt) = (.quic, 5) }),
        (path(1) { ($0.carrier, $0.rtt) = (.quic, 25 * millisecond) }, path(2) { $0.carrier = .webSocket }),
    ]

    @Test(arguments: 0..<pairs.count)
    func earlierRulesDecide(index: Int) {
        let (better, worse) = Self.pairs[index]
        for paths in [[better, worse], [worse, better]] {
            #expect(PathSelector.choose(from: paths, current: nil)?.id == 1)
            #expect(PathSelector.choose(from: paths, current: 2)?.id == 1, "worth a move")
            #expect(PathSelector.choose(from: paths, current: 1)?.id == 1)
            #expect(PathSelector.ranked(paths).map(\.id) == [1, 2])
        }
    }

    @Test func lowerRTTThenNewer() {
        let fast = Self.path(1) { $0.rtt = 19 * millisecond }
        let slow = Self.path(2) { $0.establishedAt = 9 }
        let unmeasured = Self.path(3) { ($0.rtt, $0.establishedAt) = (nil, 99) }
        let newer = Self.path(4) { $0.establishedAt = 10 }
        #expect(PathSelector.ranked([unmeasured, slow, newer, fast]).map(\.id) == [1, 4, 2, 3])
        #expect(PathSelector.choose(from: [], current: 1) == nil)
        #expect(PathSelector.choose(from: [slow], current: 77)?.id == 2)
    }

    @Test(
        arguments: [
            (100_000, 99_000, false), (100_000, 76_000, false), (100_000, 75_000, false), (100_000, 74_000, true),
            (400, 100, false), (1_300, 200, true), (nil, 10, false), (20_000, nil, false),
        ] as [(UInt64?, UInt64?, Bool)])
    func movesOnlyForAGain(microsecondsNow: UInt64?, microsecondsThere: UInt64?, moves: Bool) {
        let current = Self.path(1) { $0.rtt = microsecondsNow.map { $0 * 1000 } }
        let other = Self.path(2) { $0.rtt = microsecondsThere.map { $0 * 1000 } }
        #expect(PathSelector.choose(from: [other, current], current: 1)?.id == (moves ? 2 : 1))
    }

    /// A QUIC path beside the TCP path that streams use, and whether datagrams travel on it.
    static let datagramPaths: [(name: String, path: Path, isChosen: Bool)] = [
        ("a QUIC path", path(2), true),
        ("too small for a packet", path(2) { $0.carriesDatagrams = false }, false),
        ("dead", path(2) { $0.isAlive = false }, false),
        ("relayed", path(2) { $0.isRelayed = true }, false),
        ("to be replaced", path(2) { $0.isRetiring = true }, false),
        ("without BBR, which matters to bulk only", path(2) { $0.isPaced = false }, true),
        ("slower", path(2) { $0.rtt = second }, true),
    ]

    @Test(arguments: 0..<datagramPaths.count)
    func datagramsNeedAPathThatSuits(index: Int) {
        let (name, path, isChosen) = Self.datagramPaths[index]
        let stream = Self.path(1) { $0.carriesDatagrams = false }
        let found = PathSelector.chooseForDatagrams(from: [stream, path], beside: stream, current: nil)
        #expect(found?.id == (isChosen ? 2 : nil), "\(name)")
    }

    @Test func datagramsStayUnlessThereIsAGain() {
        let now = Self.path(2) { $0.carrier = .quic }
        let like = Self.path(3) { ($0.carrier, $0.rtt) = (.quic, 19 * millisecond) }
        let faster = Self.path(4) { ($0.carrier, $0.rtt) = (.quic, 2 * millisecond) }
        #expect(PathSelector.chooseForDatagrams(from: [now, like], beside: nil, current: 2)?.id == 2)
        #expect(PathSelector.chooseForDatagrams(from: [now, like, faster], beside: nil, current: 2)?.id == 4)
        #expect(PathSelector.chooseForDatagrams(from: [], beside: nil, current: 2) == nil)
    }

    @Test func onlyTheLowerPeerClosesSurplus() {
        let low = PeerID(uncheckedBytes: [1])
        let high = PeerID(uncheckedBytes: [2])
        let now = 100 * second
        let best = Self.path(1)
        let idle = Self.path(2) { ($0.isRelayed, $0.lastUsedAt) = (true, now - 30 * second) }
        let used = Self.path(3) { ($0.isRelayed, $0.lastUsedAt) = (true, now - 30 * second + 1) }
        let paths = [best, idle, used]
        func surplus(_ local: PeerID, _ remote: PeerID, _ paths: [Path], current: UInt64? = nil) -> [UInt64] {
            PathSelector.surplus(
                of: paths, current: current.map { [$0] } ?? [], local: local, remote: remote, now: now)
        }
        #expect(surplus(low, high, paths) == [2])
        #expect(surplus(high, low, paths) == [])
        #expect(surplus(low, low, paths) == [])
        #expect(surplus(low, high, [best]) == [], "the last one stays, however idle")
        #expect(surplus(low, high, []) == [])
        // The path in use stays although it is not the first.
        let sticky = Self.path(5) { ($0.rtt, $0.lastUsedAt) = (21 * millisecond, now) }
        #expect(surplus(low, high, [best, sticky], current: 5) == [1])
        // Beyond four the worst goes, as soon as it is quiet.
        let busy = (0..<6).map { number in
            Self.path(number) { ($0.rtt, $0.lastUsedAt) = ((20 + number) * millisecond, now - second) }
        }
        let inUse = busy.map { path in
            var path = path
            path.lastUsedAt += 1
            return path
        }
        #expect(surplus(low, high, inUse) == [])
        #expect(surplus(low, high, busy) == [4, 5])
        #expect(surplus(low, high, Array(busy.prefix(4))) == [])
    }
}

@Suite struct KeyLifetimeTests {
    @Test(
        arguments: [
            (0, 0, true, false), (99, 999, true, false), (100, 0, true, true), (0, 1_000, true, true),
            (100, 1_000, false, false), (111, 1_124, false, false), (112, 0, false, true), (0, 1_125, false, true),
            (UInt64.max, UInt64.max, false, true),
        ] as [(UInt64, UInt64, Bool, Bool)])
    func endsByBytesOrTime(sealed: UInt64, age: UInt64, isDialer: Bool, isOver: Bool) {
        let lifetime = KeyLifetime(bytes: 100, nanoseconds: 1_000)
        #expect(lifetime.isOver(sealed: sealed, age: age, isDialer: isDialer) == isOver)
    }

    @Test func neverEndsByOverflow() {
        let endless = KeyLifetime(bytes: .max, nanoseconds: .max)
        #expect(!endless.isOver(sealed: .max - 1, age: .max - 1, isDialer: false))
        #expect(KeyLifetime.standard == KeyLifetime(bytes: 274_877_906_944, nanoseconds: 43_200_000_000_000))
    }
}
