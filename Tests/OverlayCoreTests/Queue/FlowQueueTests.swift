import Testing

@testable import OverlayCore

private let millisecond: UInt64 = 1_000_000

/// A queue with the pool its packets come from.
private struct Bench: ~Copyable {
    var queue: FlowQueue
    let pool = PacketPool(limitBytes: 512 << 20)
    var cache: PacketCache

    init(limits: FlowQueue.Limits = .standard, waitingLimits: FlowQueue.Limits = .waiting) {
        self.queue = FlowQueue(limits: limits, waitingLimits: waitingLimits)
        self.cache = PacketCache(pool: self.pool)
    }

    /// Makes and enqueues a packet whose segment size is `tag`.
    mutating func enqueue(
        flow: UInt32, bytes: Int, tag: UInt16 = 0, now: UInt64 = 0, flags: PacketRef.Flags = []
    ) {
        guard let packet = self.cache.take(forPacketOf: bytes), packet.setLength(bytes) else {
            Issue.record("no packet of \(bytes) bytes")
            return
        }
        (packet.flowHash, packet.segmentSize, packet.flags) = (flow, tag, flags)
        self.queue.enqueue(packet, now: now)
    }

    /// What is dequeued next; the packet goes back to the pool.
    mutating func dequeue(
        now: UInt64 = 0, react: (PacketRef) -> FlowQueue.Reaction = { _ in .drop }
    ) -> Sent? {
        guard let packet = self.queue.dequeue(now: now, react: react) else { return nil }
        let sent = Sent(flow: packet.flowHash, bytes: packet.length, tag: packet.segmentSize)
        self.cache.give(packet)
        return sent
    }

    /// The tags of what was dropped since the last call.
    mutating func dropped() -> [UInt16] {
        var list = self.queue.takeDropped()
        var tags: [UInt16] = []
        list.forEach { tags.append($0.segmentSize) }
        self.pool.give(&list)
        return tags
    }

    /// Bytes, packets and whether it is empty, in one value to compare.
    var account: [Int] { [self.queue.byteCount, self.queue.packetCount, self.queue.isEmpty ? 1 : 0] }

    /// Gives everything back and expects the pool to have it all.
    mutating func finish() {
        var list = self.queue.removeAll()
        self.pool.give(&list)
        self.cache.flush()
        let usage = self.pool.usage
        #expect(usage.freeBytes == usage.mappedBytes)
        #expect(self.account == [0, 0, 1])
    }
}

private struct Sent: Equatable {
    var flow: UInt32
    var bytes: Int
    var tag: UInt16
}

@Suite struct FlowQueueTests {
    @Test func emptyQueueCostsLittle() {
        var bench = Bench()
        #expect(MemoryLayout<FlowQueue>.size <= 320)
        let before = bench.queue.allocatedBytes
        #expect(before == 0)
        let nothing = bench.dequeue()
        #expect(nothing == nil)
        bench.enqueue(flow: 1, bytes: 100)
        let during = bench.queue.allocatedBytes
        #expect(during > 0 && during <= 32 << 10)
        bench.queue.trim()
        _ = bench.dequeue()
        bench.queue.trim()
        bench.queue.trim()
        let after = bench.queue.allocatedBytes
        #expect(after == 0)
        // And it works again afterwards.
        bench.enqueue(flow: 1, bytes: 100, tag: 7)
        let again = bench.dequeue()
        #expect(again == Sent(flow: 1, bytes: 100, tag: 7))
        bench.finish()
    }

    @Test func keepsTableWhilePacketsWait() {
        var bench = Bench()
        bench.enqueue(flow: 1, bytes: 100)
        for _ in 0..<3 { bench.queue.trim() }
        let sent = bench.dequeue()
        #expect(sent?.bytes == 100)
        bench.finish()
    }

