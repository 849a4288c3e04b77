package import Multiformats

/// An interface of this machine.
package struct NetworkInterface: Hashable, Sendable {
    /// The kernel's number for it, unique in this network namespace until a reboot.
    package var index: Int32
    package var name: String
    /// Whether an administrator has switched it on.
    package var isUp: Bool
    /// Whether it can carry packets: switched on, and the cable (or its like) is there.
    package var isRunning: Bool
    package var isLoopback: Bool
    /// In bytes.
    package var mtu: Int
    /// In packets.
    package var queueLength: Int
    package var addresses: [InterfaceAddress]

    package init(
        index: Int32, name: String, isUp: Bool, isRunning: Bool, isLoopback: Bool = false, mtu: Int = 1500,
        queueLength: Int = 1000, addresses: [InterfaceAddress] = []
    ) {
        self.index = index
        self.name = name
        self.isUp = isUp
        self.isRunning = isRunning
        self.isLoopback = isLoopback
        self.mtu = mtu
        self.queueLength = queueLength
        self.addresses = addresses
    }
}

/// An address of an interface. Unlike an ``Multiformats/IPPrefix`` it keeps the bits beyond the prefix length.
package struct InterfaceAddress: Hashable, Sendable, CustomStringConvertible {
    package var address: IPAddress
    /// 0…32 or 0…128.
    package var prefixLength: Int
    /// Usable beyond the link: neither link-local nor loopback (the kernel's `scope global`).
    package var isGlobal: Bool
    /// IPv6 only: not usable, because the kernel has not found out yet whether somebody else has it, or has found that out.
    package var isTentative: Bool

    package init(_ address: IPAddress, prefixLength: Int, isGlobal: Bool = true, isTentative: Bool = false) {
        self.address = address
        self.prefixLength = prefixLength
        self.isGlobal = isGlobal
        self.isTentative = isTentative
    }

    /// An address alone: /32 or /128.
    package init(host address: IPAddress) {
        self.init(address, prefixLength: address.family.bitCount)
    }

    /// The prefix that is directly connected because of this address.
    package var prefix: IPPrefix { IPPrefix(self.address, length: self.prefixLength) ?? IPPrefix(host: self.address) }

    package var description: String { "\(self.address)/\(self.prefixLength)" }
}

/// A route: packets to a prefix leave through an interface.
package struct Route: Hashable, Sendable, CustomStringConvertible {
    package var prefix: IPPrefix
    /// `nil` for routes that lead to no interface, such as `unreachable`.
    package var interface: String?
    package var table: UInt32
    /// The source address for packets of this machine that have none yet.
    package var source: IPAddress?

    package init(_ prefix: IPPrefix, interface: String?, table: UInt32, source: IPAddress? = nil) {
        self.prefix = prefix
        self.interface = interface
        self.table = table
        self.source = source
    }

    package var description: String {
        "route \(self.prefix)\(self.interface.map { " dev \($0)" } ?? "") table \(self.table)"
            + (self.source.map { " src \($0)" } ?? "")
    }
}

/// A policy rule that sends some packets to a routing table, by their mark.
package struct PolicyRule: Hashable, Sendable, CustomStringConvertible {
    package var family: IPAddress.Family
    /// Rules apply in ascending order; the main table's has 32766.
    package var priority: UInt32
    package var table: UInt32
    package var mark: UInt32
    package var mask: UInt32
    /// Whether the rule holds for packets *without* the mark.
    package var isInverted: Bool
    /// Whether the rule selects by more than the mark, or does something else than look into a table. Only in listings.
    package var isForeign: Bool

    package init(
        family: IPAddress.Family, priority: UInt32, table: UInt32, mark: UInt32, mask: UInt32 = .max,
        isInverted: Bool, isForeign: Bool = false
    ) {
        self.family = family
        self.priority = priority
        self.table = table
        self.mark = mark
        self.mask = mask
        self.isInverted = isInverted
        self.isForeign = isForeign
    }

    /// `not fwmark M lookup T priority P`: everything but the marked packets of our own sockets looks into an overlay's table first.
    package static func overlay(_ family: IPAddress.Family, _ allocation: TableAllocation) -> Self {
        Self(
            family: family, priority: allocation.priority, table: allocation.table, mark: Fwmark.warren,
            isInverted: true)
    }

    package var description: String {
        "IPv\(self.family.rawValue) rule \(self.priority): \(self.isInverted ? "not " : "")"
            + "fwmark 0x\(String(self.mark, radix: 16)) lookup \(self.table)"
    }
}

/// Marks of packets (`SO_MARK`, `fwmark` in rules).
package enum Fwmark {
    /// The mark of every socket that carries Warren's own traffic, of all daemons on a machine: such packets never enter a tunnel.
    ///
    /// Bits are chosen beside those that Kubernetes (0xc000), Cilium (0x0f00), and Calico and Tailscale (0xffff0000) give a meaning to.
    package static let warren: UInt32 = 0x2057
}

/// A routing table and the priority of the rules that lead to it: one pair for each network.
package struct TableAllocation: Hashable, Sendable {
    package var table: UInt32
    package var priority: UInt32

    package init(table: UInt32, priority: UInt32) {
        self.table = table
        self.priority = priority
    }
}

/// One change to the kernel's network configuration. Its description completes the sentence "cannot …".
package enum NetworkOperation: Hashable, Sendable, CustomStringConvertible {
    /// Writes a file under `/proc/sys`, named relative to it.
    case set(path: String, value: String)
    case setLink(String, up: Bool)
    case setMTU(String, bytes: Int)
    case setQueueLength(String, packets: Int)
    /// Adds an address without a route for its prefix (`noprefixroute`), or makes an existing one so.
    case addAddress(InterfaceAddress, interface: String)
    case deleteAddress(InterfaceAddress, interface: String)
    /// Adds a route, or replaces the one to the same prefix in the same table.
    case addRoute(Route)
    case deleteRoute(Route)
    case addRule(PolicyRule)
    case deleteRule(PolicyRule)

    package var description: String {
        switch self {
        case .set(let path, let value): "set \(path) to \(value)"
        case .setLink(let interface, let up): "set \(interface) \(up ? "up" : "down")"
        case .setMTU(let interface, let bytes): "set the MTU of \(interface) to \(bytes)"
        case .setQueueLength(let interface, let packets): "set the queue length of \(interface) to \(packets)"
        case .addAddress(let address, let interface): "add address \(address) to \(interface)"
        case .deleteAddress(let address, let interface): "delete address \(address) from \(interface)"
        case .addRoute(let route): "add \(route)"
        case .deleteRoute(let route): "delete \(route)"
        case .addRule(let rule): "add \(rule)"
        case .deleteRule(let rule): "delete \(rule)"
        }
    }
}
