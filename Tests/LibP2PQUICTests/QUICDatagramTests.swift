import LibP2PCore
import NIOCore
import Synchronization
import TestKit
import Testing

@testable import LibP2PQUIC

/// Writes datagrams down.
final class DatagramJournal: DatagramReceiver, Sendable {
    let datagrams = Journal<[UInt8]>()
    let sizes = Journal<Void>()
    let writable = Journal<Void>()

    func received(_ datagrams: borrowing DatagramBatch) {
        datagrams.forEach { self.datagrams.write([UInt8]($0)) }
    }
    func maximumDatagramSizeChanged() { self.sizes.write(()) }
    func datagramsWritable() { self.writable.write(()) }
}

/// Counts from 0.
final class Counter: Sendable {
    private let value = Atomic<Int>(0)
    func next() -> Int { self.value.add(1, ordering: .relaxed).oldValue }
}

@Suite(.timeLimit(.minutes(15))) struct QUICDatagramTests {
    private static func batch(_ payloads: [[UInt8]]) -> DatagramBatch {
        var batch = DatagramBatch()
        for payload in payloads { batch.append(payload) }
        return batch
    }

    @Test func batchesArrive() async throws {
        let pair = try await QUICPair()
        let (here, there) = (DatagramJournal(), DatagramJournal())
        try await pair.outbound.onLoop { $0.datagramReceiver = here }
        try await pair.inbound.onLoop { $0.datagramReceiver = there }
        let payloads = (0..<40).map { pattern(1 + $0 * 20, seed: UInt64($0) + 1) }
        try await pair.outbound.onLoop { $0.sendDatagrams(Self.batch(payloads)) }
        #expect(Set(await there.datagrams.wait(forCount: 40)) == Set(payloads))
        try await pair.inbound.onLoop { $0.sendDatagrams(Self.batch(payloads)) }
        #expect(Set(await here.datagrams.wait(forCount: 40)) == Set(payloads))
        _ = try await pair.outbound.probe().get()
        let counters = try await pair.outbound.onLoop { $0.datagramCounters }
        #expect(counters.sent == 40)
        #expect(counters.received == 40)
        #expect(counters.tooLarge == 0)
        try await pair.close()
    }

    @Test func sizesFollowThePath() async throws {
        let pair = try await QUICPair()
        let (here, there) = (DatagramJournal(), DatagramJournal())
        try await pair.inbound.onLoop { $0.datagramReceiver = there }
        try await pair.outbound.onLoop { $0.datagramReceiver = here }
        // The path is tried out, and holds more than at first.
        while try await pair.outbound.onLoop({ $0.maximumDatagramSize }) < 1300 {
            await here.sizes.wait(forCount: here.sizes.entries.count + 1)
        }
        let maximum = try await pair.outbound.onLoop { $0.maximumDatagramSize }
        #expect(maximum < 1452)
        try await pair.outbound.onLoop {
            $0.sendDatagrams(Self.batch([pattern(maximum), pattern(maximum + 1), pattern(3000), [9]]))
        }
        #expect(await there.datagrams.wait(forCount: 2) == [pattern(maximum), [9]])
        let counters = try await pair.outbound.onLoop { $0.datagramCounters }
        #expect(counters.sent == 2)
        #expect(counters.tooLarge == 2)
        try await pair.close()
    }

    @Test func whatNobodyWantsIsCounted() async throws {
        let pair = try await QUICPair()
        try await pair.outbound.onLoop { $0.sendDatagrams(Self.batch([[1], [2], [3]])) }
        while try await pair.inbound.onLoop({ $0.datagramCounters.unwanted }) < 3 {
            _ = try await pair.outbound.probe().get()
        }
        try await pair.close()
    }

    @Test func lossIsCounted() async throws {
        let forwarder = Forwarder()
        let pair = try await QUICPair(through: forwarder)
        let there = DatagramJournal()
        try await pair.inbound.onLoop { $0.datagramReceiver = there }
        let counter = Counter()
        forwarder.treat { direction, bytes in
            direction == .toListener && bytes.count > 500 && counter.next() % 4 == 0 ? [] : [bytes]
        }
        for round in 0..<20 {
            try await pair.outbound.onLoop {
                $0.sendDatagrams(Self.batch((0..<5).map { pattern(1000, seed: UInt64(round * 5 + $0) + 1) }))
            }
            _ = try await pair.outbound.probe().get()
        }
        var counters = try await pair.outbound.onLoop { $0.datagramCounters }
        while counters.acknowledged + counters.lost < counters.sent {
            _ = try await pair.outbound.probe().get()
            counters = try await pair.outbound.onLoop { $0.datagramCounters }
        }
        #expect(counters.lost > 0)
        #expect(counters.acknowledged > 0)
        #expect(counters.sent + counters.expired == 100)
        try await pair.close()
        try await forwarder.stop()
    }

    @Test func datagramsGoBeforeStreams() async throws {
        let pair = try await QUICPair(dialer: { $0.datagramPatience = .minutes(5) })
        let there = DatagramJournal()
        try await pair.inbound.onLoop { $0.datagramReceiver = there }
        let (near, far) = try await pair.openStream()
        try await near.send(pattern(4 << 20))
        try await pair.outbound.onLoop { $0.sendDatagrams(Self.batch([[42]])) }
        #expect(await there.datagrams.wait(forCount: 1) == [[42]])
        await far.receiver.bytes(atLeast: 4 << 20)
        try await pair.close()
    }

    // MARK: The queue

    @Test func theQueueKeepsOrderAndTime() {
        var (queue, counters) = (DatagramQueue(patience: .nanoseconds(20)), DatagramCounters())
        func first(_ maximum: Int = 2000) -> [UInt8]? { queue.first(atMost: maximum, &counters).map { [UInt8]($0) } }
        #expect(first() == nil)
        queue.append(Self.batch([[1], [2, 2], []]), now: 100, into: &counters)
        queue.append(Self.batch([pattern(50), [4]]), now: 110, into: &counters)
        #expect(first() == [1])
        queue.removeFirst()
        #expect(first() == [2, 2])
        queue.dropExpired(now: 119, into: &counters)
        #expect(first() == [2, 2])
        queue.dropExpired(now: 120, into: &counters)
        #expect(counters.expired == 2)
        #expect(first(10) == [4])
        #expect(counters.tooLarge == 1)
        queue.removeFirst()
        #expect(queue.isEmpty)
        queue.removeFirst()
        #expect(first() == nil)
    }

    @Test func theQueueIsBounded() {
        var (queue, counters) = (DatagramQueue(patience: .seconds(1)), DatagramCounters())
        let batch = Self.batch((0..<100).map { _ in pattern(1000) })
        for _ in 0..<20 { queue.append(batch, now: 0, into: &counters) }
        #expect(counters.overflowed == 1000)
        var count = 0
        while queue.first(atMost: 2000, &counters) != nil {
            queue.removeFirst()
            count += 1
        }
        #expect(count == 1000)
        // Whatever has gone makes room.
        queue.append(batch, now: 0, into: &counters)
        #expect(counters.overflowed == 1000)
    }

    @Test func aBatchHoldsWhatWasPutIn() {
        var batch = DatagramBatch()
        let isTooLong = !batch.append([UInt8](repeating: 0, count: 65_536))
        #expect(isTooLong)
        for _ in 0..<2 {
            #expect(batch.isEmpty)
            let payloads: [[UInt8]] = [[1, 2], [], pattern(65_535), [3]]
            for payload in payloads {
                let isAdded = batch.append(payload)
                #expect(isAdded)
            }
            var found: [[UInt8]] = []
            batch.forEach { found.append([UInt8]($0)) }
            #expect(found == payloads)
            #expect(batch.count == 4)
            batch.removeAll()
        }
    }
}
