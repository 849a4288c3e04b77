internal import Glibc
internal import Synchronization

/// The memory that packets live in, shared by all threads of the data path.
///
/// 1. A thread that reads packets takes empty ones from a ``PacketCache`` of its own; the cache refills itself from here, many at a time.
/// 2. The packets travel to other threads.
/// 3. Whoever is done with a burst of them gives the whole list back with one ``give(_:)``.
///
/// So the lock is taken once per burst, never per packet. Memory is mapped when it is first needed, up to a limit, and surplus is unmapped by
/// ``trim()``. A pool must outlive its packets.
package final class PacketPool: Sendable {
    /// The two sizes of a packet's slot.
    package enum SlotClass: UInt8, CaseIterable, Sendable {
        /// For packets up to ``packetBytes``, which holds any that no kernel put together.
        case small
        /// For super-packets.
        case large

        /// Bytes of a slot: header, head room, packet and tail room.
        package var slotBytes: Int { self == .small ? 2_048 : 69_632 }
        /// The longest packet that fits behind a fresh packet's head room.
        package var packetBytes: Int { self.slotBytes - PacketHeader.byteCount - PacketRef.headRoomBytes }
        /// Slots that are mapped together. A multiple of the page size in bytes.
        var slotsPerSlab: Int { self == .small ? 32 : 1 }
        var slabBytes: Int { self.slotsPerSlab * self.slotBytes }
        /// Slots that a cache fetches with one lock.
        var refill: Int { self == .small ? 64 : 8 }
    }

    /// The memory in use, in bytes.
    package struct Usage: Equatable, Sendable {
        /// Mapped from the system.
        package var mappedBytes = 0
        /// Of these, in free slots of the pool. Slots in caches count as used.
        package var freeBytes = 0
    }

    /// One mapping.
    private struct Slab: @unchecked Sendable {
        var base: UnsafeMutableRawPointer
        var slotClass: SlotClass
        var freeSlots = 0
    }

    private struct State: @unchecked Sendable {
        var free = [PacketList(), PacketList()]
        /// The fewest free slots of each class since the last trim: nobody needed these.
        var surplus = [0, 0]
        var slabs: [Slab?] = []
        var vacantSlabs: [UInt32] = []
        var mappedBytes = 0
    }

    /// The most bytes that are ever mapped.
    package let limitBytes: Int

    private let state = Mutex(State())

    /// - Parameter limitBytes: The most bytes to map; 32 MiB suits a daemon.
    package init(limitBytes: Int = 32 << 20) {
        self.limitBytes = limitBytes
    }

    deinit {
        self.state.withLock { state in
            for case let slab? in state.slabs { munmap(slab.base, slab.slotClass.slabBytes) }
        }
    }

    /// What is mapped, and what of it lies idle here.
    package var usage: Usage {
        self.state.withLock { state in
            let free = SlotClass.allCases.reduce(0) { $0 + state.free[Int($1.rawValue)].count * $1.slotBytes }
            return Usage(mappedBytes: state.mappedBytes, freeBytes: free)
        }
    }

    /// Takes back all packets of `list`, in any mix of sizes, and leaves it empty.
    package func give(_ list: inout PacketList) {
        guard !list.isEmpty else { return }
        // Sorted outside the lock: what is done inside does not grow with the burst.
        var small = PacketList()
        var large = PacketList()
        while let packet = list.popFirst() {
            if packet.header.pointee.slotClass == .small { small.append(packet) } else { large.append(packet) }
        }
        self.state.withLock { state in
            state.free[0].append(contentsOf: &small)
            state.free[1].append(contentsOf: &large)
        }
    }

    /// Unmaps memory that nobody needed since the last call. To be called now and then, say every 10 s.
    package func trim() {
        self.state.withLock { state in
            for slotClass in SlotClass.allCases {
                Self.release(slotClass, upTo: state.surplus[Int(slotClass.rawValue)], of: &state)
                state.surplus[Int(slotClass.rawValue)] = state.free[Int(slotClass.rawValue)].count
            }
        }
    }

    /// Moves up to `slotClass.refill` free packets to `list`, mapping memory when there are none.
    fileprivate func refill(_ list: inout PacketList, _ slotClass: SlotClass) {
        var taken = PacketList()
        self.state.withLock { state in
            let index = Int(slotClass.rawValue)
            if state.free[index].isEmpty { self.map(slotClass, into: &state) }
            while taken.count < slotClass.refill, let packet = state.free[index].popFirst() { taken.append(packet) }
            state.surplus[index] = min(state.surplus[index], state.free[index].count)
        }
        list.append(contentsOf: &taken)
    }

    /// Maps one more slab and frees its slots, unless the limit or the system forbids.
    private func map(_ slotClass: SlotClass, into state: inout State) {
        guard state.mappedBytes + slotClass.slabBytes <= self.limitBytes else { return }
        let mapped = mmap(nil, slotClass.slabBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let base = mapped, base != UnsafeMutableRawPointer(bitPattern: -1) else { return }
        let slab = Slab(base: base, slotClass: slotClass)
        let number: UInt32
        if let vacant = state.vacantSlabs.popLast() {
            number = vacant
            state.slabs[Int(vacant)] = slab
        } else {
            number = UInt32(truncatingIfNeeded: state.slabs.count)
            state.slabs.append(slab)
        }
        state.mappedBytes += slotClass.slabBytes
        for slot in 0..<slotClass.slotsPerSlab {
            let header = (base + slot * slotClass.slotBytes).bindMemory(to: PacketHeader.self, capacity: 1)
            header.initialize(to: PacketHeader())
            header.pointee.room = UInt32(slotClass.slotBytes - PacketHeader.byteCount)
            header.pointee.slab = number
            header.pointee.slotClass = slotClass
            state.free[Int(slotClass.rawValue)].append(PacketRef(header))
        }
    }

    /// Unmaps slabs whose slots are all free, at most `slots` slots of them.
    private static func release(_ slotClass: SlotClass, upTo slots: Int, of state: inout State) {
        guard slots >= slotClass.slotsPerSlab else { return }
        let index = Int(slotClass.rawValue)
        state.free[index].forEach { state.slabs[Int($0.header.pointee.slab)]?.freeSlots += 1 }
        var doomed: Set<UInt32> = []
        for number in state.slabs.indices {
            guard let slab = state.slabs[number], slab.slotClass == slotClass else { continue }
            if slab.freeSlots == slotClass.slotsPerSlab, (doomed.count + 1) * slotClass.slotsPerSlab <= slots {
                doomed.insert(UInt32(truncatingIfNeeded: number))
            }
            state.slabs[number]?.freeSlots = 0
        }
        var kept = PacketList()
        while let packet = state.free[index].popFirst() {
            if !doomed.contains(packet.header.pointee.slab) { kept.append(packet) }
        }
        state.free[index] = kept
        for number in doomed {
            guard let slab = state.slabs[Int(number)] else { continue }
            munmap(slab.base, slotClass.slabBytes)
            state.mappedBytes -= slotClass.slabBytes
            state.slabs[Int(number)] = nil
            state.vacantSlabs.append(number)
        }
    }
}

/// One thread's stock of empty packets.
package struct PacketCache: ~Copyable {
    private let pool: PacketPool
    private var small = PacketList()
    private var large = PacketList()

    package init(pool: PacketPool) { self.pool = pool }

    deinit {
        var rest = self.small
        var large = self.large
        rest.append(contentsOf: &large)
        self.pool.give(&rest)
    }

    /// An empty packet with its head room, or `nil` when the pool is exhausted: the caller drops and counts.
    @inline(__always)
    package mutating func take(_ slotClass: PacketPool.SlotClass) -> PacketRef? {
        let packet: PacketRef?
        switch slotClass {
        case .small:
            if self.small.isEmpty { self.pool.refill(&self.small, .small) }
            packet = self.small.popFirst()
        case .large:
            if self.large.isEmpty { self.pool.refill(&self.large, .large) }
            packet = self.large.popFirst()
        }
        packet?.reset()
        return packet
    }

    /// An empty packet with room for `packetBytes` behind its head room; `nil` when the pool is exhausted or nothing is that large.
    @inline(__always)
    package mutating func take(forPacketOf packetBytes: Int) -> PacketRef? {
        if packetBytes <= PacketPool.SlotClass.small.packetBytes { return self.take(.small) }
        return packetBytes <= PacketPool.SlotClass.large.packetBytes ? self.take(.large) : nil
    }

    /// Takes back a packet that this thread did not need after all.
    @inline(__always)
    package mutating func give(_ packet: PacketRef) {
        if packet.header.pointee.slotClass == .small {
            self.small.append(packet)
            if self.small.count > 2 * PacketPool.SlotClass.small.refill { self.pool.give(&self.small) }
        } else {
            self.large.append(packet)
            if self.large.count > 2 * PacketPool.SlotClass.large.refill { self.pool.give(&self.large) }
        }
    }

    /// Gives the whole stock back to the pool, before a pause.
    package mutating func flush() {
        self.small.append(contentsOf: &self.large)
        self.pool.give(&self.small)
    }
}
