import Multiformats
import Testing

@testable import OverlayCore

/// What a coalescer writes, with bytes of its own.
struct Written: Equatable {
    var header = VirtioNetHeader.finished
    var bytes: [UInt8]
    var packetCount = 1
    var peer: UInt32 = 1
    var receivedByteCount: Int

    init(_ output: Coalescer.Output) {
        self.header = output.header
        self.bytes = Array(output.bytes)
        self.packetCount = output.packetCount
        self.peer = output.peer.rawValue
        self.receivedByteCount = output.receivedByteCount
    }

    /// A packet as it came.
    init(alone bytes: [UInt8], peer: UInt32 = 1) {
        self.bytes = bytes
        self.peer = peer
        self.receivedByteCount = bytes.count
    }

    /// The packets that it stands for.
    func packets() throws -> [[UInt8]] {
        guard self.header != .finished else { return [self.bytes] }
        let packet = try parse(self.bytes)
        let metadata = OffloadMetadata(checksumPending: true, segmentSize: self.header.segmentSize, flags: [])
        // The rules for a peer's super-packets hold for ours: the header is the one they would give, and nothing is left to change.
        var judged = self.bytes
        let header = try judged.withUnsafeMutableBytes { try VirtioNetHeader(for: packet, in: $0, metadata: metadata) }
        #expect(header == self.header && judged == self.bytes)
        #expect(self.bytes.count <= 65_535)
        var pieces: [[UInt8]] = []
        var scratch = [UInt8](repeating: 0, count: self.bytes.count)
        try self.bytes.withUnsafeBytes { bytes in
            var segmenter = try Segmenter(packet, in: bytes, metadata: metadata)
            scratch.withUnsafeMutableBytes { _ = segmenter.forEach(using: $0) { pieces.append(Array($0)) } }
        }
        #expect(pieces.count == self.packetCount)
        #expect(pieces.reduce(0) { $0 + $1.count } == self.receivedByteCount)
        return pieces
    }
}

/// A packet and who sent it.
struct Incoming {
    var bytes: [UInt8]
    var peer: UInt32 = 1
}

extension Coalescer {
    mutating func add(_ incoming: Incoming, _ written: inout [Written]) throws {
        let packet = try parse(incoming.bytes)
        incoming.bytes.withUnsafeBytes { bytes in
            self.add(packet, bytes, from: PeerIndex(rawValue: incoming.peer)) { written.append(Written($0)) }
        }
    }
}

/// What becomes of one burst.
func coalesce(
    _ burst: [Incoming], kinds: Coalescer.Kinds = .everything, slotCount: Int = 8
) throws -> [Written] {
    var coalescer = Coalescer(kinds, slotCount: slotCount)
    var written: [Written] = []
    for incoming in burst { try coalescer.add(incoming, &written) }
    coalescer.flush { written.append(Written($0)) }
    let isEmpty = coalescer.isEmpty
    #expect(isEmpty)
    return written
}

func coalesce(_ burst: [[UInt8]], kinds: Coalescer.Kinds = .everything, slotCount: Int = 8) throws -> [Written] {
    try coalesce(burst.map { Incoming(bytes: $0) }, kinds: kinds, slotCount: slotCount)
}

extension Coalescer.Kinds {
    static let everything: Self = [.tcpv4, .tcpv6, .udpv4, .udpv6]
}

// MARK: Packets as bytes

/// Where the transport header begins; for IPv6 without extension headers.
func transport(_ packet: [UInt8]) -> Int { packet[0] >> 4 == 4 ? Int(packet[0] & 0x0f) * 4 : 40 }

/// Makes both checksums of a TCP or UDP packet right, the slow way.
func repair(_ packet: inout [UInt8]) {
    let isIPv4 = packet[0] >> 4 == 4
    var start = transport(packet)
    var number = packet[isIPv4 ? 9 : 6]
    if isIPv4 {
        packet.replaceSubrange(10..<12, with: [0, 0])
        packet.replaceSubrange(10..<12, with: big(~slowSum(Array(packet[..<start]))))
    } else if number == 60 {
        number = packet[40]
        start += 8
    }
    guard number == 6 || number == 17, packet.count >= start + (number == 6 ? 18 : 8) else { return }
    let addresses = isIPv4 ? packet[12..<20] : packet[8..<40]
    let field = start + (number == 6 ? 16 : 6)
    packet.replaceSubrange(field..<field + 2, with: [0, 0])
    var length = packet.count - start
    if number == 17 { length = min(length, Int(packet[start + 4]) << 8 | Int(packet[start + 5])) }
    var checksum = ~slowSum(Array(addresses) + [0, number] + big(UInt16(length)) + packet[start..<start + length])
    if number == 17, checksum == 0 { checksum = 0xffff }
    packet.replaceSubrange(field..<field + 2, with: big(checksum))
}

/// Makes the packet's length fields say how long it is.
func setLengths(_ packet: inout [UInt8]) {
    let isIPv4 = packet[0] >> 4 == 4
    let lengthField = isIPv4 ? 2 : 4
    packet.replaceSubrange(lengthField..<lengthField + 2, with: big(UInt16(packet.count - (isIPv4 ? 0 : 40))))
    let start = transport(packet)
    if packet[isIPv4 ? 9 : 6] == 17 {
        packet.replaceSubrange(start + 4..<start + 6, with: big(UInt16(packet.count - start)))
    }
}

func cutPayload(_ packet: inout [UInt8], to count: Int) {
    let start = transport(packet)
    let header = packet[packet[0] >> 4 == 4 ? 9 : 6] == 6 ? Int(packet[start + 12] >> 4) * 4 : 8
    packet.removeLast(packet.count - start - header - count)
    setLengths(&packet)
}

/// Four bytes of IPv4 options that do nothing.
func addOptions(_ packet: inout [UInt8]) {
    packet.insert(contentsOf: [1, 1, 1, 1], at: 20)
    packet[0] += 1
    setLengths(&packet)
}

/// An IPv6 extension header that does nothing.
func addDestinationOptions(_ packet: inout [UInt8]) {
    packet.insert(contentsOf: [packet[6], 0, 1, 4, 0, 0, 0, 0], at: 40)
    packet[6] = 60
    setLengths(&packet)
}
