internal import Glibc
import Multiformats

/// Merges consecutive segments of a flow into super-packets, so that a burst of small packets costs the kernel as little as one large one.
///
/// 1. Each packet of a burst is parsed and checked by the caller, then goes to ``add(_:_:from:_:)``.
/// 2. A segment that may begin or continue a super-packet is copied to its flow's slot; the same pass verifies its checksum.
/// 3. Anything else is written at once from where it lies, exactly as it came, behind what its flow has waiting.
/// 4. A slot is written when it is complete, when a packet of its flow does not continue it, or when another flow needs it.
/// 5. ``flush(_:)`` at the burst's end writes the rest. There is no timer.
///
/// | a segment joins when | TCP | UDP |
/// |---|---|---|
/// | peer, addresses and ports are the same | ✓ | ✓ |
/// | TOS or traffic class (ECN too), TTL or hop limit, flow label, don't-fragment are the same | ✓ | ✓ |
/// | the IPv4 identification counts up by one, or stays the same where fragmenting is forbidden (RFC 6864 § 4.1) | ✓ | ✓ |
/// | no IP options, extension headers or fragments, and nothing behind the transport's own length | ✓ | ✓ |
/// | the IPv4 header checksum is right; the transport checksum is there and right | ✓ | ✓ |
/// | its payload is as long as the first one's, or shorter and the last; never empty | ✓ | ✓ |
/// | the first one's payload has at least 8 bytes (``OffloadMetadata/minimumTCPSegmentSize``) | ✓ | |
/// | the sequence number continues; acknowledgement, window, urgent pointer and options are the same | ✓ | |
/// | the flags are ACK, and PSH on the last | ✓ | |
/// | no more than 64 segments | | ✓ |
/// | the super-packet has at most 65,535 bytes | ✓ | ✓ |
///
/// Packets of one flow never change order. Flows may overtake each other. ``Segmenter`` makes the packets that came out of what goes out,
/// but for identifications that stayed the same.
///
/// Pure and owned by one thread. Nothing is allocated per packet: all slots are mapped together when the first is needed, and unmapped by
/// ``trim()``.
package struct Coalescer: ~Copyable {
    /// What the device takes in super-packets.
    package struct Kinds: OptionSet, Hashable, Sendable {
        package let rawValue: UInt8

        package init(rawValue: UInt8) { self.rawValue = rawValue }

        package static let tcpv4 = Kinds(rawValue: 1 << 0)
        package static let tcpv6 = Kinds(rawValue: 1 << 1)
        package static let udpv4 = Kinds(rawValue: 1 << 2)
        package static let udpv6 = Kinds(rawValue: 1 << 3)
    }

    /// What is to be written to the device.
    package struct Output {
        /// Describes `bytes` to the kernel. ``VirtioNetHeader/finished`` for a packet that nothing joined.
        package let header: VirtioNetHeader
        /// A packet as it came, or a super-packet. Borrowed: valid until the closure that receives it returns.
        package let bytes: UnsafeRawBufferPointer
        /// How many packets went into it.
        package let packetCount: Int
        /// Who sent them.
        package let peer: PeerIndex

        /// Length of these packets as they came.
        package var receivedByteCount: Int {
            self.bytes.count + (self.packetCount - 1) * Int(self.header.headerByteCount)
        }
    }

    /// The longest super-packet. IPv6 could announce 40 bytes more, but kernels are sparing with those.
    package static let maximumByteCount = 65_535
    /// The most flows that can grow at the same time, and as many unless said otherwise: a packet that stays alone costs the kernel ten
    /// times as much as one in a super-packet.
    package static let maximumSlotCount = 64

    /// What is merged; everything else passes through.
    package let kinds: Kinds
    /// How many flows can grow at the same time.
    package let slotCount: Int

    private var slots: Slots?
    /// A bit for each slot that holds something.
    private var occupied: UInt64 = 0
    /// The slot that was used last.
    private var recent = 0
    private var uses: UInt64 = 0
    private var isUsedSinceTrim = false

    /// - Parameter slotCount: 1…64. Each takes 64 KiB of address space, but memory only as far as it has been filled; a free slot at the
    ///   front is used before one behind it, so that few flows fill few slots.
    package init(_ kinds: Kinds, slotCount: Int = Self.maximumSlotCount) {
        self.kinds = kinds
        self.slotCount = min(max(slotCount, 1), Self.maximumSlotCount)
    }

    deinit { self.slots?.unmap() }

    /// Bytes of address space that are mapped for super-packets.
    package var mappedBytes: Int { self.slots?.memory.count ?? 0 }

    /// Whether packets wait for ``flush(_:)``.
    package var isEmpty: Bool { self.occupied == 0 }

    /// Takes the next packet of a burst. Its checksums are finished, wrong or right.
    ///
    /// - Parameters:
    ///   - packet: What `bytes` parsed to.
    ///   - bytes: The packet, borrowed until return.
    ///   - peer: Who sent it. Packets of different peers never merge.
    ///   - write: Called for whatever must be written now: nothing, some super-packets, the packet itself.
    package mutating func add(
        _ packet: IPPacket, _ bytes: UnsafeRawBufferPointer, from peer: PeerIndex, _ write: (Output) -> Void
    ) {
        guard let flow = Flow(packet, in: bytes, from: peer) else {
            // A fragment has no ports of its own: it may belong to any flow between its addresses.
            if packet.fragment != .none { self.finish(between: packet.source, packet.destination, of: peer, write) }
            return self.pass(bytes, peer, write)
        }
        let index = self.find(flow)
        guard let segment = Segment(packet, in: bytes, kinds: self.kinds) else {
            if let index { self.finish(index, write) }
            return self.pass(bytes, peer, write)
        }
        if let index, let slots = self.slots?.assemblies {
            if slots[index].accepts(segment), slots[index].append(segment) {
                self.touch(index)
                if slots[index].isComplete { self.finish(index, write) }
                return
            }
            self.finish(index, write)
        }
        guard segment.canBegin, let slots = self.mappedSlots() else { return self.pass(bytes, peer, write) }
        let free = self.freeSlot(of: slots, write)
        guard slots.assemblies[free].begin(segment, of: flow) else { return self.pass(bytes, peer, write) }
        slots.tags[free] = flow.tag
        self.occupied |= 1 &<< UInt64(free)
        self.touch(free)
    }

    /// Writes all that waits: the burst is over.
    package mutating func flush(_ write: (Output) -> Void) {
        while self.occupied != 0 { self.finish(self.occupied.trailingZeroBitCount, write) }
    }

    /// Gives the slots back when none was used since the last call and nothing waits. To be called now and then.
    package mutating func trim() {
        defer { self.isUsedSinceTrim = false }
        guard !self.isUsedSinceTrim, self.occupied == 0 else { return }
        self.slots?.unmap()
        self.slots = nil
    }

    // MARK: Details

    /// Writes a packet from where it lies.
    @inline(__always)
    private func pass(_ bytes: UnsafeRawBufferPointer, _ peer: PeerIndex, _ write: (Output) -> Void) {
        write(Output(header: .finished, bytes: bytes, packetCount: 1, peer: peer))
    }

    @inline(__always)
    private func isOccupied(_ index: Int) -> Bool { self.occupied &>> UInt64(index) & 1 != 0 }

    @inline(__always)
    private mutating func touch(_ index: Int) {
        self.uses &+= 1
        self.slots?.assemblies[index].usedAt = self.uses
        self.recent = index
        self.isUsedSinceTrim = true
    }

    /// The slot in which `flow` grows.
    @inline(__always)
    private func find(_ flow: Flow) -> Int? {
        guard self.occupied != 0, let slots = self.slots else { return nil }
        if self.isOccupied(self.recent), slots.assemblies[self.recent].flow == flow { return self.recent }
        let tag = flow.tag
        for index in 0..<(UInt64.bitWidth - self.occupied.leadingZeroBitCount)
        where slots.tags[index] == tag && self.isOccupied(index) && slots.assemblies[index].flow == flow {
            return index
        }
        return nil
    }

    /// An empty slot; when there is none, the one that has waited longest is written.
    private mutating func freeSlot(of slots: Slots, _ write: (Output) -> Void) -> Int {
        let free = (~self.occupied).trailingZeroBitCount
        if free < self.slotCount { return free }
        var oldest = 0
        for index in 1..<self.slotCount where slots.assemblies[index].usedAt < slots.assemblies[oldest].usedAt {
            oldest = index
        }
        self.finish(oldest, write)
        return oldest
    }

    /// Writes what a slot holds.
    private mutating func finish(_ index: Int, _ write: (Output) -> Void) {
        self.occupied &= ~(1 &<< UInt64(index))
        guard let slots = self.slots?.assemblies else { return }
        write(slots[index].finish())
    }

    private mutating func finish(
        between source: IPAddress, _ destination: IPAddress, of peer: PeerIndex, _ write: (Output) -> Void
    ) {
        guard let slots = self.slots?.assemblies else { return }
        for index in slots.indices where self.isOccupied(index) {
            let flow = slots[index].flow
            if flow.source == source, flow.destination == destination, flow.peer == peer { self.finish(index, write) }
        }
    }

    private mutating func mappedSlots() -> Slots? {
        if self.slots == nil { self.slots = Slots(count: self.slotCount) }
        return self.slots
    }
}

