import Multiformats
import OverlayCore
import Testing

@Suite struct ICMPErrorTests {
    private func reply(_ error: ICMPError, to bytes: [UInt8], from source: String? = nil, room: Int = 1_280)
        throws -> [UInt8]?
    {
        let packet = try parse(bytes)
        let source = try #require(IPAddress(source ?? (packet.family == .ipv4 ? "100.64.0.9" : "fd00::9")))
        var output = [UInt8](repeating: 0xee, count: room)
        let count = bytes.withUnsafeBytes { bytes in
            output.withUnsafeMutableBytes { error.reply(to: packet, in: bytes, from: source, into: $0) }
        }
        guard let count else {
            #expect(output == [UInt8](repeating: 0xee, count: room))
            return nil
        }
        return Array(output[..<count])
    }

    static let udp4 = hex("4500 0020 0001 4000 4011 7249 6440 0001 6440 0002  3039 0035 000c 0000 deadbeef")
    static let udp6 = hex(
        """
        6000 0000 000c 1140 fd000000000000000000000000000001 fd000000000000000000000000000002
        3039 0035 000c 1234 deadbeef
        """)

    struct Golden: CustomTestStringConvertible {
        let testDescription: String
        let error: ICMPError
        let header: String
    }

    /// IP and ICMP header; the packet itself follows. Checksums by a separate program.
    static let golden4 = [
        Golden(
            testDescription: "no route", error: .noRoute,
            header: "45c0 003c 0000 4000 4001 7177 6440 0009 6440 0001  0300 2ee8 0000 0000"),
        Golden(
            testDescription: "host unreachable", error: .hostUnreachable,
            header: "45c0 003c 0000 4000 4001 7177 6440 0009 6440 0001  0301 2ee7 0000 0000"),
        Golden(
            testDescription: "prohibited", error: .administrativelyProhibited,
            header: "45c0 003c 0000 4000 4001 7177 6440 0009 6440 0001  030d 2edb 0000 0000"),
        Golden(
            testDescription: "too big", error: .packetTooBig(mtuBytes: 1_280),
            header: "45c0 003c 0000 4000 4001 7177 6440 0009 6440 0001  0304 29e4 0000 0500"),
    ]

    static let golden6 = [
        Golden(
            testDescription: "no route", error: .noRoute,
            header:
                "6000 0000 003c 3a40 fd000000000000000000000000000009 fd000000000000000000000000000001 0100 b8e0 0000 0000"
        ),
        Golden(
            testDescription: "host unreachable", error: .hostUnreachable,
            header:
                "6000 0000 003c 3a40 fd000000000000000000000000000009 fd000000000000000000000000000001 0103 b8dd 0000 0000"
        ),
        Golden(
            testDescription: "prohibited", error: .administrativelyProhibited,
            header:
                "6000 0000 003c 3a40 fd000000000000000000000000000009 fd000000000000000000000000000001 0101 b8df 0000 0000"
        ),
        Golden(
            testDescription: "too big", error: .packetTooBig(mtuBytes: 1_400),
            header:
                "6000 0000 003c 3a40 fd000000000000000000000000000009 fd000000000000000000000000000001 0200 b268 0000 0578"
        ),
    ]

    @Test(arguments: golden4) func answersIPv4(_ golden: Golden) throws {
        #expect(try self.reply(golden.error, to: Self.udp4) == hex(golden.header) + Self.udp4)
    }

    @Test(arguments: golden6) func answersIPv6(_ golden: Golden) throws {
        #expect(try self.reply(golden.error, to: Self.udp6) == hex(golden.header) + Self.udp6)
    }

