import Multiformats
import OverlayCore
import Testing

@Suite struct IPPacketTests {
    @Test func readsUDPInIPv4() throws {
        let packet = try parse(
            hex("45b9 0020 0001 4000 4011 0000 6440 0001 6440 0002  3039 0035 000c 0000 deadbeef"))
        #expect(packet.source == IPAddress("100.64.0.1"))
        #expect(packet.destination == IPAddress("100.64.0.2"))
        #expect(packet.family == .ipv4)
        #expect(packet.byteCount == 32)
        #expect(packet.transportOffset == 20)
        #expect(packet.transportByteCount == 12)
        #expect(packet.payloadOffset == 28)
        #expect(packet.transport == .udp(sourcePort: 12_345, destinationPort: 53))
        #expect(packet.dscp == 46)
        #expect(packet.ecn == .capable1)
        #expect(packet.fragment == .none)
    }

    @Test func readsTCPInIPv6BehindExtensionHeaders() throws {
        let packet = try parse(
            hex(
                """
                6c30 0000 0030 0040 fd000000000000000000000000000001 fd000000000000000000000000000002
                3c00 0104 0000 0000   2b00 0104 0000 0000   0600 0400 0000 0000
                0050 d431 00000001 00000002 6012 ffff 0000 0000 0204 04c4
                """))
        #expect(packet.source == IPAddress("fd00::1"))
        #expect(packet.destination == IPAddress("fd00::2"))
        #expect(packet.transportOffset == 64)
        #expect(packet.payloadOffset == 88)
        #expect(packet.transportByteCount == 24)
        #expect(packet.transport == .tcp(sourcePort: 80, destinationPort: 54_321, flags: [.syn, .ack]))
        #expect(packet.trafficClass == 0xc3)
        #expect(packet.ecn == .congestionExperienced)
    }

    @Test func readsOptionsICMPAndOtherProtocols() throws {
        var withOptions = PacketBuilder(.ipv4, .udp, payload: [1, 2])
        withOptions.options = [1, 148, 4, 0, 0, 0, 0, 0]
        #expect(try parse(withOptions.bytes).transportOffset == 28)
        #expect(try parse(withOptions.bytes).ports?.source == 40_000)
        let echo = try parse(PacketBuilder(.ipv4, .other(.icmp), payload: [8, 1, 0, 0, 0, 0, 0, 0]).bytes)
        #expect(echo.transport == .icmp(type: 8, code: 1))
        #expect(echo.payloadOffset == 20)
        #expect(echo.ports == nil)
        let neighbour = try parse(PacketBuilder(.ipv6, .other(.icmpv6), payload: [135, 0, 0, 0, 0, 0, 0, 0]).bytes)
        #expect(neighbour.transport == .icmp(type: 135, code: 0))
        // GRE, SCTP, AH, no next header, and ICMP in the wrong family.
        for number: UInt8 in [47, 132, 51, 59, 1] {
            let packet = try parse(PacketBuilder(.ipv6, .other(IPProtocol(rawValue: number)), payload: [9]).bytes)
            #expect(packet.transport == .other)
            #expect(packet.transportProtocol.rawValue == number)
            #expect(packet.transportByteCount == 1)
        }
    }

    @Test func keepsUDPSurplusApart() throws {
        var bytes = PacketBuilder(.ipv4, .udp, payload: [1, 2, 3, 4]).bytes
        bytes[25] = 10
        let packet = try parse(bytes)
        #expect(packet.transportByteCount == 10)
        #expect(packet.byteCount == 32)
    }

    @Test func tellsFragmentsApart() throws {
        func v4(_ field: UInt16, _ body: PacketBuilder.Body = .udp) throws -> IPPacket {
            var builder = PacketBuilder(.ipv4, body, payload: [UInt8](repeating: 1, count: 28))
            if case .udp = body { builder.payload.append(contentsOf: [1, 1, 1, 1]) }
            builder.fragmentField = field
            return try parse(builder.bytes)
        }
        #expect(try v4(0x4000).fragment == .none)
        let first = try v4(0x2000)
        let later = try v4(0x2005)
        #expect(first.fragment == .first)
        #expect(first.ports?.destination == 443)
        #expect(later.fragment == .later)
        #expect(later.transport == .other)
        #expect(later.transportProtocol == .udp)
        #expect(later.payloadOffset == 20)
        #expect(try v4(0x0005).fragment == .later)
        var last = PacketBuilder(.ipv4, .other(.udp), payload: [1, 2, 3, 4, 5, 6, 7])
        last.fragmentField = 0x1fff
        #expect(try parse(last.bytes).fragment == .later)

        func v6(_ field: UInt16, next: UInt8 = 17) throws -> IPPacket {
            var builder = PacketBuilder(.ipv6, .udp, payload: [UInt8](repeating: 1, count: 32))
            builder.extensions = [(44, [0, 0] + big(field) + [0, 0, 0, 7])]
            return try parse(builder.bytes)
        }
        #expect(try v6(0x0001).fragment == .first)
        #expect(try v6(0x0001).ports?.destination == 443)
        #expect(try v6(0x0000).fragment == .first)
        #expect(try v6(0x0009).fragment == .later)
        #expect(try v6(0x0009).transport == .other)
        #expect(try v6(0x0009).transportOffset == 48)
    }

