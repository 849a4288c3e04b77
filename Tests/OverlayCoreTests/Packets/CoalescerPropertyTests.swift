import Multiformats
import Testing

@testable import OverlayCore

/// Random bursts against a slow model.
@Suite struct CoalescerPropertyTests {
    /// A packet's flow, and what of its headers all segments share. Read from the bytes, without the code under test.
    private struct Facts: Equatable {
        var flow: [UInt8]
        var shared: [UInt8]
        var isTCP: Bool
        var payload: Int
        var sequence: UInt32
        var identification: UInt16
        var isAtomic: Bool
        var isPushed: Bool
        /// May merge at all.
        var isCandidate: Bool

        init(_ packet: [UInt8]) {
            let isIPv4 = packet[0] >> 4 == 4
            let start = transport(packet)
            self.isTCP = packet[isIPv4 ? 9 : 6] == 6
            let header = self.isTCP ? Int(packet[start + 12] >> 4) * 4 : 8
            let addresses = isIPv4 ? packet[12..<20] : packet[8..<40]
            self.flow = Array(addresses) + packet[start..<start + 4] + [self.isTCP ? 6 : 17]
            self.payload = packet.count - start - header
            self.sequence = self.isTCP ? packet[start + 4..<start + 8].reduce(0) { $0 << 8 | UInt32($1) } : 0
            self.identification = isIPv4 ? UInt16(packet[4]) << 8 | UInt16(packet[5]) : 0
            self.isAtomic = !isIPv4 || packet[6] & 0x40 != 0
            self.isPushed = self.isTCP && packet[start + 13] & 0x08 != 0
            var shared = Array(packet[..<(start + header)])
            for offset in isIPv4 ? [2, 3, 4, 5, 10, 11] : [4, 5] { shared[offset] = 0 }
            for offset in self.isTCP ? [4, 5, 6, 7, 16, 17] : [4, 5, 6, 7] { shared[start + offset] = 0 }
            if self.isTCP { shared[start + 13] &= ~0x08 }
            self.shared = shared
            var right = packet
            repair(&right)
            self.isCandidate = right == packet && self.payload > 0 && (!self.isTCP || shared[start + 13] == 0x10)
        }
    }

    /// What one flow's packets should become when nothing else needs their slot.
    private func model(_ packets: [[UInt8]]) -> [Int] {
        var groups: [Int] = []
        var open: (size: Int, bytes: Int, last: Facts, step: UInt16?)?
        for packet in packets {
            let facts = Facts(packet)
            if let group = open, facts.isCandidate, facts.shared == group.last.shared, facts.payload <= group.size,
                group.bytes + facts.payload <= 65_535,
                !facts.isTCP || facts.sequence == group.last.sequence &+ UInt32(group.last.payload)
            {
                let step = facts.identification &- group.last.identification
                let isIPv4 = packet[0] >> 4 == 4
                if !isIPv4 || (group.step.map { $0 == step } ?? (step == 1 || step == 0 && facts.isAtomic)) {
                    groups[groups.count - 1] += 1
                    let bytes = group.bytes + facts.payload
                    let isFull =
                        facts.isPushed || facts.payload < group.size || !facts.isTCP && groups[groups.count - 1] == 64
                    open = isFull ? nil : (group.size, bytes, facts, step)
                    continue
                }
            }
            groups.append(1)
            let begins = facts.isCandidate && !facts.isPushed && facts.payload >= (facts.isTCP ? 8 : 1)
            open = begins ? (facts.payload, packet.count, facts, nil) : nil
        }
        return groups
    }

