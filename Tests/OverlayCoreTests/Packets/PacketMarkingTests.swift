import Multiformats
import OverlayCore
import Testing

@Suite struct ECNTests {
    @Test func marksOnlyCapablePackets() throws {
        for family in [IPAddress.Family.ipv4, .ipv6] {
            for trafficClass in UInt8.min...UInt8.max {
                var builder = PacketBuilder(family, .udp, payload: [1, 2, 3])
                builder.trafficClass = trafficClass
                var bytes = builder.bytes
                let isMarked = bytes.withUnsafeMutableBytes { ECN.markCongestionExperienced($0) }
                #expect(isMarked == (trafficClass % 4 != 0))
                if isMarked { builder.trafficClass |= 3 }
                #expect(bytes == builder.bytes)
                #expect(try parse(bytes).trafficClass == builder.trafficClass)
            }
        }
    }

    @Test func readsTheTwoBits() {
        let expected: [ECN] = [.notCapable, .capable1, .capable0, .congestionExperienced]
        #expect((0..<4).map { ECN(trafficClass: 0xb8 | $0) } == expected)
    }

    @Test func leavesOthersAlone() {
        for original in [
            [], [0x46], [UInt8](repeating: 0x47, count: 19), [UInt8](repeating: 0x63, count: 39),
            [UInt8](repeating: 0x53, count: 60),
        ] as [[UInt8]] {
            var bytes = original
            #expect(!bytes.withUnsafeMutableBytes { ECN.markCongestionExperienced($0) })
            #expect(bytes == original)
        }
    }
}

@Suite struct TCPMaximumSegmentSizeTests {
    private func clamp(_ bytes: inout [UInt8], _ mtu: Int, checksumPending: Bool = false) throws -> Bool {
        let packet = try parse(bytes)
        return bytes.withUnsafeMutableBytes {
            TCPMaximumSegmentSize.clamp(packet, in: $0, mtuBytes: mtu, checksumPending: checksumPending)
        }
    }

    private func syn(_ family: IPAddress.Family, _ options: [UInt8], flags: TCPFlags = .syn) -> PacketBuilder {
        PacketBuilder(family, .tcp(sequence: 99, flags: flags, options: options), payload: [1, 2, 3])
    }

    /// The option at every offset, even and odd.
    @Test func lowersTheOption() throws {
        for (family, mtu, limit) in [(IPAddress.Family.ipv4, 1_280, 1_240), (.ipv6, 1_280, 1_220), (.ipv4, 68, 28)] {
            for padding in 0...36 {
                let before = [UInt8](repeating: 1, count: padding)
                let after = [UInt8](repeating: 0, count: (40 - padding - 4) % 4)
                let given = before + [2, 4] + big(UInt16(8_961)) + after
                let lowered = before + [2, 4] + big(UInt16(limit)) + after
                for flags: TCPFlags in [.syn, [.syn, .ack]] {
                    var bytes = self.syn(family, given, flags: flags).bytes
                    #expect(try self.clamp(&bytes, mtu))
                    #expect(bytes == self.syn(family, lowered, flags: flags).bytes)
                    #expect(try !self.clamp(&bytes, mtu))

                    var pending = self.syn(family, given, flags: flags).bytes(checksumField: 0x1234)
                    #expect(try self.clamp(&pending, mtu, checksumPending: true))
                    #expect(pending == self.syn(family, lowered, flags: flags).bytes(checksumField: 0x1234))
                }
            }
        }
    }

    @Test func leavesOthersAlone() throws {
        let option: [UInt8] = [2, 4] + big(UInt16(8_961))
        var fragment = self.syn(.ipv4, option)
        fragment.payload = [UInt8](repeating: 0, count: 8)
        fragment.fragmentField = 0x2000
        var atTheEnd = self.syn(.ipv4, [1, 1, 1, 2])
        atTheEnd.payload = []
        let cases: [(String, PacketBuilder, Int)] = [
            ("option at the end of the packet", atTheEnd, 1_280),
            ("no SYN", self.syn(.ipv4, option, flags: .ack), 1_280),
            ("small enough", self.syn(.ipv4, [2, 4] + big(UInt16(1_240))), 1_280),
            ("no option", self.syn(.ipv4, [1, 1, 1, 1]), 1_280),
            ("no options", self.syn(.ipv4, []), 1_280),
            ("after the end", self.syn(.ipv4, [0, 0, 0, 0] + option), 1_280),
            ("option of length 3", self.syn(.ipv4, [2, 3, 0xff, 0]), 1_280),
            ("option cut short", self.syn(.ipv4, [1, 1, 2, 4]), 1_280),
            ("option without length", self.syn(.ipv4, [1, 1, 1, 2]), 1_280),
            ("another option of length 0", self.syn(.ipv4, [8, 0, 0, 0] + option), 1_280),
            ("another option beyond the header", self.syn(.ipv4, [8, 9, 0, 0] + option), 1_280),
            ("MTU below the least", self.syn(.ipv4, option), 67),
            ("IPv6 MTU below the least", self.syn(.ipv6, option), 1_279),
            ("negative MTU", self.syn(.ipv4, option), -1),
            ("fragment", fragment, 1_280),
            ("UDP", PacketBuilder(.ipv4, .udp, payload: option), 1_280),
        ]
        for (name, builder, mtu) in cases {
            var bytes = builder.bytes
            #expect(try !self.clamp(&bytes, mtu), "\(name)")
            #expect(bytes == builder.bytes, "\(name)")
        }
    }

    @Test func survivesRandomOptions() throws {
        var random = SeededGenerator(state: 9)
        for _ in 0..<5_000 {
            let options = (0..<40).map { _ in UInt8.random(in: 0...6, using: &random) }
            var bytes = self.syn(.ipv4, options).bytes
            let before = bytes
            if try self.clamp(&bytes, 68) {
                #expect(zip(bytes, before).count { $0 != $1 } <= 4)
            } else {
                #expect(bytes == before)
            }
            let packet = try parse(bytes)
            #expect(bytes.withUnsafeBytes { Checksum.isTransportValid(packet, in: $0) })
        }
    }
}