    /// A packet of a new flow overtakes any backlog of super-packets.
    @Test func sparseFlowsComeFirst() {
        var bench = Bench()
        for tag in 0..<4 { for flow in 0..<4 { bench.enqueue(flow: UInt32(flow), bytes: 60_000, tag: UInt16(tag)) } }
        for _ in 0..<5 { _ = bench.dequeue() }
        for round in 0..<6 {
            bench.enqueue(flow: UInt32(100 + round), bytes: 100, tag: 99)
            // A new flow of super-packets does not overtake, whatever its place among the new ones.
            if round == 0 { bench.enqueue(flow: 200, bytes: 60_000, tag: 98) }
            let first = bench.dequeue()
            #expect(first?.tag == 99, "round \(round)")
            _ = bench.dequeue()
        }
        bench.finish()
    }

    /// A flow that sends small packets now and then, never quite new, waits for few super-packets.
    @Test func oldSparseFlowWaitsForFewSuperPackets() {
        var bench = Bench(limits: .init(bytes: 64 << 20, packets: 10_000))
        for flow in 0..<8 { for _ in 0..<40 { bench.enqueue(flow: UInt32(flow), bytes: 64_000) } }
        var worst = 0
        for _ in 0..<60 {
            bench.enqueue(flow: 100, bytes: 200, tag: 9)
            var waited = 0
            while let sent = bench.dequeue(), sent.tag != 9 { waited += 1 }
            worst = max(worst, waited)
        }
        #expect(worst <= 2)
        bench.finish()
    }

    /// Backlogged flows get the same bytes, whatever their packet sizes, to within one largest packet and two quanta.
    @Test(arguments: [
        [64_000, 64_000], [64_000, 1_280], [64_000, 100], [1_280, 100, 40], [64_000, 30_000, 9_000, 1_280, 576],
    ])
    func sharesBytesFairly(sizes: [Int]) {
        var bench = Bench(limits: .init(bytes: 256 << 20, packets: 100_000))
        let share = 2 << 20
        for (flow, size) in sizes.enumerated() {
            for _ in 0...(share / size) { bench.enqueue(flow: UInt32(flow), bytes: size) }
        }
        var served = [Int](repeating: 0, count: sizes.count)
        let bound = (sizes.max() ?? 0) + 2 * bench.queue.quantumBytes
        var total = 0
        while total < share * sizes.count / 2, let sent = bench.dequeue() {
            served[Int(sent.flow)] += sent.bytes
            total += sent.bytes
            let gap = (served.max() ?? 0) - (served.min() ?? 0)
            if gap > bound { Issue.record("gap of \(gap) bytes after \(total)") }
        }
        #expect(total >= share * sizes.count / 2)
        bench.finish()
    }

    @Test func overflowDropsHeadOfFattestFlow() {
        var bench = Bench(limits: .init(bytes: 10_000, packets: 8))
        for tag in 0..<3 { bench.enqueue(flow: 1, bytes: 3000, tag: UInt16(tag)) }
        bench.enqueue(flow: 2, bytes: 900, tag: 10)
        var dropped = bench.dropped()
        #expect(dropped == [])
        bench.enqueue(flow: 2, bytes: 900, tag: 11)
        dropped = bench.dropped()
        #expect(dropped == [0], "the oldest of the flow with the most bytes")
        var account = bench.account
        #expect(account == [7800, 4, 0])
        for tag in 0..<10 { bench.enqueue(flow: 3, bytes: 10, tag: UInt16(20 + tag)) }
        dropped = bench.dropped()
        #expect(dropped == [1, 2, 10, 11, 20, 21], "then by packets: fat flows first")
        // A packet beyond the limit by itself goes at once, with all that is fatter than what was there.
        bench.enqueue(flow: 4, bytes: 20_000, tag: 50)
        dropped = bench.dropped()
        #expect(dropped == [50])
        account = bench.account
        #expect(account == [80, 8, 0])
        let counts = bench.queue.counts
        #expect(counts == .init(queueFull: 8))
        bench.finish()
    }

