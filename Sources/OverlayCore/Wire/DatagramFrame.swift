/// What a datagram carries. Numbered together with ``FrameKind``: no number means two things.
/// `Wire/Protos/warren.proto` is the specification.
package enum DatagramKind: UInt8, CaseIterable, Sendable {
    /// One IP packet with finished checksums, to the end of the datagram.
    case packet = 0
    /// Several such packets, each behind its length.
    case packets = 6
}

/// The numbers of the datagram format.
package enum DatagramLimits {
    /// The kind.
    package static let headerBytes = 1
    /// The length in front of each packet where there are several.
    package static let lengthBytes = 2
    /// The longest datagram: no transport of ours carries more.
    package static let datagramBytes = 65_535
}

/// Takes datagrams apart.
package enum DatagramReader {
    /// Calls `handle` for each packet of a datagram, in order; never for a kind we do not know, which is no error.
    ///
    /// - Parameters:
    ///   - datagram: Kind and body, borrowed until return.
    ///   - handle: Borrows the packet's bytes, of which there is at least one, until it returns.
    /// - Throws: ``DatagramError``, before anything was handed out: a datagram is good as a whole or not at all.
    @inline(__always)
    package static func read(
        _ datagram: UnsafeRawBufferPointer, _ handle: (UnsafeRawBufferPointer) -> Void
    ) throws(DatagramError) {
        guard let rawKind = datagram.first else { throw .empty }
        let body = datagram.part(from: DatagramLimits.headerBytes, count: datagram.count - DatagramLimits.headerBytes)
        switch DatagramKind(rawValue: rawKind) {
        case .packet:
            guard !body.isEmpty else { throw .emptyPacket(offset: DatagramLimits.headerBytes) }
            handle(body)
        case .packets:
            try self.check(body)
            var at = 0
            while at < body.count {
                let length = Int(body.bigEndian16(at: at))
                handle(body.part(from: at + DatagramLimits.lengthBytes, count: length))
                at += DatagramLimits.lengthBytes + length
            }
        case nil:
            break
        }
    }

    /// Walks the lengths of a body with several packets.
    private static func check(_ body: UnsafeRawBufferPointer) throws(DatagramError) {
        guard !body.isEmpty else { throw .emptyPacket(offset: DatagramLimits.headerBytes) }
        var at = 0
        while at < body.count {
            let offset = DatagramLimits.headerBytes + at
            guard body.count - at >= DatagramLimits.lengthBytes else { throw .truncated(offset: offset) }
            let length = Int(body.bigEndian16(at: at))
            guard length > 0 else { throw .emptyPacket(offset: offset) }
            at += DatagramLimits.lengthBytes
            guard length <= body.count - at else { throw .truncated(offset: offset) }
            at += length
        }
    }
}

/// Why a datagram is dropped. Offsets count from its kind byte.
package enum DatagramError: Error, Hashable, Sendable, CustomStringConvertible {
    /// Not even a kind.
    case empty
    /// No packet, or one of no bytes.
    case emptyPacket(offset: Int)
    /// A packet that should end behind the datagram.
    case truncated(offset: Int)

    package var description: String {
        switch self {
        case .empty: "an empty datagram"
        case .emptyPacket(let offset): "a packet of no bytes at byte \(offset) of a datagram"
        case .truncated(let offset): "a packet at byte \(offset) runs beyond the end of its datagram"
        }
    }
}