    struct Malformed: CustomTestStringConvertible {
        let testDescription: String
        let error: IPPacketError
        let bytes: [UInt8]

        init(
            _ name: String, _ error: IPPacketError, _ builder: PacketBuilder,
            _ change: (inout [UInt8]) -> Void = { _ in }
        ) {
            var bytes = builder.bytes
            change(&bytes)
            self.testDescription = name
            self.error = error
            self.bytes = bytes
        }
    }

    static let tcp = PacketBuilder.Body.tcp(sequence: 1, flags: .ack, options: [])

    static let malformed: [Malformed] = {
        let udp4 = PacketBuilder(.ipv4, .udp, payload: [1, 2, 3, 4])
        let udp6 = PacketBuilder(.ipv6, .udp, payload: [1, 2, 3, 4])
        let tcp4 = PacketBuilder(.ipv4, Self.tcp, payload: [1, 2, 3, 4])
        func options(_ options: [UInt8]) -> PacketBuilder {
            var builder = udp4
            builder.options = options
            return builder
        }
        func extensions(_ headers: [(UInt8, [UInt8])], _ body: PacketBuilder.Body = .udp, _ payload: Int = 16)
            -> PacketBuilder
        {
            var builder = PacketBuilder(.ipv6, body, payload: [UInt8](repeating: 0, count: payload))
            builder.extensions = headers
            return builder
        }
        func fragment(_ field: UInt16, _ body: PacketBuilder.Body, _ payload: Int) -> PacketBuilder {
            var builder = PacketBuilder(.ipv4, body, payload: [UInt8](repeating: 0, count: payload))
            builder.fragmentField = field
            return builder
        }
        let padding: [UInt8] = [0, 0, 1, 4, 0, 0, 0, 0]
        let other = PacketBuilder.Body.other
        return [
            Malformed("empty", .truncated, udp4) { $0 = [] },
            Malformed("IPv6 of 39 bytes", .truncated, udp6) { $0 = Array($0.prefix(39)) },
            Malformed("version 5", .unknownVersion, udp4) { $0[0] = 0x55 },
            Malformed("version 0", .unknownVersion, udp4) { $0[0] = 0x05 },
            Malformed("header of 16 bytes", .badHeaderLength, udp4) { $0[0] = 0x44 },
            Malformed("header beyond the packet", .badHeaderLength, udp4) { $0[0] = 0x4f },
            Malformed("IPv4 one byte short", .lengthMismatch, udp4) { $0.removeLast() },
            Malformed("IPv4 one byte long", .lengthMismatch, udp4) { $0.append(0) },
            Malformed("IPv4 total length zero", .lengthMismatch, udp4) { $0.replaceSubrange(2..<4, with: [0, 0]) },
            Malformed("IPv6 one byte short", .lengthMismatch, udp6) { $0.removeLast() },
            Malformed("IPv6 one byte long", .lengthMismatch, udp6) { $0.append(0) },
            Malformed("jumbogram", .lengthMismatch, extensions([(0, [0, 0, 0xc2, 4, 0, 1, 0, 0])])) {
                $0.replaceSubrange(4..<6, with: [0, 0])
            },
            Malformed("option of length 1", .malformedOptions, options([7, 1, 0, 0])),
            Malformed("option of length 0", .malformedOptions, options([7, 0, 0, 0])),
            Malformed("option beyond the header", .malformedOptions, options([1, 7, 4, 0])),
            Malformed("option without length", .malformedOptions, options([1, 1, 1, 7])),
            Malformed("loose source route", .sourceRouted, options([131, 7, 4, 10, 0, 0, 1, 0])),
            Malformed("strict source route", .sourceRouted, options([1, 137, 7, 4, 10, 0, 0, 1])),
            Malformed("routing header with a hop left", .sourceRouted, extensions([(43, [0, 0, 4, 1, 0, 0, 0, 0])])),
            Malformed(
                "nine extension headers", .tooManyExtensionHeaders,
                extensions([(UInt8, [UInt8])](repeating: (60, padding), count: 9))),
            Malformed(
                "hop-by-hop options second", .malformedExtensionHeader, extensions([(60, padding), (0, padding)])),
            Malformed("extension beyond the packet", .malformedExtensionHeader, extensions([(60, padding)], .udp, 0)) {
                $0[41] = 2
            },
            Malformed(
                "extension of 7 bytes", .malformedExtensionHeader, extensions([], other(IPProtocol(rawValue: 60)), 7)),
            Malformed(
                "extension of 1 byte", .malformedExtensionHeader, extensions([], other(IPProtocol(rawValue: 43)), 1)),
            Malformed(
                "extension of 0 bytes", .malformedExtensionHeader, extensions([], other(IPProtocol(rawValue: 0)), 0)),
            Malformed(
                "fragment header of 7 bytes", .malformedExtensionHeader,
                extensions([], other(IPProtocol(rawValue: 44)), 7)),
            Malformed(
                "fragment of a fragment", .malformedFragment,
                extensions([(44, [0, 0, 0, 1, 0, 0, 0, 1]), (44, [0, 0, 0, 1, 0, 0, 0, 1])])),
            Malformed(
                "IPv6 fragment of odd length", .malformedFragment,
                extensions([(44, [0, 0, 0, 1, 0, 0, 0, 1])], .udp, 15)),
            Malformed(
                "IPv6 fragment beyond the end", .malformedFragment,
                extensions([(44, [0, 0, 0xff, 0xf8, 0, 0, 0, 1])], .udp, 8)),
            Malformed("fragment of odd length", .malformedFragment, fragment(0x2000, .udp, 15)),
            Malformed("fragment to byte 65,536", .malformedFragment, fragment(0x1fff, other(.udp), 8)),
            Malformed("empty fragment", .malformedFragment, fragment(0x0010, other(.udp), 0)),
            Malformed("tiny first fragment", .malformedFragment, fragment(0x2000, other(.tcp), 16)),
            Malformed("tiny first fragment by header length", .malformedFragment, fragment(0x2000, Self.tcp, 4)) {
                $0[32] = 0x80
            },
            Malformed("fragment over the TCP ports", .malformedFragment, fragment(0x0001, other(.tcp), 40)),
            Malformed("fragment over the TCP flags", .malformedFragment, fragment(0x0002, other(.tcp), 40)),
            Malformed("TCP of 19 bytes", .truncatedTransport, extensions([], other(.tcp), 19)),
            Malformed("UDP of 7 bytes", .truncatedTransport, extensions([], other(.udp), 7)),
            Malformed(
                "ICMP of 7 bytes", .truncatedTransport,
                PacketBuilder(.ipv4, other(.icmp), payload: [8, 0, 0, 0, 0, 0, 0])),
            Malformed("ICMPv6 of 7 bytes", .truncatedTransport, extensions([], other(.icmpv6), 7)),
            Malformed("TCP options beyond the packet", .truncatedTransport, tcp4) { $0[32] = 0x70 },
            Malformed("TCP header of 16 bytes", .badTransportLength, tcp4) { $0[32] = 0x40 },
            Malformed("UDP length 7", .badTransportLength, udp4) { $0[25] = 7 },
            Malformed("UDP length 0", .badTransportLength, udp6) { $0[45] = 0 },
            Malformed("UDP length beyond the packet", .badTransportLength, udp4) { $0[25] = 13 },
        ]
    }()

