import Multiformats
import OverlayCore

extension FuzzTarget {
    /// A burst of packets from peers: cut up again, what is written is what came, flow by flow and in order, and every super-packet is one
    /// that we would accept from a peer, with the same header for the kernel.
    ///
    /// The input is a list of orders to a maker of four flows: most packets continue their flow, some are damaged, some are anything.
    static let coalescer = FuzzTarget(
        name: "coalescer", maximumBytes: 600,
        seeds: {
            let plain: [UInt8] = (0..<12).flatMap { [UInt8($0 % 4), 40] }
            let sixOfOne = [[UInt8]](repeating: [0, 60], count: 6).flatMap(\.self)
            let pushed: [UInt8] = [0x08, 10, 0, 60, 0, 60]
            let changed: [UInt8] = [1, 40, 0x11, 40, 7, 1, 1, 40, 1, 40, 0x31, 40, 41, 0x80, 1, 40, 1, 40]
            let fragment: [UInt8] =
                [2, 30, 0x40, 28, 0x45, 0, 0, 28, 0, 0, 0, 2, 64, 17, 0, 0, 100, 64, 0, 1, 100, 64, 0, 2]
            let rest: [UInt8] = [1, 2, 3, 4, 5, 6, 7, 8, 2, 30, 0x80, 0, 2, 30]
            return [
                [0xff, 4] + plain, [0x0f, 1] + plain, [0xff, 8] + sixOfOne + pushed, [0xff, 2] + changed,
                [0xff, 4] + fragment + rest,
            ]
        },
        run: { input in
            var choices = Choices(input)
            let kinds = Coalescer.Kinds(rawValue: choices.byte() & 0x0f)
            var coalescer = Coalescer(kinds, slotCount: Int(choices.byte()))
            var maker = PacketMaker()
            var packets: [[UInt8]] = []
            var written: [CoalescerOutput] = []
            while !choices.isEmpty {
                guard let packet = maker.next(&choices) else {
                    coalescer.flush { written.append(CoalescerOutput($0)) }
                    try hold(coalescer.isEmpty)
                    continue
                }
                guard let parsed = try? packet.withUnsafeBytes({ try IPPacket(parsing: $0) }) else { continue }
                packets.append(packet)
                packet.withUnsafeBytes { bytes in
                    coalescer.add(parsed, bytes, from: PeerIndex(rawValue: 1)) { written.append(CoalescerOutput($0)) }
                }
            }
            coalescer.flush { written.append(CoalescerOutput($0)) }
            try holdEqual(written.reduce(0) { $0 + $1.packetCount }, packets.count)

            var expected: [[UInt8]: [[UInt8]]] = [:]
            for packet in packets { expected[try flow(of: packet), default: []].append(meaning(of: packet)) }
            var actual: [[UInt8]: [[UInt8]]] = [:]
            for output in written {
                for packet in try output.packets() {
                    actual[try flow(of: packet), default: []].append(meaning(of: packet))
                }
            }
            try hold(actual == expected, "the packets are not the same")
        })

    /// Whose order must not change.
    private static func flow(of packet: [UInt8]) throws -> [UInt8] {
        let parsed = try packet.withUnsafeBytes { try IPPacket(parsing: $0) }
        let addresses = Array(parsed.family == .ipv4 ? packet[12..<20] : packet[8..<40])
        guard parsed.fragment == .none, let ports = parsed.ports else { return addresses }
        let words = [ports.source >> 8, ports.source & 0xff, ports.destination >> 8, ports.destination & 0xff]
        return addresses + words.map { UInt8($0) } + [parsed.transportProtocol.rawValue]
    }

    /// The packet without what two packets of one meaning may differ in: an identification that nothing reads, and whether a checksum of
    /// zero is written as 0000 or ffff.
    private static func meaning(of packet: [UInt8]) -> [UInt8] {
        var packet = packet
        guard let parsed = try? packet.withUnsafeBytes({ try IPPacket(parsing: $0) }), parsed.fragment == .none else {
            return packet
        }
        func settle(_ offset: Int) {
            if packet[offset] == 0xff, packet[offset + 1] == 0xff {
                packet.replaceSubrange(offset..<offset + 2, with: [0, 0])
            }
        }
        let isValid = packet.withUnsafeBytes { Checksum.isTransportValid(parsed, in: $0) }
        if parsed.family == .ipv4, packet[0] == 0x45 {
            let sum = packet.withUnsafeBytes { Checksum.internet(.init(rebasing: $0[..<20])) }
            if sum == 0 {
                if packet[6] & 0x40 != 0 {
                    for offset in [4, 5, 10, 11] { packet[offset] = 0 }
                }
                settle(10)
            }
        }
        if isValid, parsed.transportProtocol == .tcp { settle(parsed.transportOffset + 16) }
        return packet
    }
}

/// What a coalescer writes, with bytes of its own.
private struct CoalescerOutput {
    let header: VirtioNetHeader
    let bytes: [UInt8]
    let packetCount: Int

    init(_ output: Coalescer.Output) {
        self.header = output.header
        self.bytes = Array(output.bytes)
        self.packetCount = output.packetCount
    }

