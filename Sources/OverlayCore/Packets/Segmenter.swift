import Multiformats

/// Cuts a super-packet into packets with finished checksums, as a kernel would, for those who take none.
///
/// The pieces come out in order. Each has the super-packet's headers with its own lengths and checksums; in IPv4 the
/// identification counts up; in TCP the sequence number advances, CWR stays on the first and FIN and PSH on the last.
/// A packet that is one segment comes out as one piece, its checksum finished if it was pending.
///
/// A value borrows the super-packet: it must not outlive those bytes.
package struct Segmenter {
    private let packet: IPPacket
    private let bytes: UnsafeRawBufferPointer
    private let plan: OffloadPlan
    /// Where the next piece's payload begins; `nil` after the last.
    private var payloadOffset: Int?
    private var index: UInt16 = 0

    /// Judges the super-packet by the rules of ``OffloadMetadata``. What its checksum field holds does not matter.
    ///
    /// - Parameter packet: What `bytes` parsed to.
    package init(
        _ packet: IPPacket, in bytes: UnsafeRawBufferPointer, metadata: OffloadMetadata
    ) throws(OffloadError) {
        self.plan = try OffloadPlan(metadata, packet: packet, in: bytes)
        self.packet = packet
        self.bytes = bytes
        self.payloadOffset = packet.payloadOffset
    }

    /// Length of the longest piece.
    package var maximumByteCount: Int {
        self.plan.segmentSize > 0 ? self.packet.payloadOffset + self.plan.segmentSize : self.bytes.count
    }

    /// Length of the next piece; `nil` after the last.
    package var nextByteCount: Int? {
        guard let payloadOffset = self.payloadOffset else { return nil }
        return min(self.maximumByteCount, self.packet.payloadOffset + self.bytes.count - payloadOffset)
    }

    /// Writes the next piece to the start of `output`, which must not overlap the super-packet.
    ///
    /// - Returns: Its length; `nil` after the last piece, and when `output` has less than ``nextByteCount`` bytes.
    package mutating func next(into output: UnsafeMutableRawBufferPointer) -> Int? {
        guard let payloadOffset = self.payloadOffset, let byteCount = self.nextByteCount, output.count >= byteCount
        else { return nil }
        guard self.plan.segmentSize > 0 else {
            self.payloadOffset = nil
            output.copyMemory(from: self.bytes)
            if self.plan.checksumField != nil {
                Checksum.complete(
                    self.packet, in: UnsafeMutableRawBufferPointer(rebasing: output[..<self.bytes.count]))
            }
            return self.bytes.count
        }
        let headerByteCount = self.packet.payloadOffset
        let payloadByteCount = byteCount - headerByteCount
        let isLast = payloadOffset + payloadByteCount == self.bytes.count
        let segment = UnsafeMutableRawBufferPointer(rebasing: output[..<byteCount])
        segment.copyMemory(from: self.bytes.part(from: 0, count: headerByteCount))

        self.finishNetworkHeader(of: segment)
        self.finishTransport(
            of: segment, payload: self.bytes.part(from: payloadOffset, count: payloadByteCount),
            payloadOffset: payloadOffset, isLast: isLast)
        self.payloadOffset = isLast ? nil : payloadOffset + payloadByteCount
        self.index &+= 1
        return byteCount
    }

    /// Hands every piece to `body`, one after the other in the same `scratch` bytes, which it borrows until it
    /// returns.
    ///
    /// - Parameter scratch: At least ``maximumByteCount`` bytes, apart from the super-packet.
    /// - Returns: How many pieces there were; 0 when `scratch` is too small.
    @discardableResult
    package mutating func forEach(
        using scratch: UnsafeMutableRawBufferPointer, _ body: (UnsafeRawBufferPointer) -> Void
    ) -> Int {
        var count = 0
        while let byteCount = self.next(into: scratch) {
            body(UnsafeRawBufferPointer(rebasing: scratch[..<byteCount]))
            count += 1
        }
        return count
    }

    private func finishNetworkHeader(of segment: UnsafeMutableRawBufferPointer) {
        switch self.packet.family {
        case .ipv4:
            segment.setBigEndian16(UInt16(segment.count), at: 2)
            segment.setBigEndian16(self.bytes.bigEndian16(at: 4) &+ self.index, at: 4)
            let header = UnsafeRawBufferPointer(segment).part(from: 0, count: self.packet.transportOffset)
            segment.setBigEndian16(Checksum.ipv4Header(header), at: 10)
        case .ipv6:
            segment.setBigEndian16(UInt16(segment.count - 40), at: 4)
        }
    }

    /// Finishes the transport header and puts the payload behind it.
    private func finishTransport(
        of segment: UnsafeMutableRawBufferPointer, payload: UnsafeRawBufferPointer, payloadOffset: Int, isLast: Bool
    ) {
        let start = self.packet.transportOffset
        let byteCount = segment.count - start
        let isTCP = self.packet.transportProtocol == .tcp
        if isTCP {
            let advance = UInt32(truncatingIfNeeded: payloadOffset - self.packet.payloadOffset)
            segment.setBigEndian32(self.bytes.bigEndian32(at: start + 4) &+ advance, at: start + 4)
            var flags = TCPFlags(rawValue: self.bytes[start + 13])
            if self.index > 0 { flags.remove(.cwr) }
            if !isLast { flags.subtract([.fin, .psh]) }
            segment[start + 13] = flags.rawValue
        } else {
            segment.setBigEndian16(UInt16(byteCount), at: start + 4)
        }
        let field = start + (isTCP ? 16 : 6)
        segment.setBigEndian16(0, at: field)
        var sum = PartialSum(
            source: self.packet.source, destination: self.packet.destination,
            transportProtocol: self.packet.transportProtocol, byteCount: byteCount)
        sum.add(UnsafeRawBufferPointer(segment).part(from: start, count: byteCount - payload.count))
        sum.add(
            payload, copyingTo: UnsafeMutableRawBufferPointer(rebasing: segment[(segment.count - payload.count)...]))
        let checksum = ~sum.folded
        segment.setBigEndian16(!isTCP && checksum == 0 ? 0xffff : checksum, at: field)
    }
}
