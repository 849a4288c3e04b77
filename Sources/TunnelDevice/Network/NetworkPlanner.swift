package import Multiformats

/// What one network wants of the kernel while it is up.
package struct DesiredNetwork: Hashable, Sendable {
    /// The TUN interface, which must exist by then.
    package var interface: String
    /// In bytes; IPv6 needs 1280.
    package var mtu: Int
    /// In packets, or super-packets; `nil` keeps the kernel's 500.
    package var queueLength: Int?
    /// This machine's addresses in the network, at most one of each family is the rule. They get /32 and /128.
    package var addresses: [IPAddress]
    /// What lies behind the interface: a host prefix for each member, and the prefixes announced by members that we use.
    package var routes: [IPPrefix]

    package init(
        interface: String, mtu: Int, queueLength: Int? = nil, addresses: [IPAddress], routes: [IPPrefix]
    ) {
        self.interface = interface
        self.mtu = mtu
        self.queueLength = queueLength
        self.addresses = addresses
        self.routes = routes
    }

    /// Whether a prefix wider than a host leads into the tunnel, and with it perhaps the physical address of a peer.
    var mayCoverUnderlay: Bool {
        self.routes.contains { $0.address.family == .ipv4 && $0.length < 32 }
    }
}

/// What the kernel has at the moment, as far as a plan depends on it.
package struct CurrentNetwork: Hashable, Sendable {
    package var interfaces: [NetworkInterface]
    /// Routes of the network's own table, both families.
    package var routes: [Route]
    /// All policy rules, both families.
    package var rules: [PolicyRule]
    /// The files under `/proc/sys` named by ``NetworkPlanner/settings(for:interfaces:)`` that exist, with their values.
    package var settings: [String: String]
    package var hasIPv6: Bool

    package init(
        interfaces: [NetworkInterface] = [], routes: [Route] = [], rules: [PolicyRule] = [],
        settings: [String: String] = [:], hasIPv6: Bool = true
    ) {
        self.interfaces = interfaces
        self.routes = routes
        self.rules = rules
        self.settings = settings
        self.hasIPv6 = hasIPv6
    }
}

/// Finds the changes that lead from what the kernel has to what a network wants. Pure.
///
/// 1. What is right already is left alone, so a plan for a finished network is empty and applying twice is harmless.
/// 2. Upwards: settings, link, addresses, routes, rules, because each needs the one before it.
///    Downwards: rules first, because from then on nothing looks into the table.
/// 3. The table is ours: what is in it and not wanted goes. Addresses and rules go only when they are recorded as ours.
package enum NetworkPlanner {
    /// Changes that bring the network up, or bring it from one wish to the next.
    ///
    /// - Parameter recorded: Addresses that we gave to the interface earlier.
    package static func install(
        _ desired: DesiredNetwork, _ allocation: TableAllocation, recorded: [IPAddress], current: CurrentNetwork
    ) -> [NetworkOperation] {
        let name = desired.interface
        let link = current.interfaces.first { $0.name == name }
        let usable: (IPAddress) -> Bool = { $0.family == .ipv4 || current.hasIPv6 }
        var operations: [NetworkOperation] = []

        for (path, value) in Self.interfaceSettings(name) {
            if let old = current.settings[path], old != value { operations.append(.set(path: path, value: value)) }
        }
        if link?.mtu != desired.mtu { operations.append(.setMTU(name, bytes: desired.mtu)) }
        if let packets = desired.queueLength, link?.queueLength != packets {
            operations.append(.setQueueLength(name, packets: packets))
        }
        if link?.isUp != true { operations.append(.setLink(name, up: true)) }

        let wanted = desired.addresses.filter(usable)
        let present = Set(link?.addresses.map(\.address) ?? [])
        for address in wanted where !present.contains(address) {
            operations.append(.addAddress(InterfaceAddress(host: address), interface: name))
        }

        let source = { (family: IPAddress.Family) in wanted.first { $0.family == family } }
        let routes = Self.unique(desired.routes.filter { usable($0.address) }).map {
            Route($0, interface: name, table: allocation.table, source: source($0.address.family))
        }
        let existing = Set(current.routes)
        let prefixes = Set(routes.map(\.prefix))
        operations += routes.filter { !existing.contains($0) }.map { .addRoute($0) }
        operations += Self.unique(
            current.routes.filter { $0.table == allocation.table && !prefixes.contains($0.prefix) }
        ).map { .deleteRoute($0) }

        let families: [IPAddress.Family] = current.hasIPv6 ? [.ipv4, .ipv6] : [.ipv4]
        let rules = families.map { PolicyRule.overlay($0, allocation) }
        operations += rules.filter { !current.rules.contains($0) }.map { .addRule($0) }

        // Last, so that the old address serves as the routes' source until the new one does.
        let stale = Self.unique(recorded).filter { present.contains($0) && !wanted.contains($0) }
        return operations + stale.map { .deleteAddress(InterfaceAddress(host: $0), interface: name) }
    }

    /// Changes that undo all that `install` may have done, also after a crash, and also when the interface is gone.
    ///
    /// - Parameter recorded: Addresses that we gave to the interface.
    package static func remove(
        interface: String, _ allocation: TableAllocation, recorded: [IPAddress], current: CurrentNetwork
    ) -> [NetworkOperation] {
        // The mark may be an older version's: what tells our rules is the pair of numbers.
        let rules = current.rules.filter {
            $0.table == allocation.table && $0.priority == allocation.priority && !$0.isForeign
        }
        let routes = Self.unique(current.routes.filter { $0.table == allocation.table })
        let link = current.interfaces.first { $0.name == interface }
        let addresses = Self.unique(recorded).filter { address in
            link?.addresses.contains { $0.address == address } ?? false
        }
        return rules.map { .deleteRule($0) } + routes.map { .deleteRoute($0) }
            + addresses.map { .deleteAddress(InterfaceAddress(host: $0), interface: interface) }
            + (link?.isUp == true && !addresses.isEmpty ? [.setLink(interface, up: false)] : [])
    }

    /// Files under `/proc/sys` that a plan for `desired` depends on.
    package static func settings(for desired: DesiredNetwork, interfaces: [NetworkInterface]) -> [String] {
        Self.interfaceSettings(desired.interface).map(\.path) + [Self.reversePathFilter("all")]
            + interfaces.map { Self.reversePathFilter($0.name) }
    }

    /// The values an overlay interface needs.
    private static func interfaceSettings(_ interface: String) -> [(path: String, value: String)] {
        let ipv6 = "net/ipv6/conf/\(interface)"
        return [
            // A machine may switch IPv6 off on new interfaces (conf/default): ours needs it for its address.
            ("\(ipv6)/disable_ipv6", "0"),
            // No link-local address, and so no router solicitations and listener reports into the tunnel.
            ("\(ipv6)/addr_gen_mode", "1"),
            // A member must not become our router.
            ("\(ipv6)/accept_ra", "0"),
        ]
    }

    private static func unique<Element: Hashable>(_ elements: [Element]) -> [Element] {
        var seen: Set<Element> = []
        return elements.filter { seen.insert($0).inserted }
    }
}

