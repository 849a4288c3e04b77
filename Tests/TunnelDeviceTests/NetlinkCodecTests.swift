import CNetlink
import Multiformats
import Testing

@testable import TunnelDevice

/// Bytes written by hand from `<linux/rtnetlink.h>` and `<linux/fib_rules.h>`, for a little-endian machine.
@Suite struct NetlinkCodecTests {
    static let operation = NetworkOperation.setLink("warren0", up: true)
    static let source = IPAddress(ipv4: 0x6440_0102)
    static let member = IPPrefix(host: IPAddress(ipv4: 0x6440_0304))
    static let ip6 = IPAddress(ipv6High: 0xFD12_0000_0000_0000, low: 2)
    static let ip6Bytes: [UInt8] = [0xFD, 0x12] + [UInt8](repeating: 0, count: 13) + [2]
    static let rule = PolicyRule.overlay(.ipv4, TableAllocation(table: 41_170, priority: 4_117))

    @Test func addsAnInvertedRule() throws {
        let bytes = try Self.bytes(.rule(Self.rule, adding: true, for: Self.operation))
        let expected: [UInt8] =
            [68, 0, 0, 0, 32, 0, 0x00, 0x06] + [UInt8](repeating: 0, count: 8)
            + [2, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0]  // AF_INET, FR_ACT_TO_TBL, FIB_RULE_INVERT
            + [8, 0, 6, 0, 0x15, 0x10, 0, 0]  // FRA_PRIORITY 4117
            + [8, 0, 15, 0, 0xD2, 0xA0, 0, 0]  // FRA_TABLE 41170
            + [8, 0, 10, 0, 0x57, 0x20, 0, 0]  // FRA_FWMARK 0x2057
            + [8, 0, 16, 0, 0xFF, 0xFF, 0xFF, 0xFF]  // FRA_FWMASK
            + [5, 0, 21, 0, 87, 0, 0, 0]  // FRA_PROTOCOL
        #expect(bytes == expected)
    }

    @Test func addsARouteInATable() throws {
        let route = Route(Self.member, interface: "warren0", table: 41_170, source: Self.source)
        let bytes = try Self.bytes(.addRoute(route, index: 7, for: Self.operation))
        let expected: [UInt8] =
            [60, 0, 0, 0, 24, 0, 0x00, 0x05] + [UInt8](repeating: 0, count: 8)
            + [2, 32, 0, 0, 0, 87, 253, 1, 0, 0, 0, 0]  // /32, RT_SCOPE_LINK, RTN_UNICAST
            + [8, 0, 1, 0, 100, 64, 3, 4]  // RTA_DST
            + [8, 0, 15, 0, 0xD2, 0xA0, 0, 0]  // RTA_TABLE
            + [8, 0, 4, 0, 7, 0, 0, 0]  // RTA_OIF
            + [8, 0, 7, 0, 100, 64, 1, 2]  // RTA_PREFSRC
        #expect(bytes == expected)
    }

    @Test func addsAnAddressWithoutPrefixRouteOrDuplicateDetection() throws {
        let bytes = try Self.bytes(.addAddress(InterfaceAddress(host: Self.ip6), index: 7, for: Self.operation))
        let expected: [UInt8] =
            [72, 0, 0, 0, 20, 0, 0x00, 0x05] + [UInt8](repeating: 0, count: 8)
            + [10, 128, 0, 0, 7, 0, 0, 0]  // AF_INET6, /128, index 7
            + [20, 0, 2, 0] + Self.ip6Bytes  // IFA_LOCAL
            + [20, 0, 1, 0] + Self.ip6Bytes  // IFA_ADDRESS
            + [8, 0, 8, 0, 0x02, 0x02, 0, 0]  // IFA_FLAGS: IFA_F_NOPREFIXROUTE, IFA_F_NODAD
        #expect(bytes == expected)
    }

