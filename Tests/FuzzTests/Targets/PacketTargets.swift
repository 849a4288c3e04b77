import Multiformats
import OverlayCore

extension FuzzTarget {
    /// A packet from a peer: whatever is accepted points into itself only, and what is made of it is a valid packet between the same
    /// two addresses.
    static let packet = FuzzTarget(
        name: "packet", maximumBytes: 3000, seeds: packetSeeds,
        run: { input in
            var choices = Choices(input)
            let metadata = OffloadMetadata(
                checksumPending: choices.byte() % 2 == 1, segmentSize: choices.uint16(),
                flags: OffloadMetadata.Flags(rawValue: choices.byte()))
            try check(choices.remainder(), metadata)
        })

    /// The same, with the lengths and the checksum of the IP header put right: most random changes get past the first checks.
    static let packetChecksummed = FuzzTarget(
        name: "packet-checksummed", maximumBytes: 3000, seeds: packetSeeds,
        run: { input in
            var choices = Choices(input)
            let metadata = OffloadMetadata(
                checksumPending: choices.byte() % 2 == 1, segmentSize: choices.uint16(),
                flags: OffloadMetadata.Flags(rawValue: choices.byte()))
            var packet = choices.remainder()
            guard packet.count >= 40 else { return }
            func put(_ value: UInt16, at offset: Int) {
                packet[offset] = UInt8(value >> 8)
                packet[offset + 1] = UInt8(truncatingIfNeeded: value)
            }
            if packet[0] & 0x10 == 0 {
                packet[0] = 0x40 | max(packet[0] & 0x0f, 5)
                put(UInt16(packet.count), at: 2)
                let headerByteCount = Int(packet[0] & 0x0f) * 4
                guard packet.count >= headerByteCount else { return }
                put(packet.withUnsafeBytes { Checksum.ipv4Header(.init(rebasing: $0[..<headerByteCount])) }, at: 10)
            } else {
                packet[0] = 0x60 | packet[0] & 0x0f
                put(UInt16(packet.count - 40), at: 4)
            }
            try check(packet, metadata)
        })

    /// What our own kernel says about a packet. It is trusted to tell the truth, but not to be asked for nothing else.
    static let localOffload = FuzzTarget(
        name: "local-offload", maximumBytes: 3000,
        seeds: {
            let header: [UInt8] = [1, 1, 44, 0, 100, 0, 20, 0, 16, 0]
            let checksum: [UInt8] = [1, 0, 0, 0, 0, 0, 40, 0, 6, 0]
            return try packetSeeds().flatMap { seed in [header + seed.dropFirst(4), checksum + seed.dropFirst(4)] }
        },
        run: { input in
            var bytes = input
            try bytes.withUnsafeMutableBytes { all in
                guard let header = VirtioNetHeader(decoding: UnsafeRawBufferPointer(all)) else { return }
                let bytes = UnsafeMutableRawBufferPointer(rebasing: all[VirtioNetHeader.byteCount...])
                _ = header.completeChecksum(in: bytes)
                guard let packet = try? IPPacket(parsing: UnsafeRawBufferPointer(bytes)),
                    let metadata = try? OffloadMetadata(
                        local: header, packet: packet, in: UnsafeRawBufferPointer(bytes))
                else { return }
                // What is fit to be sent is fit to be cut, and unless it is larger than any peer takes, to be received.
                _ = try Segmenter(packet, in: UnsafeRawBufferPointer(bytes), metadata: metadata)
                if metadata.fitsOneFrame(packet) {
                    _ = try VirtioNetHeader(for: packet, in: bytes, metadata: metadata)
                }
            }
        })

