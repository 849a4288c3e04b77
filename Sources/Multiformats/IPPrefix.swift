/// An address prefix such as `192.168.7.0/24`. Bits beyond its length are always zero.
public struct IPPrefix: Hashable, Sendable, LosslessStringConvertible {
    /// The first address of the prefix.
    public let address: IPAddress
    /// Number of leading bits that count: 0…32 or 0…128.
    public let length: Int

    /// The prefix of `length` bits that holds `address`; `nil` when the length is out of range.
    public init?(_ address: IPAddress, length: Int) {
        guard (0...address.family.bitCount).contains(length) else { return nil }
        self.address = address.masked(to: length)
        self.length = length
    }

    /// The prefix that holds `address` alone.
    public init(host address: IPAddress) {
        self.address = address
        self.length = address.family.bitCount
    }

    /// Parses `address/length`. `nil` for anything else, when a bit beyond the length is set, and for a length with
    /// leading zeros.
    public init?(_ text: String) {
        guard let slash = text.lastIndex(of: "/"), let address = IPAddress(String(text[..<slash])) else { return nil }
        let digits = text[text.index(after: slash)...]
        guard (1...3).contains(digits.utf8.count), digits.utf8.allSatisfy({ (48...57).contains($0) }),
            digits == "0" || !digits.hasPrefix("0"),
            let length = Int(digits), let prefix = IPPrefix(address, length: length), prefix.address == address
        else { return nil }
        self = prefix
    }

    /// Whether `address` lies inside. Families never mix.
    public func contains(_ address: IPAddress) -> Bool {
        address.family == self.address.family && address.masked(to: self.length) == self.address
    }

    /// Whether all of `other` lies inside.
    public func contains(_ other: IPPrefix) -> Bool {
        other.length >= self.length && self.contains(other.address)
    }

    /// Whether the two share an address.
    public func overlaps(_ other: IPPrefix) -> Bool { self.contains(other) || other.contains(self) }

    /// `address/length`.
    public var description: String { "\(self.address)/\(self.length)" }
}

extension IPAddress {
    /// The address with all bits beyond the first `length` cleared. `length` is clamped to the address size.
    public func masked(to length: Int) -> IPAddress {
        let length = min(max(length, 0), self.family.bitCount)
        func mask(_ bits: Int) -> UInt64 { bits <= 0 ? 0 : bits >= 64 ? .max : ~(.max >> UInt64(bits)) }
        switch self.family {
        case .ipv4: return IPAddress(ipv4: UInt32(truncatingIfNeeded: self.low & mask(length + 32)))
        case .ipv6: return IPAddress(ipv6High: self.high & mask(length), low: self.low & mask(length - 64))
        }
    }
}
