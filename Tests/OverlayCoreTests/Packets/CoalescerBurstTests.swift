import Multiformats
import Testing

@testable import OverlayCore

@Suite struct CoalescerBurstTests {
    typealias Sample = CoalescerTests.Sample

    private func segments(_ sample: Sample, _ count: Int, of size: Int = 100, flags: TCPFlags = .ack) -> [[UInt8]] {
        sample.builder(payload: count * size, flags: flags).segments(of: size)
    }

    /// How many packets went into each thing written, of one flow and in order.
    private func groups(_ burst: [[UInt8]], slotCount: Int = 8) throws -> [Int] {
        let written = try coalesce(burst, slotCount: slotCount)
        #expect(try written.flatMap { try $0.packets() } == burst)
        return written.map(\.packetCount)
    }

    @Test(arguments: Sample.allCases) func mergesOnlyWhatTheDeviceTakes(_ sample: Sample) throws {
        let burst = self.segments(sample, 3)
        #expect(try coalesce(burst, kinds: sample.kind).map(\.packetCount) == [3])
        let others = Coalescer.Kinds.everything.subtracting(sample.kind)
        #expect(try coalesce(burst, kinds: others) == burst.map { Written(alone: $0) })
        var coalescer = Coalescer(others)
        var written: [Written] = []
        for packet in burst { try coalescer.add(Incoming(bytes: packet), &written) }
        let mapped = coalescer.mappedBytes
        #expect(written.count == 3 && mapped == 0, "nothing waits, and nothing is copied")
    }