    private static let packetSeeds: @Sendable () throws -> [[UInt8]] = {
        let payload = [UInt8](0..<250)
        let tcp: [UInt8] =
            [0, 80, 0x9c, 0x40, 0, 0, 0, 1, 0, 0, 0, 2, 0x60, 0x18, 1, 0, 0, 0, 0, 0, 2, 4, 5, 0xb4]
        let syn: [UInt8] = tcp[..<13] + [2] + tcp[14...]
        let udp: [UInt8] = [0, 53, 0x9c, 0x40, 1, 2, 0, 0]
        let echo: [UInt8] = [8, 0, 0, 0, 0, 1, 0, 1]
        let unreachable: [UInt8] = [1, 0, 0, 0, 0, 0, 0, 0]
        func ipv4(_ number: UInt8, _ body: [UInt8], field: [UInt8] = [0x40, 0]) -> [UInt8] {
            let count = 20 + body.count
            var packet: [UInt8] = [0x45, 2, UInt8(count >> 8), UInt8(truncatingIfNeeded: count), 0, 1]
            packet += field
            packet += [64, number, 0, 0, 100, 64, 0, 1, 100, 64, 0, 2]
            return packet + body
        }
        func ipv6(_ number: UInt8, _ body: [UInt8]) -> [UInt8] {
            let address: [UInt8] = [0xfd, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0]
            var packet: [UInt8] = [0x60, 0x20, 0, 0, UInt8(body.count >> 8), UInt8(truncatingIfNeeded: body.count)]
            packet += [number, 64]
            packet += address + [1]
            packet += address + [2]
            return packet + body
        }
        let fragment: [UInt8] = [17, 0, 0, 1, 0, 0, 0, 9]
        let options: [UInt8] = [6, 0, 1, 4, 0, 0, 0, 0]
        let packets = [
            ipv4(6, tcp + payload), ipv4(6, syn), ipv4(17, udp + payload), ipv4(1, echo + payload),
            ipv4(17, udp + payload.prefix(8), field: [0x20, 0]), ipv4(47, payload),
            ipv6(6, tcp + payload), ipv6(6, syn), ipv6(17, udp + payload), ipv6(58, unreachable + payload),
            ipv6(44, fragment + udp + payload.prefix(8)), ipv6(0, options + tcp + payload),
        ]
        var seeds: [[UInt8]] = []
        for packet in packets {
            for metadata: [UInt8] in [[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 100, 1], [1, 0, 16, 0]] {
                seeds.append(metadata + packet)
            }
        }
        return seeds
    }

    // MARK: What must hold

    private static func check(_ input: [UInt8], _ metadata: OffloadMetadata) throws {
        var bytes = input
        guard let packet = try? bytes.withUnsafeBytes({ try IPPacket(parsing: $0) }) else { return }
        try checkOffsets(packet, in: bytes)
        _ = packet.flowHash(seed: 7)
        _ = bytes.withUnsafeBytes { Checksum.isTransportValid(packet, in: $0) }
        try checkOffload(packet, bytes, metadata)
        try checkSegments(packet, bytes, metadata)
        for error: ICMPError in [.noRoute, .administrativelyProhibited, .packetTooBig(mtuBytes: 1280)] {
            try checkAnswer(error, packet, bytes)
        }
        try checkMark(packet, bytes)
        try checkClamp(packet, bytes)
        if bytes.withUnsafeMutableBytes({ Checksum.complete(packet, in: $0) }) {
            try hold(bytes.withUnsafeBytes { Checksum.isTransportValid(packet, in: $0) })
        } else {
            try holdEqual(bytes, input)
        }
    }

