import Multiformats
import OverlayCore

/// Builds packets byte by byte on arrays, slowly and without the code under test.
struct PacketBuilder {
    enum Body {
        case tcp(sequence: UInt32, flags: TCPFlags, options: [UInt8])
        case udp
        case other(IPProtocol)
    }

    var source: [UInt8]
    var destination: [UInt8]
    var body: Body
    var payload: [UInt8] = []
    var identification: UInt16 = 0x1234
    var trafficClass: UInt8 = 0
    var flowLabel: UInt32 = 0x12345
    /// IPv4 options, a multiple of 4 bytes.
    var options: [UInt8] = []
    /// IPv6 extension headers: number and bytes, in which the first byte is replaced by the next header's number.
    var extensions: [(number: UInt8, bytes: [UInt8])] = []
    /// IPv4 flags and fragment offset.
    var fragmentField: UInt16 = 0x4000
    var ports: (UInt16, UInt16) = (40_000, 443)

    static let v4 = (source: [100, 64, 0, 1] as [UInt8], destination: [100, 64, 0, 2] as [UInt8])
    static let v6 = (
        source: [0xfd, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] as [UInt8],
        destination: [0xfd, 1, 2, 3, 4, 5, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0xfa, 0xf9, 0xf8, 0xf7, 0xf6] as [UInt8]
    )

    init(_ family: IPAddress.Family, _ body: Body, payload: [UInt8] = []) {
        let addresses = family == .ipv4 ? Self.v4 : Self.v6
        self.source = addresses.source
        self.destination = addresses.destination
        self.body = body
        self.payload = payload
    }

    var family: IPAddress.Family { self.source.count == 4 ? .ipv4 : .ipv6 }

    var protocolNumber: UInt8 {
        switch self.body {
        case .tcp: 6
        case .udp: 17
        case .other(let number): number.rawValue
        }
    }

    /// What a pending checksum field should hold.
    var pseudoHeaderSum: UInt16 { slowSum(self.pseudoHeader(self.transportHeader(0).count + self.payload.count)) }

    /// The packet with its transport checksum finished.
    var bytes: [UInt8] {
        let unfinished = self.transportHeader(0) + self.payload
        var checksum = ~slowSum(self.pseudoHeader(unfinished.count) + unfinished)
        if case .udp = self.body, checksum == 0 { checksum = 0xffff }
        return self.packet(around: self.transportHeader(checksum) + self.payload)
    }

    /// The packet with `field` in place of its transport checksum.
    func bytes(checksumField field: UInt16) -> [UInt8] {
        self.packet(around: self.transportHeader(field) + self.payload)
    }

    var networkByteCount: Int {
        self.family == .ipv4
            ? 20 + self.options.count : 40 + self.extensions.reduce(0) { $0 + $1.bytes.count }
    }

    var headerByteCount: Int { self.networkByteCount + self.transportHeader(0).count }

    /// The packets that a super-packet of this content stands for.
    func segments(of size: Int) -> [[UInt8]] {
        guard self.payload.count > size else { return [self.bytes] }
        var result: [[UInt8]] = []
        for start in stride(from: 0, to: self.payload.count, by: size) {
            var one = self
            one.payload = Array(self.payload[start..<min(start + size, self.payload.count)])
            one.identification = UInt16((Int(self.identification) + result.count) % 65_536)
            if case .tcp(let sequence, var flags, let options) = self.body {
                if start > 0 { flags.remove(.cwr) }
                if start + size < self.payload.count { flags.subtract([.fin, .psh]) }
                one.body = .tcp(
                    sequence: UInt32((Int(sequence) + start) % 4_294_967_296), flags: flags, options: options)
            }
            result.append(one.bytes)
        }
        return result
    }

    private func transportHeader(_ checksum: UInt16) -> [UInt8] {
        switch self.body {
        case .tcp(let sequence, let flags, let options):
            var header = big(self.ports.0) + big(self.ports.1) + big(sequence) + big(UInt32(0x0a0b_0c0d))
            header += [UInt8((20 + options.count) / 4) << 4, flags.rawValue] + big(UInt16(0x7210))
            return header + big(checksum) + [0, 0] + options
        case .udp:
            return big(self.ports.0) + big(self.ports.1) + big(UInt16(8 + self.payload.count)) + big(checksum)
        case .other:
            return []
        }
    }

