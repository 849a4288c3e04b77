import LibP2PSwarm
import Multiformats
import NIOCore
import PeerIdentity
import Testing

@Suite struct DialPlannerTests {
    typealias Plan = [(address: String, milliseconds: Int64)]

    static let relay = "/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5/p2p-circuit"
    static let hash = "/certhash/uEiAsGPzpiPGQzSlVHRXrUCT5EkTV7YFrV4VZ3hpEKTd_zg"

    /// Each rule of the planner, by its number.
    static let table: [(rule: String, addresses: [String], plan: Plan)] = [
        ("nothing", [], []),
        (
            "1: private and public start together",
            ["/ip4/192.0.2.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1"],
            [("/ip4/10.0.0.1/tcp/1", 0), ("/ip4/192.0.2.1/tcp/1", 0), ("/ip4/127.0.0.1/tcp/1", 30)]
        ),
        (
            "1: private are loopback, RFC 1918, RFC 6598, link-local, unique local",
            [
                "/ip4/127.0.0.1/tcp/1", "/ip4/172.16.0.1/tcp/1", "/ip4/100.64.0.1/tcp/1", "/ip4/169.254.0.1/tcp/1",
                "/ip6/::1/tcp/1", "/ip6/fd00::1/tcp/1",
            ],
            [
                ("/ip6/::1/tcp/1", 0), ("/ip4/127.0.0.1/tcp/1", 30), ("/ip6/fd00::1/tcp/1", 60),
                ("/ip4/172.16.0.1/tcp/1", 60), ("/ip4/100.64.0.1/tcp/1", 60), ("/ip4/169.254.0.1/tcp/1", 60),
            ]
        ),
        (
            "1: a relayed address waits for a public one",
            ["/ip4/192.0.2.9/tcp/1\(relay)", "/ip4/192.0.2.8/tcp/2\(relay)", "/ip4/192.0.2.1/tcp/1"],
            [
                ("/ip4/192.0.2.1/tcp/1", 0), ("/ip4/192.0.2.9/tcp/1\(relay)", 500),
                ("/ip4/192.0.2.8/tcp/2\(relay)", 750),
            ]
        ),
        (
            "1: a relayed address does not wait for a private one",
            ["/ip4/192.0.2.9/tcp/1\(relay)", "/ip4/10.0.0.1/tcp/1"],
            [("/ip4/10.0.0.1/tcp/1", 0), ("/ip4/192.0.2.9/tcp/1\(relay)", 0)]
        ),
        (
            "1: relayed addresses are ranked among themselves, by the way to the relay",
            ["/ip4/10.0.0.9/tcp/1\(relay)", "/ip4/192.0.2.9/udp/1/quic-v1\(relay)", "/ip4/192.0.2.1/tcp/1"],
            [
                ("/ip4/192.0.2.1/tcp/1", 0), ("/ip4/192.0.2.9/udp/1/quic-v1\(relay)", 500),
                ("/ip4/10.0.0.9/tcp/1\(relay)", 750),
            ]
        ),
        (
            "2: IPv6, IPv4, then the rest of QUIC",
            [
                "/ip4/192.0.2.1/udp/1/quic-v1", "/ip4/192.0.2.2/udp/1/quic-v1", "/ip6/2001:db8::1/udp/1/quic-v1",
                "/ip6/2001:db8::2/udp/1/quic-v1",
            ],
            [
                ("/ip6/2001:db8::1/udp/1/quic-v1", 0), ("/ip4/192.0.2.1/udp/1/quic-v1", 250),
                ("/ip6/2001:db8::2/udp/1/quic-v1", 500), ("/ip4/192.0.2.2/udp/1/quic-v1", 500),
            ]
        ),
        (
            "2: one family alone does not wait for the other",
            ["/ip4/192.0.2.1/udp/1/quic-v1", "/ip4/192.0.2.2/udp/1/quic-v1", "/ip4/192.0.2.3/udp/1/quic-v1"],
            [
                ("/ip4/192.0.2.1/udp/1/quic-v1", 0), ("/ip4/192.0.2.2/udp/1/quic-v1", 250),
                ("/ip4/192.0.2.3/udp/1/quic-v1", 250),
            ]
        ),
        (
            "2: a private step is short",
            [
                "/ip6/fd00::1/udp/1/quic-v1", "/ip4/192.168.1.1/udp/1/quic-v1", "/ip6/fd00::2/udp/1/quic-v1",
                "/ip4/192.168.1.1/tcp/1",
            ],
            [
                ("/ip6/fd00::1/udp/1/quic-v1", 0), ("/ip4/192.168.1.1/udp/1/quic-v1", 30),
                ("/ip6/fd00::2/udp/1/quic-v1", 60), ("/ip4/192.168.1.1/tcp/1", 90),
            ]
        ),
        (
            "3: WebTransport ranks behind QUIC of both families",
            [
                "/ip6/2001:db8::1/udp/1/quic-v1/webtransport\(hash)", "/ip4/192.0.2.1/udp/2/quic-v1",
                "/ip6/2001:db8::1/udp/3/quic-v1", "/ip4/192.0.2.1/tcp/4",
            ],
            [
                ("/ip6/2001:db8::1/udp/3/quic-v1", 0), ("/ip4/192.0.2.1/udp/2/quic-v1", 250),
                ("/ip6/2001:db8::1/udp/1/quic-v1/webtransport\(hash)", 500), ("/ip4/192.0.2.1/tcp/4", 750),
            ]
        ),
        (
            "4: TCP starts a step after the last QUIC",
            ["/ip6/2001:db8::1/tcp/1", "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/udp/1/quic-v1"],
            [
                ("/ip4/192.0.2.1/udp/1/quic-v1", 0), ("/ip6/2001:db8::1/tcp/1", 250), ("/ip4/192.0.2.1/tcp/1", 500),
            ]
        ),
        (
            "4: TCP goes by the steps of QUIC",
            [
                "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1", "/ip4/192.0.2.3/tcp/1", "/ip6/2001:db8::1/tcp/1",
                "/ip6/2001:db8::2/tcp/1",
            ],
            [
                ("/ip6/2001:db8::1/tcp/1", 0), ("/ip4/192.0.2.1/tcp/1", 250), ("/ip6/2001:db8::2/tcp/1", 500),
                ("/ip4/192.0.2.2/tcp/1", 500), ("/ip4/192.0.2.3/tcp/1", 500),
            ]
        ),
        (
            "4: one family of TCP alone",
            ["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1", "/ip4/192.0.2.3/tcp/1"],
            [("/ip4/192.0.2.1/tcp/1", 0), ("/ip4/192.0.2.2/tcp/1", 250), ("/ip4/192.0.2.3/tcp/1", 250)]
        ),
        (
            "5: WebSocket ranks behind TCP",
            [
                "/ip6/2001:db8::1/tcp/1/ws", "/ip4/192.0.2.1/tcp/1/tls/ws", "/ip6/2001:db8::1/tcp/9",
                "/ip4/192.0.2.1/tcp/9",
            ],
            [
                ("/ip6/2001:db8::1/tcp/9", 0), ("/ip4/192.0.2.1/tcp/9", 250), ("/ip6/2001:db8::1/tcp/1/ws", 500),
                ("/ip4/192.0.2.1/tcp/1/tls/ws", 500),
            ]
        ),
        (
            "5: WebSocket alone takes TCP's place",
            ["/ip4/192.0.2.1/tcp/1/ws", "/ip6/2001:db8::1/tcp/1/wss", "/ip4/192.0.2.1/udp/1/quic-v1"],
            [
                ("/ip4/192.0.2.1/udp/1/quic-v1", 0), ("/ip6/2001:db8::1/tcp/1/wss", 250),
                ("/ip4/192.0.2.1/tcp/1/ws", 500),
            ]
        ),
        (
            "6: everything else comes a second later",
            [
                "/ip4/192.0.2.1/udp/1/webrtc-direct\(hash)", "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/udp/1/quic-v1",
                "/ip4/10.0.0.1/udp/1/webrtc-direct\(hash)", "/ip4/10.0.0.1/tcp/1",
            ],
            [
                ("/ip4/10.0.0.1/tcp/1", 0), ("/ip4/192.0.2.1/udp/1/quic-v1", 0),
                ("/ip4/10.0.0.1/udp/1/webrtc-direct\(hash)", 100), ("/ip4/192.0.2.1/tcp/1", 250),
                ("/ip4/192.0.2.1/udp/1/webrtc-direct\(hash)", 1250),
            ]
        ),
        (
            "7: lower ports first",
            ["/ip4/192.0.2.1/tcp/50000", "/ip4/192.0.2.2/tcp/4117", "/ip4/192.0.2.1/tcp/4117"],
            [
                ("/ip4/192.0.2.2/tcp/4117", 0), ("/ip4/192.0.2.1/tcp/4117", 250), ("/ip4/192.0.2.1/tcp/50000", 250),
            ]
        ),
        (
            "9: an address without an IP comes a second after the others",
            ["/memory/1", "/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.2/tcp/1", "/memory/2"],
            [("/ip4/10.0.0.1/tcp/1", 0), ("/ip4/10.0.0.2/tcp/1", 30), ("/memory/1", 1030), ("/memory/2", 1030)]
        ),
        ("9: or at once when there are no others", ["/memory/1", "/memory/2"], [("/memory/1", 0), ("/memory/2", 0)]),
        (
            "10: an address is dialled once",
            ["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/tcp/2", "/ip6/::ffff:192.0.2.1/tcp/1", "/ip4/192.0.2.1/tcp/1"],
            [("/ip4/192.0.2.1/tcp/1", 0), ("/ip4/192.0.2.1/tcp/2", 250)]
        ),
    ]

