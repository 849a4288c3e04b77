import Multiformats
import Testing

@testable import OverlayCore

@Suite struct RouteTableTests {
    static func entry(_ text: String, _ peer: UInt32?) throws -> RouteTable.Entry {
        .init(try #require(IPPrefix(text)), peer: peer.map { PeerIndex(rawValue: $0) })
    }

    static func address(_ text: String) throws -> IPAddress { try #require(IPAddress(text)) }

    @Test func findsLongestPrefix() throws {
        let table = try RouteTable([
            Self.entry("100.64.1.1/32", nil), Self.entry("100.64.1.2/32", 2), Self.entry("10.0.0.0/8", 3),
            Self.entry("10.1.0.0/16", 4), Self.entry("10.1.2.3/32", 5), Self.entry("255.255.255.255/32", 6),
            Self.entry("fd00::1/128", nil), Self.entry("fd00::2/128", 2), Self.entry("2001:db8::/32", 3),
            Self.entry("2001:db8:0:1::/64", 4), Self.entry("10.0.0.0/8", 3),
        ])
        #expect(table.count == 10)
        let cases: [(String, Route)] = [
            ("100.64.1.1", .local), ("100.64.1.2", .peer(.init(rawValue: 2))), ("100.64.1.0", .none),
            ("100.64.1.3", .none), ("10.0.0.0", .peer(.init(rawValue: 3))), ("10.1.0.0", .peer(.init(rawValue: 4))),
            ("10.1.2.2", .peer(.init(rawValue: 4))), ("10.1.2.3", .peer(.init(rawValue: 5))),
            ("10.1.2.4", .peer(.init(rawValue: 4))), ("10.1.255.255", .peer(.init(rawValue: 4))),
            ("10.2.0.0", .peer(.init(rawValue: 3))), ("10.255.255.255", .peer(.init(rawValue: 3))),
            ("11.0.0.0", .none), ("9.255.255.255", .none), ("0.0.0.0", .none),
            ("255.255.255.255", .peer(.init(rawValue: 6))), ("255.255.255.254", .none), ("fd00::1", .local),
            ("fd00::2", .peer(.init(rawValue: 2))), ("fd00::3", .none), ("::", .none),
            ("2001:db8:0:1:ffff:ffff:ffff:ffff", .peer(.init(rawValue: 4))),
            ("2001:db8:0:2::", .peer(.init(rawValue: 3))), ("2001:db9::", .none), ("::ffff:10.1.2.3", .none),
        ]
        for (text, expected) in cases { #expect(table.lookup(try Self.address(text)) == expected, "\(text)") }
        #expect(table.owner(of: try Self.address("10.1.2.3")) == PeerIndex(rawValue: 5))
        #expect(table.owner(of: try Self.address("100.64.1.1")) == nil)
        #expect(table.owner(of: try Self.address("100.64.1.9")) == nil)
    }

    @Test func answersWithoutRoutes() throws {
        let table = try RouteTable([])
        for text in ["0.0.0.0", "255.255.255.255", "::", "ffff::"] {
            #expect(table.lookup(try Self.address(text)) == .none)
        }
    }

    @Test func refusesContradictions() throws {
        let prefix = try #require(IPPrefix("10.0.0.0/8"))
        #expect(throws: RouteTable.Failure.contested(prefix, PeerIndex(rawValue: 3), PeerIndex(rawValue: 4))) {
            try RouteTable([Self.entry("10.0.0.0/8", 3), Self.entry("10.0.0.0/8", 4)])
        }
        #expect(throws: RouteTable.Failure.contested(prefix, nil, PeerIndex(rawValue: 4))) {
            try RouteTable([Self.entry("10.0.0.0/8", nil), Self.entry("10.0.0.0/8", 4)])
        }
        for reserved: UInt32 in [.max, .max - 1] {
            #expect(throws: RouteTable.Failure.badIndex(PeerIndex(rawValue: reserved))) {
                try RouteTable([Self.entry("10.0.0.0/8", reserved)])
            }
        }
    }

