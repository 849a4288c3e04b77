import Testing

@testable import OverlayCore

@Suite struct PacketPoolTests {
    static let small = PacketPool.SlotClass.small
    static let large = PacketPool.SlotClass.large

    @Test func packetsHaveRoomOnBothSides() throws {
        let pool = PacketPool()
        var cache = PacketCache(pool: pool)
        for slotClass in PacketPool.SlotClass.allCases {
            let taken = cache.take(slotClass)
            let packet = try #require(taken)
            #expect(packet.length == 0 && packet.headRoomCount == PacketRef.headRoomBytes)
            #expect(packet.tailRoom.count == slotClass.packetBytes)
            packet.tailRoom.copyBytes(from: [1, 2, 3, 4])
            #expect(packet.setLength(4) && packet.tailRoom.count == slotClass.packetBytes - 4)
            #expect(Array(packet.bytes) == [1, 2, 3, 4])
            packet.prepend(2)?.copyMemory(from: [8, 9] as [UInt8], byteCount: 2)
            #expect(Array(packet.bytes) == [8, 9, 1, 2, 3, 4])
            #expect(packet.removePrefix(3) && Array(packet.bytes) == [2, 3, 4])
            // What does not fit changes nothing.
            #expect(packet.prepend(packet.headRoomCount + 1) == nil && packet.prepend(-1) == nil)
            #expect(!packet.removePrefix(4) && !packet.removePrefix(-1) && !packet.setLength(-1))
            #expect(!packet.setLength(packet.length + packet.tailRoom.count + 1))
            #expect(Array(packet.bytes) == [2, 3, 4])
            #expect(packet.setLength(packet.length + packet.tailRoom.count) && packet.tailRoom.isEmpty)
            // The whole room is the packet's own.
            packet.bytes.initializeMemory(as: UInt8.self, repeating: 0xaa)
            packet.flags = [.tcp, .ecnCapable]
            (packet.segmentSize, packet.flowHash, packet.peer) = (1300, 77, PeerIndex(rawValue: 5))
            cache.give(packet)
            let again = cache.take(slotClass)
            let fresh = try #require(again)
            #expect(fresh.length == 0 && fresh.flags == [] && fresh.segmentSize == 0 && fresh.flowHash == 0)
            #expect(fresh.headRoomCount == PacketRef.headRoomBytes)
            cache.give(fresh)
        }
        #expect(Self.small.packetBytes >= 1500 && Self.large.packetBytes >= 65_535 + 32)
    }

    @Test func choosesTheSlotByLength() throws {
        let pool = PacketPool()
        var cache = PacketCache(pool: pool)
        for (bytes, expected) in [
            (0, Self.small), (Self.small.packetBytes, .small), (Self.small.packetBytes + 1, .large),
        ] {
            let taken = cache.take(forPacketOf: bytes)
            let packet = try #require(taken)
            #expect(packet.tailRoom.count == expected.packetBytes)
            cache.give(packet)
        }
        let tooLarge = cache.take(forPacketOf: Self.large.packetBytes + 1)
        #expect(tooLarge == nil)
    }

    @Test func endsAtItsLimit() {
        let limit = 40 * Self.small.slotBytes + 2 * Self.large.slotBytes
        let pool = PacketPool(limitBytes: limit)
        var cache = PacketCache(pool: pool)
        var held = PacketList()
        while let packet = cache.take(.large) { held.append(packet) }
        #expect(held.count == 3)
        while let packet = cache.take(.small) { held.append(packet) }
        #expect(held.count == 3, "another slab of small ones is beyond the limit")
        #expect(pool.usage == .init(mappedBytes: 3 * Self.large.slotBytes, freeBytes: 0))
        pool.give(&held)
        #expect(held.isEmpty && held.count == 0)
        #expect(pool.usage.freeBytes == 3 * Self.large.slotBytes)
        let again = cache.take(.large)
        #expect(again != nil)
        if let again { cache.give(again) }
    }

    @Test func trimsWhatNobodyNeeded() {
        let pool = PacketPool()
        var cache = PacketCache(pool: pool)
        func take(_ slotClass: PacketPool.SlotClass, _ count: Int) -> PacketList {
            var list = PacketList()
            while list.count < count, let packet = cache.take(slotClass) { list.append(packet) }
            return list
        }
        var small = take(.small, 1000)
        var large = take(.large, 20)
        #expect(small.count == 1000 && large.count == 20)
        pool.trim()
        pool.give(&small)
        pool.give(&large)
        cache.flush()
        let mapped = pool.usage.mappedBytes
        #expect(pool.usage.freeBytes == mapped)
        pool.trim()
        #expect(pool.usage.mappedBytes == mapped, "in use since the last trim")
        // One small and one large packet are needed now: their slabs and refills stay, the rest goes.
        var pinned = take(.small, 1)
        var other = take(.large, 1)
        pool.trim()
        pool.trim()
        #expect(pool.usage.mappedBytes < mapped / 4)
        #expect(pool.usage.mappedBytes >= Self.large.slotBytes + Self.small.slabBytes)
        pool.give(&pinned)
        pool.give(&other)
        cache.flush()
        for _ in 0..<3 { pool.trim() }
        #expect(pool.usage == .init(), "an idle pool holds nothing")
        var after = take(.small, 40)
        #expect(after.count == 40)
        pool.give(&after)
    }

