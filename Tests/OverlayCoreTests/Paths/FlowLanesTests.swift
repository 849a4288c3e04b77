import Multiformats
import Testing

@testable import OverlayCore

private let millisecond: UInt64 = 1_000_000

@Suite struct FlowLanesTests {
    @Test func theFirstPacketDecides() {
        for preferred in [LaneKind.stream, .datagram] {
            var flows = FlowLanes()
            for now in [1, 5, 100, 299] as [UInt64] {
                let lane = flows.lane(
                    flowHash: 7, preferred: preferred, carriesDatagrams: true, rtt: 0, now: now * millisecond)
                #expect(lane == preferred)
            }
        }
    }

    @Test func aFlowStaysUntilItHasBeenIdle() {
        var flows = FlowLanes()
        func lane(_ carries: Bool, at milliseconds: UInt64, rtt: UInt64 = 0) -> LaneKind {
            flows.lane(
                flowHash: 7, preferred: .datagram, carriesDatagrams: carries, rtt: rtt * millisecond,
                now: milliseconds * millisecond)
        }
        #expect(lane(false, at: 1_000) == .stream, "no datagrams yet")
        #expect(lane(true, at: 1_001) == .stream, "what was sent may still be under way")
        #expect(lane(true, at: 1_201) == .stream, "each packet counts")
        #expect(lane(true, at: 1_402) == .datagram, "idle for more than 200 ms")
        #expect(lane(true, at: 1_500) == .datagram)
        #expect(lane(false, at: 1_501) == .stream, "the lane is gone")
        #expect(lane(true, at: 1_502) == .stream)
        #expect(lane(true, at: 1_902, rtt: 200) == .stream, "two round trips")
        #expect(lane(true, at: 2_303, rtt: 200) == .datagram)
        #expect(lane(true, at: 2_304, rtt: .max / millisecond) == .datagram, "no overflow")
    }

    @Test func flowsAreToldApart() {
        var flows = FlowLanes()
        let now = 5 * millisecond
        for hash in 0..<UInt32(400) {
            let carries = hash % 2 == 0
            let lane = flows.lane(flowHash: hash, preferred: .datagram, carriesDatagrams: carries, rtt: 0, now: now)
            #expect(lane == (carries ? .datagram : .stream))
        }
        for hash in 0..<UInt32(400) {
            let lane = flows.lane(flowHash: hash, preferred: .datagram, carriesDatagrams: true, rtt: 0, now: now + 1)
            #expect(lane == (hash % 2 == 0 ? .datagram : .stream))
            // A flow of like hash that prefers a stream is another one.
            #expect(flows.lane(flowHash: hash, preferred: .stream, carriesDatagrams: true, rtt: 0, now: now) == .stream)
        }
    }

    @Test func anIdleTableGoes() {
        var flows = FlowLanes()
        _ = flows.lane(flowHash: 1, preferred: .datagram, carriesDatagrams: false, rtt: 0, now: millisecond)
        flows.trim()
        #expect(
            flows.lane(flowHash: 1, preferred: .datagram, carriesDatagrams: true, rtt: 0, now: 2 * millisecond)
                == .stream)
        flows.trim()
        flows.trim()
        #expect(
            flows.lane(flowHash: 1, preferred: .datagram, carriesDatagrams: true, rtt: 0, now: 3 * millisecond)
                == .datagram)
    }
}

@Suite struct LaneKindTests {
    @Test(
        arguments: [
            ("bulk TCP", .tcp(sequence: 1, flags: [], options: []), (40_000, 443), 0, .stream),
            ("ssh, from the client", .tcp(sequence: 1, flags: [], options: []), (40_000, 22), 0, .datagram),
            ("ssh, from the server", .tcp(sequence: 1, flags: [], options: []), (22, 40_000), 0, .datagram),
            ("DNS over TCP", .tcp(sequence: 1, flags: [], options: []), (40_000, 53), 0, .datagram),
            ("UDP", .udp, (40_000, 443), 0, .datagram),
            ("ICMP", .other(IPProtocol(rawValue: 1)), (0, 0), 0, .datagram),
            ("TCP marked EF", .tcp(sequence: 1, flags: [], options: []), (40_000, 443), 46, .datagram),
            ("UDP of a scavenger", .udp, (40_000, 443), 8, .stream),
            ("ssh of a scavenger", .tcp(sequence: 1, flags: [], options: []), (40_000, 22), 1, .stream),
        ] as [(String, PacketBuilder.Body, (UInt16, UInt16), UInt8, LaneKind)])
    func eachKindHasItsLane(
        name: String, body: PacketBuilder.Body, ports: (UInt16, UInt16), dscp: UInt8, lane: LaneKind
    ) throws {
        for family in [IPAddress.Family.ipv4, .ipv6] {
            var packet = PacketBuilder(family, body, payload: [UInt8](repeating: 0, count: 16))
            packet.ports = ports
            packet.trafficClass = dscp << 2 | 1
            let found = try packet.bytes.withUnsafeBytes { LaneKind.preferred(for: try IPPacket(parsing: $0)) }
            #expect(found == lane, "\(name)")
        }
    }
}