    /// Random nested prefixes in a small part of the address space, against a scan of the list.
    @Test(arguments: 0..<40)
    func agreesWithLinearScan(seed: UInt64) throws {
        var random = SeededGenerator(state: seed)
        let isIPv6 = seed % 2 == 1
        func randomAddress() -> IPAddress {
            let spread = random.next() & random.next()
            if !isIPv6 { return IPAddress(ipv4: UInt32(truncatingIfNeeded: spread) & 0x0f00_f0ff) }
            return IPAddress(ipv6High: spread & 0xf000_0000_0000_00ff, low: random.next() & 0xf000_0000_0000_0003)
        }
        let bits = isIPv6 ? 128 : 32
        var entries: [IPPrefix: RouteTable.Entry] = [:]
        for _ in 0..<Int.random(in: 1...300, using: &random) {
            let length = Bool.random(using: &random) ? bits : Int.random(in: 0...bits, using: &random)
            let prefix = try #require(IPPrefix(randomAddress(), length: length))
            let peer = PeerIndex(rawValue: UInt32.random(in: 0...20, using: &random))
            entries[prefix] = .init(prefix, peer: peer.rawValue == 20 ? nil : peer)
        }
        let table = try RouteTable(entries.values)
        #expect(table.count == entries.count)

        var probes = (0..<2000).map { _ in randomAddress() }
        // The edges of every prefix and their neighbours are where a table goes wrong.
        for prefix in entries.keys {
            let first = prefix.address
            for step: UInt64 in [0, 1, .max] {
                probes.append(
                    isIPv6
                        ? IPAddress(ipv6High: first.high, low: first.low &+ step)
                        : IPAddress(ipv4: UInt32(truncatingIfNeeded: first.low &+ step)))
            }
        }
        for probe in probes {
            let longest = entries.values.filter { $0.prefix.contains(probe) }.max {
                $0.prefix.length < $1.prefix.length
            }
            let expected: Route = longest.map { $0.peer.map(Route.peer) ?? .local } ?? .none
            #expect(table.lookup(probe) == expected, "\(probe)")
        }
    }
}

@Suite struct PacketFilterTests {
    private static let filter = try? PacketFilter(
        routes: RouteTable([
            RouteTableTests.entry("100.64.0.1/32", nil), RouteTableTests.entry("192.168.1.0/24", nil),
            RouteTableTests.entry("100.64.0.2/32", 2), RouteTableTests.entry("192.168.2.0/24", 2),
            RouteTableTests.entry("100.64.0.3/32", 3), RouteTableTests.entry("fd00::1/128", nil),
            RouteTableTests.entry("fd00::3/128", 3),
        ]))
    /// One that routes everything to a peer, and one that announces everything.
    private static let exits = try? [
        PacketFilter(
            routes: RouteTable([RouteTableTests.entry("0.0.0.0/0", 1), RouteTableTests.entry("100.64.0.1/32", nil)])),
        PacketFilter(
            routes: RouteTable([RouteTableTests.entry("0.0.0.0/0", nil), RouteTableTests.entry("100.64.0.2/32", 1)])),
    ]

    @Test(arguments: [
        ("100.64.0.2", PacketFilter.Outbound.send(PeerIndex(rawValue: 2))),
        ("192.168.2.77", .send(PeerIndex(rawValue: 2))), ("fd00::3", .send(PeerIndex(rawValue: 3))),
        ("100.64.0.9", .drop(.noRoute)), ("fd00::9", .drop(.noRoute)), ("192.168.1.5", .drop(.loop)),
        ("224.0.0.251", .dropQuietly(.noRoute)), ("255.255.255.255", .dropQuietly(.noRoute)),
        ("169.254.3.4", .dropQuietly(.noRoute)), ("127.0.0.1", .dropQuietly(.noRoute)),
        ("0.0.0.0", .dropQuietly(.noRoute)), ("ff02::2", .dropQuietly(.noRoute)),
        ("fe80::1", .dropQuietly(.noRoute)), ("febf::1", .dropQuietly(.noRoute)),
        ("fec0::1", .drop(.noRoute)), ("::1", .dropQuietly(.noRoute)), ("::ffff:100.64.0.2", .dropQuietly(.noRoute)),
    ])
    func judgesOutbound(destination: String, expected: PacketFilter.Outbound) throws {
        let filter = try #require(Self.filter)
        #expect(filter.outbound(destination: try RouteTableTests.address(destination)) == expected)
    }

