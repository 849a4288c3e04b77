import Multiformats
import OverlayCore

/// Packets and frames, made byte by byte: what a parser must not believe cannot be made by one.
enum Forge {
    /// A frame of any kind, whatever its body.
    static func frame(kind: UInt8, _ body: [UInt8], claiming length: Int? = nil) -> [UInt8] {
        let length = length ?? body.count
        return [kind, UInt8(truncatingIfNeeded: length >> 16), UInt8(truncatingIfNeeded: length >> 8)]
            + [UInt8(truncatingIfNeeded: length)] + body
    }

    /// A packet with finished checksums.
    static func packet(_ bytes: [UInt8]) -> [UInt8] { self.frame(kind: FrameKind.packet.rawValue, bytes) }

    /// A packet that claims to want segmentation, or only a checksum when `segmentSize` is 0.
    static func superPacket(_ bytes: [UInt8], segmentSize: UInt16, flags: UInt8 = 0) -> [UInt8] {
        let prefix = [UInt8(truncatingIfNeeded: segmentSize >> 8), UInt8(truncatingIfNeeded: segmentSize), flags]
        return self.frame(kind: FrameKind.superPacket.rawValue, prefix + bytes)
    }

    /// An IPv4 packet whose header checksum is right, whatever else is said.
    static func ipv4(
        from source: IPAddress, to destination: IPAddress, proto: UInt8, _ body: [UInt8], totalLength: Int? = nil,
        headerWords: UInt8 = 5, fragmentField: UInt16 = 0, breakChecksum: Bool = false
    ) -> [UInt8] {
        var header: [UInt8] = [0x40 | headerWords, 0]
        header +=
            Self.big16(totalLength ?? 20 + body.count) + [0x12, 0x34] + Self.big16(Int(fragmentField)) + [
                64, proto, 0, 0,
            ]
        header += Self.big32(source.low) + Self.big32(destination.low)
        let sum = header.withUnsafeBytes { Checksum.internet($0) } ^ (breakChecksum ? 0x0100 : 0)
        header[10] = UInt8(truncatingIfNeeded: sum >> 8)
        header[11] = UInt8(truncatingIfNeeded: sum)
        return header + body
    }

    /// An IPv6 packet.
    static func ipv6(
        from source: IPAddress, to destination: IPAddress, next: UInt8, _ body: [UInt8], payloadLength: Int? = nil
    ) -> [UInt8] {
        [0x60, 0, 0, 0] + Self.big16(payloadLength ?? body.count) + [next, 64]
            + Self.big64(source.high) + Self.big64(source.low) + Self.big64(destination.high)
            + Self.big64(destination.low)
            + body
    }

    /// A TCP segment with 20 bytes of header; the checksum is left to whoever is asked to finish it.
    static func tcp(flags: TCPFlags, payload: Int, headerWords: UInt8 = 5) -> [UInt8] {
        Self.big16(40_000) + Self.big16(9) + Self.big32(1) + Self.big32(1) + [headerWords << 4, flags.rawValue]
            + Self.big16(65_535) + [0, 0, 0, 0] + [UInt8](repeating: 0x55, count: payload)
    }

    /// A UDP datagram to the discard port. Without checksum, which IPv4 allows.
    static func udp(payload: Int, length: Int? = nil) -> [UInt8] {
        Self.big16(40_000) + Self.big16(9) + Self.big16(length ?? 8 + payload) + [0, 0]
            + [UInt8](repeating: 0x55, count: payload)
    }

    static func big16(_ value: Int) -> [UInt8] {
        [UInt8(truncatingIfNeeded: value >> 8), UInt8(truncatingIfNeeded: value)]
    }

    static func big32(_ value: UInt64) -> [UInt8] {
        self.big16(Int(value >> 16 & 0xffff)) + self.big16(Int(value & 0xffff))
    }

