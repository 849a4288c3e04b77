import Multiformats
import PeerIdentity
import TestKit
import Testing

@testable import LibP2PSwarm

@Suite(.timeLimit(.minutes(1))) struct NameLookupTests {
    static let peer = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"
    static let other = "12D3KooWSMEBwucyqhgQuV74Yx2HcBbVd9FGCkwVDVbK85jLXbsS"

    /// A world of names. Whatever is not in it does not exist.
    struct World: MultiaddrResolver {
        var hosts: [String: [String]] = [:]
        var texts: [String: [String]] = [:]
        let questions = Journal<String>()

        func addresses(of name: String, _ family: IPAddress.Family?) async throws -> [IPAddress] {
            self.questions.write(name)
            guard let found = self.hosts[name] else { throw NameError.notFound }
            return found.compactMap { IPAddress($0) }.filter { family == nil || $0.family == family }
        }

        func texts(of name: String) async throws -> [String] {
            self.questions.write(name)
            guard let found = self.texts[name] else { throw NameError.noAnswer }
            return found
        }
    }

    static let hosts = [
        "a.example": ["192.0.2.1", "2001:db8::1", "192.0.2.2"], "empty.example": [],
        "wide.example": (0..<200).map { "2001:db8::\(String($0, radix: 16))" },
    ]
    static let texts = [
        "_dnsaddr.one.example": [
            "dnsaddr=/ip4/192.0.2.1/tcp/1/p2p/\(peer)", "dnsaddr=/ip4/192.0.2.2/tcp/1/p2p/\(other)",
        ],
        "_dnsaddr.plain.example": ["dnsaddr=/ip4/192.0.2.1/tcp/1", "dnsaddr=/ip4/192.0.2.1/udp/1/quic-v1"],
        "_dnsaddr.noise.example": [
            "v=spf1 -all", "dnsaddr=", "dnsaddr=/ip4/1.2.3/tcp/1", "dnsaddr=nonsense", " dnsaddr=/ip4/192.0.2.9/tcp/1",
            "DNSADDR=/ip4/192.0.2.9/tcp/1", "dnsaddr=/ip4/192.0.2.1/tcp/1",
        ],
        "_dnsaddr.nested.example": [
            "dnsaddr=/dnsaddr/one.example/p2p/\(peer)", "dnsaddr=/dns4/a.example/tcp/7/p2p/\(peer)",
        ],
        "_dnsaddr.loop.example": ["dnsaddr=/dnsaddr/loop.example"],
        "_dnsaddr.half.example": ["dnsaddr=/dnsaddr/gone.example", "dnsaddr=/ip4/192.0.2.3/tcp/1"],
        "_dnsaddr.relay.example": ["dnsaddr=/ip4/192.0.2.3/tcp/1/p2p/\(other)/p2p-circuit"],
        "_dnsaddr.many.example": (1...200).map { "dnsaddr=/ip4/192.0.2.\($0 % 250)/tcp/\($0)" },
        "_dnsaddr.wide.example": (0..<40).map { "dnsaddr=/dns6/wide.example/tcp/\($0 + 1)" },
        "_dnsaddr.1.example": ["dnsaddr=/dnsaddr/2.example"], "_dnsaddr.2.example": ["dnsaddr=/dnsaddr/3.example"],
        "_dnsaddr.3.example": ["dnsaddr=/dnsaddr/4.example"], "_dnsaddr.4.example": ["dnsaddr=/ip4/192.0.2.4/tcp/1"],
        "_dnsaddr.0.example": ["dnsaddr=/dnsaddr/1.example"],
    ]

    static let nothing = "the name stands for no address of this peer"

    /// What stands for what.
    static let table: [(rule: String, address: String, found: [String], failure: String?)] = [
        (
            "dns: both families, in the resolver's order", "/dns/a.example/tcp/1",
            ["/ip4/192.0.2.1/tcp/1", "/ip6/2001:db8::1/tcp/1", "/ip4/192.0.2.2/tcp/1"], nil
        ),
        (
            "dns4", "/dns4/a.example/udp/1/quic-v1", ["/ip4/192.0.2.1/udp/1/quic-v1", "/ip4/192.0.2.2/udp/1/quic-v1"],
            nil
        ),
        ("dns6", "/dns6/a.example/tcp/1", ["/ip6/2001:db8::1/tcp/1"], nil),
        ("no such name", "/dns/gone.example/tcp/1", [], "no such name"),
        ("no address", "/dns/empty.example/tcp/1", [], nothing),
        (
            "what follows stays", "/dns4/a.example/tcp/1/p2p/\(other)/p2p-circuit",
            ["/ip4/192.0.2.1/tcp/1/p2p/\(other)/p2p-circuit", "/ip4/192.0.2.2/tcp/1/p2p/\(other)/p2p-circuit"], nil
        ),
        ("the peer at the end does not", "/dns6/a.example/tcp/1/p2p/\(peer)", ["/ip6/2001:db8::1/tcp/1"], nil),
        (
            "TLS keeps the name", "/dns6/a.example/tcp/443/tls/ws",
            ["/ip6/2001:db8::1/tcp/443/tls/sni/a.example/ws"], nil
        ),
        ("so does wss", "/dns6/a.example/tcp/443/wss", ["/ip6/2001:db8::1/tcp/443/tls/sni/a.example/ws"], nil),
        (
            "another name for TLS stays", "/dns6/a.example/tcp/443/tls/sni/b.example/ws",
            ["/ip6/2001:db8::1/tcp/443/tls/sni/b.example/ws"], nil
        ),
        ("ws without TLS needs none", "/dns6/a.example/tcp/80/ws", ["/ip6/2001:db8::1/tcp/80/ws"], nil),
        ("dnsaddr: of this peer alone", "/dnsaddr/one.example", ["/ip4/192.0.2.1/tcp/1"], nil),
        ("or of nobody", "/dnsaddr/plain.example", ["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/udp/1/quic-v1"], nil),
        ("that end like this one", "/dnsaddr/plain.example/quic-v1", ["/ip4/192.0.2.1/udp/1/quic-v1"], nil),
        ("other records are skipped", "/dnsaddr/noise.example", ["/ip4/192.0.2.1/tcp/1"], nil),
        (
            "names again", "/dnsaddr/nested.example",
            ["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/tcp/7", "/ip4/192.0.2.2/tcp/7"], nil
        ),
        ("a circle", "/dnsaddr/loop.example", [], "names lead to names more than 4 deep"),
        ("four deep", "/dnsaddr/1.example", ["/ip4/192.0.2.4/tcp/1"], nil),
        ("five deep", "/dnsaddr/0.example", [], "names lead to names more than 4 deep"),
        ("one part fails", "/dnsaddr/half.example", ["/ip4/192.0.2.3/tcp/1"], nil),
        ("no answer", "/dnsaddr/gone.example", [], "no name server has answered"),
        (
            "a relay is not the owner", "/dnsaddr/relay.example",
            ["/ip4/192.0.2.3/tcp/1/p2p/\(other)/p2p-circuit"], nil
        ),
        ("no name at all", "/ip4/192.0.2.1/tcp/1", ["/ip4/192.0.2.1/tcp/1"], nil),
    ]

    static func run(_ address: String, _ world: World = World(hosts: hosts, texts: texts)) async throws -> NameLookup {
        await NameLookup.run(try Multiaddr(address), of: try PeerID(Self.peer), with: world)
    }

    @Test(arguments: table.indices) func resolves(row: Int) async throws {
        let (rule, address, found, failure) = Self.table[row]
        let lookup = try await Self.run(address)
        #expect(Set(lookup.addresses.map(\.description)) == Set(found), "\(rule)")
        #expect(lookup.addresses.count == found.count && lookup.failure == failure, "\(rule)")
    }

    @Test func believesSoMuchOnly() async throws {
        let many = try await Self.run("/dnsaddr/many.example")
        #expect(many.addresses.count == NameLookup.maximumAnswers)
        let world = World(hosts: Self.hosts, texts: Self.texts)
        let wide = try await Self.run("/dnsaddr/wide.example", world)
        #expect(wide.addresses.count == NameLookup.maximumAddresses)
        // A name that is asked for already is not asked for again while that goes on.
        #expect(world.questions.entries.count < NameLookup.maximumQueries)
    }

    @Test func asksSoMuchOnly() async throws {
        // Each level leads to 32 others: without a bound that would be a million questions.
        struct Flood: MultiaddrResolver {
            let questions = Journal<String>()
            func addresses(of name: String, _ family: IPAddress.Family?) async throws -> [IPAddress] { [] }
            func texts(of name: String) async throws -> [String] {
                self.questions.write(name)
                return (0..<32).map { "dnsaddr=/dnsaddr/\($0).\(name.dropFirst("_dnsaddr.".count))" }
            }
        }
        let flood = Flood()
        let lookup = await NameLookup.run(
            try Multiaddr("/dnsaddr/flood.example"), of: try PeerID(Self.peer), with: flood)
        #expect(flood.questions.entries.count == NameLookup.maximumQueries)
        #expect(lookup.failure == "the name leads to more than 32 others")
    }

    @Test func answersComeInAnyOrder() throws {
        var lookup = NameLookup(of: try PeerID(Self.peer))
        let first = lookup.start(try Multiaddr("/dnsaddr/x.example"))
        #expect(first == [.texts("_dnsaddr.x.example")])
        let next = lookup.answered(
            first[0],
            .texts(["dnsaddr=/dns4/a.example/tcp/1", "dnsaddr=/dns6/a.example/tcp/1", "dnsaddr=/dns4/a.example/tcp/2"]))
        // One question for both ports.
        #expect(next == [.addresses("a.example", .ipv4), .addresses("a.example", .ipv6)])
        #expect(lookup.answered(next[1], .failure("no such name")).isEmpty && !lookup.isDone)
        #expect(lookup.answered(next[0], .addresses([IPAddress(ipv4: 0xc000_0201)])).isEmpty && lookup.isDone)
        #expect(lookup.addresses.map(\.description) == ["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/tcp/2"])
        #expect(lookup.failure == nil)
        // An answer that nobody has asked for.
        #expect(lookup.answered(next[0], .addresses([IPAddress(ipv4: 1)])).isEmpty && lookup.addresses.count == 2)
    }
}