    private static func checkOffsets(_ packet: IPPacket, in bytes: [UInt8]) throws {
        try holdEqual(packet.byteCount, bytes.count)
        let isIPv4 = packet.family == .ipv4
        try hold(packet.transportOffset >= (isIPv4 ? 20 : 40) && packet.transportOffset <= bytes.count)
        try hold((packet.transportOffset...bytes.count).contains(packet.payloadOffset))
        try hold(packet.transportByteCount >= 0)
        try hold(packet.transportOffset + packet.transportByteCount <= bytes.count)
        let (source, destination) = isIPv4 ? (12..<16, 16..<20) : (8..<24, 24..<40)
        try hold(packet.source == IPAddress(bytes: bytes[source]))
        try hold(packet.destination == IPAddress(bytes: bytes[destination]))
        switch packet.transport {
        case .tcp(let from, let to, _):
            try hold(packet.transportProtocol == .tcp && packet.payloadOffset >= packet.transportOffset + 20)
            try holdEqual([from >> 8, from & 0xff, to >> 8, to & 0xff], ports(packet, bytes))
        case .udp(let from, let to):
            try hold(packet.transportProtocol == .udp && packet.payloadOffset == packet.transportOffset + 8)
            try holdEqual([from >> 8, from & 0xff, to >> 8, to & 0xff], ports(packet, bytes))
        case .icmp:
            try hold(packet.transportOffset + 8 <= bytes.count && packet.payloadOffset == packet.transportOffset)
        case .other:
            try hold(packet.payloadOffset == packet.transportOffset && packet.ports == nil)
        }
        if packet.fragment == .later { try holdEqual(packet.transport, .other) }
    }

    private static func ports(_ packet: IPPacket, _ bytes: [UInt8]) -> [UInt16] {
        bytes[packet.transportOffset...].prefix(4).map { UInt16($0) }
    }

    /// The header for the kernel asks for nothing outside the transport header, and only the checksum field has changed.
    private static func checkOffload(_ packet: IPPacket, _ original: [UInt8], _ metadata: OffloadMetadata) throws {
        var bytes = original
        let built = bytes.withUnsafeMutableBytes { try? VirtioNetHeader(for: packet, in: $0, metadata: metadata) }
        guard let header = built, header != .finished else {
            try holdEqual(bytes, original)
            return
        }
        let start = Int(header.checksumStart)
        let field = start + Int(header.checksumOffset)
        try hold(metadata.checksumPending && header.flags == .needsChecksum && packet.fragment == .none)
        try hold(start == packet.transportOffset && field + 2 <= packet.payloadOffset)
        try hold(Int(header.headerByteCount) == packet.payloadOffset && packet.payloadOffset <= bytes.count)
        try hold((header.segmentation == .none) == (header.segmentSize == 0))
        try hold(Int(header.segmentSize) < bytes.count)
        for index in bytes.indices where index != field && index != field + 1 {
            try hold(bytes[index] == original[index])
        }
        try hold(bytes.withUnsafeBytes { try? IPPacket(parsing: $0) } == packet)
        if header.segmentation == .none {
            // As the kernel would do it.
            try hold(bytes.withUnsafeMutableBytes { header.completeChecksum(in: $0) })
            try hold(bytes.withUnsafeBytes { Checksum.isTransportValid(packet, in: $0) })
        }
    }

    /// The segments are valid packets of the same flow, and together carry the payload.
    private static func checkSegments(_ packet: IPPacket, _ bytes: [UInt8], _ metadata: OffloadMetadata) throws {
        try bytes.withUnsafeBytes { whole in
            guard var segmenter = try? Segmenter(packet, in: whole, metadata: metadata) else { return }
            try hold(segmenter.maximumByteCount <= whole.count)
            var room = [UInt8](repeating: 0, count: segmenter.maximumByteCount)
            var payload: [UInt8] = []
            var count = 0
            while let length = room.withUnsafeMutableBytes({ segmenter.next(into: $0) }) {
                count += 1
                try hold(length <= segmenter.maximumByteCount)
                let segment = Array(room[..<length])
                let parsed = try segment.withUnsafeBytes { try IPPacket(parsing: $0) }
                try hold(parsed.source == packet.source && parsed.destination == packet.destination)
                try hold(parsed.ports?.source == packet.ports?.source)
                try hold(parsed.ports?.destination == packet.ports?.destination)
                try holdEqual(parsed.transportOffset, packet.transportOffset)
                if metadata.checksumPending {
                    try hold(segment.withUnsafeBytes { Checksum.isTransportValid(parsed, in: $0) })
                    try hold(isHeaderValid(parsed, segment))
                }
                payload += segment[parsed.payloadOffset...]
            }
            try holdEqual(payload, Array(bytes[packet.payloadOffset...]))
            try hold(count >= 1 && count <= max(1, payload.count))
        }
    }

