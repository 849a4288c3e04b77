import Multiformats
import Testing

@testable import OverlayCore

/// The packets of a datagram, and the error it ends in.
private func read(_ datagram: [UInt8]) -> ([[UInt8]], DatagramError?) {
    var packets: [[UInt8]] = []
    let error: DatagramError? = datagram.withUnsafeBytes { bytes in
        do throws(DatagramError) {
            try DatagramReader.read(bytes) { packets.append(Array($0)) }
            return nil
        } catch {
            return error
        }
    }
    return (packets, error)
}

/// The format read the slow way; `nil` where it is broken.
private func oracle(_ datagram: [UInt8]) -> [[UInt8]]? {
    guard let kind = datagram.first else { return nil }
    var rest = datagram.dropFirst()
    if kind == 0 { return rest.isEmpty ? nil : [Array(rest)] }
    guard kind == 6 else { return [] }
    var packets: [[UInt8]] = []
    repeat {
        let prefix = rest.prefix(2).map { Int($0) }
        guard prefix.count == 2 else { return nil }
        let length = prefix[0] * 256 + prefix[1]
        rest = rest.dropFirst(2)
        guard length > 0, length <= rest.count else { return nil }
        packets.append(Array(rest.prefix(length)))
        rest = rest.dropFirst(length)
    } while !rest.isEmpty
    return packets
}

/// Runs `body` with a writer of datagrams of at most `limit` bytes.
private func withWriter<Value>(_ limit: Int, _ body: (inout DatagramWriter) throws -> Value) rethrows -> Value {
    try withUnsafeTemporaryAllocation(byteCount: DatagramWriter.roomBytes(forLimit: limit), alignment: 1) { room in
        var writer = DatagramWriter(room: room, limitBytes: limit)
        return try body(&writer)
    }
}

extension DatagramWriter {
    fileprivate mutating func append(_ packet: [UInt8]) -> Result { packet.withUnsafeBytes { self.append($0) } }
}

@Suite struct DatagramFrameTests {
    /// Written by hand from `warren.proto`.
    static let golden: [(datagram: String, packets: [String])] = [
        ("00 45", ["45"]),
        ("00 60aabbcc", ["60aabbcc"]),
        ("06 0003 45aabb 0001 60", ["45aabb", "60"]),
        ("06 0002 4501", ["4501"]),
        ("06 0001 45 0002 6001 0001 47", ["45", "6001", "47"]),
        ("01 0514 00 45aabb", []),
        ("02 0000000000000102", []),
        ("ff", []),
    ]

    @Test(arguments: golden) func readsGoldenDatagrams(_ golden: (datagram: String, packets: [String])) {
        let (packets, error) = read(hex(golden.datagram))
        #expect(packets == golden.packets.map(hex))
        #expect(error == nil)
    }

    @Test(arguments: [
        ("", DatagramError.empty), ("00", .emptyPacket(offset: 1)), ("06", .emptyPacket(offset: 1)),
        ("06 00", .truncated(offset: 1)), ("06 0000", .emptyPacket(offset: 1)), ("06 0001", .truncated(offset: 1)),
        ("06 0001 45 00", .truncated(offset: 4)), ("06 0001 45 0000", .emptyPacket(offset: 4)),
        ("06 0001 45 0003 4545", .truncated(offset: 4)), ("06 ffff 45", .truncated(offset: 1)),
    ])
    func dropsBrokenDatagramsWhole(_ datagram: String, _ expected: DatagramError) {
        let (packets, error) = read(hex(datagram))
        #expect(packets.isEmpty && error == expected)
        #expect(!expected.description.isEmpty)
    }

    /// Cut off anywhere, a datagram is broken, unless it ends between two packets.
    @Test func survivesTruncation() {
        for (datagram, _) in Self.golden.map({ (hex($0.datagram), $0.packets) }) {
            for count in 0..<datagram.count {
                let cut = Array(datagram[..<count])
                let (packets, error) = read(cut)
                #expect((error == nil ? packets : nil) == oracle(cut), "\(cut)")
            }
        }
    }