    @Test func changesALink() throws {
        let bytes = try Self.bytes(.changeLink(7, up: false, mtu: 1280, queueLength: 1000, for: Self.operation))
        let expected: [UInt8] =
            [48, 0, 0, 0, 16, 0, 0, 0] + [UInt8](repeating: 0, count: 8)
            + [0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]  // index 7, no flags, change IFF_UP
            + [8, 0, 4, 0, 0x00, 0x05, 0, 0]  // IFLA_MTU
            + [8, 0, 13, 0, 0xE8, 0x03, 0, 0]  // IFLA_TXQLEN
        #expect(bytes == expected)
    }

    static let rules: [PolicyRule] = [
        Self.rule,
        PolicyRule.overlay(.ipv6, TableAllocation(table: 41_171, priority: 4_118)),
        PolicyRule(family: .ipv4, priority: 0, table: 255, mark: 0, mask: 0, isInverted: false),
        PolicyRule(family: .ipv6, priority: .max, table: .max, mark: 0xFF00, mask: 0xFF00, isInverted: true),
    ]

    @Test(arguments: Self.rules) func readsRules(rule: PolicyRule) throws {
        let request = try NetlinkRequest.rule(rule, adding: true, for: Self.operation)
        let header = try #require(nlmsg_hdr(request.message))
        var expected = rule
        // A mark of any kind has a mask; none at all cannot be told from a mark that selects nothing.
        expected.mask = rule.mask
        #expect(PolicyRule(NetlinkMessage(header: header)) == expected)
    }

    @Test func tellsForeignRulesByTheirSelectors() throws {
        for (type, bytes) in [(FRA_IIFNAME, Array("eth0\0".utf8)), (FRA_L3MDEV, [1]), (FRA_SPORT_RANGE, [1, 0, 2, 0])] {
            let request = try NetlinkRequest.rule(Self.rule, adding: true, for: Self.operation)
            try request.put(type, bytes: bytes)
            let header = try #require(nlmsg_hdr(request.message))
            #expect(PolicyRule(NetlinkMessage(header: header))?.isForeign == true)
        }
    }

