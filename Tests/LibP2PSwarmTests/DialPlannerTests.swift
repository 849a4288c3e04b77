import LibP2PSwarm
import Multiformats
import NIOCore
import PeerIdentity
import Testing

@Suite struct DialPlannerTests {
    typealias Plan = [(address: String, milliseconds: Int64)]

    static let relay = "/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5/p2p-circuit"

    /// Each rule of the planner, by its number.
    static let table: [(rule: String, addresses: [String], plan: Plan)] = [
        ("nothing", [], []),
        (
            "2: private and public start together",
            ["/ip4/192.0.2.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1"],
            [("/ip4/10.0.0.1/tcp/1", 0), ("/ip4/192.0.2.1/tcp/1", 0), ("/ip4/127.0.0.1/tcp/1", 30)]
        ),
        (
            "2: a relayed address waits for a public one",
            ["/ip4/192.0.2.9/tcp/1\(relay)", "/ip4/192.0.2.8/tcp/2\(relay)", "/ip4/192.0.2.1/tcp/1"],
            [
                ("/ip4/192.0.2.1/tcp/1", 0), ("/ip4/192.0.2.9/tcp/1\(relay)", 500),
                ("/ip4/192.0.2.8/tcp/2\(relay)", 750),
            ]
        ),
        (
            "2: a relayed address does not wait for a private one",
            ["/ip4/192.0.2.9/tcp/1\(relay)", "/ip4/10.0.0.1/tcp/1"],
            [("/ip4/10.0.0.1/tcp/1", 0), ("/ip4/192.0.2.9/tcp/1\(relay)", 0)]
        ),
        (
            "3: the families take turns, IPv6 first",
            [
                "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1", "/ip4/192.0.2.3/tcp/1", "/ip6/2001:db8::1/tcp/1",
                "/ip6/2001:db8::2/tcp/1",
            ],
            [
                ("/ip6/2001:db8::1/tcp/1", 0), ("/ip4/192.0.2.1/tcp/1", 250), ("/ip6/2001:db8::2/tcp/1", 500),
                ("/ip4/192.0.2.2/tcp/1", 750), ("/ip4/192.0.2.3/tcp/1", 1000),
            ]
        ),
        (
            "3: one family alone does not wait for the other",
            ["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1"],
            [("/ip4/192.0.2.1/tcp/1", 0), ("/ip4/192.0.2.2/tcp/1", 250)]
        ),
        (
            "3: a private step is short",
            ["/ip6/fd00::1/tcp/1", "/ip4/192.168.1.1/tcp/1", "/ip6/fd00::2/tcp/1"],
            [("/ip6/fd00::1/tcp/1", 0), ("/ip4/192.168.1.1/tcp/1", 30), ("/ip6/fd00::2/tcp/1", 60)]
        ),
        (
            "4: lower ports first",
            ["/ip4/192.0.2.1/tcp/50000", "/ip4/192.0.2.2/tcp/4117", "/ip4/192.0.2.1/tcp/4117"],
            [
                ("/ip4/192.0.2.2/tcp/4117", 0), ("/ip4/192.0.2.1/tcp/4117", 250), ("/ip4/192.0.2.1/tcp/50000", 500),
            ]
        ),
        (
            "5: an address is dialled once",
            ["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/tcp/2", "/ip4/192.0.2.1/tcp/1"],
            [("/ip4/192.0.2.1/tcp/1", 0), ("/ip4/192.0.2.1/tcp/2", 250)]
        ),
        (
            "an address without an IP counts as public",
            ["/memory/1", "/ip4/10.0.0.1/tcp/1"], [("/ip4/10.0.0.1/tcp/1", 0), ("/memory/1", 0)]
        ),
    ]

    @Test(arguments: table.indices) func keepsItsRules(row: Int) throws {
        let (rule, addresses, expected) = Self.table[row]
        let plan = DialPlanner.plan(try addresses.map { try Multiaddr($0) })
        #expect(plan == (try expected.map { .init(try Multiaddr($0), after: .milliseconds($1)) }), "\(rule)")
    }

    @Test func looksAtSoManyAddressesOnly() {
        let many = (1...200).map { Multiaddr.tcp(IPAddress(ipv4: 0xc000_0200 + $0), port: 1) }
        let plan = DialPlanner.plan(many)
        #expect(plan.map(\.address) == Array(many.prefix(DialPlanner.maximumAddresses)))
    }
}