// Reverse path filter -----------------------------------------------------------------------------------------------

/// The kernel's reverse path filter (`rp_filter`) and our routes.
///
/// In strict mode (1) the kernel drops an IPv4 packet when an answer to it would leave through another interface. It asks
/// the rules without a mark, because nothing marks what arrives. On the TUN interface that is right as it is: a
/// member's address leads back into our table. On a physical interface it is wrong as soon as a prefix behind a member
/// holds the physical address of a peer: the answer to an unmarked packet would enter the tunnel, so the peer's own packets are dropped.
///
/// `src_valid_mark` cannot help by itself: it makes the kernel ask with the packet's mark, which somebody would have to restore from connection
/// tracking first. So while such a prefix is routed, strict physical interfaces are set to loose mode (2, the source
/// must be reachable at all), which is what RFC 3704 § 2.4 asks of multihomed machines, and what systemd sets. Their old value
/// is recorded and comes back. IPv6 has no such setting.
extension NetworkPlanner {
    static let strict = "1"
    static let loose = "2"

    /// The file with the filter's mode for one interface, or for `all`, which is the minimum for each.
    package static func reversePathFilter(_ interface: String) -> String { "net/ipv4/conf/\(interface)/rp_filter" }

    /// Interfaces, other than the overlay's own, on which strict filtering would drop packets of peers.
    ///
    /// - Parameter overlays: Interfaces of overlays on this machine: their strict filter is right.
    package static func interfacesToLoosen(
        for desired: DesiredNetwork, overlays: Set<String>, current: CurrentNetwork
    ) -> [Loosening] {
        guard desired.mayCoverUnderlay else { return [] }
        let minimum = current.settings[Self.reversePathFilter("all")] ?? "0"
        return current.interfaces.compactMap { interface in
            guard !interface.isLoopback, interface.isUp, interface.name != desired.interface,
                !overlays.contains(interface.name),
                interface.addresses.contains(where: { $0.address.family == .ipv4 }),
                let own = current.settings[Self.reversePathFilter(interface.name)],
                // The kernel uses the larger of the two.
                max(own, minimum) == Self.strict
            else { return nil }
            return Loosening(interface: interface.name, original: own)
        }
    }

    /// Changes that give interfaces their old mode back, unless somebody has set another since, or they are gone.
    package static func restore(_ loosenings: [Loosening], settings: [String: String]) -> [NetworkOperation] {
        loosenings.compactMap { loosening in
            let path = Self.reversePathFilter(loosening.interface)
            return settings[path] == Self.loose ? .set(path: path, value: loosening.original) : nil
        }
    }
}

/// An interface whose reverse path filter we set to loose, and what it was.
package struct Loosening: Hashable, Sendable, Codable {
    package var interface: String
    package var original: String

    package init(interface: String, original: String) {
        self.interface = interface
        self.original = original
    }
}
