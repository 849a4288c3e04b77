package import Multiformats

/// An ICMP or ICMPv6 error message: tells the sender of a packet why it was not delivered.
///
/// Spec: RFC 792, RFC 1122 § 3.2.2, RFC 1191, RFC 1812 § 4.3.2, RFC 4443.
package enum ICMPError: Equatable, Sendable {
    /// No route to the destination: ICMP 3/0, ICMPv6 1/0.
    case noRoute
    /// There is a route, but the peer behind it cannot be reached: ICMP 3/1, ICMPv6 1/3.
    case hostUnreachable
    /// A filter forbids it: ICMP 3/13, ICMPv6 1/1.
    case administrativelyProhibited
    /// Larger than what the path carries: ICMP 3/4, ICMPv6 2/0. The MTU told is at least 68 or 1,280 and in IPv4 at
    /// most 65,535 bytes. IPv4 packets that may be fragmented are never answered with it.
    case packetTooBig(mtuBytes: Int)

    /// Length of the longest message. It quotes the packet as far as RFC 1812 (IPv4, 576 bytes in all) and RFC 4443
    /// (IPv6, 1,280 bytes) allow.
    package static let maximumByteCount = 1_280

    /// Writes the whole IP packet that answers `packet` to the start of `output`.
    ///
    /// The rate is not limited here: ask an ``ICMPRateLimiter`` first.
    ///
    /// - Parameters:
    ///   - packet: What `bytes` parsed to.
    ///   - bytes: The packet that is not delivered. Borrowed until return.
    ///   - source: Our own address, of the packet's family.
    ///   - output: Room for ``maximumByteCount`` bytes, apart from `bytes`.
    /// - Returns: Its length. `nil` when the packet must not be answered: an ICMP error or a redirect, a fragment other
    ///   than the first, not sent to or not sent by a single machine. Subnet broadcast addresses are for the caller to
    ///   know.
    package func reply(
        to packet: IPPacket, in bytes: UnsafeRawBufferPointer, from source: IPAddress,
        into output: UnsafeMutableRawBufferPointer
    ) -> Int? {
        guard packet.byteCount == bytes.count, source.family == packet.family,
            output.count >= Self.maximumByteCount, self.mayAnswer(packet, in: bytes)
        else { return nil }
        let isIPv4 = packet.family == .ipv4
        let headerByteCount = isIPv4 ? 20 : 40
        let quoted = min(bytes.count, (isIPv4 ? 576 : 1_280) - headerByteCount - 8)
        let byteCount = headerByteCount + 8 + quoted
        let message = UnsafeMutableRawBufferPointer(rebasing: output[..<byteCount])

        let (type, code, rest) = isIPv4 ? self.ipv4Fields : self.ipv6Fields
        message[headerByteCount] = type
        message[headerByteCount + 1] = code
        message.setBigEndian16(0, at: headerByteCount + 2)
        message.setBigEndian32(rest, at: headerByteCount + 4)
        UnsafeMutableRawBufferPointer(rebasing: message[(headerByteCount + 8)...])
            .copyMemory(from: bytes.part(from: 0, count: quoted))
        let body = UnsafeRawBufferPointer(message).part(from: headerByteCount, count: 8 + quoted)

        if isIPv4 {
            // TOS: internetwork control (RFC 1812 § 4.3.2.5). Not fragmented, so no identification is needed.
            message.setBigEndian32(0x45c0_0000 | UInt32(byteCount), at: 0)
            message.setBigEndian32(0x0000_4000, at: 4)
            message.setBigEndian32(0x4001_0000, at: 8)
            message.setAddress(source, at: 12)
            message.setAddress(packet.source, at: 16)
            let header = UnsafeRawBufferPointer(message).part(from: 0, count: headerByteCount)
            message.setBigEndian16(Checksum.ipv4Header(header), at: 10)
            message.setBigEndian16(Checksum.internet(body), at: headerByteCount + 2)
        } else {
            message.setBigEndian32(0x6000_0000, at: 0)
            message.setBigEndian16(UInt16(body.count), at: 4)
            message[6] = IPProtocol.icmpv6.rawValue
            message[7] = 64
            message.setAddress(source, at: 8)
            message.setAddress(packet.source, at: 24)
            var sum = PartialSum(
                source: source, destination: packet.source, transportProtocol: .icmpv6, byteCount: body.count)
            sum.add(body)
            message.setBigEndian16(~sum.folded, at: headerByteCount + 2)
        }
        return byteCount
    }

    /// Type, code and the four bytes behind the checksum.
    private var ipv4Fields: (type: UInt8, code: UInt8, rest: UInt32) {
        switch self {
        case .noRoute: (3, 0, 0)
        case .hostUnreachable: (3, 1, 0)
        case .administrativelyProhibited: (3, 13, 0)
        case .packetTooBig(let mtuBytes): (3, 4, UInt32(min(max(mtuBytes, 68), 65_535)))
        }
    }

    private var ipv6Fields: (type: UInt8, code: UInt8, rest: UInt32) {
        switch self {
        case .noRoute: (1, 0, 0)
        case .hostUnreachable: (1, 3, 0)
        case .administrativelyProhibited: (1, 1, 0)
        case .packetTooBig(let mtuBytes): (2, 0, UInt32(clamping: max(mtuBytes, 1_280)))
        }
    }

    private func mayAnswer(_ packet: IPPacket, in bytes: UnsafeRawBufferPointer) -> Bool {
        guard packet.fragment != .later, packet.source.isSingleMachine else { return false }
        switch (packet.family, packet.transport) {
        case (.ipv4, .icmp(let type, _)):
            // Known to be no errors: echo, router discovery, timestamp, information, mask, extended echo.
            switch type {
            case 0, 8, 9, 10, 13...18, 42, 43: break
            default: return false
            }
        case (.ipv6, .icmp(let type, _)):
            // Below 128 are errors; 137 is a redirect (RFC 4443 § 2.4 e).
            guard type >= 128, type != 137 else { return false }
        default:
            break
        }
        if case .packetTooBig = self {
            // IPv6 path MTU discovery works for multicast too (RFC 4443 § 2.4 e.3).
            let dontFragment = packet.family == .ipv6 || bytes[6] & 0x40 != 0
            return dontFragment && (packet.destination.isSingleMachine || packet.destination.isIPv6Multicast)
        }
        return packet.destination.isSingleMachine
    }
}