    static func big64(_ value: UInt64) -> [UInt8] { self.big32(value >> 32) + self.big32(value & 0xffff_ffff) }
}

extension Forge {
    /// Frames that are well formed and hold a packet from an address that is the sender's to one that is the receiver's; what each says of
    /// its packet is a lie. The receiver must call every one of them malformed, and none may reach its kernel.
    static func lies(from: OverlayAddresses, to: OverlayAddresses) -> [(name: String, frame: [UInt8])] {
        func v4(_ proto: UInt8, _ body: [UInt8]) -> [UInt8] {
            self.ipv4(from: from.ipv4, to: to.ipv4, proto: proto, body)
        }
        func v6(_ next: UInt8, _ body: [UInt8]) -> [UInt8] { self.ipv6(from: from.ipv6, to: to.ipv6, next: next, body) }
        let data = self.tcp(flags: .ack, payload: 4_000)
        let datagram = self.udp(payload: 4_000)
        let raw4 = (from.ipv4, to.ipv4)
        let raw6 = (from.ipv6, to.ipv6)

        return [
            // Segment sizes.
            ("TCP segments of 1 byte", self.superPacket(v4(6, data), segmentSize: 1)),
            ("TCP segments of 7 bytes", self.superPacket(v6(6, data), segmentSize: 7)),
            ("segments that no packet holds", self.superPacket(v4(6, data), segmentSize: 65_535)),
            ("65 UDP segments", self.superPacket(v4(17, self.udp(payload: 65)), segmentSize: 1)),
            ("4,000 UDP segments", self.superPacket(v6(17, datagram), segmentSize: 1)),
            // What cannot be segmented.
            ("SYN", self.superPacket(v4(6, self.tcp(flags: [.syn, .ack], payload: 4_000)), segmentSize: 1_000)),
            ("RST", self.superPacket(v6(6, self.tcp(flags: [.rst], payload: 4_000)), segmentSize: 1_000)),
            ("ICMP", self.superPacket(v4(1, [8, 0] + [UInt8](repeating: 0, count: 100)), segmentSize: 0)),
            ("ICMPv6", self.superPacket(v6(58, [128, 0] + [UInt8](repeating: 0, count: 100)), segmentSize: 50)),
            ("no transport at all", self.superPacket(v6(59, []), segmentSize: 0)),
            (
                "a first fragment",
                self.superPacket(
                    self.ipv4(from: raw4.0, to: raw4.1, proto: 6, data, fragmentField: 0x2000), segmentSize: 1_000)
            ),
            (
                "a later fragment",
                self.superPacket(
                    self.ipv4(from: raw4.0, to: raw4.1, proto: 17, datagram, fragmentField: 100), segmentSize: 0)
            ),
            (
                "an IPv6 fragment",
                self.superPacket(v6(44, [6, 0, 0, 1, 0, 0, 0, 1] + data), segmentSize: 1_000)
            ),
            // Flags.
            ("an unknown flag", self.superPacket(v4(6, data), segmentSize: 1_000, flags: 2)),
            ("all flags", self.superPacket(v4(6, data), segmentSize: 1_000, flags: 0xff)),
            ("ECN on UDP", self.superPacket(v4(17, datagram), segmentSize: 1_000, flags: 1)),
            ("ECN on one segment", self.superPacket(v4(6, data), segmentSize: 0, flags: 1)),
            // Lengths.
            (
                "a total length beyond the frame",
                self.superPacket(
                    self.ipv4(from: raw4.0, to: raw4.1, proto: 6, data, totalLength: 60_000), segmentSize: 1_000)
            ),
            (
                "a total length short of the frame",
                self.superPacket(
                    self.ipv4(from: raw4.0, to: raw4.1, proto: 6, data, totalLength: 60), segmentSize: 1_000)
            ),
            (
                "a payload length beyond the frame",
                self.superPacket(
                    self.ipv6(from: raw6.0, to: raw6.1, next: 6, data, payloadLength: 60_000), segmentSize: 1_000)
            ),
            (
                "a jumbogram",
                self.superPacket(
                    self.ipv6(from: raw6.0, to: raw6.1, next: 6, data, payloadLength: 0), segmentSize: 1_000)
            ),
            (
                "a UDP length beyond the packet",
                self.superPacket(v4(17, self.udp(payload: 100, length: 5_000)), segmentSize: 0)
            ),
            (
                "a UDP length short of the packet",
                self.superPacket(v4(17, self.udp(payload: 100, length: 20)), segmentSize: 0)
            ),
            ("a UDP length of 0", self.superPacket(v6(17, self.udp(payload: 100, length: 0)), segmentSize: 0)),
            (
                "a header of 4 words",
                self.superPacket(self.ipv4(from: raw4.0, to: raw4.1, proto: 6, data, headerWords: 4), segmentSize: 0)
            ),
            (
                "a header beyond the packet",
                self.superPacket(
                    self.ipv4(from: raw4.0, to: raw4.1, proto: 6, [1, 2, 3, 4], headerWords: 15), segmentSize: 0)
            ),
            (
                "a TCP header of 4 words",
                self.superPacket(v4(6, self.tcp(flags: .ack, payload: 0, headerWords: 4)), segmentSize: 0)
            ),
            (
                "a TCP header beyond the packet",
                self.superPacket(v6(6, self.tcp(flags: .ack, payload: 8, headerWords: 15)), segmentSize: 0)
            ),
            (
                "an extension header beyond the packet",
                self.superPacket(
                    v6(0, [6, 200, 0, 0, 0, 0, 0, 0] + self.tcp(flags: .ack, payload: 100)), segmentSize: 0)
            ),
            (
                "nine extension headers",
                self.superPacket(
                    v6(60, (0..<9).flatMap { [$0 < 8 ? 60 : 6, 0, 1, 4, 0, 0, 0, 0] as [UInt8] } + data), segmentSize: 0
                )
            ),
            // Checksums and versions.
            (
                "a wrong header checksum",
                self.superPacket(
                    self.ipv4(from: raw4.0, to: raw4.1, proto: 6, data, breakChecksum: true), segmentSize: 1_000)
            ),
            ("version 5", self.superPacket([0x55] + v4(6, data).dropFirst(), segmentSize: 1_000)),
            ("one byte", self.superPacket([0x45], segmentSize: 1_000)),
            ("one finished byte", self.packet([0x45])),
        ]
    }

