package import Multiformats

/// The Internet checksum and its uses in IP, TCP, UDP and ICMPv6.
///
/// Checksums are values of the header field, host order, already complemented unless said otherwise.
///
/// Spec: RFC 1071, RFC 1624, RFC 9293 § 3.1, RFC 768, RFC 8200 § 8.1.
package enum Checksum {
    /// The checksum of `bytes`. Over bytes that include a right checksum it is 0.
    package static func internet(_ bytes: UnsafeRawBufferPointer) -> UInt16 {
        var sum = PartialSum()
        sum.add(bytes)
        return ~sum.folded
    }

    /// The checksum that an IPv4 header should carry. The one it carries is left out of the sum.
    ///
    /// `header` is the whole IPv4 header with its options, at least 20 bytes.
    package static func ipv4Header(_ header: UnsafeRawBufferPointer) -> UInt16 {
        var sum = PartialSum()
        sum.add(header.part(from: 0, count: 10))
        sum.add(header.part(from: 12, count: header.count - 12))
        return ~sum.folded
    }

    /// The sum of a pseudo-header, *not* complemented: what a checksum field holds while its checksum is pending.
    ///
    /// - Parameter byteCount: Length of transport header and payload, 0…65,535.
    package static func pseudoHeader(
        source: IPAddress, destination: IPAddress, transportProtocol: IPProtocol, byteCount: Int
    ) -> UInt16 {
        PartialSum(
            source: source, destination: destination, transportProtocol: transportProtocol, byteCount: byteCount
        ).folded
    }

    /// The checksum after one 16-bit word under it changed from `old` to `new` (RFC 1624, equation 3).
    ///
    /// For two bytes at an odd offset from the start of what is summed, pass both words byte-swapped.
    package static func updated(_ checksum: UInt16, from old: UInt16, to new: UInt16) -> UInt16 {
        var sum = UInt32(~checksum) + UInt32(~old) + UInt32(new)
        sum = (sum & 0xffff) + (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16)
        return ~UInt16(truncatingIfNeeded: sum)
    }

    /// Finishes the pending checksum of a TCP or UDP packet in place. What the field held before does not matter.
    ///
    /// - Parameter packet: What `bytes` parsed to.
    /// - Returns: `false`, and nothing is written, if the packet is a fragment or neither TCP nor UDP.
    @discardableResult
    package static func complete(_ packet: IPPacket, in bytes: UnsafeMutableRawBufferPointer) -> Bool {
        guard let field = packet.checksumField, packet.byteCount == bytes.count else { return false }
        bytes.setBigEndian16(0, at: field)
        let checksum = ~self.transportSum(packet, UnsafeRawBufferPointer(bytes))
        // In UDP a zero says "no checksum" (RFC 768); in one's complement both zeroes are the same number.
        let isUDP = packet.transportProtocol == .udp
        bytes.setBigEndian16(isUDP && checksum == 0 ? 0xffff : checksum, at: field)
        return true
    }

    /// Whether the TCP, UDP or ICMP checksum is right. True where none can be told: fragments, other protocols, and
    /// UDP in IPv4 without a checksum. UDP in IPv6 must have one.
    package static func isTransportValid(_ packet: IPPacket, in bytes: UnsafeRawBufferPointer) -> Bool {
        guard packet.byteCount == bytes.count else { return false }
        guard packet.fragment == .none else { return true }
        switch packet.transport {
        case .tcp:
            return self.transportSum(packet, bytes) == 0xffff
        case .udp:
            if bytes.bigEndian16(at: packet.transportOffset + 6) == 0 { return packet.family == .ipv4 }
            return self.transportSum(packet, bytes) == 0xffff
        case .icmp:
            if packet.family == .ipv6 { return self.transportSum(packet, bytes) == 0xffff }
            return self.internet(bytes.part(from: packet.transportOffset, count: packet.transportByteCount)) == 0
        case .other:
            return true
        }
    }

    /// Pseudo-header, transport header and payload.
    private static func transportSum(_ packet: IPPacket, _ bytes: UnsafeRawBufferPointer) -> UInt16 {
        var sum = PartialSum(
            source: packet.source, destination: packet.destination, transportProtocol: packet.transportProtocol,
            byteCount: packet.transportByteCount)
        sum.add(bytes.part(from: packet.transportOffset, count: packet.transportByteCount))
        return sum.folded
    }
}

/// A one's complement sum under way.
///
/// Words are added as they lie in memory, eight bytes at a time: the sum does not depend on byte order until it is
/// read (RFC 1071 § 2B).
struct PartialSum {
    private var sum: UInt64 = 0

    init() {}

