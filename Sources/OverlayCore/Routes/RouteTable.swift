package import Multiformats

/// Where packets to an address go.
package enum Route: Equatable, Sendable {
    /// Nowhere.
    case none
    /// Here: an address of this machine in the network, or a prefix that it announces.
    case local
    /// To a peer.
    case peer(PeerIndex)
}

/// Which peer owns which prefixes: longest match, IPv4 and IPv6. Immutable; a change builds a new table.
///
/// The prefixes are flattened into disjoint ranges, sorted by their first address, so that one binary search without branches answers.
/// `n` prefixes make at most 2n + 1 ranges.
package final class RouteTable: Sendable {
    /// A prefix and whose it is.
    package struct Entry: Hashable, Sendable {
        package let prefix: IPPrefix
        /// The peer, or `nil` for ourselves.
        package let peer: PeerIndex?

        package init(_ prefix: IPPrefix, peer: PeerIndex?) {
            self.prefix = prefix
            self.peer = peer
        }
    }

    /// Why a table cannot be built.
    package enum Failure: Error, Equatable, Sendable {
        /// Two owners for one prefix; `nil` stands for ourselves.
        case contested(IPPrefix, PeerIndex?, PeerIndex?)
        /// The index is kept for other uses.
        case badIndex(PeerIndex)
    }

    private static let noneOwner = UInt32.max
    private static let localOwner = UInt32.max - 1

    /// First addresses of the IPv4 ranges, ascending, the first 0, and the owner of each.
    private let starts4: [UInt32]
    private let owners4: [UInt32]
    /// The same for IPv6.
    private let starts6: [UInt128]
    private let owners6: [UInt32]

    /// The number of prefixes.
    package let count: Int

    /// - Throws: ``Failure`` when an entry contradicts another. Repeated equal entries are one.
    package init(_ entries: some Sequence<Entry>) throws(Failure) {
        var owners: [IPPrefix: UInt32] = [:]
        for entry in entries {
            if let peer = entry.peer, peer.rawValue > PeerIndex.maximumRawValue { throw .badIndex(peer) }
            let owner = entry.peer?.rawValue ?? Self.localOwner
            if let other = owners[entry.prefix], other != owner {
                let first = other == Self.localOwner ? nil : PeerIndex(rawValue: other)
                throw .contested(entry.prefix, first, entry.peer)
            }
            owners[entry.prefix] = owner
        }
        self.count = owners.count
        let ranges4 = Self.flatten(
            owners.filter { $0.key.address.family == .ipv4 }.map { prefix, owner in
                (first: UInt32(truncatingIfNeeded: prefix.address.low), length: prefix.length, owner: owner)
            })
        let ranges6 = Self.flatten(
            owners.filter { $0.key.address.family == .ipv6 }.map { prefix, owner in
                let first = UInt128(prefix.address.high) << 64 | UInt128(prefix.address.low)
                return (first: first, length: prefix.length, owner: owner)
            })
        self.starts4 = ranges4.map(\.start)
        self.owners4 = ranges4.map(\.owner)
        self.starts6 = ranges6.map(\.start)
        self.owners6 = ranges6.map(\.owner)
    }

    /// The route of the longest prefix that holds `address`.
    @inline(__always)
    package func lookup(_ address: IPAddress) -> Route {
        switch address.family {
        case .ipv4: self.lookup(ipv4: UInt32(truncatingIfNeeded: address.low))
        case .ipv6: self.lookup(ipv6High: address.high, low: address.low)
        }
    }

    /// The route of an IPv4 address, host order.
    package func lookup(ipv4 address: UInt32) -> Route {
        Self.route(Self.search(self.starts4, self.owners4, address))
    }

    /// The route of an IPv6 address, both halves in host order.
    package func lookup(ipv6High high: UInt64, low: UInt64) -> Route {
        Self.route(Self.search(self.starts6, self.owners6, UInt128(high) << 64 | UInt128(low)))
    }

    /// The peer that may send from `source`; `nil` when nobody may, or only we.
    @inline(__always)
    package func owner(of source: IPAddress) -> PeerIndex? {
        if case .peer(let index) = self.lookup(source) { return index }
        return nil
    }

    @inline(__always)
    private static func route(_ owner: UInt32) -> Route {
        if owner < self.localOwner { return .peer(PeerIndex(rawValue: owner)) }
        return owner == self.localOwner ? .local : .none
    }

    /// The owner of the last range that starts at or before `address`. The first range starts at 0, so there is one.
    @inline(__always)
    private static func search<Address: FixedWidthInteger>(
        _ starts: [Address], _ owners: [UInt32], _ address: Address
    ) -> UInt32 {
        starts.withUnsafeBufferPointer { starts in
            owners.withUnsafeBufferPointer { owners in
                guard let start = starts.baseAddress else { return self.noneOwner }
                var base = 0
                var count = starts.count
                while count > 1 {
                    let half = count &>> 1
                    base = start[base &+ half] <= address ? base &+ half : base
                    count &-= half
                }
                return owners[base]
            }
        }
    }

    /// Turns nested prefixes into disjoint ranges: a sweep over the prefixes in address order, outer before inner, with a stack of the open ones.
    private static func flatten<Address: FixedWidthInteger & UnsignedInteger>(
        _ prefixes: [(first: Address, length: Int, owner: UInt32)]
    ) -> [(start: Address, owner: UInt32)] {
        var ranges: [(start: Address, owner: UInt32)] = [(0, Self.noneOwner)]
        var open: [(last: Address, owner: UInt32)] = []

        func begin(_ start: Address, _ owner: UInt32) {
            if ranges.last?.start == start { ranges.removeLast() }
            if ranges.last?.owner != owner { ranges.append((start, owner)) }
        }
        /// Closes the innermost open prefix: what follows it belongs to the one around it.
        func close() {
            guard let closed = open.popLast(), closed.last < .max else { return }
            begin(closed.last + 1, open.last?.owner ?? Self.noneOwner)
        }
        for prefix in prefixes.sorted(by: { ($0.first, $0.length) < ($1.first, $1.length) }) {
            while let innermost = open.last, innermost.last < prefix.first { close() }
            begin(prefix.first, prefix.owner)
            // A shift by the whole width gives 0 here: a host prefix is one address.
            open.append((prefix.first | (Address.max >> prefix.length), prefix.owner))
        }
        while !open.isEmpty { close() }
        return ranges
    }
}