    static func plan(_ plan: Plan) throws -> [DialPlanner.Step] {
        try plan.map { .init(try Multiaddr($0), after: .milliseconds($1)) }
    }

    @Test(arguments: table.indices) func keepsItsRules(row: Int) throws {
        let (rule, addresses, expected) = Self.table[row]
        let plan = DialPlanner.plan(try addresses.map { try Multiaddr($0) })
        #expect(plan == (try Self.plan(expected)), "\(rule)")
    }

    static let quic = "/ip4/192.0.2.1/udp/1/quic-v1"

    /// Rule 8.
    @Test(
        arguments: [
            ("/ip4/192.0.2.1/tcp/9", [(quic, 0), ("/ip4/192.0.2.1/tcp/9", 0), ("/ip4/192.0.2.1/tcp/1", 250)]),
            (quic, [(quic, 0), ("/ip4/192.0.2.1/tcp/1", 250), ("/ip4/192.0.2.1/tcp/9", 500)]),
            ("/ip4/192.0.2.7/tcp/9", [(quic, 0), ("/ip4/192.0.2.1/tcp/1", 250), ("/ip4/192.0.2.1/tcp/9", 500)]),
        ] as [(String, Plan)])
    func theLastGoodAddressStartsAtOnce(lastGood: String, expected: Plan) throws {
        let addresses = try [Self.quic, "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/tcp/9"].map { try Multiaddr($0) }
        #expect(DialPlanner.plan(addresses, lastGood: try Multiaddr(lastGood)) == (try Self.plan(expected)))
    }

