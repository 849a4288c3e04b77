import CNetlink
import Glibc
import Multiformats

/// Who made a route or rule (`ip route show proto 87`): ours carry this number, so that listings show it and ``RouteMonitor`` knows its own.
let overlayProtocol: UInt8 = 87

// Listings ----------------------------------------------------------------------------------------------------------

extension NetlinkRequest {
    static func listLinks() throws(NetlinkError) -> NetlinkRequest {
        try NetlinkRequest(type: RTM_GETLINK, flags: NLM_F_DUMP, body: ifinfomsg())
    }

    static func listAddresses() throws(NetlinkError) -> NetlinkRequest {
        try NetlinkRequest(type: RTM_GETADDR, flags: NLM_F_DUMP, body: ifaddrmsg())
    }

    static func listRules(_ family: IPAddress.Family) throws(NetlinkError) -> NetlinkRequest {
        var body = fib_rule_hdr()
        body.family = family.kernelFamily
        return try NetlinkRequest(type: RTM_GETRULE, flags: NLM_F_DUMP, body: body)
    }

    /// The kernel filters by table from Linux 4.20 on; the reader filters again.
    static func listRoutes(_ family: IPAddress.Family, table: UInt32) throws(NetlinkError) -> NetlinkRequest {
        var body = rtmsg()
        body.rtm_family = family.kernelFamily
        let request = try NetlinkRequest(type: RTM_GETROUTE, flags: NLM_F_DUMP, body: body)
        try request.put(Int(RTA_TABLE.rawValue), table)
        return request
    }
}

extension NetworkInterface {
    /// Reads an RTM_NEWLINK. Addresses come in messages of their own.
    init?(_ message: NetlinkMessage) {
        guard message.type == RTM_NEWLINK, let body: ifinfomsg = message.body(),
            let name = message.text(IFLA_IFNAME, after: ifinfomsg.self)
        else { return nil }
        let flags = Int32(bitPattern: body.ifi_flags)
        func has(_ flag: Int) -> Bool { flags & Int32(truncatingIfNeeded: flag) != 0 }
        self.init(
            index: body.ifi_index, name: name, isUp: has(LinkFlag.up), isRunning: has(LinkFlag.running),
            isLoopback: has(LinkFlag.loopback),
            mtu: Int(message.integer(IFLA_MTU, after: ifinfomsg.self) ?? 0),
            queueLength: Int(message.integer(IFLA_TXQLEN, after: ifinfomsg.self) ?? 0))
    }
}

extension InterfaceAddress {
    /// Reads an RTM_NEWADDR; `index` is the interface's.
    static func read(_ message: NetlinkMessage) -> (index: Int32, address: InterfaceAddress)? {
        guard message.type == RTM_NEWADDR, let body: ifaddrmsg = message.body() else { return nil }
        // On a point-to-point link IFA_ADDRESS is the far end; IFA_LOCAL is always ours where it exists.
        let local = message.attribute(IFA_LOCAL, after: ifaddrmsg.self)
        guard let bytes = local ?? message.attribute(IFA_ADDRESS, after: ifaddrmsg.self),
            let address = IPAddress(bytes: bytes), address.family.kernelFamily == body.ifa_family,
            Int(body.ifa_prefixlen) <= address.family.bitCount
        else { return nil }
        let isGlobal = body.ifa_scope == UInt8(truncatingIfNeeded: RT_SCOPE_UNIVERSE.rawValue)
        let flags = message.integer(IFA_FLAGS, after: ifaddrmsg.self) ?? UInt32(body.ifa_flags)
        let isTentative = flags & UInt32(IFA_F_TENTATIVE | IFA_F_DADFAILED) != 0
        return (
            Int32(bitPattern: body.ifa_index),
            InterfaceAddress(
                address, prefixLength: Int(body.ifa_prefixlen), isGlobal: isGlobal, isTentative: isTentative)
        )
    }
}