    @Test func keepsNewestWhileWaiting() {
        var bench = Bench(waitingLimits: .init(bytes: 1_000_000, packets: 4))
        bench.queue.isWaiting = true
        for tag in 0..<10 {
            bench.enqueue(flow: UInt32(tag % 3), bytes: 100 + 500 * (tag % 2), tag: UInt16(tag), now: UInt64(tag))
        }
        let dropped = bench.dropped()
        #expect(dropped == [0, 1, 2, 3, 4, 5], "the oldest first, whatever the flow")
        bench.queue.dropEnqueued(before: 8)
        let expired = bench.dropped()
        #expect(expired.sorted() == [6, 7])
        bench.queue.isWaiting = false
        var rest: [UInt16] = []
        while let sent = bench.dequeue(now: 10) { rest.append(sent.tag) }
        #expect(rest.sorted() == [8, 9])
        let counts = bench.queue.counts
        #expect(counts == .init(queueFull: 6, expired: 2))
        bench.finish()
    }

    /// One flow fed twice as fast as it drains: CoDel keeps the standing delay near its target, by drops or by marks alone.
    @Test(arguments: [false, true])
    func controlsStandingDelay(marks: Bool) {
        var bench = Bench(limits: .init(bytes: 8 << 20, packets: 8000))
        var now: UInt64 = 0
        var delays: [UInt64] = []
        // 1,250 bytes per ms leave (10 Mbit/s); the sender halves its rate at each signal and then grows like
        // a TCP flow with an RTT of 30 ms.
        var rate = 2.0
        var credit = 0.0
        var signals: UInt64 = 0
        for _ in 0..<20_000 {
            now += millisecond
            rate += 0.001
            credit += rate
            while credit >= 1 {
                bench.enqueue(flow: 5, bytes: 1250, now: now, flags: .ecnCapable)
                credit -= 1
            }
            var delay: UInt64 = 0
            if let packet = bench.queue.dequeue(now: now, react: { _ in marks ? .marked : .drop }) {
                delay = now - packet.enqueuedAt
                bench.cache.give(packet)
            }
            delays.append(delay)
            let counts = bench.queue.counts
            if counts.congestion + counts.marked > signals {
                signals = counts.congestion + counts.marked
                rate = max(rate / 2, 0.1)
            }
            _ = bench.dropped()
        }
        let counts = bench.queue.counts
        #expect(marks ? counts.congestion == 0 && counts.marked > 10 : counts.marked == 0 && counts.congestion > 10)
        #expect(counts.queueFull == 0)
        let settled = delays.dropFirst(5_000).sorted()
        #expect(settled[settled.count / 2] < 20 * millisecond)
        bench.finish()
    }

    @Test func shortBurstsAreLeftAlone() {
        var bench = Bench()
        for burst in 0..<20 {
            let start = UInt64(burst) * 1_000 * millisecond
            for _ in 0..<90 { bench.enqueue(flow: 1, bytes: 1200, now: start) }
            for step in 0..<90 { _ = bench.dequeue(now: start + UInt64(step) * millisecond) }
        }
        let counts = bench.queue.counts
        #expect(counts == .init())
        bench.finish()
    }

    /// At 10 Mbit/s a super-packet takes 52 ms: two in a row are no standing queue, but they would be for a 5 ms target.
    @Test(arguments: [(UInt64(1_250_000), false), (1_250_000_000, true)])
    func targetHoldsOneSuperPacket(rate: UInt64, signals: Bool) {
        var bench = Bench()
        bench.queue.drainBytesPerSecond = rate
        var now: UInt64 = 0
        for _ in 0..<3 { bench.enqueue(flow: 1, bytes: 65_000, now: now) }
        for _ in 0..<60 {
            now += 26 * millisecond
            _ = bench.dequeue(now: now)
            bench.enqueue(flow: 1, bytes: 32_500, now: now)
            bench.enqueue(flow: 1, bytes: 32_500, now: now)
            now += 26 * millisecond
            _ = bench.dequeue(now: now)
        }
        let drops = bench.queue.counts.congestion
        #expect(
            CoDelParameters(largestPacketBytes: 65_000, drainBytesPerSecond: rate).target == (signals ? 5 : 52)
                * millisecond)
        if signals { #expect(drops > 0) }
        bench.finish()
    }

