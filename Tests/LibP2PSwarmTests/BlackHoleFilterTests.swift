import LibP2PSwarm
import Multiformats
import Testing

@Suite struct BlackHoleFilterTests {
    static let quic4 = "/ip4/192.0.2.1/udp/1/quic-v1"
    static let quic6 = "/ip6/2001:db8::1/udp/1/quic-v1"
    static let tcp4 = "/ip4/192.0.2.1/tcp/1"
    static let tcp6 = "/ip6/2001:db8::1/tcp/1"
    static let privates = ["/ip4/10.0.0.1/udp/1/quic-v1", "/ip6/fd00::1/tcp/1", "/ip6/::1/udp/1/quic-v1", "/memory/1"]
    static let relay =
        "/ip6/2001:db8::1/udp/1/quic-v1/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5/p2p-circuit"
    static let all = [quic4, quic6, tcp4, tcp6] + privates + [relay]

    /// A filter that has seen so many dials of an address fail and succeed, the successes first.
    static func filter(_ address: String, failures: Int, successes: Int = 0) throws -> BlackHoleFilter {
        var filter = BlackHoleFilter()
        let address = try Multiaddr(address)
        for _ in 0..<successes { filter.record(address, succeeded: true) }
        for _ in 0..<failures { filter.record(address, succeeded: false) }
        return filter
    }

    static func kept(_ filter: inout BlackHoleFilter, _ addresses: [String] = all, isAll: Bool = false) throws
        -> [String]
    {
        filter.select(try addresses.map { try Multiaddr($0) }, isAll: isAll).kept.map(\.description)
    }

    /// What a filter does to `all` the first time.
    static let table: [(seen: String, failures: Int, successes: Int, refused: [String])] = [
        (quic4, 0, 0, []), (quic4, 99, 0, []), (quic4, 100, 0, [quic4]), (quic4, 95, 5, []), (quic4, 96, 5, [quic4]),
        (quic4, 94, 6, []), (tcp6, 100, 0, [tcp6]), (tcp6, 95, 5, []), (quic6, 100, 0, [quic4, quic6, tcp6]),
        (quic6, 95, 5, []), (tcp4, 200, 0, []), (relay, 200, 0, []), (privates[0], 200, 0, []),
        (privates[1], 200, 0, []),
    ]

    @Test(arguments: table.indices) func hundredDialsDecide(row: Int) throws {
        let (seen, failures, successes, refused) = Self.table[row]
        var filter = try Self.filter(seen, failures: failures, successes: successes)
        // 5 in 101 that began with the successes: one of them has left the window.
        #expect(try Self.kept(&filter) == Self.all.filter { !refused.contains($0) })
    }

    @Test func namesTheKindAtFault() throws {
        var filter = try Self.filter(Self.quic4, failures: 100)
        let addresses = try [Self.tcp4, Self.quic4].map { try Multiaddr($0) }
        let refused = filter.select(addresses, isAll: false).refused
        #expect(refused.map(\.address) == [addresses[1]])
        #expect(refused.map(\.kind) == [.udp])
    }

    @Test func everyHundredthRequestIsAProbe() throws {
        var filter = try Self.filter(Self.quic4, failures: 100)
        let probed = try (1...300).filter { _ in try Self.kept(&filter, [Self.quic4, Self.tcp4]).count == 2 }
        #expect(probed == [100, 200, 300])
    }

    @Test func requestsForOtherKindsDoNotCount() throws {
        var filter = try Self.filter(Self.quic4, failures: 100)
        for _ in 0..<99 { _ = try Self.kept(&filter, [Self.quic4, Self.tcp4]) }
        for _ in 0..<50 { #expect(try Self.kept(&filter, [Self.tcp4, Self.tcp6]).count == 2) }
        #expect(try Self.kept(&filter, [Self.quic4]) == [Self.quic4])
    }

    @Test func aProbeOfOneKindPassesTheOther() throws {
        // UDP is blocked, IPv6 has not been seen often enough: what is both is dialled.
        var filter = try Self.filter(Self.quic4, failures: 100)
        #expect(try Self.kept(&filter, [Self.quic4, Self.quic6, Self.tcp4]) == [Self.quic6, Self.tcp4])
        // As soon as IPv6 is known to work, it is not.
        for _ in 0..<100 { filter.record(try Multiaddr(Self.tcp6), succeeded: true) }
        #expect(try Self.kept(&filter, [Self.quic4, Self.quic6, Self.tcp6]) == [Self.tcp6])
    }

    @Test func oneSuccessWhileBlockedStartsAnew() throws {
        var filter = try Self.filter(Self.quic4, failures: 150)
        filter.record(try Multiaddr(Self.quic4), succeeded: true)
        #expect(filter.state(of: .udp).dials == 0 && !filter.state(of: .udp).isBlocked)
        for _ in 0..<99 { filter.record(try Multiaddr(Self.quic4), succeeded: false) }
        #expect(try Self.kept(&filter, [Self.quic4, Self.tcp4]).count == 2)
        filter.record(try Multiaddr(Self.quic4), succeeded: false)
        #expect(try Self.kept(&filter, [Self.quic4, Self.tcp4]) == [Self.tcp4])
    }

    @Test func nobodyIsCutOff() throws {
        var filter = try Self.filter(Self.quic6, failures: 100)
        #expect(try Self.kept(&filter, [Self.quic4, Self.quic6], isAll: true) == [Self.quic4, Self.quic6])
        #expect(try Self.kept(&filter, [Self.quic4, Self.quic6], isAll: false).isEmpty)
        #expect(try Self.kept(&filter, [Self.quic4, Self.tcp4], isAll: true) == [Self.tcp4])
    }

    @Test func saysWhatItHasSeenAndForgetsItWithTheNetwork() throws {
        var filter = try Self.filter(Self.quic6, failures: 120, successes: 4)
        for kind in BlackHoleFilter.Kind.allCases {
            let state = filter.state(of: kind)
            #expect(state.isBlocked && state.dials == 100 && state.successes == 0 && state.name == kind.name)
        }
        filter.reset()
        #expect(!filter.state(of: .udp).isBlocked && filter.state(of: .ipv6).dials == 0)
        #expect(try Self.kept(&filter) == Self.all)
    }
}