    @Test func quotesNoMoreThanAllowed() throws {
        for (family, limit) in [(IPAddress.Family.ipv4, 576), (.ipv6, 1_280)] {
            for payload in [0, 1, 8, 500, 512, 519, 520, 521, 1_183, 1_184, 1_185, 3_000, 65_000] {
                let bytes = PacketBuilder(family, .udp, payload: [UInt8](repeating: 3, count: payload)).bytes
                let answer = try #require(try self.reply(.noRoute, to: bytes))
                let headers = family == .ipv4 ? 28 : 48
                #expect(answer.count == min(headers + bytes.count, limit))
                #expect(Array(answer[headers...]) == Array(bytes.prefix(answer.count - headers)))
                let packet = try parse(answer)
                #expect(answer.withUnsafeBytes { Checksum.isTransportValid(packet, in: $0) })
                #expect(packet.destination == (try parse(bytes)).source)
                if family == .ipv4 { #expect(slowSum(Array(answer[..<20])) == 0xffff) }
            }
        }
    }

    @Test func keepsMTUInRange() throws {
        func mtu(_ bytes: [UInt8], _ mtu: Int) throws -> [UInt8]? {
            let start = bytes[0] >> 4 == 4 ? 24 : 44
            return try self.reply(.packetTooBig(mtuBytes: mtu), to: bytes).map { Array($0[start..<start + 4]) }
        }
        for (given, v4, v6) in [
            (-5, 68, 1_280), (0, 68, 1_280), (1_279, 1_279, 1_280), (9_000, 9_000, 9_000), (70_000, 65_535, 70_000),
            (Int.max, 65_535, 4_294_967_295),
        ] {
            #expect(try mtu(Self.udp4, given) == big(UInt32(v4)))
            #expect(try mtu(Self.udp6, given) == big(UInt32(v6)))
        }
    }

    struct Silent: CustomTestStringConvertible {
        let testDescription: String
        let bytes: [UInt8]
        var error = ICMPError.noRoute

        init(
            _ name: String, _ family: IPAddress.Family, error: ICMPError = .noRoute, from source: String? = nil,
            to destination: String? = nil, icmp: UInt8? = nil, fragmentField: UInt16 = 0x4000,
            extensions: [(UInt8, [UInt8])] = []
        ) {
            let icmpProtocol: IPProtocol = family == .ipv4 ? .icmp : .icmpv6
            let payload: [UInt8] = [icmp ?? 1, 0, 0, 0, 0, 0, 0, 0]
            var builder = PacketBuilder(family, icmp == nil ? .udp : .other(icmpProtocol), payload: payload)
            builder.source = source.flatMap { IPAddress($0)?.bytes } ?? builder.source
            builder.destination = destination.flatMap { IPAddress($0)?.bytes } ?? builder.destination
            builder.fragmentField = fragmentField
            builder.extensions = extensions
            self.testDescription = name
            self.bytes = builder.bytes
            self.error = error
        }
    }

    static let silent: [Silent] =
        [
            Silent("unspecified source", .ipv4, from: "0.0.0.0"),
            Silent("this network", .ipv4, from: "0.1.2.3"),
            Silent("loopback source", .ipv4, from: "127.0.0.1"),
            Silent("multicast source", .ipv4, from: "224.0.0.1"),
            Silent("reserved source", .ipv4, from: "240.0.0.1"),
            Silent("broadcast source", .ipv4, from: "255.255.255.255"),
            Silent("broadcast", .ipv4, to: "255.255.255.255"),
            Silent("multicast", .ipv4, to: "239.1.2.3"),
            Silent("too big for multicast", .ipv4, error: .packetTooBig(mtuBytes: 1_280), to: "239.1.2.3"),
            Silent("too big, may be fragmented", .ipv4, error: .packetTooBig(mtuBytes: 1_280), fragmentField: 0),
            Silent("later fragment", .ipv4, fragmentField: 0x0003),
            Silent("IPv6 unspecified source", .ipv6, from: "::"),
            Silent("IPv6 loopback source", .ipv6, from: "::1"),
            Silent("IPv6 multicast source", .ipv6, from: "ff02::1"),
            Silent("IPv6 multicast", .ipv6, to: "ff02::1"),
            Silent("IPv6 later fragment", .ipv6, extensions: [(44, [0, 0, 0, 8, 0, 0, 0, 1])]),
        ]
        + [3, 4, 5, 11, 12, 19, 44, 200].map { (type: UInt8) in Silent("ICMP type \(type)", .ipv4, icmp: type) }
        + [0, 1, 2, 3, 4, 127, 137].map { (type: UInt8) in Silent("ICMPv6 type \(type)", .ipv6, icmp: type) }
        + [1, 4].map { (type: UInt8) in
            Silent("too big for ICMPv6 type \(type)", .ipv6, error: .packetTooBig(mtuBytes: 1_280), icmp: type)
        }

    @Test(arguments: silent) func staysSilent(_ silent: Silent) throws {
        #expect(try self.reply(silent.error, to: silent.bytes) == nil)
    }

    @Test func answersWhatMayBeAnswered() throws {
        let tooBig = ICMPError.packetTooBig(mtuBytes: 1_280)
        let answered =
            [0, 8, 13, 17, 42].map { Silent("", .ipv4, icmp: $0) }
            + [128, 129, 135].map { Silent("", .ipv6, icmp: $0) }
            + [
                Silent("", .ipv4, fragmentField: 0x2000), Silent("", .ipv4, fragmentField: 0),
                Silent("", .ipv6, extensions: [(44, [0, 0, 0, 1, 0, 0, 0, 1])]),
                Silent("", .ipv6, error: tooBig, to: "ff0e::1"),
            ]
        for packet in answered {
            #expect(try self.reply(packet.error, to: packet.bytes) != nil)
        }
    }

    @Test func needsRoomAndAnAddressOfTheFamily() throws {
        #expect(try self.reply(.noRoute, to: Self.udp4, room: 1_279) == nil)
        #expect(try self.reply(.noRoute, to: Self.udp4, from: "fd00::9") == nil)
        #expect(try self.reply(.noRoute, to: Self.udp6, from: "100.64.0.9") == nil)
    }

    @Test func neverAnswersItself() throws {
        for (error, bytes) in [(ICMPError.noRoute, Self.udp4), (.packetTooBig(mtuBytes: 1_280), Self.udp6)] {
            let answer = try #require(try self.reply(error, to: bytes))
            #expect(try self.reply(error, to: answer) == nil)
        }
    }
}

@Suite struct ICMPRateLimiterTests {
    @Test func letsABurstThroughThenTheRate() {
        var limiter = ICMPRateLimiter(perSecond: 10, burst: 3, now: 1_000)
        func allowed(_ now: UInt64, of tries: Int) -> Int {
            (0..<tries).count { _ in limiter.allows(now: now) }
        }
        #expect(allowed(1_000, of: 5) == 3)
        #expect(allowed(100_000_999, of: 5) == 0)
        #expect(allowed(100_001_000, of: 5) == 1)
        #expect(allowed(250_001_000, of: 5) == 1)
        #expect(allowed(300_001_000, of: 5) == 1)
        // Time that steps back gives nothing and takes nothing.
        #expect(allowed(0, of: 5) == 0)
        #expect(allowed(300_001_000, of: 5) == 0)
        #expect(allowed(.max, of: 9) == 3)
    }

    @Test func survivesAbsurdLimits() {
        for (rate, burst, expected) in [(0, 0, 1), (-1, -1, 1), (Int.max, Int.max, 9), (Int.min, 5, 5)] {
            var limiter = ICMPRateLimiter(perSecond: rate, burst: burst, now: .max)
            #expect((0..<9).count { _ in limiter.allows(now: .max) } == expected)
        }
    }
}
