import Glibc
import Multiformats
import OverlayCore
import Synchronization
import Testing
import TunnelDevice

@testable import OverlayEngine

/// Packets in datagrams: from the gate to the device.
@Suite struct InboundGateTests {
    private static let own = IPAddress(ipv4: 0x6440_0001)
    private static let addresses: [UInt32: IPAddress] = [
        1: IPAddress(ipv4: 0x6440_0101), 2: IPAddress(ipv4: 0x6440_0201),
    ]

    /// A TUN that remembers what it is given, and answers as it is told.
    private final class Device: PacketDevice {
        struct Write: Equatable {
            var header: [UInt8]
            var packet: [UInt8]
        }

        let name = "test"
        let mtu = 1_280
        let offload: OffloadFeatures
        let descriptor: Int32 = -1
        let result = Mutex(PacketWriteResult.written)
        let writes = Mutex<[Write]>([])

        init(offload: OffloadFeatures) { self.offload = offload }

        func read(into buffer: UnsafeMutableRawBufferPointer) throws(PacketReadError) -> Int? { nil }

        func write(header: UnsafeRawPointer, packet: UnsafeRawBufferPointer) -> PacketWriteResult {
            let bytes = UnsafeRawBufferPointer(start: header, count: PacketDeviceLimits.headerBytes)
            self.writes.withLock { $0.append(Write(header: Array(bytes), packet: Array(packet))) }
            return self.result.withLock { $0 }
        }

        /// What was written since the last call.
        func take() -> [Write] {
            self.writes.withLock { writes in
                defer { writes = [] }
                return writes
            }
        }
    }