extension Route {
    /// Reads an RTM_NEWROUTE. Cached routes, which the kernel makes of others, are left out.
    init?(_ message: NetlinkMessage, interfaceName: (Int32) -> String?) {
        guard message.type == RTM_NEWROUTE, let body: rtmsg = message.body(),
            body.rtm_flags & UInt32(RTM_F_CLONED) == 0, let family = IPAddress.Family(kernelFamily: body.rtm_family)
        else { return nil }
        func address(_ type: rtattr_type_t) -> IPAddress? {
            message.attribute(Int(type.rawValue), after: rtmsg.self).flatMap { IPAddress(bytes: $0) }
        }
        let zero = family == .ipv4 ? IPAddress(ipv4: 0) : IPAddress(ipv6High: 0, low: 0)
        guard let prefix = IPPrefix(address(RTA_DST) ?? zero, length: Int(body.rtm_dst_len)) else { return nil }
        let index = message.integer(Int(RTA_OIF.rawValue), after: rtmsg.self)
        self.init(
            prefix, interface: index.flatMap { interfaceName(Int32(truncatingIfNeeded: $0)) },
            table: message.integer(Int(RTA_TABLE.rawValue), after: rtmsg.self) ?? UInt32(body.rtm_table),
            source: address(RTA_PREFSRC))
    }
}

extension PolicyRule {
    /// Reads an RTM_NEWRULE.
    init?(_ message: NetlinkMessage) {
        guard message.type == RTM_NEWRULE, let body: fib_rule_hdr = message.body(),
            let family = IPAddress.Family(kernelFamily: body.family)
        else { return nil }
        func integer(_ type: Int) -> UInt32? { message.integer(type, after: fib_rule_hdr.self) }
        let selectors = [
            FRA_IIFNAME, FRA_OIFNAME, FRA_GOTO, FRA_UID_RANGE, FRA_IP_PROTO, FRA_SPORT_RANGE, FRA_DPORT_RANGE,
            FRA_L3MDEV,
        ]
        let isForeign =
            body.src_len != 0 || body.dst_len != 0 || body.tos != 0 || Int(body.action) != FR_ACT_TO_TBL
            || selectors.contains { message.attribute($0, after: fib_rule_hdr.self) != nil }
        let mark = integer(FRA_FWMARK)
        self.init(
            family: family, priority: integer(FRA_PRIORITY) ?? 0, table: integer(FRA_TABLE) ?? UInt32(body.table),
            mark: mark ?? 0, mask: mark == nil ? 0 : integer(FRA_FWMASK) ?? .max,
            isInverted: body.flags & UInt32(FIB_RULE_INVERT) != 0, isForeign: isForeign)
    }
}

// Changes -----------------------------------------------------------------------------------------------------------

extension NetlinkRequest {
    /// Changes of a link: up or down, and attributes.
    static func changeLink(
        _ index: Int32, up: Bool? = nil, mtu: Int? = nil, queueLength: Int? = nil, for operation: NetworkOperation
    ) throws(NetlinkError) -> NetlinkRequest {
        var body = ifinfomsg()
        body.ifi_index = index
        if let up {
            body.ifi_change = UInt32(LinkFlag.up)
            body.ifi_flags = up ? UInt32(LinkFlag.up) : 0
        }
        let request = try NetlinkRequest(type: RTM_NEWLINK, flags: 0, operation: operation, body: body)
        if let mtu { try request.put(IFLA_MTU, UInt32(clamping: mtu)) }
        if let queueLength { try request.put(IFLA_TXQLEN, UInt32(clamping: queueLength)) }
        return request
    }

    static func addAddress(
        _ address: InterfaceAddress, index: Int32, for operation: NetworkOperation
    ) throws(NetlinkError) -> NetlinkRequest {
        let request = try Self.address(
            address, index: index, type: RTM_NEWADDR, flags: NLM_F_CREATE | NLM_F_REPLACE, for: operation)
        // Nobody else can have the address on a tunnel: duplicate detection would only delay it.
        let noDetection = address.address.family == .ipv6 ? UInt32(IFA_F_NODAD) : 0
        try request.put(IFA_FLAGS, UInt32(IFA_F_NOPREFIXROUTE) | noDetection)
        return request
    }

    static func deleteAddress(
        _ address: InterfaceAddress, index: Int32, for operation: NetworkOperation
    ) throws(NetlinkError) -> NetlinkRequest {
        try Self.address(address, index: index, type: RTM_DELADDR, flags: 0, for: operation)
    }

    private static func address(
        _ address: InterfaceAddress, index: Int32, type: Int, flags: Int32, for operation: NetworkOperation
    ) throws(NetlinkError) -> NetlinkRequest {
        var body = ifaddrmsg()
        body.ifa_family = address.address.family.kernelFamily
        body.ifa_prefixlen = UInt8(clamping: address.prefixLength)
        body.ifa_index = UInt32(bitPattern: index)
        let request = try NetlinkRequest(type: type, flags: flags, operation: operation, body: body)
        try request.put(IFA_LOCAL, bytes: address.address.bytes)
        try request.put(IFA_ADDRESS, bytes: address.address.bytes)
        return request
    }

