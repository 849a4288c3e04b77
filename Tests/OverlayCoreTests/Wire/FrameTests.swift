import Testing

@testable import OverlayCore

/// A frame with bytes of its own, to compare.
private enum Seen: Equatable {
    case packet([UInt8])
    case superPacket(UInt16, UInt8, [UInt8])
    case move(UInt64)
    case probe(UInt64)
    case echo(UInt64)
    case close(CloseCode)

    init(_ frame: Frame) {
        switch frame {
        case .packet(let bytes): self = .packet(Array(bytes))
        case .superPacket(let offload, let bytes):
            #expect(offload.checksumPending)
            self = .superPacket(offload.segmentSize, offload.flags.rawValue, Array(bytes))
        case .move(let epoch): self = .move(epoch)
        case .probe(let id): self = .probe(id)
        case .echo(let id): self = .echo(id)
        case .close(let code): self = .close(code)
        }
    }
}

/// The format read the slow way, from the whole stream at once: what it holds, and the error it ends in.
private func oracle(_ stream: [UInt8], limit: Int = 65_600) -> ([Seen], failed: Bool) {
    var rest = stream[...]
    var seen: [Seen] = []
    func number(_ bytes: some Sequence<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }
    while rest.count >= 4 {
        let kind = rest[rest.startIndex]
        let length = Int(number(rest.dropFirst().prefix(3)))
        let least = [0: 1, 1: 4, 2: 8, 3: 8, 4: 8, 5: 2][kind] ?? 0
        guard length >= least, length <= (kind < 2 ? limit : 4096) else { return (seen, true) }
        guard rest.count >= 4 + length else { break }
        let body = Array(rest.dropFirst(4).prefix(length))
        switch kind {
        case 0: seen.append(.packet(body))
        case 1: seen.append(.superPacket(UInt16(number(body.prefix(2))), body[2], Array(body.dropFirst(3))))
        case 2: seen.append(.move(number(body.prefix(8))))
        case 3: seen.append(.probe(number(body.prefix(8))))
        case 4: seen.append(.echo(number(body.prefix(8))))
        case 5: seen.append(.close(CloseCode(rawValue: UInt16(number(body.prefix(2))))))
        default: break
        }
        rest = rest.dropFirst(4 + length)
    }
    return (seen, false)
}

/// Feeds one chunk; the error it ends in.
private func feed(
    _ chunk: some Sequence<UInt8>, to reader: inout FrameReader, _ handle: (Seen) -> Void
) -> FrameError? {
    Array(chunk).withUnsafeBytes { bytes in
        do throws(FrameError) {
            try reader.read(bytes) { handle(Seen($0)) }
            return nil
        } catch {
            return error
        }
    }
}

/// Feeds `chunks` to a fresh reader.
private func read(_ chunks: [ArraySlice<UInt8>], limit: Int = 65_600) -> ([Seen], FrameError?) {
    var reader = FrameReader(packetBodyLimit: limit)
    var seen: [Seen] = []
    for chunk in chunks {
        if let error = feed(chunk, to: &reader, { seen.append($0) }) { return (seen, error) }
    }
    return (seen, nil)
}

private func written(_ frame: ControlFrame) -> [UInt8] {
    withUnsafeTemporaryAllocation(byteCount: FrameWriter.maximumControlFrameBytes, alignment: 1) { room in
        Array(room.prefix(FrameWriter.write(frame, into: room)))
    }
}

@Suite struct FrameTests {
    /// Written by hand from `warren.proto`: every kind, one unknown, one body longer than its fields.
    static let stream = hex(
        """
        00 000003 45aabb
        01 000005 0514 81 60cc
        01 000004 0000 00 45
        02 000008 0000000000000102
        c8 000002 ffff
        63 000000
        03 000008 1122334455667788
        04 000009 8877665544332211 ee
        05 000002 0004
        """)
    private static let content: [Seen] = [
        .packet([0x45, 0xaa, 0xbb]), .superPacket(1300, 0x81, [0x60, 0xcc]), .superPacket(0, 0, [0x45]), .move(258),
        .probe(0x1122_3344_5566_7788), .echo(0x8877_6655_4433_2211), .close(.superseded),
    ]

