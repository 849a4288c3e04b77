import Multiformats
import Testing

@testable import OverlayCore

@Suite struct CoalescerTests {
    typealias Change = @Sendable (inout [UInt8], inout [UInt8]) -> Void

    /// Two segments of one flow after a change, and whether they still merge.
    struct Rule: Sendable, CustomStringConvertible {
        let description: String
        let merges: Bool
        let on: [Sample]
        /// Whether both checksums are made right again.
        var isRepaired = true
        let change: Change
    }

    enum Sample: CaseIterable {
        case tcpv4, tcpv6, udpv4, udpv6

        static let tcp: [Sample] = [.tcpv4, .tcpv6]
        static let udp: [Sample] = [.udpv4, .udpv6]
        static let ipv4: [Sample] = [.tcpv4, .udpv4]
        static let ipv6: [Sample] = [.tcpv6, .udpv6]

        var kind: Coalescer.Kinds {
            switch self {
            case .tcpv4: .tcpv4
            case .tcpv6: .tcpv6
            case .udpv4: .udpv4
            case .udpv6: .udpv6
            }
        }

        func builder(payload: Int, flags: TCPFlags = .ack) -> PacketBuilder {
            let family: IPAddress.Family = self == .tcpv4 || self == .udpv4 ? .ipv4 : .ipv6
            let payload = (0..<payload).map { UInt8(truncatingIfNeeded: $0 &* 31) }
            guard Self.tcp.contains(self) else { return PacketBuilder(family, .udp, payload: payload) }
            let timestamps: [UInt8] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]
            return PacketBuilder(
                family, .tcp(sequence: 0xffff_ff80, flags: flags, options: timestamps), payload: payload)
        }
    }

    private static func rule(
        _ description: String, _ merges: Bool, _ on: [Sample] = Sample.allCases, repaired: Bool = true,
        _ change: @escaping Change
    ) -> Rule {
        Rule(description: description, merges: merges, on: on, isRepaired: repaired, change: change)
    }

    /// Offsets from the start of the transport header, in either family.
    private static func second(_ offset: Int, _ change: @escaping @Sendable (inout UInt8) -> Void) -> Change {
        { _, packet in change(&packet[transport(packet) + offset]) }
    }

    static let rules: [Rule] = [
        rule("nothing changed", true) { _, _ in },
        rule("the second is shorter", true) { _, b in cutPayload(&b, to: 99) },
        rule("the second has one byte", true) { _, b in cutPayload(&b, to: 1) },
        rule("the second is longer", false) { a, b in
            cutPayload(&a, to: 99)
            // TCP's sequence number still continues.
            if b[b[0] >> 4 == 4 ? 9 : 6] == 6 { b[transport(b) + 7] -= 1 }
        },
        rule("the first has no payload", false) { a, _ in cutPayload(&a, to: 0) },
        rule("the second has no payload", false) { _, b in cutPayload(&b, to: 0) },
        rule("other source port", false, Sample.allCases, second(1) { $0 ^= 1 }),
        rule("other destination port", false, Sample.allCases, second(2) { $0 ^= 1 }),

        rule("TOS differs", false, Sample.ipv4) { _, b in b[1] ^= 0x20 },
        rule("congestion on the first only", false, Sample.ipv4) { a, _ in a[1] |= 3 },
        rule("congestion on the second only", false, Sample.ipv4) { _, b in b[1] |= 3 },
        rule("congestion on both", true, Sample.ipv4) { a, b in
            a[1] |= 3
            b[1] |= 3
        },
        rule("TTL differs", false, Sample.ipv4) { _, b in b[8] -= 1 },
        rule("other source address", false, Sample.ipv4) { _, b in b[15] ^= 1 },
        rule("other destination address", false, Sample.ipv4) { _, b in b[19] ^= 1 },
        rule("may be fragmented, both", true, Sample.ipv4) { a, b in
            a[6] = 0
            b[6] = 0
        },
        rule("may be fragmented, first only", false, Sample.ipv4) { a, _ in a[6] = 0 },
        rule("may be fragmented, second only", false, Sample.ipv4) { _, b in b[6] = 0 },
        rule("reserved flag on the second", false, Sample.ipv4) { _, b in b[6] |= 0x80 },
        rule("same identification", true, Sample.ipv4) { a, b in b[4...5] = a[4...5] },
        rule("same identification where it may be fragmented", false, Sample.ipv4) { a, b in
            b[4...5] = a[4...5]
            a[6] = 0
            b[6] = 0
        },
        rule("identification skips one", false, Sample.ipv4) { _, b in b[5] += 1 },
        rule("identification goes back", false, Sample.ipv4) { _, b in b[5] -= 2 },
        rule("identification wraps", true, Sample.ipv4) { a, b in
            a[4...5] = [0xff, 0xff]
            b[4...5] = [0, 0]
        },
        rule("options on both", false, Sample.ipv4) { a, b in
            addOptions(&a)
            addOptions(&b)
        },
        rule("first is a fragment", false, Sample.ipv4) { a, _ in a[6...7] = [0, 16] },
        rule("second is a fragment", false, Sample.ipv4) { _, b in b[6...7] = [0, 16] },
        rule("header checksum of the first is wrong", false, Sample.ipv4, repaired: false) { a, _ in a[10] ^= 1 },
        rule("header checksum of the second is wrong", false, Sample.ipv4, repaired: false) { _, b in b[11] ^= 1 },

        rule("traffic class differs", false, Sample.ipv6) { _, b in b[0] ^= 1 },
        rule("congestion on the second only", false, Sample.ipv6) { _, b in b[1] |= 0x30 },
        rule("congestion on both", true, Sample.ipv6) { a, b in
            a[1] |= 0x30
            b[1] |= 0x30
        },
        rule("flow label differs", false, Sample.ipv6) { _, b in b[3] ^= 1 },
        rule("upper flow label differs", false, Sample.ipv6) { _, b in b[1] ^= 1 },
        rule("hop limit differs", false, Sample.ipv6) { _, b in b[7] -= 1 },
        rule("other source address", false, Sample.ipv6) { _, b in b[9] ^= 1 },
        rule("other end of the source address", false, Sample.ipv6) { _, b in b[23] ^= 1 },
        rule("other destination address", false, Sample.ipv6) { _, b in b[39] ^= 1 },
        rule("extension header on both", false, Sample.ipv6) { a, b in
            addDestinationOptions(&a)
            addDestinationOptions(&b)
        },

        rule("transport checksum of the first is wrong", false, repaired: false) { a, _ in a[a.count - 1] ^= 1 },
        rule("transport checksum of the second is wrong", false, repaired: false) { _, b in b[b.count - 100] ^= 0x80 },
        rule("checksum field of the second is wrong", false, repaired: false) { _, b in
            b[transport(b) + (b[b[0] >> 4 == 4 ? 9 : 6] == 6 ? 17 : 7)] ^= 1
        },
        rule("no checksum on both", false, Sample.udp, repaired: false) { a, b in
            a.replaceSubrange(transport(a) + 6...transport(a) + 7, with: [0, 0])
            b.replaceSubrange(transport(b) + 6...transport(b) + 7, with: [0, 0])
        },
        rule("no checksum on the second", false, Sample.udp, repaired: false) { _, b in
            b.replaceSubrange(transport(b) + 6...transport(b) + 7, with: [0, 0])
        },
        rule("surplus behind the second", false, Sample.udp) { _, b in b[transport(b) + 5] -= 1 },

        rule("sequence gap", false, Sample.tcp, second(7) { $0 &+= 1 }),
        rule("sequence overlaps", false, Sample.tcp, second(7) { $0 &-= 1 }),
        rule("sequence repeats", false, Sample.tcp) { a, b in
            let start = transport(a)
            b.replaceSubrange(start + 4..<start + 8, with: a[start + 4..<start + 8])
        },
        rule("acknowledgement differs", false, Sample.tcp, second(11) { $0 ^= 1 }),
        rule("window differs", false, Sample.tcp, second(15) { $0 ^= 1 }),
        rule("urgent pointer differs", false, Sample.tcp, second(19) { $0 ^= 1 }),
        rule("timestamp differs", false, Sample.tcp, second(27) { $0 ^= 1 }),
        rule("reserved bit on the second", false, Sample.tcp, second(12) { $0 |= 1 }),
        rule("reserved bit on both", false, Sample.tcp) { a, b in
            a[transport(a) + 12] |= 1
            b[transport(b) + 12] |= 1
        },
        rule("PSH on the second", true, Sample.tcp, second(13) { $0 |= 0x08 }),
        rule("PSH on the first", false, Sample.tcp) { a, _ in a[transport(a) + 13] |= 0x08 },
        rule("FIN on the second", false, Sample.tcp, second(13) { $0 |= 0x01 }),
        rule("SYN on the second", false, Sample.tcp, second(13) { $0 |= 0x02 }),
        rule("RST on the second", false, Sample.tcp, second(13) { $0 |= 0x04 }),
        rule("URG on the second", false, Sample.tcp, second(13) { $0 |= 0x20 }),
        rule("ECE on the second", false, Sample.tcp, second(13) { $0 |= 0x40 }),
        rule("CWR on the second", false, Sample.tcp, second(13) { $0 |= 0x80 }),
        rule("CWR on the first", false, Sample.tcp) { a, _ in a[transport(a) + 13] |= 0x80 },
        rule("no ACK on both", false, Sample.tcp) { a, b in
            a[transport(a) + 13] = 0
            b[transport(b) + 13] = 0
        },
    ]

    @Test(arguments: rules) func follows(_ rule: Rule) throws {
        for sample in rule.on {
            let segments = sample.builder(payload: 200).segments(of: 100)
            var (a, b) = (segments[0], segments[1])
            rule.change(&a, &b)
            if rule.isRepaired {
                repair(&a)
                repair(&b)
            }
            let written = try coalesce([a, b])
            if rule.merges {
                try #require(written.count == 1, "\(sample)")
                #expect(written[0].packetCount == 2)
                var packets = try written[0].packets()
                // Where fragmenting is forbidden the identification says nothing.
                if sample.kind.isSubset(of: [.tcpv4, .udpv4]), a[4...5] == b[4...5] {
                    packets[1][4...5] = a[4...5]
                    repair(&packets[1])
                }
                #expect(packets == [a, b], "\(sample)")
            } else {
                #expect(written == [Written(alone: a), Written(alone: b)], "\(sample)")
            }
        }
    }

    /// Written out by hand, checksums by a separate program.
    @Test(arguments: [
        (
            [
                """
                45000030 ffff4000 4006b974 c0a80001 c0a80002
                04000050 fffffff8 00000001 50100100 1d1f0000 0001020304050607
                """,
                """
                45000030 00004000 4006b974 c0a80001 c0a80002
                04000050 00000000 00000001 50100100 fcf70000 08090a0b0c0d0e0f
                """,
                """
                4500002c 00014000 4006b977 c0a80001 c0a80002
                04000050 00000008 00000001 50180100 06f80000 10111213
                """,
            ],
            """
            4500003c ffff4000 4006b968 c0a80001 c0a80002
            04000050 fffffff8 00000001 50180100 81820000 000102030405060708090a0b0c0d0e0f10111213
            """,
            VirtioNetHeader(
                flags: .needsChecksum, segmentation: .tcpv4, headerByteCount: 40, segmentSize: 8, checksumStart: 20,
                checksumOffset: 16)
        ),
        (
            [
                """
                60200005 001c0640 fd000000000000000000000000000001 fd000000000000000000000000000002
                04000050 00000007 00000001 50100100 a4600000 0001020304050607
                """,
                """
                60200005 001c0640 fd000000000000000000000000000001 fd000000000000000000000000000002
                04000050 0000000f 00000001 50100100 84380000 08090a0b0c0d0e0f
                """,
            ],
            """
            60200005 00240640 fd000000000000000000000000000001 fd000000000000000000000000000002
            04000050 00000007 00000001 50100100 fa2e0000 000102030405060708090a0b0c0d0e0f
            """,
            VirtioNetHeader(
                flags: .needsChecksum, segmentation: .tcpv6, headerByteCount: 60, segmentSize: 8, checksumStart: 40,
                checksumOffset: 16)
        ),
        (
            [
                "45000025 00094000 4011b96b c0a80001 c0a80002 04000035 00116633 000102030405060708",
                "45000025 00094000 4011b96b c0a80001 c0a80002 04000035 0011390f 090a0b0c0d0e0f1011",
                "4500001e 00094000 4011b972 c0a80001 c0a80002 04000035 000a683e 1213",
            ],
            """
            45000030 00094000 4011b960 c0a80001 c0a80002
            04000035 001c8181 000102030405060708090a0b0c0d0e0f10111213
            """,
            VirtioNetHeader(
                flags: .needsChecksum, segmentation: .udp, headerByteCount: 28, segmentSize: 9, checksumStart: 20,
                checksumOffset: 6)
        ),
        (
            [
                """
                60200005 00111140 fd000000000000000000000000000001 fd000000000000000000000000000002
                04000035 0011ed82 000102030405060708
                """,
                """
                60200005 00111140 fd000000000000000000000000000001 fd000000000000000000000000000002
                04000035 0011c05e 090a0b0c0d0e0f1011
                """,
                """
                60200005 000a1140 fd000000000000000000000000000001 fd000000000000000000000000000002
                04000035 000aef8d 1213
                """,
            ],
            """
            60200005 001c1140 fd000000000000000000000000000001 fd000000000000000000000000000002
            04000035 001cfa31 000102030405060708090a0b0c0d0e0f10111213
            """,
            VirtioNetHeader(
                flags: .needsChecksum, segmentation: .udp, headerByteCount: 48, segmentSize: 9, checksumStart: 40,
                checksumOffset: 6)
        ),
    ])
    func makesGoldenSuperPackets(_ packets: [String], _ golden: String, _ header: VirtioNetHeader) throws {
        let written = try coalesce(packets.map(hex))
        try #require(written.count == 1)
        #expect(written[0].bytes == hex(golden))
        #expect(written[0].header == header)
        #expect(written[0].packetCount == packets.count)
        #expect(written[0].receivedByteCount == packets.reduce(0) { $0 + hex($1).count })
    }
}