    static func addRoute(
        _ route: Route, index: Int32?, for operation: NetworkOperation
    ) throws(NetlinkError) -> NetlinkRequest {
        var body = Self.routeBody(route)
        body.rtm_protocol = overlayProtocol
        body.rtm_type = UInt8(truncatingIfNeeded: index == nil ? RTN_UNREACHABLE : RTN_UNICAST)
        // IPv4 wants to know that no gateway is meant; IPv6 has no scopes.
        let isDirect = route.prefix.address.family == .ipv4 && index != nil
        let scope = isDirect ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE
        body.rtm_scope = UInt8(truncatingIfNeeded: scope.rawValue)
        let request = try NetlinkRequest(
            type: RTM_NEWROUTE, flags: NLM_F_CREATE | NLM_F_REPLACE, operation: operation, body: body)
        try request.putTarget(of: route, index: index)
        if let source = route.source { try request.put(Int(RTA_PREFSRC.rawValue), bytes: source.bytes) }
        return request
    }

    /// Matches whatever stands at the prefix in that table, no matter who made it and with what source.
    static func deleteRoute(
        _ route: Route, index: Int32?, for operation: NetworkOperation
    ) throws(NetlinkError) -> NetlinkRequest {
        var body = Self.routeBody(route)
        body.rtm_scope = UInt8(truncatingIfNeeded: RT_SCOPE_NOWHERE.rawValue)
        let request = try NetlinkRequest(type: RTM_DELROUTE, flags: 0, operation: operation, body: body)
        try request.putTarget(of: route, index: index)
        return request
    }

    private static func routeBody(_ route: Route) -> rtmsg {
        var body = rtmsg()
        body.rtm_family = route.prefix.address.family.kernelFamily
        body.rtm_dst_len = UInt8(clamping: route.prefix.length)
        return body
    }

    private func putTarget(of route: Route, index: Int32?) throws(NetlinkError) {
        try self.put(Int(RTA_DST.rawValue), bytes: route.prefix.address.bytes)
        try self.put(Int(RTA_TABLE.rawValue), route.table)
        if let index { try self.put(Int(RTA_OIF.rawValue), UInt32(bitPattern: index)) }
    }

    /// A rule to add or to delete; the kernel deletes the first that agrees in every attribute.
    ///
    /// Built by hand because libnl 3.7 cannot invert a rule.
    static func rule(
        _ rule: PolicyRule, adding: Bool, for operation: NetworkOperation
    ) throws(NetlinkError) -> NetlinkRequest {
        var body = fib_rule_hdr()
        body.family = rule.family.kernelFamily
        body.action = UInt8(truncatingIfNeeded: FR_ACT_TO_TBL)
        body.flags = rule.isInverted ? UInt32(FIB_RULE_INVERT) : 0
        let request = try NetlinkRequest(
            type: adding ? RTM_NEWRULE : RTM_DELRULE, flags: adding ? NLM_F_CREATE | NLM_F_EXCL : 0,
            operation: operation, body: body)
        try request.put(FRA_PRIORITY, rule.priority)
        try request.put(FRA_TABLE, rule.table)
        try request.put(FRA_FWMARK, rule.mark)
        try request.put(FRA_FWMASK, rule.mask)
        if adding { try request.put(FRA_PROTOCOL, overlayProtocol) }
        return request
    }
}

/// Flags of `struct ifinfomsg` (`IFF_…` of `<linux/if.h>`, which collides with `<net/if.h>`).
private enum LinkFlag {
    static let up = 0x1
    static let loopback = 0x8
    /// IFF_LOWER_UP would be the carrier alone; IFF_RUNNING is RFC 2863's "operational".
    static let running = 0x40
}

extension IPAddress.Family {
    /// AF_INET or AF_INET6.
    var kernelFamily: UInt8 { UInt8(truncatingIfNeeded: self == .ipv4 ? AF_INET : AF_INET6) }

    init?(kernelFamily: UInt8) {
        switch Int32(kernelFamily) {
        case AF_INET: self = .ipv4
        case AF_INET6: self = .ipv6
        default: return nil
        }
    }
}
