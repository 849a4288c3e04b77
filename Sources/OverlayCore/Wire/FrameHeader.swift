/// The 4 bytes in front of every frame: kind, then body length, big-endian.
package struct FrameHeader: Equatable, Sendable {
    /// The kind byte. Kinds we do not know are skipped.
    package let rawKind: UInt8
    /// Bytes of the body, at most 2²⁴ − 1 by the format and less by ``FrameKind/bodyLimit(rawKind:)``.
    package let bodyBytes: Int

    package init(rawKind: UInt8, bodyBytes: Int) {
        self.rawKind = rawKind
        self.bodyBytes = bodyBytes
    }

    /// The header in the 32 bits of `word`, host order.
    @inline(__always)
    package init(word: UInt32) {
        self.rawKind = UInt8(truncatingIfNeeded: word >> 24)
        self.bodyBytes = Int(word & 0xff_ffff)
    }

    /// The 32 bits of the header, host order. Body lengths beyond 24 bits are cut: writers check them first.
    @inline(__always)
    package var word: UInt32 {
        UInt32(self.rawKind) << 24 | UInt32(truncatingIfNeeded: self.bodyBytes) & 0xff_ffff
    }
}

/// One frame. Pointers are borrowed: they hold until the closure that received them returns.
package enum Frame {
    /// An IP packet with finished checksums.
    case packet(UnsafeRawBufferPointer)
    /// An IP packet and what the sender *claims* is still to be done to it.
    case superPacket(OffloadMetadata, UnsafeRawBufferPointer)
    /// The last frame of this lane: frames of `epoch` follow on another.
    case move(epoch: UInt64)
    /// To be answered by an echo of the same number.
    case probe(UInt64)
    /// Answers our probe of that number.
    case echo(UInt64)
    /// The lane ends.
    case close(CloseCode)
}

/// A short frame that is not a packet.
package enum ControlFrame: Equatable, Sendable {
    case move(epoch: UInt64)
    case probe(UInt64)
    case echo(UInt64)
    case close(CloseCode)
}

/// Writes frames. Packets get their header in place, in front of them; control frames are written whole.
package enum FrameWriter {
    /// The longest control frame in bytes.
    package static let maximumControlFrameBytes = FrameLimits.headerBytes + 8

    /// Writes the 4-byte header of a packet of `packetBytes` bytes at `place`.
    ///
    /// - Parameter packetBytes: 1…65,600, which the caller has checked.
    @inline(__always)
    package static func writePacketHeader(packetBytes: Int, at place: UnsafeMutableRawPointer) {
        let header = FrameHeader(rawKind: FrameKind.packet.rawValue, bodyBytes: packetBytes)
        place.storeBytes(of: header.word.bigEndian, as: UInt32.self)
    }

    /// Writes the 7 bytes in front of a super-packet's packet at `place`.
    ///
    /// - Parameters:
    ///   - packetBytes: 1…65,597, which the caller has checked.
    ///   - offload: What is still to be done to the packet.
    @inline(__always)
    package static func writeSuperPacketHeader(
        packetBytes: Int, offload: OffloadMetadata, at place: UnsafeMutableRawPointer
    ) {
        let header = FrameHeader(
            rawKind: FrameKind.superPacket.rawValue, bodyBytes: packetBytes + FrameLimits.superPacketPrefixBytes)
        place.storeBytes(of: header.word.bigEndian, as: UInt32.self)
        place.storeBytes(of: offload.segmentSize.bigEndian, toByteOffset: 4, as: UInt16.self)
        place.storeBytes(of: offload.flags.rawValue, toByteOffset: 6, as: UInt8.self)
    }

    /// Puts the header that `packet` needs in front of it: a super-packet's when it wants segmentation or a checksum.
    ///
    /// - Returns: `false`, with the packet unchanged, when its head room or a body limit is too small for that, or when it has a
    ///   segment size but no pending checksum, which no receiver could tell apart.
    @inline(__always)
    package static func prependHeader(to packet: PacketRef) -> Bool {
        let length = packet.length
        let offload = packet.offload
        if !offload.checksumPending {
            guard offload.segmentSize == 0, length > 0, length <= FrameLimits.packetBodyBytes,
                let place = packet.prepend(FrameLimits.headerBytes)
            else { return false }
            self.writePacketHeader(packetBytes: length, at: place)
        } else {
            guard length > 0, length <= FrameLimits.packetBodyBytes - FrameLimits.superPacketPrefixBytes,
                let place = packet.prepend(FrameLimits.headRoomBytes)
            else { return false }
            self.writeSuperPacketHeader(packetBytes: length, offload: offload, at: place)
        }
        return true
    }

    /// Writes `frame` whole at the start of `room`.
    ///
    /// - Returns: The bytes written, or 0 when `room` is too small (``maximumControlFrameBytes`` always suffices).
    package static func write(_ frame: ControlFrame, into room: UnsafeMutableRawBufferPointer) -> Int {
        let kind: FrameKind
        let value: UInt64
        switch frame {
        case .move(let epoch): (kind, value) = (.move, epoch)
        case .probe(let id): (kind, value) = (.probe, id)
        case .echo(let id): (kind, value) = (.echo, id)
        case .close(let code): (kind, value) = (.close, UInt64(code.rawValue))
        }
        let bodyBytes = kind.minimumBodyBytes
        guard room.count >= FrameLimits.headerBytes + bodyBytes else { return 0 }
        let header = FrameHeader(rawKind: kind.rawValue, bodyBytes: bodyBytes)
        room.storeBytes(of: header.word.bigEndian, as: UInt32.self)
        if kind == .close {
            room.storeBytes(
                of: UInt16(truncatingIfNeeded: value).bigEndian, toByteOffset: FrameLimits.headerBytes, as: UInt16.self)
        } else {
            room.storeBytes(of: value.bigEndian, toByteOffset: FrameLimits.headerBytes, as: UInt64.self)
        }
        return FrameLimits.headerBytes + bodyBytes
    }
}
