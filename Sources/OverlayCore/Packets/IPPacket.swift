package import Multiformats

/// What the headers of one IP packet say, after they were found to be well-formed.
///
/// Parsing is strict, because the same bytes are read again by a kernel: whatever could be read in two ways is refused.
/// A value holds no pointer into the packet. Its offsets are valid for exactly the bytes it was parsed from, and for
/// those same bytes after a change that leaves lengths alone (``ECN``, ``TCPMaximumSegmentSize``, ``Checksum``).
///
/// Not checked here: checksums, and whether addresses may be used by whoever sent the packet.
///
/// Spec: RFC 791, RFC 8200, RFC 9293, RFC 768.
package struct IPPacket: Equatable, Sendable {
    /// The source address.
    package let source: IPAddress
    /// The destination address. Always the final one: packets with hops still to visit are refused.
    package let destination: IPAddress
    /// Length of the whole packet, headers included.
    package let byteCount: Int
    /// Where the transport header begins; for a later fragment, where the fragment's data begins.
    package let transportOffset: Int
    /// Length of transport header and payload. Less than what follows `transportOffset` only for a UDP datagram
    /// whose own length leaves a surplus (RFC 9868).
    package let transportByteCount: Int
    /// Where the TCP or UDP payload begins; equal to `transportOffset` for anything else.
    package let payloadOffset: Int
    /// The transport protocol. For a later IPv6 fragment it may also be the number of an extension header.
    package let transportProtocol: IPProtocol
    /// What is known of the transport header.
    package let transport: Transport
    /// Whether this is a fragment.
    package let fragment: Fragment
    /// DSCP (upper 6 bits) and ECN (lower 2): IPv4's TOS byte, IPv6's traffic class.
    package let trafficClass: UInt8
    /// The protocol number that all fragments of one packet share.
    private let flowProtocol: IPProtocol

    /// Whether a packet is a fragment, and which part of one.
    package enum Fragment: UInt8, Hashable, Sendable {
        /// Not a fragment.
        case none
        /// The first fragment, with a complete transport header; also an IPv6 atomic fragment (RFC 6946).
        case first
        /// Any other fragment: no transport header.
        case later
    }

    /// The transport header, as far as packet filters and lane choice look at it.
    package enum Transport: Equatable, Sendable {
        case tcp(sourcePort: UInt16, destinationPort: UInt16, flags: TCPFlags)
        case udp(sourcePort: UInt16, destinationPort: UInt16)
        /// ICMP in IPv4, ICMPv6 in IPv6.
        case icmp(type: UInt8, code: UInt8)
        /// Any other protocol (tunnels and AH among them), and every fragment but the first.
        case other
    }

    /// The family of both addresses.
    package var family: IPAddress.Family { self.source.family }
    /// Differentiated services code point, 0…63.
    package var dscp: UInt8 { self.trafficClass >> 2 }
    /// Explicit congestion notification.
    package var ecn: ECN { ECN(trafficClass: self.trafficClass) }
    /// Source and destination port, where TCP or UDP says them.
    package var ports: (source: UInt16, destination: UInt16)? {
        switch self.transport {
        case .tcp(let source, let destination, _): (source, destination)
        case .udp(let source, let destination): (source, destination)
        case .icmp, .other: nil
        }
    }

    /// The longest chain of IPv6 extension headers that is walked. Ours: the specification sets no limit.
    package static let maximumExtensionHeaders = 8

    /// Parses a packet that fills `bytes` exactly. Borrows `bytes` until it returns.
    package init(parsing bytes: UnsafeRawBufferPointer) throws(IPPacketError) {
        guard bytes.count >= 20 else { throw .truncated }
        let network: NetworkHeader
        switch bytes[0] >> 4 {
        case 4: network = try NetworkHeader(ipv4: bytes)
        case 6: network = try NetworkHeader(ipv6: bytes)
        default: throw .unknownVersion
        }
        let available = bytes.count - network.byteCount

        self.source = network.source
        self.destination = network.destination
        self.byteCount = bytes.count
        self.transportOffset = network.byteCount
        self.transportProtocol = network.transportProtocol
        self.fragment = network.fragment
        self.trafficClass = network.trafficClass
        self.flowProtocol = network.flowProtocol

        var transportByteCount = available
        var headerByteCount = 0
        let start = network.byteCount
        switch (network.fragment, network.transportProtocol, network.source.family) {
        case (.later, _, _):
            self.transport = .other
        case (let fragment, .tcp, _):
            guard available >= 20 else { throw fragment == .none ? .truncatedTransport : .malformedFragment }
            headerByteCount = Int(bytes[start + 12] >> 4) * 4
            guard headerByteCount >= 20 else { throw .badTransportLength }
            guard headerByteCount <= available else {
                throw fragment == .none ? .truncatedTransport : .malformedFragment
            }
            self.transport = .tcp(
                sourcePort: bytes.bigEndian16(at: start), destinationPort: bytes.bigEndian16(at: start + 2),
                flags: TCPFlags(rawValue: bytes[start + 13]))
        case (let fragment, .udp, _):
            guard available >= 8 else { throw fragment == .none ? .truncatedTransport : .malformedFragment }
            headerByteCount = 8
            let length = Int(bytes.bigEndian16(at: start + 4))
            guard length >= 8, fragment == .first || length <= available else { throw .badTransportLength }
            transportByteCount = min(length, available)
            self.transport = .udp(
                sourcePort: bytes.bigEndian16(at: start), destinationPort: bytes.bigEndian16(at: start + 2))
        case (let fragment, .icmp, .ipv4), (let fragment, .icmpv6, .ipv6):
            guard available >= 8 else { throw fragment == .none ? .truncatedTransport : .malformedFragment }
            self.transport = .icmp(type: bytes[start], code: bytes[start + 1])
        default:
            self.transport = .other
        }
        self.transportByteCount = transportByteCount
        self.payloadOffset = start + headerByteCount
    }

    /// A hash of addresses, protocol and ports, so that packets of one flow and direction share a value.
    ///
    /// Fragments hash addresses and protocol only: all pieces of one packet agree. Spread is good in all bits. Who does
    /// not know `seed` cannot aim at a value, but this is no cryptographic hash.
    package func flowHash(seed: UInt64) -> UInt64 {
        var tail = UInt64(self.flowProtocol.rawValue)
        if self.fragment == .none, let ports = self.ports {
            tail |= UInt64(ports.source) << 32 | UInt64(ports.destination) << 16
        }
        // Odd constants: the fractional bits of the golden ratio and of the square roots of 2, 3 and 5.
        let first = seed ^ 0x9e37_79b9_7f4a_7c15
        let second = (seed &* 0x6a09_e667_f3bc_c909) ^ 0xbb67_ae85_84ca_a73b
        let addresses: UInt64
        switch self.family {
        case .ipv4:
            addresses = self.source.low << 32 | self.destination.low
        case .ipv6:
            let source = Self.fold(self.source.high ^ first, self.source.low ^ second)
            let upper = Self.fold(self.destination.high ^ source, self.destination.low ^ first)
            addresses = upper
        }
        let mixed = Self.fold(addresses ^ second, tail ^ first)
        return Self.fold(mixed ^ first, 0x3c6e_f372_fe94_f82b)
    }

    @inline(__always)
    private static func fold(_ a: UInt64, _ b: UInt64) -> UInt64 {
        let product = a.multipliedFullWidth(by: b)
        return product.high ^ product.low
    }
}

