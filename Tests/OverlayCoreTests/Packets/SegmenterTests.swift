import Multiformats
import OverlayCore
import Testing

@Suite struct SegmenterTests {
    private func cut(_ bytes: [UInt8], _ metadata: OffloadMetadata, scratch: Int = 65_575) throws -> [[UInt8]] {
        let packet = try parse(bytes)
        var pieces: [[UInt8]] = []
        var output = [UInt8](repeating: 0xee, count: scratch)
        let count = try bytes.withUnsafeBytes { bytes in
            var segmenter = try Segmenter(packet, in: bytes, metadata: metadata)
            return output.withUnsafeMutableBytes { segmenter.forEach(using: $0) { pieces.append(Array($0)) } }
        }
        #expect(count == pieces.count)
        return pieces
    }

    private func pending(_ size: Int) -> OffloadMetadata {
        OffloadMetadata(checksumPending: true, segmentSize: UInt16(size), flags: [])
    }

    /// Written out by hand: 20 bytes of payload in segments of 8, with CWR, PSH and FIN, and numbers about to wrap.
    @Test func cutsTCPv4() throws {
        let superPacket = hex(
            """
            4500 003c ffff 4000 4006 b968 c0a8 0001 c0a8 0002
            0400 0050 fffffff8 00000001 5099 0100 0000 0000
            0001020304050607 08090a0b0c0d0e0f 10111213
            """)
        // Checksums by a separate program.
        let expected = [
            """
            4500 0030 ffff 4000 4006 b974 c0a8 0001 c0a8 0002
            0400 0050 fffffff8 00000001 5090 0100 1c9f 0000 0001020304050607
            """,
            """
            4500 0030 0000 4000 4006 b974 c0a8 0001 c0a8 0002
            0400 0050 00000000 00000001 5010 0100 fcf7 0000 08090a0b0c0d0e0f
            """,
            """
            4500 002c 0001 4000 4006 b977 c0a8 0001 c0a8 0002
            0400 0050 00000008 00000001 5019 0100 06f7 0000 10111213
            """,
        ]
        #expect(try self.cut(superPacket, self.pending(8)) == expected.map(hex))
    }

    @Test func equalsIndependentlyBuiltSegments() throws {
        var random = SeededGenerator(state: 7)
        for round in 0..<300 {
            let builder = random.packet(payload: 0...(round % 20 == 0 ? 20_000 : 1_000))
            let isUDP = builder.protocolNumber == 17
            let least = isUDP ? max(1, (builder.payload.count + 127) / 128) : 8
            let size = Int.random(in: least...max(least, builder.payload.count + 10), using: &random)
            let bytes = builder.bytes(checksumField: UInt16(truncatingIfNeeded: random.next()))
            let pieces = try self.cut(bytes, self.pending(size))
            #expect(pieces == builder.segments(of: size))

            var payload: [UInt8] = []
            for piece in pieces {
                let packet = try parse(piece)
                #expect(piece.withUnsafeBytes { Checksum.isTransportValid(packet, in: $0) })
                #expect(packet.byteCount - packet.payloadOffset <= size)
                payload += piece[packet.payloadOffset...]
            }
            #expect(payload == builder.payload)
        }
    }

    @Test func sendsUDPZeroAsAllOnes() throws {
        for family in [IPAddress.Family.ipv4, .ipv6] {
            var builder = PacketBuilder(family, .udp, payload: [0, 0])
            // The first segment's sum is all ones, so that its complement is zero.
            let rest = builder.bytes(checksumField: 0)[builder.networkByteCount...]
            builder.payload = big(~slowSum(big(builder.pseudoHeaderSum) + rest))
            let field = builder.networkByteCount + 6
            builder.payload.append(7)
            let pieces = try self.cut(builder.bytes, self.pending(2))
            #expect(pieces == builder.segments(of: 2))
            #expect(pieces[0][field] == 0xff && pieces[0][field + 1] == 0xff)
        }
    }

    @Test func finishesPacketsOfOneSegment() throws {
        let builder = PacketBuilder(.ipv6, .udp, payload: [1, 2, 3])
        let unfinished = builder.bytes(checksumField: 0x1234)
        #expect(try self.cut(unfinished, self.pending(0)) == [builder.bytes])
        #expect(try self.cut(unfinished, self.pending(3)) == [builder.bytes])
        #expect(try self.cut(unfinished, .finished) == [unfinished])
    }

    @Test func needsRoomForOnePiece() throws {
        let builder = PacketBuilder(.ipv4, .udp, payload: [UInt8](repeating: 1, count: 100))
        #expect(try self.cut(builder.bytes, self.pending(40), scratch: 67) == [])
        #expect(try self.cut(builder.bytes, self.pending(40), scratch: 68).count == 3)
        #expect(try self.cut(builder.bytes, self.pending(0), scratch: 127) == [])
        #expect(try self.cut(builder.bytes, self.pending(0), scratch: 128).count == 1)
    }

    @Test func piecesMayGoToSeparateBuffers() throws {
        let builder = PacketBuilder(.ipv4, .udp, payload: [UInt8](repeating: 1, count: 100))
        let bytes = builder.bytes
        let packet = try parse(bytes)
        try bytes.withUnsafeBytes { bytes in
            var segmenter = try Segmenter(packet, in: bytes, metadata: self.pending(40))
            #expect(segmenter.maximumByteCount == 68)
            for expected in builder.segments(of: 40) {
                #expect(segmenter.nextByteCount == expected.count)
                var small = [UInt8](repeating: 0, count: expected.count - 1)
                #expect(small.withUnsafeMutableBytes { segmenter.next(into: $0) } == nil)
                var output = [UInt8](repeating: 0xee, count: 70)
                let count = output.withUnsafeMutableBytes { segmenter.next(into: $0) }
                #expect(count == expected.count)
                #expect(output == expected + [UInt8](repeating: 0xee, count: 70 - expected.count))
            }
            var output = [UInt8](repeating: 0, count: 70)
            #expect(output.withUnsafeMutableBytes { segmenter.next(into: $0) } == nil)
            #expect(segmenter.nextByteCount == nil)
        }
    }

    /// A peer's super-packets are judged here as they are for the kernel.
    @Test(arguments: OffloadMetadataTests.forged) func refusesForgedMetadata(_ forged: OffloadMetadataTests.Forged)
        throws
    {
        let packet = try parse(forged.bytes)
        guard
            forged.error != .tooManySegments
                || packet.byteCount - packet.payloadOffset > 128 * Int(forged.metadata.segmentSize)
        else { return }
        #expect(throws: forged.error) { try self.cut(forged.bytes, forged.metadata) }
    }

    @Test func survivesMutation() {
        var random = SeededGenerator(state: 8)
        for _ in 0..<5_000 {
            var bytes = random.packet(payload: 0...300).bytes
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8(truncatingIfNeeded: random.next())
            }
            guard let pieces = try? self.cut(bytes, self.pending(Int.random(in: 0...400, using: &random))),
                let packet = try? parse(bytes)
            else { continue }
            let payload = pieces.reduce(0) { $0 + $1.count - packet.payloadOffset }
            #expect(payload == bytes.count - packet.payloadOffset)
        }
    }
}