/// Packs packets into one datagram after the other, in bytes that it borrows.
///
/// 1. Each packet, or segment of a super-packet, is appended until one does not fit.
/// 2. ``datagram`` is sent. It has the shorter form when it holds one packet.
/// 3. ``reset()`` begins the next, and the packet that did not fit is appended to it.
///
/// The value must not outlive the room. Nothing is allocated.
package struct DatagramWriter {
    /// What became of a packet.
    package enum Result: Equatable, Sendable {
        /// It is in the datagram.
        case written
        /// It fits behind what is there no more: send that first.
        case full
        /// It fits into no datagram of this length.
        case tooLong
        /// There was no further segment.
        case exhausted
    }

    /// The longest datagram it writes.
    package let limitBytes: Int
    /// Packets in the datagram under way.
    package private(set) var packetCount = 0

    private let room: UnsafeMutableRawBufferPointer
    /// Where the next packet's length goes. The kind stands in front of the first.
    private var end = DatagramLimits.headerBytes
    private var firstByteCount = 0

    /// - Parameters:
    ///   - room: At least ``roomBytes(forLimit:)`` bytes, borrowed for as long as the value is used.
    ///   - limitBytes: The longest payload that the connection takes in one datagram now; clamped to what `room` and the format hold.
    package init(room: UnsafeMutableRawBufferPointer, limitBytes: Int) {
        self.room = room
        self.limitBytes = max(min(limitBytes, room.count - DatagramLimits.lengthBytes, DatagramLimits.datagramBytes), 0)
    }

    /// The room that datagrams of `limitBytes` need: a single packet leaves its length out, which has been kept free.
    package static func roomBytes(forLimit limitBytes: Int) -> Int { max(limitBytes, 0) + DatagramLimits.lengthBytes }

    /// The longest packet that one datagram takes.
    package var packetLimitBytes: Int { self.limitBytes - DatagramLimits.headerBytes }

    /// The datagram under way, kind first; empty as long as it holds no packet. Valid until the next packet or ``reset()``.
    package var datagram: UnsafeRawBufferPointer {
        let room = UnsafeRawBufferPointer(self.room)
        switch self.packetCount {
        case 0:
            return room.part(from: 0, count: 0)
        case 1:
            // The kind goes over the lower half of the length, which the shorter form does not have.
            let start = DatagramLimits.lengthBytes
            self.room[start] = DatagramKind.packet.rawValue
            return room.part(from: start, count: self.end - start)
        default:
            self.room[0] = DatagramKind.packets.rawValue
            self.room.setBigEndian16(UInt16(self.firstByteCount), at: DatagramLimits.headerBytes)
            return room.part(from: 0, count: self.end)
        }
    }

    /// Forgets the datagram under way.
    package mutating func reset() {
        self.packetCount = 0
        self.end = DatagramLimits.headerBytes
    }

    /// Copies a packet into the datagram.
    ///
    /// - Parameter packet: With finished checksums and at least one byte; borrowed until return.
    package mutating func append(_ packet: UnsafeRawBufferPointer) -> Result {
        if let obstacle = self.obstacle(to: packet.count) { return obstacle }
        self.place(packet.count).copyMemory(from: packet)
        self.commit(packet.count)
        return .written
    }

    /// Cuts the next segment of a super-packet straight into the datagram.
    ///
    /// - Returns: ``Result/exhausted`` after the last segment. After ``Result/full`` and ``Result/tooLong`` the segment is still to come.
    package mutating func append(nextOf segmenter: inout Segmenter) -> Result {
        guard let byteCount = segmenter.nextByteCount else { return .exhausted }
        if let obstacle = self.obstacle(to: byteCount) { return obstacle }
        guard let written = segmenter.next(into: self.place(byteCount)) else { return .exhausted }
        self.commit(written)
        return .written
    }

    /// Why a packet of this length cannot be appended.
    private func obstacle(to byteCount: Int) -> Result? {
        guard byteCount > 0, byteCount <= self.packetLimitBytes else { return .tooLong }
        if self.packetCount == 0 { return nil }
        return self.end + DatagramLimits.lengthBytes + byteCount <= self.limitBytes ? nil : .full
    }

    private func place(_ byteCount: Int) -> UnsafeMutableRawBufferPointer {
        let start = self.end + DatagramLimits.lengthBytes
        return UnsafeMutableRawBufferPointer(rebasing: self.room[start..<start + byteCount])
    }

    private mutating func commit(_ byteCount: Int) {
        if self.packetCount == 0 { self.firstByteCount = byteCount }
        self.room.setBigEndian16(UInt16(byteCount), at: self.end)
        self.end += DatagramLimits.lengthBytes + byteCount
        self.packetCount += 1
    }
}