/// Why a packet is not accepted as IP.
package enum IPPacketError: UInt8, Error, Hashable, Sendable, CaseIterable {
    /// Shorter than its fixed header.
    case truncated
    /// Neither version 4 nor 6.
    case unknownVersion
    /// The IPv4 header length is below 20 or beyond the packet.
    case badHeaderLength
    /// The packet's own length is not the length of what was received.
    case lengthMismatch
    /// An IPv4 option runs past the header.
    case malformedOptions
    /// A source route or an IPv6 routing header with hops left: the destination we check would not be the final one.
    case sourceRouted
    /// More than ``IPPacket/maximumExtensionHeaders``.
    case tooManyExtensionHeaders
    /// An IPv6 extension header runs past the packet, or stands where it may not.
    case malformedExtensionHeader
    /// A fragment beyond 65,535 bytes, of odd length, over the transport header, or first without all of it.
    case malformedFragment
    /// The packet ends inside its transport header.
    case truncatedTransport
    /// The TCP header length or the UDP length is impossible.
    case badTransportLength
}

/// The IANA number of the protocol above IP.
package struct IPProtocol: RawRepresentable, Hashable, Sendable {
    package let rawValue: UInt8

    package init(rawValue: UInt8) { self.rawValue = rawValue }

    package static let icmp = IPProtocol(rawValue: 1)
    package static let tcp = IPProtocol(rawValue: 6)
    package static let udp = IPProtocol(rawValue: 17)
    package static let icmpv6 = IPProtocol(rawValue: 58)
}

/// The flag bits of a TCP header (RFC 9293 § 3.1).
package struct TCPFlags: OptionSet, Hashable, Sendable {
    package let rawValue: UInt8

    package init(rawValue: UInt8) { self.rawValue = rawValue }

    package static let fin = TCPFlags(rawValue: 0x01)
    package static let syn = TCPFlags(rawValue: 0x02)
    package static let rst = TCPFlags(rawValue: 0x04)
    package static let psh = TCPFlags(rawValue: 0x08)
    package static let ack = TCPFlags(rawValue: 0x10)
    package static let urg = TCPFlags(rawValue: 0x20)
    package static let ece = TCPFlags(rawValue: 0x40)
    package static let cwr = TCPFlags(rawValue: 0x80)
}