    /// The packets that it stands for, after a check of what the kernel would be told.
    func packets() throws -> [[UInt8]] {
        let packet = try self.bytes.withUnsafeBytes { try IPPacket(parsing: $0) }
        guard self.header != .finished else {
            try holdEqual(self.packetCount, 1)
            return [self.bytes]
        }
        try hold(self.packetCount > 1 && self.bytes.count <= Coalescer.maximumByteCount)
        let metadata = OffloadMetadata(checksumPending: true, segmentSize: self.header.segmentSize, flags: [])
        var judged = self.bytes
        try holdEqual(
            try judged.withUnsafeMutableBytes { try VirtioNetHeader(for: packet, in: $0, metadata: metadata) },
            self.header)
        try holdEqual(judged, self.bytes)
        var pieces: [[UInt8]] = []
        var scratch = self.bytes
        try self.bytes.withUnsafeBytes { bytes in
            var segmenter = try Segmenter(packet, in: bytes, metadata: metadata)
            scratch.withUnsafeMutableBytes { _ = segmenter.forEach(using: $0) { pieces.append(Array($0)) } }
        }
        try holdEqual(pieces.count, self.packetCount)
        return pieces
    }
}

/// Makes packets of four flows, TCP and UDP in IPv4 and IPv6, on orders of two to four bytes.
private struct PacketMaker {
    private var sequences: [UInt32] = [0xffff_ff00, 7]
    private var identifications: [UInt16] = [0xfffe, 3]

    /// `nil` when the order is to end the burst.
    ///
    /// | bits of the first byte | |
    /// |---|---|
    /// | 0, 1 | flow |
    /// | 2 | one packet is lost first |
    /// | 3 | PSH |
    /// | 4 | a byte is changed: its place and what it is combined with follow |
    /// | 5 | the checksums are right after the change |
    /// | 6 | no packet of a flow, but as many bytes as the second byte says |
    /// | 7 | end the burst |
    mutating func next(_ choices: inout Choices) -> [UInt8]? {
        let order = choices.byte()
        let size = Int(choices.byte())
        if order & 0x80 != 0 { return nil }
        if order & 0x40 != 0 { return choices.bytes(atMost: size) }
        let isTCP = order & 2 == 0
        let isIPv4 = order & 1 == 0
        if order & 4 != 0 { self.advance(isTCP, isIPv4, by: size) }
        var packet = self.packet(isTCP, isIPv4, payload: size, pushed: order & 8 != 0)
        self.advance(isTCP, isIPv4, by: size)
        if order & 0x10 != 0 {
            let place = Int(choices.byte()) % packet.count
            packet[place] ^= choices.byte()
            if order & 0x20 != 0 { Self.finish(&packet) }
        }
        return packet
    }

    private mutating func advance(_ isTCP: Bool, _ isIPv4: Bool, by count: Int) {
        if isTCP { self.sequences[isIPv4 ? 0 : 1] &+= UInt32(count) }
        if isIPv4 { self.identifications[isTCP ? 0 : 1] &+= 1 }
    }

    private func packet(_ isTCP: Bool, _ isIPv4: Bool, payload: Int, pushed: Bool) -> [UInt8] {
        func big(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 0xff), UInt8(value & 0xff)] }
        var transport: [UInt8] = [0x9c, 0x40, 1, 0xbb]
        if isTCP {
            let sequence = Int(self.sequences[isIPv4 ? 0 : 1])
            transport +=
                big(sequence >> 16) + big(sequence) + [0, 0, 0, 9, 0x50, pushed ? 0x18 : 0x10, 1, 0, 0, 0, 0, 0]
        } else {
            transport += big(8 + payload) + [0, 0]
        }
        transport += (0..<payload).map { UInt8(truncatingIfNeeded: $0 &* 37) }
        let number: UInt8 = isTCP ? 6 : 17
        var packet: [UInt8]
        if isIPv4 {
            packet = [0x45, 0] + big(20 + transport.count) + big(Int(self.identifications[isTCP ? 0 : 1]))
            packet += [isTCP ? 0x40 : 0, 0, 64, number, 0, 0, 100, 64, 0, 1, 100, 64, 0, 2]
        } else {
            packet = [0x60, 0, 0, 7] + big(transport.count) + [number, 64]
            for last: UInt8 in [1, 2] { packet += [0xfd] + [UInt8](repeating: 0, count: 14) + [last] }
        }
        packet += transport
        Self.finish(&packet)
        return packet
    }

    /// Makes the checksums right where there are any.
    private static func finish(_ packet: inout [UInt8]) {
        guard let parsed = try? packet.withUnsafeBytes({ try IPPacket(parsing: $0) }) else { return }
        packet.withUnsafeMutableBytes { bytes in
            if parsed.family == .ipv4 {
                let header = Int(bytes[0] & 0x0f) * 4
                let checksum = Checksum.ipv4Header(.init(rebasing: UnsafeRawBufferPointer(bytes)[..<header]))
                bytes[10] = UInt8(checksum >> 8)
                bytes[11] = UInt8(truncatingIfNeeded: checksum)
            }
            Checksum.complete(parsed, in: bytes)
        }
    }
}