    /// Frames that end the stream they come on, each on a stream of its own: their lengths are against the rules.
    static let brokenFrames: [(name: String, frame: [UInt8])] = [
        ("an empty packet", frame(kind: 0, [])),
        ("an empty super-packet", frame(kind: 1, [])),
        ("a super-packet without a packet", frame(kind: 1, [0, 0, 0])),
        ("half a MOVE", frame(kind: 2, [0, 0, 0, 0])),
        ("half a probe", frame(kind: 3, [0, 0, 0, 0])),
        ("half an echo", frame(kind: 4, [0])),
        ("half a close", frame(kind: 5, [0])),
    ]

    /// As ``brokenFrames``: only their headers are sent, which must suffice.
    static let oversizeFrames: [(name: String, frame: [UInt8])] = [
        ("a packet of 65,601 bytes", frame(kind: 0, [], claiming: 65_601)),
        ("a packet of 16 MiB", frame(kind: 0, [], claiming: 0xff_ffff)),
        ("a super-packet of 16 MiB", frame(kind: 1, [], claiming: 0xff_ffff)),
        ("a probe of 4,097 bytes", frame(kind: 3, [], claiming: 4_097)),
        ("a close of 16 MiB", frame(kind: 5, [], claiming: 0xff_ffff)),
        ("an unknown kind of 4,097 bytes", frame(kind: 200, [], claiming: 4_097)),
    ]
}