    @Test func agreesWithASlowReader() {
        var random = SeededGenerator(state: 21)
        var good = 0
        for _ in 0..<10_000 {
            var datagram: [UInt8] = [6]
            for _ in 0..<Int.random(in: 0...4, using: &random) {
                let packet = random.bytes(Int.random(in: 1...9, using: &random))
                datagram += big(UInt16(packet.count)) + packet
            }
            for _ in 0..<Int.random(in: 0...2, using: &random) {
                let index = Int.random(in: datagram.indices, using: &random)
                datagram[index] = UInt8.random(in: 0...9, using: &random)
            }
            if Int.random(in: 0..<4, using: &random) == 0 { datagram.removeLast() }
            let (packets, error) = read(datagram)
            let expected = oracle(datagram)
            #expect((error == nil ? packets : nil) == expected, "\(datagram)")
            if packets.count > 1 { good += 1 }
            if error != nil { #expect(packets.isEmpty) }
        }
        #expect(good > 1_000)
    }

    @Test func kindsShareOneSpaceOfNumbers() {
        #expect(DatagramKind.allCases.map(\.rawValue) == [0, 6])
        #expect(DatagramKind.packet.rawValue == FrameKind.packet.rawValue)
        #expect(FrameKind(rawValue: DatagramKind.packets.rawValue) == nil)
    }
}

@Suite struct DatagramWriterTests {
    /// A single packet always takes the shorter form.
    @Test(arguments: DatagramFrameTests.golden.filter { $0.datagram.hasPrefix("00") || $0.packets.count > 1 })
    func writesGoldenDatagrams(_ golden: (datagram: String, packets: [String])) {
        withWriter(64) { writer in
            #expect(writer.datagram.isEmpty)
            for packet in golden.packets { #expect(writer.append(hex(packet)) == .written) }
            #expect(Array(writer.datagram) == hex(golden.datagram))
            #expect(writer.packetCount == golden.packets.count)
            writer.reset()
            #expect(writer.datagram.isEmpty && writer.packetCount == 0)
        }
    }

    /// Looking at a datagram does not spoil it for what follows.
    @Test func canBeLookedAtInBetween() {
        withWriter(64) { writer in
            #expect(writer.append([0x45, 1, 2]) == .written)
            #expect(Array(writer.datagram) == hex("00 450102"))
            #expect(Array(writer.datagram) == hex("00 450102"))
            #expect(writer.append([0x60]) == .written)
            #expect(Array(writer.datagram) == hex("06 0003 450102 0001 60"))
        }
    }

    @Test func keepsToItsLimit() {
        withWriter(16) { writer in
            #expect(writer.packetLimitBytes == 15)
            #expect(writer.append([]) == .tooLong)
            #expect(writer.append([UInt8](repeating: 1, count: 16)) == .tooLong)
            #expect(writer.append([UInt8](repeating: 1, count: 15)) == .written)
            #expect(writer.datagram.count == 16)
            #expect(writer.append([1]) == .full)
            writer.reset()
            // 1 + 2 + 6 + 2 + 5 = 16
            #expect(writer.append([UInt8](repeating: 1, count: 6)) == .written)
            #expect(writer.append([UInt8](repeating: 2, count: 6)) == .full)
            #expect(writer.append([UInt8](repeating: 2, count: 5)) == .written)
            #expect(writer.append([3]) == .full)
            #expect(writer.append([UInt8](repeating: 3, count: 16)) == .tooLong)
            #expect(writer.datagram.count == 16)
        }
        for limit in [-1, 0, 1] {
            withWriter(limit) { writer in
                #expect(writer.append([1]) == .tooLong)
                #expect(writer.datagram.isEmpty)
            }
        }
        // A room that is too small lowers the limit.
        withUnsafeTemporaryAllocation(byteCount: 1, alignment: 1) { room in
            var writer = DatagramWriter(room: room, limitBytes: 100)
            #expect(writer.limitBytes == 0 && writer.append([1]) == .tooLong)
        }
        withWriter(100_000) { writer in
            #expect(writer.limitBytes == 65_535)
            #expect(writer.append([UInt8](repeating: 1, count: 65_534)) == .written)
            #expect(writer.datagram.count == 65_535)
        }
    }

    @Test func packsWhatItReads() {
        var random = SeededGenerator(state: 22)
        for _ in 0..<300 {
            let limit = Int.random(in: 1...200, using: &random)
            let packets = (0..<Int.random(in: 1...20, using: &random)).map { _ in
                random.bytes(Int.random(in: 1...80, using: &random))
            }
            var out: [[UInt8]] = []
            var datagrams = 0
            withWriter(limit) { writer in
                func send() {
                    guard writer.packetCount > 0 else { return }
                    #expect(writer.datagram.count <= limit)
                    let (read, error) = read(Array(writer.datagram))
                    #expect(error == nil && read.count == writer.packetCount)
                    out += read
                    datagrams += 1
                    writer.reset()
                }
                for packet in packets {
                    var result = writer.append(packet)
                    if result == .full {
                        send()
                        result = writer.append(packet)
                    }
                    #expect(result == (packet.count < limit ? .written : .tooLong))
                }
                send()
            }
            let expected = packets.filter { $0.count < limit }
            #expect(out == expected)
            #expect(datagrams <= expected.count)
        }
    }

    /// A super-packet goes into datagrams segment by segment, and its short last segment shares one with another packet.
    @Test func cutsSuperPacketsIntoDatagrams() throws {
        let builder = PacketBuilder(
            .ipv6, .tcp(sequence: 5, flags: [.ack, .psh], options: []), payload: [UInt8](repeating: 9, count: 3_010))
        let bytes = builder.bytes
        let packet = try parse(bytes)
        let other: [UInt8] = [0x45, 1, 2, 3]
        for limit in [1_061, 1_100] {
            var out: [[UInt8]] = []
            var lengths: [Int] = []
            try bytes.withUnsafeBytes { bytes in
                var segmenter = try Segmenter(
                    packet, in: bytes, metadata: .init(checksumPending: true, segmentSize: 1_000, flags: []))
                withWriter(limit) { writer in
                    func send() {
                        lengths.append(writer.datagram.count)
                        out += read(Array(writer.datagram)).0
                        writer.reset()
                    }
                    while true {
                        let result = writer.append(nextOf: &segmenter)
                        if result == .exhausted { break }
                        if result == .full { send() } else { #expect(result == .written) }
                    }
                    #expect(writer.append(other) == .written)
                    send()
                    #expect(writer.append(nextOf: &segmenter) == .exhausted)
                }
            }
            #expect(out == builder.segments(of: 1_000) + [other])
            #expect(lengths == [1_061, 1_061, 1_061, 1 + 2 + 70 + 2 + 4])
        }
        try bytes.withUnsafeBytes { bytes in
            var segmenter = try Segmenter(
                packet, in: bytes, metadata: .init(checksumPending: true, segmentSize: 1_000, flags: []))
            withWriter(1_060) { writer in
                #expect(writer.append(nextOf: &segmenter) == .tooLong)
                #expect(segmenter.nextByteCount == 1_060 && writer.packetCount == 0)
            }
        }
    }
}