    /// Rule 8 for a relayed address: at the head of the relayed ones.
    /// Rule 11: for whom a cheap stream matters most.
    @Test func tcpGoesFirstWhereItIsAskedTo() throws {
        let addresses = try ["/ip4/192.0.2.1/udp/1/quic-v1", "/ip4/192.0.2.1/tcp/1", "/ip6/2001:db8::1/tcp/1"].map {
            try Multiaddr($0)
        }
        let expected = try Self.plan([
            ("/ip6/2001:db8::1/tcp/1", 0), ("/ip4/192.0.2.1/tcp/1", 250), ("/ip4/192.0.2.1/udp/1/quic-v1", 500),
        ])
        #expect(DialPlanner.plan(addresses, startsWithTCP: true) == expected)
        #expect(DialPlanner.plan(addresses, lastGood: addresses[0], startsWithTCP: true) == expected)
        #expect(
            DialPlanner.plan([addresses[0]], startsWithTCP: true)
                == (try Self.plan([("/ip4/192.0.2.1/udp/1/quic-v1", 0)])))
    }

    @Test func aLastGoodRelayStillWaitsForTheDirectOnes() throws {
        let addresses = try [
            "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.8/tcp/1\(Self.relay)", "/ip4/192.0.2.9/tcp/1\(Self.relay)",
        ]
        .map { try Multiaddr($0) }
        #expect(
            DialPlanner.plan(addresses, lastGood: addresses[2])
                == [
                    .init(addresses[0], after: .zero), .init(addresses[1], after: .milliseconds(500)),
                    .init(addresses[2], after: .milliseconds(500)),
                ])
    }

    /// Rule 11.
    @Test(arguments: table.indices) func aSimultaneousDialHasNoDelaysAndTheSameOrder(row: Int) throws {
        let addresses = try Self.table[row].addresses.map { try Multiaddr($0) }
        let plan = DialPlanner.plan(addresses, isSimultaneous: true)
        #expect(plan.map(\.address) == DialPlanner.plan(addresses).map(\.address))
        #expect(plan.allSatisfy { $0.delay == .zero })
    }

    /// Rule 10.
    @Test func looksAtSoManyAddressesOnly() {
        let many = (1...200).map { Multiaddr.tcp(IPAddress(ipv4: 0xc000_0200 + $0), port: 1) }
        let plan = DialPlanner.plan(many)
        #expect(plan.map(\.address) == Array(many.prefix(DialPlanner.maximumAddresses)))
    }

    /// Rule 10.
    @Test func looksAtSoManyAddressesOfOneHostOnly() throws {
        let host = IPAddress(ipv4: 0xc000_0201)
        let many = (1...20).reversed().map { Multiaddr.tcp(host, port: $0) }
        let other = Multiaddr.tcp(IPAddress(ipv4: 0xc000_0202), port: 9)
        let plan = DialPlanner.plan(many + [other])
        // The first of the list are the best known; among them the lower port goes first.
        #expect(Set(plan.map(\.address)) == Set(many.prefix(DialPlanner.maximumAddressesPerHost) + [other]))
    }
}
