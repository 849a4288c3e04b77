import Multiformats
import Testing

@testable import OverlayCore

@Suite struct ChecksumTests {
    /// RFC 1071 § 3: the words 0001 f203 f4f5 f6f7 sum to ddf2.
    @Test func agreesWithRFC1071() {
        #expect(hex("0001 f203 f4f5 f6f7").withUnsafeBytes { Checksum.internet($0) } == ~0xddf2)
    }

    @Test func copiesWhileItSums() {
        var random = SeededGenerator(state: 5)
        for count in Array(0..<200) + [1_228, 1_400] {
            let bytes = random.bytes(count)
            for offset in 0..<3 {
                var copy = [UInt8](repeating: 0xee, count: offset + count + 1)
                var sum = PartialSum()
                sum.add(UInt16(0x1234))
                copy.withUnsafeMutableBytes { copy in
                    let place = UnsafeMutableRawBufferPointer(rebasing: copy[offset...])
                    bytes.withUnsafeBytes { sum.add($0, copyingTo: place) }
                }
                #expect(sum.folded == slowSum([0x12, 0x34] + bytes))
                #expect(copy == [UInt8](repeating: 0xee, count: offset) + bytes + [0xee])
            }
        }
    }

    @Test func agreesWithSlowSumAtEveryLengthAndAlignment() {
        var random = SeededGenerator(state: 1)
        for length in 0...300 {
            for start in 0..<8 {
                let bytes = random.bytes(start + length)
                let fast = bytes.withUnsafeBytes { Checksum.internet(UnsafeRawBufferPointer(rebasing: $0[start...])) }
                #expect(fast == ~slowSum(Array(bytes[start...])), "\(length) bytes at \(start)")
            }
        }
        for bytes in [[UInt8](repeating: 0xff, count: 65_535), [UInt8](repeating: 0, count: 65_535)] {
            #expect(bytes.withUnsafeBytes { Checksum.internet($0) } == ~slowSum(bytes))
        }
    }

    /// The header that the literature uses: 4500 0073 0000 4000 4011 b861 c0a8 0001 c0a8 00c7.
    @Test func computesIPv4Header() {
        let header = hex("4500 0073 0000 4000 4011 b861 c0a8 0001 c0a8 00c7")
        #expect(header.withUnsafeBytes { Checksum.ipv4Header($0) } == 0xb861)
        #expect(header.withUnsafeBytes { Checksum.internet($0) } == 0)
    }

    /// RFC 1624 § 4: the example that the earlier equations get wrong.
    @Test func agreesWithRFC1624() {
        #expect(Checksum.updated(0xdd2f, from: 0x5555, to: 0x3285) == 0x0000)
    }

    @Test func updateEqualsRecomputation() {
        var random = SeededGenerator(state: 2)
        for _ in 0..<2_000 {
            var bytes = random.bytes(40)
            let before = ~slowSum(bytes)
            let offset = Int.random(in: 0..<39, using: &random)
            let old = UInt16(bytes[offset]) << 8 | UInt16(bytes[offset + 1])
            let new = UInt16(truncatingIfNeeded: random.next())
            bytes.replaceSubrange(offset..<offset + 2, with: big(new))
            let isOdd = offset % 2 == 1
            let updated = Checksum.updated(
                before, from: isOdd ? old.byteSwapped : old, to: isOdd ? new.byteSwapped : new)
            #expect(updated == ~slowSum(bytes))
        }
    }

    @Test func completesPendingChecksums() throws {
        var random = SeededGenerator(state: 3)
        for _ in 0..<500 {
            let builder = random.packet(payload: 0...200)
            var bytes = builder.bytes(checksumField: UInt16(truncatingIfNeeded: random.next()))
            let packet = try parse(bytes)
            #expect(bytes.withUnsafeMutableBytes { Checksum.complete(packet, in: $0) })
            #expect(bytes == builder.bytes)
            #expect(bytes.withUnsafeBytes { Checksum.isTransportValid(packet, in: $0) })
            let last = bytes.count - 1
            bytes[last] ^= 0x10
            #expect(!bytes.withUnsafeBytes { Checksum.isTransportValid(packet, in: $0) })
        }
    }

    @Test func sendsUDPZeroAsAllOnes() throws {
        for family in [IPAddress.Family.ipv4, .ipv6] {
            var builder = PacketBuilder(family, .udp, payload: [0, 0])
            // Two bytes that make the sum all ones, so that its complement is zero.
            let rest = builder.bytes(checksumField: 0)
            builder.payload = big(~slowSum(big(builder.pseudoHeaderSum) + rest[builder.networkByteCount...]))
            var bytes = builder.bytes(checksumField: 0)
            let packet = try parse(bytes)
            bytes.withUnsafeMutableBytes { _ = Checksum.complete(packet, in: $0) }
            #expect(Array(bytes[(builder.networkByteCount + 6)...][..<(builder.networkByteCount + 8)]) == [0xff, 0xff])
            #expect(bytes.withUnsafeBytes { Checksum.isTransportValid(packet, in: $0) })
        }
    }

    @Test func judgesMissingAndICMPChecksums() throws {
        func isValid(_ bytes: [UInt8]) throws -> Bool {
            let packet = try parse(bytes)
            return bytes.withUnsafeBytes { Checksum.isTransportValid(packet, in: $0) }
        }
        #expect(try isValid(PacketBuilder(.ipv4, .udp, payload: [1]).bytes(checksumField: 0)))
        #expect(try !isValid(PacketBuilder(.ipv6, .udp, payload: [1]).bytes(checksumField: 0)))
        let echo: [UInt8] = [8, 0, 0xf7, 0xfd, 0, 1, 0, 1]
        #expect(try isValid(PacketBuilder(.ipv4, .other(.icmp), payload: echo).bytes))
        #expect(try !isValid(PacketBuilder(.ipv4, .other(.icmp), payload: echo + [1]).bytes))
        var v6 = PacketBuilder(.ipv6, .other(.icmpv6), payload: [128, 0, 0, 0, 0, 1, 0, 1])
        #expect(try !isValid(v6.bytes))
        v6.payload.replaceSubrange(2..<4, with: big(~slowSum(big(v6.pseudoHeaderSum) + v6.payload)))
        #expect(try isValid(v6.bytes))
    }

    @Test func leavesFragmentsAndOthersAlone() throws {
        var fragment = PacketBuilder(.ipv4, .udp, payload: [UInt8](repeating: 7, count: 16))
        fragment.fragmentField = 0x2000
        for original in [fragment.bytes, PacketBuilder(.ipv4, .other(IPProtocol(rawValue: 47)), payload: [1]).bytes] {
            var bytes = original
            let packet = try parse(bytes)
            #expect(!bytes.withUnsafeMutableBytes { Checksum.complete(packet, in: $0) })
            #expect(bytes == original)
        }
    }
}
