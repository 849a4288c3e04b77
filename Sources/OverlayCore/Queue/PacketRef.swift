/// What is known of a packet besides its bytes. Lives in front of them.
package struct PacketHeader {
    var next: UnsafeMutablePointer<PacketHeader>?
    var enqueuedAt: UInt64 = 0
    var room: UInt32 = 0
    var offset: UInt32 = 0
    var length: UInt32 = 0
    var flowHash: UInt32 = 0
    var peer = PeerIndex(rawValue: .max)
    var slab: UInt32 = 0
    var segmentSize: UInt16 = 0
    var flags: PacketRef.Flags = []
    var slotClass: PacketPool.SlotClass = .small

    /// Where the packet's room starts, in bytes from the header: a cache line of its own.
    static let byteCount = 64

    init() {}
}

/// One packet in the memory of a ``PacketPool``: a bare pointer, with one owner at a time.
///
/// Whoever holds it owns it, until it is put in a list or queue or given back to the pool. Copies are aliases: after the packet is handed on
/// they must not be used. Not reference counted, so that nothing is counted per packet; passing it to another thread passes the ownership.
package struct PacketRef: Equatable, @unchecked Sendable {
    /// Facts about a packet that cost too much to look up again.
    package struct Flags: OptionSet, Hashable, Sendable {
        package let rawValue: UInt8

        @inline(__always)
        package init(rawValue: UInt8) { self.rawValue = rawValue }

        /// The transport checksum is still to be computed.
        package static let checksumPending = Flags(rawValue: 1 << 0)
        /// The packet is ECT(0), ECT(1) or CE: mark it rather than drop it.
        package static let ecnCapable = Flags(rawValue: 1 << 1)
        /// Suits a datagram lane better than a stream.
        package static let prefersDatagrams = Flags(rawValue: 1 << 4)
        /// The packet is TCP.
        package static let tcp = Flags(rawValue: 1 << 2)
        /// Only the first segment of the super-packet carries CWR.
        package static let segmentsWithECN = Flags(rawValue: 1 << 3)
    }

    /// Bytes that a fresh packet keeps free in front of it.
    package static let headRoomBytes = 32

    let header: UnsafeMutablePointer<PacketHeader>

    @inline(__always)
    init(_ header: UnsafeMutablePointer<PacketHeader>) { self.header = header }

    /// Makes the packet empty, with ``headRoomBytes`` in front, and forgets what was known of it.
    @inline(__always)
    package func reset() {
        self.header.pointee.next = nil
        self.header.pointee.offset = UInt32(Self.headRoomBytes)
        self.header.pointee.length = 0
        self.header.pointee.flowHash = 0
        self.header.pointee.segmentSize = 0
        self.header.pointee.flags = []
        self.header.pointee.enqueuedAt = 0
        self.header.pointee.peer = PeerIndex(rawValue: .max)
    }

    /// The packet's bytes. Valid while the caller owns the packet.
    @inline(__always)
    package var bytes: UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: self.roomStart + self.offset, count: self.length)
    }

    /// The free bytes behind the packet.
    @inline(__always)
    package var tailRoom: UnsafeMutableRawBufferPointer {
        let end = self.offset + self.length
        return UnsafeMutableRawBufferPointer(start: self.roomStart + end, count: Int(self.header.pointee.room) - end)
    }

    /// The number of free bytes in front of the packet.
    @inline(__always)
    package var headRoomCount: Int { self.offset }

    /// The packet's length in bytes.
    @inline(__always)
    package var length: Int { Int(self.header.pointee.length) }

    /// Makes the packet `length` bytes long: after bytes were written to ``tailRoom``, or to cut its end.
    ///
    /// - Returns: `false`, with nothing changed, when the room ends earlier.
    @inline(__always)
    package func setLength(_ length: Int) -> Bool {
        guard length >= 0, length <= Int(self.header.pointee.room) - self.offset else { return false }
        self.header.pointee.length = UInt32(truncatingIfNeeded: length)
        return true
    }

    /// Grows the packet by `count` bytes at its front.
    ///
    /// - Returns: Where the new bytes are to be written, or `nil`, with nothing changed, when the head room is smaller.
    @inline(__always)
    package func prepend(_ count: Int) -> UnsafeMutableRawPointer? {
        guard count >= 0, count <= self.offset else { return nil }
        self.header.pointee.offset -= UInt32(truncatingIfNeeded: count)
        self.header.pointee.length += UInt32(truncatingIfNeeded: count)
        return self.roomStart + self.offset
    }

    /// Takes `count` bytes off the packet's front. They become head room.
    ///
    /// - Returns: `false`, with nothing changed, when the packet is shorter.
    @inline(__always)
    package func removePrefix(_ count: Int) -> Bool {
        guard count >= 0, count <= self.length else { return false }
        self.header.pointee.offset += UInt32(truncatingIfNeeded: count)
        self.header.pointee.length -= UInt32(truncatingIfNeeded: count)
        return true
    }

    /// Transport payload bytes per segment of a super-packet; 0 for a packet that is one segment.
    @inline(__always)
    package var segmentSize: UInt16 {
        get { self.header.pointee.segmentSize }
        nonmutating set { self.header.pointee.segmentSize = newValue }
    }

    /// What is still to be done to the packet, from ``segmentSize`` and ``flags``.
    @inline(__always)
    package var offload: OffloadMetadata {
        get {
            let flags = self.flags
            return OffloadMetadata(
                checksumPending: flags.contains(.checksumPending), segmentSize: self.segmentSize,
                flags: flags.contains(.segmentsWithECN) ? .ecn : [])
        }
        nonmutating set {
            self.segmentSize = newValue.segmentSize
            var flags = self.flags.subtracting([.checksumPending, .segmentsWithECN])
            if newValue.checksumPending { flags.insert(.checksumPending) }
            if newValue.flags.contains(.ecn) { flags.insert(.segmentsWithECN) }
            self.flags = flags
        }
    }

    /// What is known of the packet.
    @inline(__always)
    package var flags: Flags {
        get { self.header.pointee.flags }
        nonmutating set { self.header.pointee.flags = newValue }
    }

    /// The hash of the packet's flow: packets of one flow have the same.
    @inline(__always)
    package var flowHash: UInt32 {
        get { self.header.pointee.flowHash }
        nonmutating set { self.header.pointee.flowHash = newValue }
    }

    /// The peer the packet goes to or comes from.
    @inline(__always)
    package var peer: PeerIndex {
        get { self.header.pointee.peer }
        nonmutating set { self.header.pointee.peer = newValue }
    }

    /// When a ``FlowQueue`` took the packet, in nanoseconds of the caller's clock.
    @inline(__always)
    package var enqueuedAt: UInt64 { self.header.pointee.enqueuedAt }

    @inline(__always)
    private var roomStart: UnsafeMutableRawPointer {
        UnsafeMutableRawPointer(self.header) + PacketHeader.byteCount
    }

    @inline(__always)
    private var offset: Int { Int(self.header.pointee.offset) }
}

