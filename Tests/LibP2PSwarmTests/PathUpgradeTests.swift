import LibP2PSwarm
import Multiformats
import NIOCore
import Testing

@Suite struct PathUpgradeTests {
    static let relay = "/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5/p2p-circuit"
    static let quic = "/ip4/192.0.2.1/udp/1/quic-v1"
    static let tcp = "/ip4/192.0.2.1/tcp/1"

    static func at(_ seconds: Int64) -> NIODeadline { .uptimeNanoseconds(0) + .seconds(seconds) }

    static func next(
        _ upgrade: inout PathUpgrade, _ connections: [PathGrade], _ addresses: [String], at seconds: Int64
    ) throws -> PathGrade? {
        upgrade.next(
            connections: connections, addresses: try addresses.map { try Multiaddr($0) }, now: Self.at(seconds))
    }

    @Test(
        arguments: [
            (quic, .quic), (quic + relay, .relay), (tcp + relay, .relay), (tcp, .stream), ("/memory/1", .stream),
            (tcp + "/ws", .wrapped), (tcp + "/tls/ws", .wrapped), (tcp + "/wss", .wrapped),
            (quic + "/webtransport", .wrapped), ("/ip4/192.0.2.1/udp/1/webrtc-direct", .wrapped),
            ("/dns4/example.org/udp/1/quic-v1", .quic), ("/dnsaddr/example.org", .stream),
        ] as [(String, PathGrade)])
    func gradesAddresses(address: String, grade: PathGrade) throws {
        #expect(PathGrade(try Multiaddr(address)) == grade)
    }

    @Test func gradesAreOrdered() {
        #expect(PathGrade.allCases == [.limitedRelay, .relay, .wrapped, .stream, .quic])
        #expect(PathGrade.allCases == PathGrade.allCases.sorted())
    }

    /// What there is, what is known, and what must at least come of an attempt.
    static let table: [(connections: [PathGrade], addresses: [String], least: PathGrade?)] = [
        ([], [quic], nil), ([.stream], [], nil), ([.stream], [tcp, tcp + "/ws", quic + relay], nil),
        ([.stream], [tcp, quic], .quic), ([.wrapped], [tcp + "/ws", tcp], .stream), ([.wrapped], [quic], .stream),
        ([.limitedRelay], [tcp + relay], .relay), ([.relay], [tcp + relay, tcp + "/ws"], .wrapped),
        ([.quic], [quic, tcp], nil), ([.relay, .quic, .stream], [quic, tcp], nil),
        ([.limitedRelay, .stream], [quic], .quic),
    ]

    @Test(arguments: table.indices) func looksForBetterOnesOnly(row: Int) throws {
        let (connections, addresses, least) = Self.table[row]
        var upgrade = PathUpgrade()
        #expect(try Self.next(&upgrade, connections, addresses, at: 0) == nil)
        #expect(try Self.next(&upgrade, connections, addresses, at: 9) == nil)
        #expect(try Self.next(&upgrade, connections, addresses, at: 10) == least)
        // One at a time.
        #expect(try Self.next(&upgrade, connections, addresses, at: 100_000) == nil)
    }

    @Test func failuresDoubleTheWait() throws {
        var upgrade = PathUpgrade()
        #expect(try Self.next(&upgrade, [.stream], [Self.quic], at: 0) == nil)
        var now: Int64 = 10
        for wait in [30, 60, 120, 240, 480, 960, 1800, 1800, 1800] as [Int64] {
            #expect(try Self.next(&upgrade, [.stream], [Self.quic], at: now) == .quic)
            upgrade.ended(succeeded: false, now: Self.at(now), random: 0)
            #expect(try Self.next(&upgrade, [.stream], [Self.quic], at: now + wait - 1) == nil)
            now += wait
        }
        #expect(try Self.next(&upgrade, [.stream], [Self.quic], at: now) == .quic)
    }