    @Test func readsRoutes() throws {
        let routes = [
            Route(Self.member, interface: "if7", table: 41_170, source: Self.source),
            Route(IPPrefix(host: Self.ip6), interface: "if7", table: 41_170, source: nil),
            Route(try #require(IPPrefix("0.0.0.0/0")), interface: nil, table: 3, source: nil),
        ]
        for route in routes {
            let index: Int32? = route.interface == nil ? nil : 7
            let request = try NetlinkRequest.addRoute(route, index: index, for: Self.operation)
            let header = try #require(nlmsg_hdr(request.message))
            #expect(Route(NetlinkMessage(header: header)) { "if\($0)" } == route)
        }
    }

    @Test func readsAddresses() throws {
        for address in [InterfaceAddress(host: Self.ip6), InterfaceAddress(Self.source, prefixLength: 24)] {
            let request = try NetlinkRequest.addAddress(address, index: 7, for: Self.operation)
            let header = try #require(nlmsg_hdr(request.message))
            let read = try #require(InterfaceAddress.read(NetlinkMessage(header: header)))
            #expect(read.index == 7)
            #expect(read.address == address)
        }
    }

    /// A message cut anywhere is refused or read in part, but never beyond its end.
    @Test func survivesEveryCut() throws {
        let messages = try [
            Self.bytes(.rule(Self.rule, adding: true, for: Self.operation)),
            Self.bytes(.addRoute(Route(Self.member, interface: "a", table: 9), index: 7, for: Self.operation)),
            Self.bytes(.addAddress(InterfaceAddress(host: Self.ip6), index: 7, for: Self.operation)),
            Self.bytes(.changeLink(7, mtu: 1280, for: Self.operation)),
        ]
        for bytes in messages {
            for length in 0..<bytes.count {
                for claimed in [length, bytes.count] {
                    // Only as much memory as there are bytes, so that reading beyond is found by sanitizers.
                    var cut = Array(bytes.prefix(length))
                    if length >= 4 { cut.replaceSubrange(0..<4, with: [UInt8(claimed), 0, 0, 0]) }
                    let read = cut.withUnsafeMutableBytes { datagram in
                        eachMessage(in: datagram) { message -> Bool? in
                            _ = NetworkInterface(message)
                            _ = Route(message) { _ in nil }
                            _ = NetworkChange.Kinds(message, overlays: [])
                            return PolicyRule(message) != nil || InterfaceAddress.read(message) != nil
                        }
                    }
                    // A message that claims more than is there is none.
                    if claimed > length || length < 16 { #expect(read.isEmpty) }
                    if length < 24 { #expect(!read.contains(true)) }
                }
            }
        }
    }

    @Test func readsEveryMessageOfADatagram() throws {
        let rule = try Self.bytes(.rule(Self.rule, adding: true, for: Self.operation))
        var datagram = rule + rule + rule.prefix(20)
        let read = datagram.withUnsafeMutableBytes { eachMessage(in: $0) { PolicyRule($0) } }
        #expect(read == [Self.rule, Self.rule])
    }

    private static func bytes(_ request: consuming NetlinkRequest) throws -> [UInt8] {
        let header = try #require(nlmsg_hdr(request.message))
        return Array(UnsafeRawBufferPointer(start: header, count: Int(header.pointee.nlmsg_len)))
    }
}

/// Against the real kernel, as far as it answers everybody.
@Suite struct LinkConfiguratorTests {
    @Test func listsLoopback() throws {
        let loopback = try #require(NetworkInterfaces.current().first { $0.name == "lo" })
        #expect(loopback.isLoopback)
        #expect(loopback.index == 1)
        #expect(loopback.mtu > 1280)
    }

    @Test func listsTheRulesEveryMachineHas() throws {
        let rules = try LinkConfigurator().rules(.ipv4)
        #expect(rules.contains { $0.priority == 0 && $0.table == 255 && !$0.isInverted })
        #expect(rules == rules.sorted { $0.priority < $1.priority })
    }

    @Test func anUnknownTableIsEmpty() throws {
        let links = try LinkConfigurator()
        #expect(try links.routes(.ipv4, table: 0x7EAD_BEEF).isEmpty)
        #expect(try links.routes(.ipv6, table: 0x7EAD_BEEF).isEmpty)
    }

    @Test func namesTheInterfaceThatIsMissing() throws {
        let links = try LinkConfigurator()
        let gone = "no-such-if"
        let address = InterfaceAddress(host: IPAddress(ipv4: 0x6440_0102))
        let route = Route(IPPrefix(host: address.address), interface: gone, table: 41_170)
        for operation in [
            NetworkOperation.setLink(gone, up: true), .setMTU(gone, bytes: 1280), .addAddress(address, interface: gone),
            .addRoute(route),
        ] {
            #expect(throws: NetlinkError.noInterface(gone)) { try links.perform(operation) }
        }
        // What was on it is gone with it.
        try links.perform(.deleteAddress(address, interface: gone))
        try links.perform(.deleteRoute(route))
    }

    @Test func namesSettingsThatAreMissing() throws {
        #expect(try LinkConfigurator().setting("net/ipv4/conf/no-such-if/rp_filter") == nil)
        #expect(try LinkConfigurator().setting("net/ipv4/conf/lo/rp_filter") != nil)
    }

    @Test func errorsCarryWhatAnOperatorNeeds() {
        let route = Route(NetlinkCodecTests.member, interface: "warren0", table: 41_170)
        let errors: [(NetlinkError, String)] = [
            (
                .refused(.addRoute(route), errno: 22, kernel: "Invalid prefsrc address"),
                "cannot add route 100.64.3.4/32 dev warren0 table 41170: Invalid argument (Invalid prefsrc address)"
            ),
            (
                .refused(.addRule(NetlinkCodecTests.rule), errno: 1, kernel: nil),
                """
                cannot add IPv4 rule 4117: not fwmark 0x2057 lookup 41170: Operation not permitted: \
                run as root or with CAP_NET_ADMIN
                """
            ),
            (
                .setting(path: "/proc/sys/net/ipv4/conf/eth0/rp_filter", value: "2", errno: 30),
                """
                cannot write "2" to /proc/sys/net/ipv4/conf/eth0/rp_filter: Read-only file system: \
                /proc/sys is read-only here, set it on the host
                """
            ),
        ]
        for (error, text) in errors { #expect(error.description == text) }
    }
}