    /// Random takes, gives and trims over two caches: no packet is handed out twice, and the accounts agree with a model.
    @Test(arguments: 0..<8)
    func accountsForEveryPacket(seed: UInt64) {
        var random = SeededGenerator(state: seed)
        let pool = PacketPool(limitBytes: 3 << 20)
        var first = PacketCache(pool: pool)
        var second = PacketCache(pool: pool)
        var held: [PacketRef] = []
        for step in 0..<3000 {
            switch random.next() % 8 {
            case 0...3:
                let slotClass: PacketPool.SlotClass = random.next() % 4 == 0 ? .large : .small
                let packet = step % 2 == 0 ? first.take(slotClass) : second.take(slotClass)
                if let packet {
                    packet.flowHash = UInt32(step)
                    held.append(packet)
                }
            case 4...5:
                guard !held.isEmpty else { continue }
                let packet = held.remove(at: Int(random.next() % UInt64(held.count)))
                if step % 2 == 0 { first.give(packet) } else { second.give(packet) }
            case 6:
                var burst = PacketList()
                for _ in 0..<min(held.count, 20) { burst.append(held.removeLast()) }
                pool.give(&burst)
            default:
                pool.trim()
            }
            let usage = pool.usage
            #expect(usage.mappedBytes <= 3 << 20 && usage.freeBytes <= usage.mappedBytes)
            if step % 100 == 0 { #expect(Set(held.map(\.header)).count == held.count) }
        }
        // Nobody wrote over anybody's header.
        #expect(Set(held.map(\.flowHash)).count == held.count)
        var rest = PacketList()
        for packet in held { rest.append(packet) }
        pool.give(&rest)
        first.flush()
        second.flush()
        #expect(pool.usage.freeBytes == pool.usage.mappedBytes)
        for _ in 0..<2 { pool.trim() }
        #expect(pool.usage == .init())
    }

    @Test func threadsShareAPool() async {
        let pool = PacketPool(limitBytes: 4 << 20)
        await withTaskGroup(of: Void.self) { group in
            for worker in 0..<4 {
                group.addTask {
                    var cache = PacketCache(pool: pool)
                    for round in 0..<300 {
                        var burst = PacketList()
                        for _ in 0..<50 {
                            guard let packet = cache.take(round % 10 == 0 ? .large : .small) else { break }
                            packet.flowHash = UInt32(worker)
                            burst.append(packet)
                        }
                        burst.forEach { #expect($0.flowHash == UInt32(worker)) }
                        pool.give(&burst)
                    }
                }
            }
        }
        #expect(pool.usage.freeBytes == pool.usage.mappedBytes)
    }

    @Test func listsKeepOrder() {
        let pool = PacketPool()
        var cache = PacketCache(pool: pool)
        var lists = [PacketList(), PacketList(), PacketList()]
        var model: [[UInt32]] = [[], [], []]
        var random = SeededGenerator(state: 9)
        for step in 0..<2000 {
            let index = Int(random.next() % 3)
            switch random.next() % 4 {
            case 0...1:
                guard let packet = cache.take(.small) else { continue }
                packet.flowHash = UInt32(step)
                lists[index].append(packet)
                model[index].append(UInt32(step))
            case 2:
                let packet = lists[index].popFirst()
                let expected = model[index].isEmpty ? nil : model[index].removeFirst()
                #expect(packet?.flowHash == expected)
                if let packet { cache.give(packet) }
            default:
                var moved = lists[(index + 1) % 3]
                lists[(index + 1) % 3] = PacketList()
                lists[index].append(contentsOf: &moved)
                model[index] += model[(index + 1) % 3]
                model[(index + 1) % 3] = []
            }
            #expect(lists[index].count == model[index].count && lists[index].isEmpty == model[index].isEmpty)
            #expect(lists[index].first?.flowHash == model[index].first)
        }
        for index in 0..<3 {
            var seen: [UInt32] = []
            lists[index].forEach { seen.append($0.flowHash) }
            #expect(seen == model[index])
            pool.give(&lists[index])
        }
    }
}