    @Test func readsGoldenStream() {
        let (seen, error) = read([Self.stream[...]])
        #expect(seen == Self.content)
        #expect(error == nil)
    }

    @Test func readsAnySplit() {
        for first in 0...Self.stream.count {
            for second in first...Self.stream.count {
                let chunks = [Self.stream[..<first], Self.stream[first..<second], Self.stream[second...]]
                let (seen, error) = read(chunks)
                #expect(seen == Self.content && error == nil, "split at \(first) and \(second)")
            }
        }
        #expect(read(Self.stream.indices.map { Self.stream[$0...$0] }).0 == Self.content)
    }

    @Test(arguments: [
        (ControlFrame.move(epoch: 258), "02 000008 0000000000000102"), (.probe(1), "03 000008 0000000000000001"),
        (.echo(.max), "04 000008 ffffffffffffffff"), (.close(.removed), "05 000002 0002"),
    ])
    func writesControlFrames(frame: ControlFrame, golden: String) {
        #expect(written(frame) == hex(golden))
        withUnsafeTemporaryAllocation(byteCount: 5, alignment: 1) { room in
            #expect(FrameWriter.write(frame, into: room) == 0)
        }
    }

    @Test func writesPacketHeadersInHeadRoom() throws {
        let pool = PacketPool()
        var cache = PacketCache(pool: pool)
        let taken = cache.take(.large)
        let packet = try #require(taken)
        packet.tailRoom.copyBytes(from: [0x45, 0xaa, 0xbb])
        #expect(packet.setLength(3))
        #expect(FrameWriter.prependHeader(to: packet))
        #expect(Array(packet.bytes) == hex("00 000003 45aabb"))
        #expect(packet.removePrefix(4))
        packet.flags = .checksumPending
        #expect(FrameWriter.prependHeader(to: packet))
        #expect(Array(packet.bytes) == hex("01 000006 0000 00 45aabb"))
        #expect(packet.removePrefix(7))
        let offload = OffloadMetadata(checksumPending: true, segmentSize: 1300, flags: .ecn)
        packet.offload = offload
        #expect(packet.offload == offload && packet.flags == [.checksumPending, .segmentsWithECN])
        #expect(FrameWriter.prependHeader(to: packet))
        #expect(Array(packet.bytes) == hex("01 000006 0514 01 45aabb"))
        // Neither an empty packet, nor one whose head room is used up, nor one beyond the limit gets a header.
        #expect(packet.setLength(0) && !FrameWriter.prependHeader(to: packet))
        #expect(packet.setLength(3) && packet.prepend(packet.headRoomCount - 3) != nil)
        #expect(!FrameWriter.prependHeader(to: packet))
        packet.reset()
        #expect(packet.offload == .finished)
        packet.segmentSize = 1300
        #expect(packet.setLength(3000) && !FrameWriter.prependHeader(to: packet), "segments want a pending checksum")
        packet.offload = offload
        #expect(packet.setLength(65_598) && !FrameWriter.prependHeader(to: packet))
        #expect(packet.setLength(65_597) && FrameWriter.prependHeader(to: packet))
        #expect(Array(packet.bytes.prefix(4)) == hex("01 010040"))
        cache.give(packet)
    }

    @Test(arguments: [
        ("00 010041", FrameError.bodyTooLong(rawKind: 0, bytes: 65_601, limit: 65_600)),
        ("01 ffffff", .bodyTooLong(rawKind: 1, bytes: 0xff_ffff, limit: 65_600)),
        ("02 001001", .bodyTooLong(rawKind: 2, bytes: 4097, limit: 4096)),
        ("c8 001001", .bodyTooLong(rawKind: 0xc8, bytes: 4097, limit: 4096)),
        ("00 000000", .bodyTooShort(rawKind: 0, bytes: 0)), ("01 000003", .bodyTooShort(rawKind: 1, bytes: 3)),
        ("03 000007", .bodyTooShort(rawKind: 3, bytes: 7)), ("05 000001", .bodyTooShort(rawKind: 5, bytes: 1)),
    ])
    func refusesBadLengths(header: String, expected: FrameError) {
        let bytes = hex(header) + [1, 2, 3, 4, 5, 6, 7, 8, 9]
        let before = written(.probe(9))
        #expect(read([(before + bytes)[...]]) == ([.probe(9)], expected))
        #expect(read((before + bytes).map { [$0][...] }) == ([.probe(9)], expected))
        #expect(!expected.description.isEmpty)
    }