/// Packets in a row, linked through their headers. Owns them; has no destructor, so an owner empties it.
package struct PacketList: @unchecked Sendable {
    private var head: UnsafeMutablePointer<PacketHeader>?
    private var tail: UnsafeMutablePointer<PacketHeader>?
    /// The number of packets.
    package private(set) var count = 0

    @inline(__always)
    package init() {}

    /// Whether there is no packet.
    @inline(__always)
    package var isEmpty: Bool { self.head == nil }

    /// The first packet, which stays in the list.
    @inline(__always)
    package var first: PacketRef? { self.head.map(PacketRef.init) }

    /// Takes ownership of `packet` and puts it last.
    @inline(__always)
    package mutating func append(_ packet: PacketRef) {
        packet.header.pointee.next = nil
        if let tail = self.tail { tail.pointee.next = packet.header } else { self.head = packet.header }
        self.tail = packet.header
        self.count &+= 1
    }

    /// Moves all packets of `other` behind ours. Costs the same for any length.
    @inline(__always)
    package mutating func append(contentsOf other: inout PacketList) {
        guard let head = other.head else { return }
        if let tail = self.tail { tail.pointee.next = head } else { self.head = head }
        self.tail = other.tail
        self.count &+= other.count
        other = PacketList()
    }

    /// The first packet, whose ownership goes to the caller.
    @inline(__always)
    package mutating func popFirst() -> PacketRef? {
        guard let head = self.head else { return nil }
        self.head = head.pointee.next
        if self.head == nil { self.tail = nil }
        head.pointee.next = nil
        self.count &-= 1
        return PacketRef(head)
    }

    /// Calls `visit` with each packet in order. The list keeps them.
    @inline(__always)
    package func forEach(_ visit: (PacketRef) -> Void) {
        var next = self.head
        while let header = next {
            next = header.pointee.next
            visit(PacketRef(header))
        }
    }
}