    private static func gate(_ device: some PacketDevice) throws -> InboundGate {
        var entries = [RouteTable.Entry(try #require(IPPrefix("100.64.0.1/32")), peer: nil)]
        for (peer, address) in Self.addresses {
            let prefix = try #require(IPPrefix("\(address)/32"))
            entries.append(RouteTable.Entry(prefix, peer: PeerIndex(rawValue: peer)))
        }
        return InboundGate(device: device, filter: PacketFilter(routes: try RouteTable(entries)))
    }

    /// The segments of a TCP super-packet with 1,000 bytes of payload each.
    private static func segments(_ count: Int, from source: IPAddress, to destination: IPAddress) throws -> [[UInt8]] {
        let (bytes, _) = Packets.superTCP(
            from: source, to: destination, payloadBytes: count * 1_000, segmentBytes: 1_000)
        var segments: [[UInt8]] = []
        var scratch = [UInt8](repeating: 0, count: 2_000)
        try bytes.withUnsafeBytes { bytes in
            var segmenter = try Segmenter(
                IPPacket(parsing: bytes), in: bytes,
                metadata: OffloadMetadata(checksumPending: true, segmentSize: 1_000, flags: []))
            scratch.withUnsafeMutableBytes { _ = segmenter.forEach(using: $0) { segments.append(Array($0)) } }
        }
        return segments
    }

    private static func segments(_ count: Int, from peer: UInt32) throws -> [[UInt8]] {
        try Self.segments(count, from: try #require(Self.addresses[peer]), to: Self.own)
    }

    private func admit(
        _ packet: [UInt8], to gate: InboundGate, from peer: UInt32, counting counters: InboundGate.Counters
    ) {
        packet.withUnsafeBytes { gate.admitDatagram($0, from: PeerIndex(rawValue: peer), counting: counters) }
    }

    @Test func mergesABurst() throws {
        let device = Device(offload: .all)
        let gate = try Self.gate(device)
        let counters = InboundGate.Counters()
        let segments = try Self.segments(5, from: 1)
        for round in 1...2 {
            for segment in segments { self.admit(segment, to: gate, from: 1, counting: counters) }
            #expect(device.take().isEmpty && counters.packets == UInt64(5 * (round - 1)))
            gate.endDatagrams()
            let writes = device.take()
            try #require(writes.count == 1)
            // needs checksum, TCPv4, 40 bytes of header, 1,000 bytes per segment, checksum at byte 16 of the TCP header
            #expect(writes[0].header == [1, 1, 40, 0, 0xe8, 0x03, 20, 0, 16, 0])
            #expect(writes[0].packet.count == 5_040)
            #expect(writes[0].packet.dropFirst(40).elementsEqual(segments.flatMap { $0.dropFirst(40) }))
            #expect(counters.packets == UInt64(5 * round) && counters.bytes == UInt64(5 * 1_040 * round))
            #expect(counters.drops.total == 0)
        }
        gate.endDatagrams()
        #expect(device.take().isEmpty)
        // Memory goes when it is not used, and comes back.
        gate.trim()
        gate.trim()
        for segment in segments { self.admit(segment, to: gate, from: 1, counting: counters) }
        gate.endDatagrams()
        #expect(device.take().count == 1)
    }

    @Test func leavesPacketsAsTheyAreWithoutOffload() throws {
        let device = Device(offload: [])
        let gate = try Self.gate(device)
        let counters = InboundGate.Counters()
        let segments = try Self.segments(3, from: 1)
        for segment in segments { self.admit(segment, to: gate, from: 1, counting: counters) }
        let finished = segments.map { Device.Write(header: VirtioNetHeaderBytes.finished, packet: $0) }
        #expect(device.take() == finished, "and nothing waits for the end of the burst")
        gate.endDatagrams()
        #expect(device.take().isEmpty && counters.packets == 3)
    }

    /// The check comes before the merging: a packet that may not come in is no part of anything.
    @Test func checksEveryPacket() throws {
        let device = Device(offload: .all)
        let gate = try Self.gate(device)
        let counters = InboundGate.Counters()
        let good = try Self.segments(2, from: 1)
        let stolen = try Self.segments(2, from: 2)
        let elsewhere = try Self.segments(2, from: try #require(Self.addresses[1]), to: IPAddress(ipv4: 0x0808_0808))
        for index in 0..<2 {
            self.admit(good[index], to: gate, from: 1, counting: counters)
            self.admit(stolen[index], to: gate, from: 1, counting: counters)
            self.admit(elsewhere[index], to: gate, from: 1, counting: counters)
            self.admit(Array(good[index].dropLast()), to: gate, from: 1, counting: counters)
            self.admit([], to: gate, from: 1, counting: counters)
        }
        gate.endDatagrams()
        #expect(device.take().map(\.packet.count) == [2_040])
        #expect(counters.packets == 2 && counters.drops[.wrongSource] == 2 && counters.drops[.wrongDestination] == 2)
        #expect(counters.drops[.malformed] == 4 && counters.drops.total == 8)
    }

    @Test func keepsPeersApart() throws {
        let device = Device(offload: .all)
        let gate = try Self.gate(device)
        let counters = [1: InboundGate.Counters(), 2: InboundGate.Counters()]
        let segments = [1: try Self.segments(3, from: 1), 2: try Self.segments(3, from: 2)]
        for index in 0..<3 {
            for peer in [1, 2] {
                self.admit(
                    try #require(segments[peer])[index], to: gate, from: UInt32(peer),
                    counting: try #require(counters[peer]))
            }
        }
        gate.endDatagrams()
        let writes = device.take()
        #expect(writes.map(\.packet.count) == [3_040, 3_040])
        for (peer, write) in zip([1, 2], writes) {
            #expect(write.packet[12..<16].elementsEqual(try #require(Self.addresses[UInt32(peer)]).bytes))
            #expect(counters[peer]?.packets == 3 && counters[peer]?.bytes == 3_120)
        }
    }

    @Test(arguments: [
        (PacketWriteResult.queueFull, DropReason.queueFull), (.linkDown, .networkDown), (.deviceGone, .networkDown),
        (.rejected(errno: EINVAL), .malformed),
    ])
    func countsWhatTheDeviceRefuses(_ result: PacketWriteResult, _ reason: DropReason) throws {
        let device = Device(offload: .all)
        let gate = try Self.gate(device)
        let counters = InboundGate.Counters()
        device.result.withLock { $0 = result }
        for segment in try Self.segments(4, from: 1) { self.admit(segment, to: gate, from: 1, counting: counters) }
        gate.endDatagrams()
        #expect(device.take().count == 1)
        #expect(counters.packets == 0 && counters.bytes == 0)
        #expect(counters.drops[reason] == 4 && counters.drops.total == 4)
    }

    /// Through a device as the daemon has it: header and packet in one write.
    @Test func writesToADescriptor() throws {
        var ends: [Int32] = [0, 0]
        try #require(socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0, &ends) == 0)
        defer { close(ends[1]) }
        let device = LinuxTUN.standIn(name: "test", descriptor: ends[0], offload: .all)
        let gate = try Self.gate(device)
        let counters = InboundGate.Counters()
        for segment in try Self.segments(4, from: 2) { self.admit(segment, to: gate, from: 2, counting: counters) }
        gate.endDatagrams()
        var buffer = [UInt8](repeating: 0, count: PacketDeviceLimits.readBytes)
        let count = read(ends[1], &buffer, buffer.count)
        #expect(count == 10 + 4_040)
        let packet = try buffer[10..<4_050].withUnsafeBytes { try IPPacket(parsing: $0) }
        #expect(packet.source == Self.addresses[2] && packet.destination == Self.own)
        #expect(read(ends[1], &buffer, buffer.count) == -1)
    }
}