    @Test func staysFailed() {
        var reader = FrameReader()
        for _ in 0..<2 {
            let error = feed([0, 0, 0, 0], to: &reader) { _ in Issue.record("no frame here") }
            #expect(error == .bodyTooShort(rawKind: 0, bytes: 0))
        }
        let isAtBoundary = reader.isAtFrameBoundary
        #expect(!isAtBoundary)
    }

    @Test func holdsMemoryOnlyWhileFramesSpanChunks() {
        var reader = FrameReader(packetBodyLimit: 2000)
        /// Feeds the bytes, or trims without any, and compares frames, allocated bytes and whether a frame is half read.
        func step(_ bytes: [UInt8]?, frames: Int = 0, allocated: Int, midFrame: Bool, line: Int = #line) {
            var count = 0
            if let bytes {
                let error = feed(bytes, to: &reader) { _ in count += 1 }
                #expect(error == nil, "line \(line)")
            } else {
                reader.trim()
            }
            let found = [count, reader.allocatedBytes, reader.isAtFrameBoundary ? 0 : 1]
            #expect(found == [frames, allocated, midFrame ? 1 : 0], "line \(line)")
        }
        step(Self.stream, frames: 7, allocated: 0, midFrame: false)
        step([0, 0, 0], allocated: 0, midFrame: true)
        step([4, 1, 2], allocated: 65_600, midFrame: true)
        // A half-read frame keeps its bytes, however long it takes.
        step(nil, allocated: 65_600, midFrame: true)
        step(nil, allocated: 65_600, midFrame: true)
        step([3, 4], frames: 1, allocated: 65_600, midFrame: false)
        // Used since the last trim, then not.
        step(nil, allocated: 65_600, midFrame: false)
        step(nil, allocated: 0, midFrame: false)
    }

    @Test func agreesWithOracleOnRandomStreams() {
        var random = SeededGenerator(state: 1)
        for round in 0..<400 {
            var stream: [UInt8] = []
            for _ in 0..<Int.random(in: 0..<12, using: &random) {
                let kind = UInt8.random(in: 0..<8, using: &random)
                let longest = Int.random(in: 0..<20, using: &random) == 0 ? 3000 : 24
                let length = Int.random(in: 8...longest, using: &random)
                stream += [kind, 0, UInt8(length >> 8), UInt8(length & 255)] + random.bytes(length)
            }
            // Half of the streams are damaged somewhere.
            if round % 2 == 1, !stream.isEmpty {
                stream[Int.random(in: 0..<stream.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            var chunks: [ArraySlice<UInt8>] = []
            var at = 0
            while at < stream.count {
                let next = min(stream.count, at + Int.random(in: 0...(1 + stream.count / 3), using: &random))
                chunks.append(stream[at..<next])
                at = next
            }
            let limit = 1500
            let (expected, failed) = oracle(stream, limit: limit)
            let (seen, error) = read(chunks, limit: limit)
            #expect(seen == expected && (error != nil) == failed, "round \(round)")
        }
    }

    @Test func survivesRandomBytes() {
        var random = SeededGenerator(state: 2)
        for _ in 0..<300 {
            // Small lengths, so that the noise is not refused at its first header.
            let noise = random.bytes(600).map { Bool.random(using: &random) ? $0 & 3 : 0 }
            let chunks = stride(from: 0, to: 600, by: 7).map { noise[$0..<min($0 + 7, 600)] }
            let (expected, failed) = oracle(noise)
            let (seen, error) = read(chunks)
            #expect(seen == expected && (error != nil) == failed)
        }
    }
}
