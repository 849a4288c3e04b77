#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// An IPv4 or IPv6 address.
///
/// IPv4-mapped IPv6 addresses (`::ffff:a.b.c.d`) stay IPv6: whoever wants them unmapped says so.
public struct IPAddress: Hashable, Comparable, Sendable, LosslessStringConvertible {
    /// The address family. Its raw value is the IP version.
    public enum Family: UInt8, Hashable, Sendable {
        case ipv4 = 4
        case ipv6 = 6

        /// Address length in bits: 32 or 128.
        public var bitCount: Int { self == .ipv4 ? 32 : 128 }
        /// Address length in bytes: 4 or 16.
        public var byteCount: Int { self == .ipv4 ? 4 : 16 }
    }

    /// The family.
    public let family: Family
    /// The upper 64 bits of an IPv6 address; 0 for IPv4.
    public let high: UInt64
    /// The lower 64 bits of an IPv6 address; the 32 bits of an IPv4 address.
    public let low: UInt64

    /// An IPv4 address from its 32 bits, host order.
    public init(ipv4 bits: UInt32) {
        self.family = .ipv4
        self.high = 0
        self.low = UInt64(bits)
    }

    /// An IPv6 address from its two halves, host order.
    public init(ipv6High high: UInt64, low: UInt64) {
        self.family = .ipv6
        self.high = high
        self.low = low
    }

    /// The address in network order: 4 bytes make an IPv4, 16 an IPv6 address, all else is `nil`.
    public init?(bytes: some Collection<UInt8>) {
        func fold(_ part: some Collection<UInt8>) -> UInt64 { part.reduce(0) { $0 << 8 | UInt64($1) } }
        switch bytes.count {
        case 4: self.init(ipv4: UInt32(truncatingIfNeeded: fold(bytes)))
        case 16: self.init(ipv6High: fold(bytes.prefix(8)), low: fold(bytes.dropFirst(8)))
        default: return nil
        }
    }

    /// Parses the textual form: dotted quad, or RFC 4291 without a zone.
    public init?(_ text: String) {
        // A C string ends at the first NUL: without this check "192.0.2.7\0…" would pass for an address.
        guard text.utf8.count <= 45, !text.utf8.contains(0) else { return nil }
        if text.utf8.contains(UInt8(ascii: ":")) {
            var address = in6_addr()
            guard inet_pton(AF_INET6, text, &address) == 1 else { return nil }
            self.init(bytes: withUnsafeBytes(of: &address) { Array($0) })
        } else {
            var address = in_addr()
            guard inet_pton(AF_INET, text, &address) == 1 else { return nil }
            self.init(bytes: withUnsafeBytes(of: &address) { Array($0) })
        }
    }

    /// The address in network order, 4 or 16 bytes.
    public var bytes: [UInt8] {
        switch self.family {
        case .ipv4: withUnsafeBytes(of: UInt32(truncatingIfNeeded: self.low).bigEndian) { Array($0) }
        case .ipv6:
            withUnsafeBytes(of: self.high.bigEndian) { Array($0) }
                + withUnsafeBytes(of: self.low.bigEndian) { Array($0) }
        }
    }

    /// The dotted quad, or the RFC 5952 form.
    public var description: String {
        switch self.family {
        case .ipv4: Self.dottedQuad(self.low)
        case .ipv6 where self.high == 0 && self.low >> 32 == 0xffff: "::ffff:" + Self.dottedQuad(self.low)
        case .ipv6: self.colonHexadecimal
        }
    }

    /// IPv4 before IPv6, then by value.
    public static func < (a: IPAddress, b: IPAddress) -> Bool {
        (a.family.rawValue, a.high, a.low) < (b.family.rawValue, b.high, b.low)
    }

    private static func dottedQuad(_ bits: UInt64) -> String {
        "\(bits >> 24 & 0xff).\(bits >> 16 & 0xff).\(bits >> 8 & 0xff).\(bits & 0xff)"
    }

    /// Not `inet_ntop`: it writes the last 32 bits of `::/96` as a dotted quad, which RFC 5952 does not.
    private var colonHexadecimal: String {
        let groups = [self.high, self.low].flatMap { half in
            [half >> 48, half >> 32, half >> 16, half].map { UInt16(truncatingIfNeeded: $0) }
        }
        // The longest run of zero groups, the first among equals, becomes "::"; a single group does not.
        var run = 0..<0
        var start = 0
        for position in groups.indices {
            if groups[position] != 0 {
                start = position + 1
            } else if position + 1 - start > run.count {
                run = start..<position + 1
            }
        }
        func text(_ part: ArraySlice<UInt16>) -> String {
            part.map { String($0, radix: 16) }.joined(separator: ":")
        }
        return run.count < 2
            ? text(groups[...]) : text(groups[..<run.lowerBound]) + "::" + text(groups[run.upperBound...])
    }
}