    @Test(arguments: [0, 1, 123_456_789_012, UInt64.max]) func chanceTakesHalfAtMost(random: UInt64) throws {
        var upgrade = PathUpgrade()
        _ = try Self.next(&upgrade, [.stream], [Self.quic], at: 0)
        #expect(try Self.next(&upgrade, [.stream], [Self.quic], at: 10) == .quic)
        upgrade.ended(succeeded: false, now: Self.at(10), random: random)
        #expect(try Self.next(&upgrade, [.stream], [Self.quic], at: 24) == nil)
        #expect(try Self.next(&upgrade, [.stream], [Self.quic], at: 40) == .quic)
    }

    @Test func aConnectionThatDoesNotLastIsAFailure() throws {
        var upgrade = PathUpgrade()
        _ = try Self.next(&upgrade, [.stream], [Self.quic], at: 0)
        #expect(try Self.next(&upgrade, [.stream], [Self.quic], at: 10) == .quic)
        upgrade.ended(succeeded: true, now: Self.at(10), random: 0)
        #expect(try Self.next(&upgrade, [.stream, .quic], [Self.quic], at: 20) == nil)
        #expect(try Self.next(&upgrade, [.stream], [Self.quic], at: 39) == nil)
        #expect(try Self.next(&upgrade, [.stream], [Self.quic], at: 40) == .quic)
        upgrade.ended(succeeded: false, now: Self.at(40), random: 0)
        #expect(try Self.next(&upgrade, [.stream], [Self.quic], at: 99) == nil)
        #expect(try Self.next(&upgrade, [.stream], [Self.quic], at: 100) == .quic)
    }

    @Test func aConnectionThatHasLastedStartsAnew() throws {
        var upgrade = PathUpgrade()
        _ = try Self.next(&upgrade, [.stream], [Self.quic], at: 0)
        #expect(try Self.next(&upgrade, [.stream], [Self.quic], at: 10) == .quic)
        upgrade.ended(succeeded: true, now: Self.at(10), random: 0)
        #expect(try Self.next(&upgrade, [.stream, .quic], [Self.quic], at: 200) == nil)
        #expect(try Self.next(&upgrade, [.stream], [Self.quic], at: 310) == nil)
        #expect(try Self.next(&upgrade, [.stream], [Self.quic], at: 319) == nil)
        #expect(try Self.next(&upgrade, [.stream], [Self.quic], at: 320) == .quic)
        upgrade.ended(succeeded: false, now: Self.at(320), random: 0)
        #expect(try Self.next(&upgrade, [.stream], [Self.quic], at: 350) == .quic)
    }

    @Test func newAddressesAndNetworksShortenTheWait() throws {
        var upgrade = PathUpgrade()
        _ = try Self.next(&upgrade, [.stream], [Self.quic], at: 0)
        #expect(try Self.next(&upgrade, [.stream], [Self.quic], at: 10) == .quic)
        upgrade.ended(succeeded: false, now: Self.at(10), random: 0)
        let another = "/ip4/192.0.2.2/udp/1/quic-v1"
        #expect(try Self.next(&upgrade, [.stream], [Self.quic, another], at: 11) == nil)
        #expect(try Self.next(&upgrade, [.stream], [Self.quic, another], at: 21) == .quic)
        upgrade.ended(succeeded: false, now: Self.at(21), random: 0)
        #expect(try Self.next(&upgrade, [.stream], [another], at: 50) == nil)
        upgrade.networkChanged(now: Self.at(50))
        #expect(try Self.next(&upgrade, [.stream], [another], at: 59) == nil)
        #expect(try Self.next(&upgrade, [.stream], [another], at: 60) == .quic)
        upgrade.ended(succeeded: false, now: Self.at(60), random: 0)
        #expect(try Self.next(&upgrade, [.stream], [another], at: 90) == .quic)
        // What nobody has begun does not end.
        upgrade.ended(succeeded: false, now: Self.at(90), random: 0)
        upgrade.ended(succeeded: false, now: Self.at(90), random: 0)
        #expect(try Self.next(&upgrade, [.stream], [another], at: 150) == .quic)
    }
}