    /// Flows of one to three super-packets each, some with a packet damaged, repeated, lost or marked.
    private func flows(_ random: inout SeededGenerator, count: Int) -> [[[UInt8]]] {
        (0..<count).map { flow in
            let sample = CoalescerTests.Sample.allCases[Int.random(in: 0..<4, using: &random)]
            let size = Int.random(in: 8...1_300, using: &random)
            var builder = sample.builder(payload: 0)
            builder.ports.0 = UInt16(1_000 + flow)
            if Bool.random(using: &random) { builder.fragmentField = 0 }
            var packets: [[UInt8]] = []
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                let segments = Int.random(in: 1...30, using: &random)
                builder.payload = random.bytes(min(segments * size - Int.random(in: 0..<size, using: &random), 60_000))
                if case .tcp(let sequence, _, let options) = builder.body {
                    let flags: TCPFlags = Bool.random(using: &random) ? .ack : [.ack, .psh]
                    builder.body = .tcp(sequence: sequence, flags: flags, options: options)
                }
                let pieces = builder.segments(of: size)
                packets += pieces
                builder.identification &+= UInt16(pieces.count)
                if case .tcp(let sequence, let flags, let options) = builder.body {
                    let next = sequence &+ UInt32(builder.payload.count)
                    builder.body = .tcp(sequence: next, flags: flags, options: options)
                }
            }
            let key = Facts(packets[0]).flow
            for _ in 0..<Int.random(in: 0...2, using: &random) where !packets.isEmpty {
                let index = Int.random(in: packets.indices, using: &random)
                switch Int.random(in: 0..<5, using: &random) {
                case 0: packets[index][Int.random(in: 40..<packets[index].count, using: &random)] ^= 0x40
                case 1: packets.remove(at: index)
                case 2: packets.insert(packets[index], at: index)
                case 3:
                    packets[index][1] |= sample == .tcpv4 || sample == .udpv4 ? 3 : 0x30
                    repair(&packets[index])
                default: packets.swapAt(index, Int.random(in: packets.indices, using: &random))
                }
            }
            // Damage may have moved a packet to another flow; those are left out to keep the model simple.
            return packets.filter { (try? parse($0)) != nil && Facts($0).flow == key }
        }
    }

    /// Random draws from several sequences, each of which keeps its order.
    private func interleave(_ flows: [[[UInt8]]], _ random: inout SeededGenerator) -> [[UInt8]] {
        var rest = flows.map { $0[...] }
        var burst: [[UInt8]] = []
        while let flow = rest.indices.filter({ !rest[$0].isEmpty }).randomElement(using: &random) {
            for _ in 0..<Int.random(in: 1...20, using: &random) {
                if let packet = rest[flow].popFirst() { burst.append(packet) }
            }
        }
        return burst
    }

    /// Where fragmenting is forbidden the identification says nothing, and is not kept where it stayed the same.
    private func withoutVoidIdentification(_ packet: [UInt8]) -> [UInt8] {
        guard packet[0] >> 4 == 4, packet[6] & 0x40 != 0 else { return packet }
        var packet = packet
        for offset in [4, 5, 10, 11] { packet[offset] = 0 }
        return packet
    }

    @Test func cutsIntoTheSamePackets() throws {
        var random = SeededGenerator(state: 11)
        for round in 0..<16 {
            let count = Int.random(in: 1...10, using: &random)
            let flows = self.flows(&random, count: count)
            let burst = self.interleave(flows, &random)
            let slotCount = round % 2 == 0 ? count : Int.random(in: 1...count, using: &random)
            let written = try coalesce(burst, slotCount: slotCount)
            var packets: [[UInt8]: [[UInt8]]] = [:]
            var groups: [[UInt8]: [Int]] = [:]
            for one in written {
                let flow = Facts(one.bytes).flow
                packets[flow, default: []] += try one.packets()
                groups[flow, default: []].append(one.packetCount)
            }
            for flow in flows where !flow.isEmpty {
                let key = Facts(flow[0]).flow
                #expect(packets[key]?.map(self.withoutVoidIdentification) == flow.map(self.withoutVoidIdentification))
                let model = self.model(flow)
                if slotCount == count {
                    #expect(groups[key] == model, "round \(round)")
                } else {
                    #expect((groups[key]?.count ?? 0) >= model.count)
                }
            }
        }
    }

    /// Any bytes that parse: nothing traps, a packet with a wrong checksum comes out as it came, and no packet is lost.
    @Test func survivesMutation() throws {
        var random = SeededGenerator(state: 12)
        for _ in 0..<60 {
            var coalescer = Coalescer(.everything, slotCount: 4)
            var written: [Written] = []
            var count = 0
            var wrong: [[UInt8]: Int] = [:]
            for flow in self.flows(&random, count: 3) {
                for var packet in flow.prefix(12) {
                    for _ in 0..<Int.random(in: 0...2, using: &random) {
                        packet[Int.random(in: 0..<packet.count, using: &random)] = UInt8(
                            truncatingIfNeeded: random.next())
                    }
                    guard let parsed = try? parse(packet) else { continue }
                    count += 1
                    if !packet.withUnsafeBytes({ Checksum.isTransportValid(parsed, in: $0) }) {
                        wrong[packet, default: 0] += 1
                    }
                    try coalescer.add(Incoming(bytes: packet), &written)
                }
            }
            coalescer.flush { written.append(Written($0)) }
            #expect(written.reduce(0) { $0 + $1.packetCount } == count)
            for (packet, times) in wrong {
                #expect(written.filter { $0 == Written(alone: packet) }.count == times)
            }
            for one in written { #expect(try one.packets().count == one.packetCount) }
        }
    }

    @Test func survivesRandomBytes() {
        var random = SeededGenerator(state: 13)
        var coalescer = Coalescer(.everything, slotCount: 2)
        for _ in 0..<20_000 {
            var packet = random.bytes(Int.random(in: 20...120, using: &random))
            // Of the right length and version, so that most go further than the first check.
            if packet.count < 40 || packet[0] & 1 == 0 {
                packet[0] = 0x40 | (packet[0] & 2 == 0 ? 5 : packet[0] & 0x0f)
                packet.replaceSubrange(2..<4, with: big(UInt16(packet.count)))
                packet[6] &= 0x40
                packet[7] = 0
                packet[9] = packet[9] & 1 == 0 ? 6 : 17
            } else {
                packet[0] = 0x60
                packet.replaceSubrange(4..<6, with: big(UInt16(packet.count - 40)))
                packet[6] = packet[6] & 1 == 0 ? 6 : 17
            }
            guard let parsed = try? parse(packet) else { continue }
            packet.withUnsafeBytes { bytes in
                coalescer.add(parsed, bytes, from: PeerIndex(rawValue: 1)) { output in
                    #expect(output.packetCount == 1)
                }
            }
        }
        let isEmpty = coalescer.isEmpty
        #expect(isEmpty, "no random checksum was right")
    }
}
