import Multiformats
import PeerIdentity
import Testing

@testable import OverlayCore

/// All vectors were computed with Python's `hashlib` and `ipaddress` from the formulas in the documentation of
/// `NetworkID` and `AddressPlan`.
@Suite struct AddressTests {
    static let networkIDs: [(String, String?, String)] = [
        ("home", nil, "e583754a88f07d5d03999a90a195196345976169c094bd45334a17ec83bc8f41"),
        ("home", "", "ad20e579a2eaaf01230f8cd1501dcb0356e75b031eeeeed13a811b9c722b22e5"),
        ("home", "s3cret", "8aec7cfc2dedd509f4ecc7d8662189f6a66f182ae414238c4a8e475182946563"),
        ("", nil, "725c594807652dc33f5b313f72be80c5e4e47fed238233f0c571cce539374887"),
        ("zürich", nil, "7adb178b77401e20309eec71c622d709f5958ff531bb733937aedf1634c3017c"),
        (
            String(repeating: "n", count: 200), String(repeating: "k", count: 300),
            "65fc0e2b9e3be3b99d9c7166257db1b4984ae7b2e2dcde59ab0b2f3419ada8be"
        ),
    ]

    @Test(arguments: networkIDs)
    func derivesNetworkID(name: String, secret: String?, expected: String) {
        #expect(NetworkID(staticName: name, secret: secret).description == expected)
    }

    static let peers = [
        "002408011220000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "12206465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f80818283", "",
        String(repeating: "70", count: 150),
    ].map { PeerID(uncheckedBytes: hex($0)) }

    /// Secret, peer, IPv6, and IPv4 in a /10, /16, /24 and /30: in the /30 some hosts are skipped, up to three times.
    static let addresses: [(String?, Int, String)] = [
        (
            nil, 0,
            "fde5:8375:4a88:e695:f911:ffdf:ea4f:8221 100.71.59.18 10.9.28.236 192.168.1.28 192.0.2.6"
        ),
        (nil, 1, "fde5:8375:4a88:3b5f:af2:f4e:1ede:bed1 100.77.235.59 10.9.55.172 192.168.1.55 192.0.2.5"),
        (nil, 2, "fde5:8375:4a88:d50e:faf6:11:6047:833c 100.81.171.209 10.9.70.175 192.168.1.70 192.0.2.5"),
        (nil, 3, "fde5:8375:4a88:d5d:8341:a603:58f4:9e9c 100.127.41.86 10.9.252.165 192.168.1.252 192.0.2.6"),
        (
            "s3cret", 0,
            "fd8a:ec7c:fc2d:100a:d68a:a045:6311:248b 100.84.159.234 10.9.82.127 192.168.1.82 192.0.2.5"
        ),
        (
            "s3cret", 1,
            "fd8a:ec7c:fc2d:4414:1085:9b51:1658:440a 100.127.162.128 10.9.254.138 192.168.1.254 192.0.2.5"
        ),
        ("s3cret", 2, "fd8a:ec7c:fc2d:eb74:12c0:9751:71b5:3298 100.119.36.166 10.9.220.146 192.168.1.220 192.0.2.5"),
        ("s3cret", 3, "fd8a:ec7c:fc2d:754:78b2:4e35:e2d:b8e6 100.115.126.125 10.9.205.249 192.168.1.205 192.0.2.6"),
    ]

    @Test(arguments: addresses)
    func derivesAddresses(secret: String?, peer: Int, expected: String) throws {
        let network = NetworkID(staticName: "home", secret: secret)
        let peer = Self.peers[peer]
        var found = [AddressPlan.ipv6(of: peer, in: network)?.description]
        for text in ["100.64.0.0/10", "10.9.0.0/16", "192.168.1.0/24", "192.0.2.4/30"] {
            let prefix = try #require(IPPrefix(text))
            found.append(AddressPlan.ipv4(of: peer, in: network, prefix: prefix)?.description)
        }
        #expect(found == expected.split(separator: " ").map(String.init))
        let ipv6 = try #require(AddressPlan.ipv6(of: peer, in: network))
        #expect(AddressPlan.ipv6Prefix(of: network).contains(ipv6))
        #expect(AddressPlan.ipv6Prefix(of: network).length == 48)
    }

    static let home = NetworkID(staticName: "home", secret: nil)
    static func member(_ name: String, _ bytes: String, _ ipv4: String? = nil) -> AddressPlan.Member {
        .init(peer: PeerID(uncheckedBytes: hex(bytes)), name: name, ipv4: ipv4.flatMap { IPAddress($0) })
    }