    @Test func shortensInsteadOfDropping() {
        var bench = Bench(limits: .init(bytes: 64 << 20, packets: 2000))
        for tag in 0..<100 { bench.enqueue(flow: 1, bytes: 64_000, tag: UInt16(tag)) }
        var tags: [UInt16] = []
        var shortened = 0
        var now = 50 * millisecond
        while let sent = bench.dequeue(now: now, react: { $0.setLength($0.length - 1000) ? .shortened : .drop }) {
            tags.append(sent.tag)
            if sent.bytes == 63_000 { shortened += 1 }
            now += 20 * millisecond
        }
        #expect(tags == Array(0..<100))
        let counts = bench.queue.counts
        #expect(shortened > 0 && counts == .init(congestion: UInt64(shortened)))
        let account = bench.account
        #expect(account == [0, 0, 1])
        bench.finish()
    }

    /// Random traffic against plain arrays: bytes and packets agree after every step, order holds within a flow, nothing is lost uncounted.
    @Test(arguments: 0..<12)
    func agreesWithModel(seed: UInt64) {
        var random = SeededGenerator(state: seed)
        var bench = Bench(
            limits: .init(bytes: 300_000, packets: 60), waitingLimits: .init(bytes: 100_000, packets: 20))
        var model: [UInt32: [Sent]] = [:]
        var now: UInt64 = 0
        var tag: UInt16 = 0
        var enqueued = 0
        var seen = 0
        for _ in 0..<4000 {
            now += random.next() % (20 * millisecond)
            switch random.next() % 16 {
            case 0...7:
                let bytes = Int(random.next() % 5 == 0 ? random.next() % 65_000 : random.next() % 1500) + 1
                // Flows 3 and 259 share a bucket, as hashes do.
                let flow = [1, 2, 3, 259, 77][Int(random.next() % 5)] as UInt32
                tag &+= 1
                enqueued += 1
                model[flow & 255, default: []].append(Sent(flow: flow, bytes: bytes, tag: tag))
                bench.enqueue(flow: flow, bytes: bytes, tag: tag, now: now)
            case 8...13:
                let reaction = [FlowQueue.Reaction.marked, .drop, .drop][Int(random.next() % 3)]
                let sent = bench.dequeue(now: now, react: { _ in reaction })
                if let sent {
                    // What the model has in front of it must be among the dropped.
                    let bucket = sent.flow & 255
                    let at = model[bucket]?.firstIndex(of: sent)
                    guard let at else {
                        Issue.record("\(sent) was never queued, or out of order")
                        break
                    }
                    let drops = bench.dropped()
                    #expect(model[bucket]?[..<at].allSatisfy { drops.contains($0.tag) } == true)
                    model[bucket]?.remove(at: at)
                    for key in model.keys { model[key]?.removeAll { drops.contains($0.tag) } }
                    seen += drops.count + 1
                }
            case 14:
                bench.queue.isWaiting.toggle()
                bench.queue.dropEnqueued(before: now > 400 * millisecond ? now - 400 * millisecond : 0)
            default:
                bench.queue.trim()
            }
            let drops = bench.dropped()
            seen += drops.count
            for key in model.keys { model[key]?.removeAll { drops.contains($0.tag) } }
            let left = model.values.flatMap { $0 }
            let account = bench.account
            #expect(account == [left.reduce(0) { $0 + $1.bytes }, left.count, left.isEmpty ? 1 : 0])
            #expect(account[0] <= 300_000 && account[1] <= 60)
        }
        let counts = bench.queue.counts
        #expect(seen + bench.account[1] == enqueued)
        #expect(counts.queueFull + counts.congestion + counts.expired <= UInt64(seen))
        #expect(counts.queueFull > 0 && counts.congestion > 0 && counts.expired > 0)
        bench.finish()
    }
}