    @Test(arguments: [
        (UInt32(2), "100.64.0.2", "100.64.0.1", PacketFilter.Inbound.accept),
        (2, "192.168.2.9", "192.168.1.255", .accept), (3, "fd00::3", "fd00::1", .accept),
        // Another peer's address, our own, nobody's, another family's owner.
        (3, "100.64.0.2", "100.64.0.1", .drop(.wrongSource)), (2, "100.64.0.1", "100.64.0.1", .drop(.wrongSource)),
        (2, "10.0.0.1", "100.64.0.1", .drop(.wrongSource)), (2, "fd00::3", "fd00::1", .drop(.wrongSource)),
        // Another peer, itself, nobody, a broadcast.
        (2, "100.64.0.2", "100.64.0.3", .drop(.wrongDestination)),
        (2, "100.64.0.2", "192.168.2.1", .drop(.wrongDestination)),
        (2, "100.64.0.2", "8.8.8.8", .drop(.wrongDestination)),
        (2, "100.64.0.2", "255.255.255.255", .drop(.wrongDestination)),
        // The source is judged first.
        (3, "100.64.0.2", "8.8.8.8", .drop(.wrongSource)),
    ])
    func judgesInbound(peer: UInt32, source: String, destination: String, expected: PacketFilter.Inbound) throws {
        let verdict = try #require(Self.filter).inbound(
            from: PeerIndex(rawValue: peer), source: try RouteTableTests.address(source),
            destination: try RouteTableTests.address(destination))
        #expect(verdict == expected)
    }

    @Test(arguments: ["127.0.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0", "169.254.169.254"])
    func defaultRouteOpensNoSpecialAddress(text: String) throws {
        let special = try RouteTableTests.address(text)
        let exits = try #require(Self.exits)
        let peer = PeerIndex(rawValue: 1)
        let us = try RouteTableTests.address("100.64.0.1")
        #expect(exits[0].outbound(destination: special) == .dropQuietly(.noRoute))
        #expect(exits[0].inbound(from: peer, source: special, destination: us) == .drop(.wrongSource))
        #expect(
            exits[0].inbound(from: peer, source: try RouteTableTests.address("8.8.8.8"), destination: us) == .accept)
        let them = try RouteTableTests.address("100.64.0.2")
        #expect(exits[1].inbound(from: peer, source: them, destination: special) == .drop(.wrongDestination))
        #expect(
            exits[1].inbound(from: peer, source: them, destination: try RouteTableTests.address("8.8.8.8")) == .accept)
    }

    @Test func dropNamesAreStable() {
        let names = [
            "noRoute", "stranger", "wrongSource", "wrongDestination", "malformed", "queueFull", "congestion", "expired",
            "tooBig", "unreachable", "loop", "exhausted", "pathLost", "networkDown",
        ]
        #expect(DropReason.allCases.map(\.name) == names)
        // The counters have a place for each.
        #expect(DropReason.allCases.count <= 16)
        var counters = DropCounters()
        for reason in DropReason.allCases { counters.count(reason, packets: UInt64(reason.rawValue) + 1) }
        #expect(DropReason.allCases.allSatisfy { counters[$0] == UInt64($0.rawValue) + 1 })
        var sum = counters
        sum += counters
        sum.count(.loop)
        #expect(sum.total == 2 * counters.total + 1)
        #expect(sum[.loop] == 2 * counters[.loop] + 1 && sum != counters)
        #expect(sum.byName.count == names.count && sum.byName["noRoute"] == 2)
    }
}