    /// An ICMP error goes from us to the sender, and quotes what it had sent.
    private static func checkAnswer(_ error: ICMPError, _ packet: IPPacket, _ bytes: [UInt8]) throws {
        let source = packet.family == .ipv4 ? IPAddress(ipv4: 0x6440_0001) : IPAddress(ipv6High: 0xfd << 56, low: 1)
        var room = [UInt8](repeating: 0, count: ICMPError.maximumByteCount)
        let length = room.withUnsafeMutableBytes { room in
            bytes.withUnsafeBytes { error.reply(to: packet, in: $0, from: source, into: room) }
        }
        guard let length else { return }
        try hold(length <= (packet.family == .ipv4 ? 576 : 1280))
        let answer = Array(room[..<length])
        let parsed = try answer.withUnsafeBytes { try IPPacket(parsing: $0) }
        try hold(parsed.source == source && parsed.destination == packet.source)
        try hold(answer.withUnsafeBytes { Checksum.isTransportValid(parsed, in: $0) })
        try hold(isHeaderValid(parsed, answer))
        try hold(bytes.starts(with: answer[(parsed.transportOffset + 8)...]))
        // Nobody answers an error with an error.
        var second = [UInt8](repeating: 0, count: ICMPError.maximumByteCount)
        let again = second.withUnsafeMutableBytes { second in
            answer.withUnsafeBytes { error.reply(to: parsed, in: $0, from: source, into: second) }
        }
        try hold(again == nil)
    }

    /// A congestion mark changes the mark only, and keeps a valid header valid.
    private static func checkMark(_ packet: IPPacket, _ original: [UInt8]) throws {
        var bytes = original
        guard bytes.withUnsafeMutableBytes({ ECN.markCongestionExperienced($0) }) else {
            try hold(packet.ecn == .notCapable && bytes == original)
            return
        }
        let marked = try bytes.withUnsafeBytes { try IPPacket(parsing: $0) }
        try hold(packet.ecn != .notCapable && marked.ecn == .congestionExperienced && marked.dscp == packet.dscp)
        try hold(marked.source == packet.source && marked.destination == packet.destination)
        try holdEqual(marked.transport, packet.transport)
        if isHeaderValid(packet, original) { try hold(isHeaderValid(marked, bytes)) }
    }

    /// Lowering the segment size of a SYN keeps a valid checksum valid.
    private static func checkClamp(_ packet: IPPacket, _ original: [UInt8]) throws {
        for pending in [false, true] {
            var bytes = original
            let isChanged = bytes.withUnsafeMutableBytes {
                TCPMaximumSegmentSize.clamp(packet, in: $0, mtuBytes: 1280, checksumPending: pending)
            }
            try hold(isChanged == (bytes != original))
            try hold(bytes.withUnsafeBytes { try? IPPacket(parsing: $0) } == packet)
            if !pending, original.withUnsafeBytes({ Checksum.isTransportValid(packet, in: $0) }) {
                try hold(bytes.withUnsafeBytes { Checksum.isTransportValid(packet, in: $0) })
            }
        }
    }

    private static func isHeaderValid(_ packet: IPPacket, _ bytes: [UInt8]) -> Bool {
        guard packet.family == .ipv4 else { return true }
        return bytes.withUnsafeBytes { bytes in
            Checksum.internet(UnsafeRawBufferPointer(rebasing: bytes[..<(Int(bytes[0] & 0x0f) * 4)])) == 0
        }
    }
}