    /// Starts with the pseudo-header of TCP, UDP or ICMPv6.
    init(source: IPAddress, destination: IPAddress, transportProtocol: IPProtocol, byteCount: Int) {
        self.add(word: source.high.bigEndian)
        self.add(word: source.low.bigEndian)
        self.add(word: destination.high.bigEndian)
        self.add(word: destination.low.bigEndian)
        // In IPv4 protocol and length are 16-bit fields, in IPv6 32-bit ones: the sum is the same.
        self.add(word: UInt64(UInt16(truncatingIfNeeded: byteCount).bigEndian))
        self.add(word: UInt64(UInt16(transportProtocol.rawValue).bigEndian))
    }

    /// The sum as a 16-bit value, host order, not complemented.
    var folded: UInt16 {
        var folded = (self.sum & 0xffff_ffff) + (self.sum >> 32)
        folded = (folded & 0xffff) + (folded >> 16)
        folded = (folded & 0xffff) + (folded >> 16)
        folded = (folded & 0xffff) + (folded >> 16)
        return UInt16(bigEndian: UInt16(truncatingIfNeeded: folded))
    }

    /// Adds a 16-bit value, host order.
    @inline(__always)
    mutating func add(_ value: UInt16) {
        self.add(word: UInt64(value.bigEndian))
    }

    /// Adds bytes. Whatever is added after an odd number of bytes would be out of step.
    mutating func add(_ bytes: UnsafeRawBufferPointer) {
        var offset = 0
        if bytes.count >= 64 {
            // 32-bit words in 64-bit lanes need no carry; a lane overflows only after 2^32 words.
            var lanes = SIMD8<UInt64>()
            repeat {
                let low = bytes.loadUnaligned(fromByteOffset: offset, as: SIMD8<UInt32>.self)
                let high = bytes.loadUnaligned(fromByteOffset: offset + 32, as: SIMD8<UInt32>.self)
                lanes &+= SIMD8<UInt64>(truncatingIfNeeded: low)
                lanes &+= SIMD8<UInt64>(truncatingIfNeeded: high)
                offset += 64
            } while bytes.count - offset >= 64
            self.add(word: lanes.wrappedSum())
        }
        self.addFewer(bytes, from: offset)
    }

    /// Adds bytes and writes them to the start of `copy`, which does not overlap them and has room: memory is read once for both.
    mutating func add(_ bytes: UnsafeRawBufferPointer, copyingTo copy: UnsafeMutableRawBufferPointer) {
        var offset = 0
        if bytes.count >= 64 {
            var lanes = SIMD8<UInt64>()
            repeat {
                let low = bytes.loadUnaligned(fromByteOffset: offset, as: SIMD8<UInt32>.self)
                let high = bytes.loadUnaligned(fromByteOffset: offset + 32, as: SIMD8<UInt32>.self)
                copy.storeBytes(of: low, toByteOffset: offset, as: SIMD8<UInt32>.self)
                copy.storeBytes(of: high, toByteOffset: offset + 32, as: SIMD8<UInt32>.self)
                lanes &+= SIMD8<UInt64>(truncatingIfNeeded: low)
                lanes &+= SIMD8<UInt64>(truncatingIfNeeded: high)
                offset += 64
            } while bytes.count - offset >= 64
            self.add(word: lanes.wrappedSum())
        }
        UnsafeMutableRawBufferPointer(rebasing: copy[offset...])
            .copyMemory(from: bytes.part(from: offset, count: bytes.count - offset))
        self.addFewer(bytes, from: offset)
    }

    /// Adds the fewer than 64 bytes from `offset` to the end.
    @inline(__always)
    private mutating func addFewer(_ bytes: UnsafeRawBufferPointer, from offset: Int) {
        var offset = offset
        var remaining = bytes.count - offset
        // Halves of words in one lane: these few need no carry either.
        var lane: UInt64 = 0
        while remaining >= 4 {
            lane &+= UInt64(bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
            offset += 4
            remaining -= 4
        }
        if remaining >= 2 {
            lane &+= UInt64(bytes.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
            offset += 2
            remaining -= 2
        }
        if remaining == 1 {
            // The last byte of an odd number is the upper half of a word (RFC 1071 § 1).
            lane &+= UInt64((UInt16(bytes[offset]) << 8).bigEndian)
        }
        self.add(word: lane)
    }

    @inline(__always)
    private mutating func add(word: UInt64) {
        let (sum, overflow) = self.sum.addingReportingOverflow(word)
        self.sum = sum &+ (overflow ? 1 : 0)
    }
}

extension IPPacket {
    /// Where the checksum of a TCP or UDP header lies, from the start of the packet. `nil` for anything else and for
    /// fragments, whose checksum covers bytes that are elsewhere.
    var checksumField: Int? {
        guard self.fragment == .none else { return nil }
        switch self.transport {
        case .tcp: return self.transportOffset + 16
        case .udp: return self.transportOffset + 6
        case .icmp, .other: return nil
        }
    }
}