extension Coalescer {
    /// The memory of all slots.
    private struct Slots {
        let memory: UnsafeMutableRawBufferPointer
        let assemblies: UnsafeMutableBufferPointer<Assembly>
        /// A few bits of each slot's flow, side by side: most slots are passed over without being looked at.
        let tags: UnsafeMutableBufferPointer<UInt32>

        /// `nil` when the system has no address space left.
        init?(count: Int) {
            let byteCount = count * Assembly.strideBytes
            let mapped = mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
            guard let base = mapped, base != UnsafeMutableRawPointer(bitPattern: -1) else { return nil }
            // With huge pages, the first packet of a slot would take 2 MiB.
            _ = madvise(base, byteCount, MADV_NOHUGEPAGE)
            self.memory = UnsafeMutableRawBufferPointer(start: base, count: byteCount)
            self.assemblies = .allocate(capacity: count)
            self.tags = .allocate(capacity: count)
            self.tags.initialize(repeating: 0)
            for index in self.assemblies.indices {
                let start = index * Assembly.strideBytes
                let room = UnsafeMutableRawBufferPointer(rebasing: self.memory[start..<start + Assembly.roomBytes])
                self.assemblies.initializeElement(at: index, to: Assembly(room: room))
            }
        }

        func unmap() {
            munmap(self.memory.baseAddress, self.memory.count)
            self.assemblies.deallocate()
            self.tags.deallocate()
        }
    }
}