    @Test(arguments: malformed) func refuses(_ malformed: Malformed) {
        #expect(throws: malformed.error) { try parse(malformed.bytes) }
    }

    @Test func everyErrorIsCovered() {
        #expect(Set(Self.malformed.map(\.error)) == Set(IPPacketError.allCases))
    }

    @Test func acceptsEightExtensionHeaders() throws {
        var builder = PacketBuilder(.ipv6, .udp, payload: [1])
        builder.extensions = [(UInt8, [UInt8])](repeating: (60, [0, 0, 1, 4, 0, 0, 0, 0]), count: 8)
        #expect(try parse(builder.bytes).transportOffset == 104)
    }

    @Test func acceptsNoTruncation() {
        var random = SeededGenerator(state: 4)
        for _ in 0..<40 {
            let bytes = random.packet(payload: 0...60).bytes
            for length in 0..<bytes.count {
                #expect(throws: IPPacketError.self) { try parse(Array(bytes.prefix(length))) }
            }
        }
    }

    /// What parsing accepts lies inside the packet and agrees with a walk over an array.
    @Test func staysInsideUnderMutation() {
        var random = SeededGenerator(state: 5)
        var accepted = 0
        for _ in 0..<20_000 {
            var bytes = random.packet(payload: 0...40).bytes
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let limit = Bool.random(using: &random) ? min(bytes.count, 64) : bytes.count
                bytes[Int.random(in: 0..<limit, using: &random)] = UInt8(truncatingIfNeeded: random.next())
            }
            guard let packet = try? parse(bytes) else { continue }
            accepted += 1
            #expect(packet.transportOffset == slowTransportOffset(bytes))
            #expect(packet.transportOffset <= packet.payloadOffset && packet.payloadOffset <= bytes.count)
            #expect(packet.transportOffset + packet.transportByteCount <= bytes.count)
            _ = packet.flowHash(seed: 1)
        }
        #expect(accepted > 5_000)
    }

    @Test func flowHashSeesFiveTupleOnly() throws {
        func hash(_ change: (inout PacketBuilder) -> Void, seed: UInt64 = 7, family: IPAddress.Family) throws -> UInt64
        {
            var builder = PacketBuilder(family, .udp, payload: [1, 2])
            change(&builder)
            return try parse(builder.bytes).flowHash(seed: seed)
        }
        for family in [IPAddress.Family.ipv4, .ipv6] {
            let base = try hash({ _ in }, family: family)
            #expect(try hash({ $0.payload = [9, 9, 9] }, family: family) == base)
            #expect(try hash({ $0.trafficClass = 3 }, family: family) == base)
            #expect(try hash({ $0.identification = 3 }, family: family) == base)
            #expect(try hash({ _ in }, seed: 8, family: family) != base)
            let others = try [
                hash({ $0.source[1] ^= 1 }, family: family), hash({ $0.destination[1] ^= 1 }, family: family),
                hash({ $0.source[3] ^= 1 }, family: family), hash({ $0.destination[3] ^= 1 }, family: family),
                hash({ $0.ports.0 ^= 1 }, family: family), hash({ $0.ports.1 ^= 1 }, family: family),
                hash({ $0.body = Self.tcp }, family: family),
                hash({ swap(&$0.source, &$0.destination) }, family: family),
                hash({ swap(&$0.ports.0, &$0.ports.1) }, family: family),
            ]
            #expect(Set(others + [base]).count == 10)
        }
    }

    @Test func flowHashIsOneForAllFragments() throws {
        func v4(_ field: UInt16, port: UInt16) throws -> UInt64 {
            var builder = PacketBuilder(.ipv4, .udp, payload: [UInt8](repeating: 0, count: 16))
            builder.fragmentField = field
            builder.ports.0 = port
            return try parse(builder.bytes).flowHash(seed: 7)
        }
        #expect(try v4(0x2000, port: 1) == v4(0x2003, port: 2))
        #expect(try v4(0x2000, port: 1) == v4(0x0006, port: 3))
        #expect(try v4(0x2000, port: 1) != v4(0x0000, port: 1))

        // The first fragment shows the whole chain, the later ones only its first header.
        func v6(_ field: UInt16) throws -> UInt64 {
            var builder = PacketBuilder(.ipv6, .udp, payload: [UInt8](repeating: 0, count: 16))
            builder.extensions = [(44, [0, 0] + big(field) + [0, 0, 0, 1]), (60, [0, 0, 1, 4, 0, 0, 0, 0])]
            return try parse(builder.bytes).flowHash(seed: 7)
        }
        #expect(try v6(0x0001) == v6(0x0021))
        #expect(try v6(0x0001) == v6(0x0020))
    }

    /// Flows that differ in one small number fill all buckets evenly, in the upper bits as in the lower ones.
    @Test func flowHashSpreads() throws {
        let changes: [(inout PacketBuilder, Int) -> Void] = [
            { $0.ports.0 = UInt16($1) }, { $0.ports.1 = UInt16($1) },
            { $0.source.replaceSubrange(2..<4, with: big(UInt16($1))) },
            { $0.destination.replaceSubrange(2..<4, with: big(UInt16($1))) },
        ]
        for family in [IPAddress.Family.ipv4, .ipv6] {
            for change in changes {
                var low = [Int](repeating: 0, count: 64)
                var high = low
                for value in 0..<4_096 {
                    var builder = PacketBuilder(family, .udp)
                    change(&builder, value)
                    let hash = try parse(builder.bytes).flowHash(seed: 99)
                    low[Int(hash % 64)] += 1
                    high[Int(hash >> 58)] += 1
                }
                // 64 expected in each: chi-square with 63 degrees of freedom exceeds 120 once in 50,000 times.
                for counts in [low, high] {
                    #expect(counts.reduce(0) { $0 + ($1 - 64) * ($1 - 64) } / 64 < 120)
                }
            }
        }
    }
}

/// Where the transport header of a packet begins, by the plainest walk.
func slowTransportOffset(_ bytes: [UInt8]) -> Int {
    guard bytes[0] >> 4 == 6 else { return Int(bytes[0] % 16) * 4 }
    var next = bytes[6]
    var offset = 40
    while [0, 43, 44, 60].contains(next) {
        let isLaterFragment = next == 44 && (bytes[offset + 2] != 0 || bytes[offset + 3] & 0xf8 != 0)
        let length = next == 44 ? 8 : 8 + 8 * Int(bytes[offset + 1])
        next = bytes[offset]
        offset += length
        if isLaterFragment { break }
    }
    return offset
}