    @Test(arguments: Sample.allCases) func neverMergesPeers(_ sample: Sample) throws {
        let segments = self.segments(sample, 4)
        let one = try coalesce(segments.enumerated().map { Incoming(bytes: $1, peer: UInt32(1 + $0 / 2)) })
        #expect(one.map(\.packetCount) == [2, 2] && one.map(\.peer) == [1, 2])
        // The same flow from both: a member lies.
        let both = try coalesce(segments.flatMap { [Incoming(bytes: $0, peer: 1), Incoming(bytes: $0, peer: 2)] })
        #expect(both.map(\.packetCount) == [4, 4] && both.map(\.peer) == [1, 2])
        for written in both { #expect(try written.packets() == segments) }
    }

    @Test func endsWithPush() throws {
        let burst = self.segments(.tcpv4, 3, flags: [.ack, .psh])
        #expect(try self.groups(burst) == [3])
        // The next segment begins anew.
        var all = self.segments(.tcpv6, 5)
        all[1][40 + 13] |= 0x08
        repair(&all[1])
        #expect(try self.groups(all) == [2, 3])
        all[0][40 + 13] |= 0x08
        repair(&all[0])
        #expect(try self.groups(all) == [1, 1, 3])
    }

    @Test(arguments: Sample.allCases) func endsWithAShorterOne(_ sample: Sample) throws {
        var builder = sample.builder(payload: 230)
        let first = builder.segments(of: 100)
        #expect(try self.groups(first) == [3])
        // What follows is no longer than the shorter one, and continues it.
        guard case .tcp(let sequence, let flags, let options) = builder.body else {
            #expect(try self.groups(self.segments(.udpv6, 1) + self.segments(.udpv6, 3, of: 30)) == [2, 2])
            return
        }
        builder.body = .tcp(sequence: sequence &+ 230, flags: flags, options: options)
        builder.identification += 3
        builder.payload = [UInt8](repeating: 7, count: 60)
        #expect(try self.groups(first + builder.segments(of: 30)) == [3, 2])
    }

    @Test func keepsToTheLengthOfAPacket() throws {
        // 40 bytes of header in IPv4, 12 of options.
        #expect(try self.groups(self.segments(.tcpv4, 60, of: 1_228)) == [53, 7])
        #expect(try self.groups(self.segments(.tcpv6, 60, of: 1_208)) == [54, 6])
        // To the byte, in equal parts and with a shorter last one.
        #expect(try self.groups(self.segments(.udpv4, 13, of: 5_039)) == [13])
        #expect(try self.groups(Sample.tcpv4.builder(payload: 65_483).segments(of: 1_043)) == [63])
        #expect(try self.groups(Sample.tcpv4.builder(payload: 65_484).segments(of: 1_043)) == [62, 1])
        #expect(try self.groups(Sample.tcpv4.builder(payload: 65_483).segments(of: 65_482)) == [2])
        // One segment already as long as can be, and the longest that IPv6 knows.
        #expect(try self.groups([Sample.tcpv4.builder(payload: 65_483).bytes]) == [1])
        var long = Sample.udpv6.builder(payload: 65_527)
        let short = Sample.udpv6.builder(payload: 1).bytes
        #expect(long.bytes.count == 65_575)
        #expect(try self.groups([long.bytes, long.bytes]) == [1, 1])
        long.payload.removeLast(40)
        #expect(try self.groups([long.bytes, short]) == [1, 1])
        long.payload.removeLast(1)
        #expect(try self.groups([long.bytes, short]) == [2])
    }

    @Test func keepsToTheSegmentsOfAFrame() throws {
        #expect(try self.groups(self.segments(.udpv4, 150, of: 10)) == [64, 64, 22])
        #expect(try self.groups(self.segments(.tcpv4, 1_000, of: 8)) == [1_000])
        // TCP segments below the kernel's least are left alone.
        #expect(try self.groups(self.segments(.tcpv4, 3, of: 7)) == [1, 1, 1])
        #expect(try self.groups(self.segments(.udpv4, 3, of: 1)) == [3])
    }

    @Test(arguments: Sample.allCases) func passesOnWhatIsWrong(_ sample: Sample) throws {
        var burst = self.segments(sample, 7)
        burst[3][burst[3].count - 1] ^= 0x10
        #expect(try self.groups(burst) == [3, 1, 3])
        burst[0][burst[0].count - 1] ^= 0x10
        #expect(try self.groups(burst) == [1, 2, 1, 3])
    }

    @Test func keepsTheOrderOfAFlow() throws {
        let data = self.segments(.tcpv4, 4)
        var acknowledgement = Sample.tcpv4.builder(payload: 0)
        acknowledgement.body = .tcp(sequence: 0xffff_ff80, flags: .ack, options: [1, 1, 1, 1])
        let pure = acknowledgement.bytes
        #expect(try self.groups([data[0], data[1], pure, data[2], data[3]]) == [2, 1, 2])
        #expect(try self.groups([data[0], data[1], data[3], data[2]]) == [2, 1, 1])
    }

    /// A fragment may be of any flow between its addresses; other protocols are flows of their own.
    @Test func fragmentsWaitForTheirFlow() throws {
        let data = self.segments(.udpv4, 3)
        var later = data[2]
        later[6...7] = [0, 2]
        repair(&later)
        let echo = PacketBuilder(.ipv4, .other(.icmp), payload: [8, 0, 0, 0, 0, 1, 0, 1]).bytes
        let written = try coalesce([data[0], data[1], echo, later, data[2]])
        #expect(written.map(\.packetCount) == [1, 2, 1, 1])
        #expect(written[0] == Written(alone: echo) && written[2] == Written(alone: later))
        // Not of other addresses, nor of another peer.
        later[19] ^= 0x55
        repair(&later)
        #expect(try coalesce([data[0], data[1], later, data[2]]).map(\.packetCount) == [1, 3])
        later[19] ^= 0x55
        repair(&later)
        let foreign = Incoming(bytes: later, peer: 2)
        let burst = [Incoming(bytes: data[0]), foreign, Incoming(bytes: data[1])]
        #expect(try coalesce(burst).map(\.packetCount) == [1, 2])
    }

    @Test func makesRoomForOtherFlows() throws {
        let flows = (0..<3).map { flow in
            var builder = Sample.tcpv4.builder(payload: 300)
            builder.ports.0 += UInt16(flow)
            return builder.segments(of: 100)
        }
        let inTurn = (0..<3).flatMap { round in flows.map { $0[round] } }
        #expect(try coalesce(inTurn, slotCount: 3).map(\.packetCount) == [3, 3, 3])
        #expect(try coalesce(inTurn, slotCount: 2).map(\.packetCount) == Array(repeating: 1, count: 9))
        // The flow that is used stays.
        let busy = [flows[0][0], flows[1][0], flows[0][1], flows[2][0], flows[0][2]]
        #expect(try coalesce(busy, slotCount: 2).map(\.packetCount) == [1, 3, 1])
        #expect(try coalesce(inTurn, slotCount: 0).map(\.packetCount) == Array(repeating: 1, count: 9))
    }

    @Test func takesMemoryOnceAndGivesItBack() throws {
        let burst = self.segments(.udpv6, 3)
        var coalescer = Coalescer(.everything, slotCount: 4)
        var written: [Written] = []
        var mapped = [coalescer.mappedBytes]
        func add(_ coalescer: inout Coalescer) throws {
            for packet in burst { try coalescer.add(Incoming(bytes: packet), &written) }
        }
        func trim(_ coalescer: inout Coalescer) {
            coalescer.trim()
            mapped.append(coalescer.mappedBytes)
        }
        try add(&coalescer)
        // Packets wait in it.
        trim(&coalescer)
        trim(&coalescer)
        coalescer.flush { written.append(Written($0)) }
        try add(&coalescer)
        coalescer.flush { written.append(Written($0)) }
        // It was used just now.
        trim(&coalescer)
        trim(&coalescer)
        try add(&coalescer)
        coalescer.flush { written.append(Written($0)) }
        trim(&coalescer)
        let all = mapped[1]
        #expect((4 * 65_536..<4 * 66_000).contains(all))
        #expect(mapped == [0, all, all, all, 0, all])
        #expect(written.map(\.packetCount) == [3, 3, 3])
    }
}
