internal import OverlayCore

/// Cuts super-packets into packets with finished checksums, each behind its frame header, for peers that do not take them whole.
final class SegmentScratch {
    private let room: UnsafeMutableRawBufferPointer

    init() {
        self.room = .allocate(byteCount: FrameLimits.headerBytes + 65_575, alignment: 16)
    }

    deinit { self.room.deallocate() }

    /// Hands `body` one frame of kind 0 after the other; each is valid during the call only.
    ///
    /// - Returns: `false` when the packet cannot be cut.
    func cut(_ packet: PacketRef, _ body: (UnsafeRawBufferPointer) -> Void) -> Bool {
        let bytes = UnsafeRawBufferPointer(packet.bytes)
        let output = UnsafeMutableRawBufferPointer(rebasing: self.room[FrameLimits.headerBytes...])
        guard let parsed = try? IPPacket(parsing: bytes),
            var segmenter = try? Segmenter(parsed, in: bytes, metadata: packet.offload),
            let start = self.room.baseAddress
        else { return false }
        while let count = segmenter.next(into: output) {
            FrameWriter.writePacketHeader(packetBytes: count, at: start)
            body(UnsafeRawBufferPointer(start: start, count: FrameLimits.headerBytes + count))
        }
        return true
    }
}

extension Agreement {
    /// Whether the peer takes `packet` as it is.
    @inline(__always)
    func takes(_ packet: PacketRef) -> Bool {
        let segmentSize = Int(packet.segmentSize)
        guard segmentSize > 0 else {
            return !packet.flags.contains(.checksumPending) || self.capabilities.contains(.checksumPending)
        }
        guard packet.flags.contains(.tcp) else {
            return self.capabilities.contains(.uso)
                && packet.length <= segmentSize * OffloadMetadata.maximumUDPSegmentsPerFrame
        }
        return self.capabilities.contains(packet.bytes[0] >> 4 == 4 ? .tso4 : .tso6)
    }
}