    @Test func refusesBadConfigurations() throws {
        let a = Self.member("a", "01")
        for text in ["10.0.0.0/31", "10.0.0.1/32", "fd00::/8"] {
            let prefix = try #require(IPPrefix(text))
            #expect(throws: AddressPlan.Failure.badPrefix(prefix)) {
                try AddressPlan(network: Self.home, name: "home", ipv4Prefix: prefix, members: [a])
            }
            #expect(AddressPlan.ipv4(of: a.peer, in: Self.home, prefix: prefix) == nil)
        }
        let prefix = try #require(IPPrefix("192.168.1.0/24"))
        for text in ["192.168.2.7", "192.168.1.0", "192.168.1.255", "fd00::1"] {
            let given = try #require(IPAddress(text))
            #expect(throws: AddressPlan.Failure.outsidePrefix(member: "b", address: given, prefix: prefix)) {
                try AddressPlan(
                    network: Self.home, name: "home", ipv4Prefix: prefix, members: [a, Self.member("b", "02", text)])
            }
        }
    }

    @Test func namesBothPartiesOfACollision() throws {
        let prefix = try #require(IPPrefix("192.168.1.0/24"))
        let shared = try #require(IPAddress("192.168.1.18"))
        // Two made-up peers whose hashes meet in a /24.
        let x = Self.member("x", "6300000015")
        let y = Self.member("y", "630000002c")
        let plan = try AddressPlan(network: Self.home, name: "home", ipv4Prefix: prefix, members: [x, y])
        let partyX = AddressPlan.Party.member(network: "home", name: "x", x.peer)
        let partyY = AddressPlan.Party.member(network: "home", name: "y", y.peer)
        let collision = AddressPlan.Collision(address: shared, first: partyX, second: partyY)
        #expect(plan.collisions() == [collision])
        #expect(collision.description == "192.168.1.18 belongs to x in network home and to y in network home")

        // The configuration settles it.
        let settled = try AddressPlan(
            network: Self.home, name: "home", ipv4Prefix: prefix,
            members: [x, Self.member("y", "630000002c", "192.168.1.19")])
        #expect(settled.collisions() == [])
        #expect(settled.assignments.map(\.ipv4.description) == ["192.168.1.18", "192.168.1.19"])

        // Another network of ours, and the machine itself.
        let other = try AddressPlan(
            network: NetworkID(staticName: "work", secret: nil), name: "work", ipv4Prefix: prefix,
            members: [Self.member("z", "07", "192.168.1.19")])
        let partyZ = AddressPlan.Party.member(network: "work", name: "z", PeerID(uncheckedBytes: [7]))
        #expect(
            settled.collisions(with: [other])
                == [.init(address: settled.assignments[1].ipv4, first: partyZ, second: partyY)])
        let ipv6 = settled.assignments[0].ipv6
        let machine = [
            AddressPlan.MachineAddress(interface: "eth0", address: shared), .init(interface: "tun9", address: ipv6),
        ]
        #expect(
            settled.collisions(machine: machine) == [
                .init(address: shared, first: .machine(interface: "eth0"), second: partyX),
                .init(address: ipv6, first: .machine(interface: "tun9"), second: partyX),
            ])
    }

    @Test func overridesAreInTheDefaultPrefix() throws {
        #expect(AddressPlan.defaultIPv4Prefix.description == "100.64.0.0/10")
        let plan = try AddressPlan(
            network: Self.home, name: "home", members: [Self.member("b", "02", "100.64.0.7")])
        #expect(plan.assignments[0].ipv4.description == "100.64.0.7")
        #expect(plan.prefixes.map(\.description) == ["100.64.0.0/10", "fde5:8375:4a88::/48"])
    }

    @Test func readsNetworkIDsOf32BytesOnly() {
        for count in 0..<64 {
            #expect((NetworkID(bytes: [UInt8](repeating: 7, count: count)) != nil) == (count == 32))
        }
    }

    @Test func namesRouteConflicts() throws {
        let plan = try AddressPlan(network: Self.home, name: "home", members: [])
        func claim(_ member: String, _ text: String, network: String = "home") throws -> RoutePlan.Claim {
            .init(network: network, member: member, prefix: try #require(IPPrefix(text)))
        }
        let b = try claim("b", "192.168.0.0/16")
        let nested = try claim("b", "192.168.9.0/24")
        let c = try claim("c", "192.168.7.0/24")
        let namesake = try claim("b", "192.168.7.0/24", network: "work")
        let connected = RoutePlan.ConnectedPrefix(interface: "eth0", prefix: c.prefix)
        let inside = try claim("d", "100.100.0.0/16")
        let inside6 = try claim("d", "fde5:8375:4a88:1::/64")
        let cases: [([RoutePlan.Claim], [RoutePlan.ConnectedPrefix], [RoutePlan.Conflict])] = [
            ([b, nested, try claim("c", "10.0.0.0/8"), try claim("c", "fd00:1::/64")], [], []),
            ([b, c], [], [.members(b, c)]), ([b, namesake], [], [.members(b, namesake)]),
            ([c, nested, b], [], [.members(c, b)]), ([b], [connected], [.connected(b, connected)]),
            ([inside], [], [.overlay(inside, network: "home", plan.prefixes[0])]),
            ([inside6], [], [.overlay(inside6, network: "home", plan.prefixes[1])]),
            ([try claim("e", "0.0.0.0/0"), b], [], [.defaultRoute(try claim("e", "0.0.0.0/0"))]),
            ([try claim("e", "8000::/1")], [], [.defaultRoute(try claim("e", "8000::/1"))]),
            ([try claim("e", "224.0.0.0/8")], [], [.notRoutable(try claim("e", "224.0.0.0/8"))]),
        ]
        for (claims, own, expected) in cases {
            let found = RoutePlan.conflicts(claims, overlays: [plan], connected: own)
            #expect(found == expected)
            for conflict in found { #expect(conflict.description.contains(claims[0].member)) }
        }
    }
}