extension IPAddress {
    /// Whether the address may stand for one other machine: not unspecified, loopback, multicast, broadcast, reserved.
    fileprivate var isSingleMachine: Bool {
        switch self.family {
        case .ipv4:
            let first = self.low >> 24
            return first != 0 && first != 127 && first < 224
        case .ipv6:
            return !(self.high == 0 && self.low <= 1) && !self.isIPv6Multicast
        }
    }

    fileprivate var isIPv6Multicast: Bool { self.family == .ipv6 && self.high >> 56 == 0xff }
}

/// Lets through a burst of messages, then so many in a second: a token bucket (RFC 4443 § 2.4 f).
package struct ICMPRateLimiter: Equatable, Sendable {
    private let nanosecondsPerToken: UInt64
    /// The bucket's size, as the time it takes to fill.
    private let capacityNanoseconds: UInt64
    /// Time saved up, not yet spent.
    private var savedNanoseconds: UInt64
    private var lastNanoseconds: UInt64

    /// A full bucket.
    ///
    /// - Parameters:
    ///   - perSecond: Messages in a second, taken as 1…1,000,000.
    ///   - burst: Messages at once, taken as 1…1,000,000.
    ///   - now: A monotonic time, nanoseconds.
    package init(perSecond: Int, burst: Int, now: UInt64) {
        self.nanosecondsPerToken = 1_000_000_000 / UInt64(min(max(perSecond, 1), 1_000_000))
        self.capacityNanoseconds = self.nanosecondsPerToken * UInt64(min(max(burst, 1), 1_000_000))
        self.savedNanoseconds = self.capacityNanoseconds
        self.lastNanoseconds = now
    }

    /// Whether one more message may go out at `now` (nanoseconds of the same clock; a step back counts as none).
    package mutating func allows(now: UInt64) -> Bool {
        if now > self.lastNanoseconds {
            let elapsed = min(now - self.lastNanoseconds, self.capacityNanoseconds)
            self.savedNanoseconds = min(self.savedNanoseconds + elapsed, self.capacityNanoseconds)
            self.lastNanoseconds = now
        }
        guard self.savedNanoseconds >= self.nanosecondsPerToken else { return false }
        self.savedNanoseconds -= self.nanosecondsPerToken
        return true
    }
}
