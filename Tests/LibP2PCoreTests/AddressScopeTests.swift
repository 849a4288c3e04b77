import LibP2PCore
import Multiformats
import Testing

@Suite struct AddressScopeTests {
    struct Row: Sendable, CustomStringConvertible {
        let address: String
        var isPrivate = false
        var isLoopback = false
        var isUnspecified = false
        var isLinkLocal = false
        var description: String { self.address }
    }

    static let rows = [
        Row(address: "0.0.0.0", isUnspecified: true), Row(address: "::", isUnspecified: true),
        Row(address: "::ffff:0.0.0.0", isUnspecified: true), Row(address: "0.0.0.1"),
        Row(address: "127.0.0.1", isPrivate: true, isLoopback: true),
        Row(address: "127.255.255.255", isPrivate: true, isLoopback: true), Row(address: "128.0.0.0"),
        Row(address: "::1", isPrivate: true, isLoopback: true), Row(address: "::2"),
        Row(address: "::ffff:127.0.0.1", isPrivate: true, isLoopback: true), Row(address: "::127.0.0.1"),
        Row(address: "9.255.255.255"), Row(address: "10.0.0.0", isPrivate: true),
        Row(address: "10.255.255.255", isPrivate: true),
        Row(address: "11.0.0.0"), Row(address: "172.15.255.255"), Row(address: "172.16.0.0", isPrivate: true),
        Row(address: "172.31.255.255", isPrivate: true), Row(address: "172.32.0.0"),
        Row(address: "192.167.255.255"), Row(address: "192.168.0.1", isPrivate: true), Row(address: "192.169.0.0"),
        Row(address: "169.254.1.1", isPrivate: true), Row(address: "169.255.0.0"),
        Row(address: "100.63.255.255"), Row(address: "100.64.0.0", isPrivate: true),
        Row(address: "100.127.255.255", isPrivate: true), Row(address: "100.128.0.0"),
        Row(address: "::ffff:192.168.1.1", isPrivate: true), Row(address: "::ffff:192.0.2.1"),
        Row(address: "fbff::1"), Row(address: "fc00::", isPrivate: true), Row(address: "fdff:ffff::1", isPrivate: true),
        Row(address: "fe00::1"), Row(address: "fe80::1", isPrivate: true, isLinkLocal: true),
        Row(address: "febf::1", isPrivate: true, isLinkLocal: true), Row(address: "fec0::1"),
        Row(address: "2001:db8::1"),
    ]

    @Test(arguments: rows) func tellsWhereAnAddressMeansSomething(row: Row) throws {
        let ip = try #require(IPAddress(row.address))
        #expect(ip.isPrivate == row.isPrivate)
        #expect(ip.isLoopback == row.isLoopback)
        #expect(ip.isUnspecified == row.isUnspecified)
        #expect(ip.isIPv6LinkLocal == row.isLinkLocal)
    }
}