    private func pseudoHeader(_ length: Int) -> [UInt8] {
        let tail = self.family == .ipv4 ? [0, self.protocolNumber] : [0, 0, 0, self.protocolNumber]
        let lengthField = self.family == .ipv4 ? big(UInt16(length)) : big(UInt32(length))
        return self.source + self.destination + lengthField + tail
    }

    private func packet(around transport: [UInt8]) -> [UInt8] {
        switch self.family {
        case .ipv4:
            var header = [0x45 + UInt8(self.options.count / 4), self.trafficClass]
            header += big(UInt16(20 + self.options.count + transport.count)) + big(self.identification)
            header += big(self.fragmentField) + [64, self.protocolNumber, 0, 0]
            header += self.source + self.destination + self.options
            header.replaceSubrange(10..<12, with: big(~slowSum(header)))
            return header + transport
        case .ipv6:
            let numbers = self.extensions.map(\.number) + [self.protocolNumber]
            var chain: [UInt8] = []
            for (index, header) in self.extensions.enumerated() {
                chain += [numbers[index + 1]] + header.bytes.dropFirst()
            }
            let first = 6 << 28 | UInt32(self.trafficClass) << 20 | self.flowLabel
            return big(first) + big(UInt16(chain.count + transport.count)) + [numbers[0], 64] + self.source
                + self.destination + chain + transport
        }
    }
}

/// RFC 1071 as it is written: 16 bits at a time, carry around at the end. Not complemented.
func slowSum(_ bytes: [UInt8]) -> UInt16 {
    var sum = 0
    for (index, byte) in bytes.enumerated() {
        sum += index % 2 == 0 ? Int(byte) * 256 : Int(byte)
    }
    while sum > 0xffff { sum = sum / 65_536 + sum % 65_536 }
    return UInt16(sum)
}

func big<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    (0..<T.bitWidth / 8).reversed().map { UInt8(truncatingIfNeeded: value >> T($0 * 8)) }
}

func parse(_ bytes: [UInt8]) throws -> IPPacket {
    try bytes.withUnsafeBytes { try IPPacket(parsing: $0) }
}

/// The bytes that hexadecimal digits spell; anything else is skipped.
func hex(_ text: String) -> [UInt8] {
    let digits = text.compactMap(\.hexDigitValue)
    return stride(from: 0, to: digits.count - 1, by: 2).map { UInt8(digits[$0] * 16 + digits[$0 + 1]) }
}

/// SplitMix64: the same sequence in every run.
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        self.state &+= 0x9e37_79b9_7f4a_7c15
        var z = self.state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    mutating func bytes(_ count: Int) -> [UInt8] {
        (0..<count).map { _ in UInt8(truncatingIfNeeded: self.next()) }
    }

    /// A random TCP or UDP packet of either family, with options or extension headers in some.
    mutating func packet(payload: ClosedRange<Int>) -> PacketBuilder {
        let family: IPAddress.Family = Bool.random(using: &self) ? .ipv4 : .ipv6
        let optionBytes = Int.random(in: 0...10, using: &self) * 4
        let flags = TCPFlags(rawValue: UInt8(truncatingIfNeeded: self.next())).subtracting([.syn, .rst])
        let body: PacketBuilder.Body =
            Bool.random(using: &self)
            ? .udp
            : .tcp(
                sequence: UInt32(truncatingIfNeeded: self.next()), flags: flags,
                options: [UInt8](repeating: 1, count: optionBytes))
        var builder = PacketBuilder(family, body, payload: self.bytes(Int.random(in: payload, using: &self)))
        builder.source.replaceSubrange(1..., with: self.bytes(builder.source.count - 1))
        builder.destination.replaceSubrange(1..., with: self.bytes(builder.destination.count - 1))
        builder.identification = UInt16(truncatingIfNeeded: self.next())
        builder.trafficClass = UInt8(truncatingIfNeeded: self.next())
        builder.ports = (UInt16(truncatingIfNeeded: self.next()), UInt16(truncatingIfNeeded: self.next()))
        if Int.random(in: 0..<4, using: &self) == 0 {
            builder.options = [UInt8](repeating: 1, count: 4 * Int.random(in: 1...10, using: &self))
            builder.extensions = [(0, [0, 0, 1, 4, 0, 0, 0, 0]), (60, [0, 1] + [UInt8](repeating: 0, count: 14))]
        }
        return builder
    }
}
