internal import Crypto
package import Multiformats
package import PeerIdentity

/// The overlay addresses of a network's members, which every member computes alike.
///
/// - IPv6: `fd` ‖ ID[0..<5] ‖ SHA-256(`warren ip6` ‖ ID ‖ uvarint(peer ID bytes) ‖ peer ID)[0..<10].
/// - IPv4: the bits of the configured prefix, then the leading bits of SHA-256(`warren ip4` ‖ ID ‖ uvarint(peer ID bytes) ‖ peer ID).
///
/// `ID` is the network ID's 32 bytes. When the host bits (80 for IPv6) are all zero or all one, the same input is hashed again with one
/// byte appended: 1, then 2, and so on to 255.
package struct AddressPlan: Equatable, Sendable {
    /// A member before it has addresses.
    package struct Member: Equatable, Sendable {
        package let peer: PeerID
        package let name: String
        /// The address that the configuration or the roster settles on.
        package let ipv4: IPAddress?

        package init(peer: PeerID, name: String, ipv4: IPAddress? = nil) {
            self.peer = peer
            self.name = name
            self.ipv4 = ipv4
        }
    }

    /// A member and its addresses.
    package struct Assignment: Equatable, Sendable {
        package let peer: PeerID
        package let name: String
        package let ipv4: IPAddress
        package let ipv6: IPAddress
    }

    /// Why there is no plan.
    package enum Failure: Error, Equatable, Sendable, CustomStringConvertible {
        /// The IPv4 prefix is no IPv4 prefix, or has fewer than two host bits.
        case badPrefix(IPPrefix)
        /// The address that the configuration gives a member is not a host of the network's prefix.
        case outsidePrefix(member: String, address: IPAddress, prefix: IPPrefix)
        /// All 256 hashes gave a host that is skipped.
        case noHost(member: String)

        package var description: String {
            switch self {
            case .badPrefix(let prefix): "ipv4Prefix \(prefix) is not an IPv4 prefix of at most 30 bits"
            case .outsidePrefix(let member, let address, let prefix):
                "ipv4 \(address) of \(member) is not a host address in \(prefix)"
            case .noHost(let member): "no host address for \(member)"
            }
        }
    }

    /// Who uses an address.
    package enum Party: Hashable, Sendable, CustomStringConvertible {
        /// A member of one of our networks.
        case member(network: String, name: String, PeerID)
        /// This machine, on an interface that is not ours.
        case machine(interface: String)

        package var description: String {
            switch self {
            case .member(let network, let name, _): "\(name) in network \(network)"
            case .machine(let interface): "this machine on \(interface)"
            }
        }
    }

    /// One address that two parties use.
    package struct Collision: Hashable, Sendable, CustomStringConvertible {
        package let address: IPAddress
        package let first: Party
        package let second: Party

        package var description: String { "\(self.address) belongs to \(self.first) and to \(self.second)" }
    }

    /// An address the machine has on an interface of its own.
    package struct MachineAddress: Hashable, Sendable {
        package let interface: String
        package let address: IPAddress

        package init(interface: String, address: IPAddress) {
            self.interface = interface
            self.address = address
        }
    }

    /// The default of `ipv4Prefix`: 100.64.0.0/10, which RFC 6598 keeps free of the Internet's addresses.
    package static let defaultIPv4Prefix = IPPrefix(host: IPAddress(ipv4: 0x6440_0000)).widened(to: 10)

    /// The network's name in this machine's configuration.
    package let networkName: String
    /// All members' addresses, in the order they were given.
    package let assignments: [Assignment]
    /// The prefixes that hold all members: one per family.
    package let prefixes: [IPPrefix]

    /// - Throws: ``Failure`` for the first thing that is wrong. Collisions are not: see ``collisions(with:machine:)``.
    package init(
        network: NetworkID, name: String, ipv4Prefix: IPPrefix = Self.defaultIPv4Prefix, members: [Member]
    ) throws(Failure) {
        guard ipv4Prefix.address.family == .ipv4, ipv4Prefix.length <= 30 else { throw .badPrefix(ipv4Prefix) }
        self.networkName = name
        self.prefixes = [ipv4Prefix, Self.ipv6Prefix(of: network)]
        var assignments: [Assignment] = []
        for member in members {
            guard let ipv6 = Self.ipv6(of: member.peer, in: network),
                let derived = Self.ipv4(of: member.peer, in: network, prefix: ipv4Prefix)
            else { throw .noHost(member: member.name) }
            if let given = member.ipv4, !Self.isHost(given, of: ipv4Prefix) {
                throw .outsidePrefix(member: member.name, address: given, prefix: ipv4Prefix)
            }
            assignments.append(
                Assignment(peer: member.peer, name: member.name, ipv4: member.ipv4 ?? derived, ipv6: ipv6))
        }
        self.assignments = assignments
    }

    /// The /48 of a network's IPv6 addresses.
    package static func ipv6Prefix(of network: NetworkID) -> IPPrefix {
        let bits = network.bytes.prefix(5).reduce(UInt64(0xfd)) { $0 << 8 | UInt64($1) }
        return IPPrefix(host: IPAddress(ipv6High: bits << 16, low: 0)).widened(to: 48)
    }

    /// The IPv6 address of `peer`. `nil` is possible in theory only.
    package static func ipv6(of peer: PeerID, in network: NetworkID) -> IPAddress? {
        Self.firstHost(tag: "warren ip6", network, peer) { digest in
            let host = digest.prefix(10)
            guard !host.allSatisfy({ $0 == 0 }), !host.allSatisfy({ $0 == 0xff }) else { return nil }
            return IPAddress(bytes: [0xfd] + network.bytes.prefix(5) + host)
        }
    }

    /// The IPv4 address of `peer`. `nil` for a prefix that is not IPv4 or leaves fewer than two host bits.
    package static func ipv4(of peer: PeerID, in network: NetworkID, prefix: IPPrefix) -> IPAddress? {
        guard prefix.address.family == .ipv4, prefix.length <= 30 else { return nil }
        return Self.firstHost(tag: "warren ip4", network, peer) { digest in
            let leading = digest.prefix(4).reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
            let host = leading >> UInt32(prefix.length)
            let address = IPAddress(ipv4: UInt32(truncatingIfNeeded: prefix.address.low) | host)
            return Self.isHost(address, of: prefix) ? address : nil
        }
    }

    /// Every address that two parties use: among our members, between our networks, and with the machine's own addresses.
    ///
    /// A party that shares its address with several appears once with each that follows the first.
    ///
    /// - Parameters:
    ///   - others: The plans of this machine's other networks.
    ///   - machine: What the machine has on interfaces that are not this daemon's.
    package func collisions(with others: [AddressPlan] = [], machine: [MachineAddress] = []) -> [Collision] {
        var owners: [IPAddress: Party] = [:]
        for item in machine { owners[item.address] = .machine(interface: item.interface) }
        for plan in others {
            for (address, party) in plan.claims where owners[address] == nil { owners[address] = party }
        }
        var found: [Collision] = []
        for (address, party) in self.claims {
            if let first = owners[address] {
                found.append(Collision(address: address, first: first, second: party))
            } else {
                owners[address] = party
            }
        }
        return found
    }

    private var claims: [(IPAddress, Party)] {
        self.assignments.flatMap { assignment in
            let party = Party.member(network: self.networkName, name: assignment.name, assignment.peer)
            return [(assignment.ipv4, party), (assignment.ipv6, party)]
        }
    }

    /// Whether `address` is in `prefix` and its host bits are neither all zero nor all one.
    private static func isHost(_ address: IPAddress, of prefix: IPPrefix) -> Bool {
        guard prefix.contains(address), prefix.address.family == .ipv4, prefix.length < 32 else { return false }
        let mask = UInt32.max >> UInt32(prefix.length)
        let host = UInt32(truncatingIfNeeded: address.low) & mask
        return host != 0 && host != mask
    }

    private static func firstHost(
        tag: String, _ network: NetworkID, _ peer: PeerID, _ make: ([UInt8]) -> IPAddress?
    ) -> IPAddress? {
        var input = Array(tag.utf8) + network.bytes
        input.appendLengthPrefixed(peer.bytes)
        if let address = make(Array(SHA256.hash(data: input))) { return address }
        for counter in UInt8(1)...255 {
            if let address = make(Array(SHA256.hash(data: input + [counter]))) { return address }
        }
        return nil
    }
}

extension IPPrefix {
    /// The prefix of `length` bits around this one; itself when it is no longer than that.
    func widened(to length: Int) -> IPPrefix {
        IPPrefix(self.address, length: min(length, self.length)) ?? self
    }
}
