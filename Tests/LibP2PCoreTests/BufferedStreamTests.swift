import LibP2PConnection
import LibP2PCore
import NIOCore
import NIOEmbedded
import TestKit
import Testing

@Suite(.timeLimit(.minutes(1))) struct BufferedStreamTests {
    /// A buffered stream, and the far end, which the test plays.
    struct Ends {
        let clock = NIOAsyncTestingEventLoop()
        let near: MemoryByteStream
        let far: MemoryByteStream
        let stream: BufferedStream

        init(capacity: Int = 64 * 1024, pieces: MemoryByteStream.Pieces = .whole) async throws {
            let (near, far) = MemoryByteStream.pair(on: self.clock, capacity: capacity, pieces: pieces)
            self.near = near
            self.far = far
            self.stream = try await self.clock.submit { BufferedStream(near) }.get()
        }

        func send(_ bytes: [UInt8], end: Bool = false) async throws {
            try await self.far.onLoop { far in
                far.write(ByteBuffer(bytes: bytes))
                far.flush()
                if end { far.closeWrite() }
            }
        }
    }

    @Test(arguments: 1...8) func readsWhateverTheCuts(size: Int) async throws {
        let ends = try await Ends(pieces: .atMost(size))
        var sent = ByteBuffer(bytes: [1, 2, 3, 4, 5])
        sent.writeLengthPrefixed([6, 7, 8])
        sent.writeLengthPrefixed([])
        sent.writeBytes([9, 10])
        try await ends.send(Array(sent.readableBytesView), end: true)
        #expect(try await ends.stream.read(exactly: 5) == ByteBuffer(bytes: [1, 2, 3, 4, 5]))
        #expect(try await ends.stream.readMessage(atMost: 3) == ByteBuffer(bytes: [6, 7, 8]))
        #expect(try await ends.stream.readMessage(atMost: 3) == ByteBuffer())
        #expect(try await ends.stream.readToEnd(atMost: 2) == ByteBuffer(bytes: [9, 10]))
        #expect(try await ends.stream.readToEnd(atMost: 2) == ByteBuffer())
        await #expect(throws: StreamReadError.ended(afterBytes: 0)) { try await ends.stream.read(exactly: 1) }
    }

    @Test func aLimitIsKeptAndTheRemotePushedBack() async throws {
        let ends = try await Ends(capacity: 100)
        try await ends.send([0xc8, 0x01])
        await #expect(throws: StreamReadError.tooLong(limit: 199)) { try await ends.stream.readMessage(atMost: 199) }
        // Nothing is read any more: what the remote sends stays its own.
        try await ends.send(Array(repeating: 0, count: 1000))
        #expect(try await ends.far.onLoop { $0.isWritable } == false)
        await #expect(throws: StreamReadError.tooLong(limit: 10)) { try await ends.stream.readToEnd(atMost: 10) }
    }

    @Test func readsOnlyWhileAReadWaits() async throws {
        let ends = try await Ends(capacity: 4)
        try await ends.send([1, 2, 3, 4, 5, 6])
        #expect(try await ends.far.onLoop { $0.isWritable } == false)
        #expect(try await ends.stream.read(exactly: 2) == ByteBuffer(bytes: [1, 2]))
        #expect(try await ends.far.onLoop { $0.isWritable })
    }

    @Test func theEndInTheMiddleIsAnError() async throws {
        let ends = try await Ends()
        try await ends.send([3, 1, 2], end: true)
        await #expect(throws: StreamReadError.ended(afterBytes: 3)) { try await ends.stream.readMessage(atMost: 3) }
        #expect(try await ends.stream.readToEnd(atMost: 3) == ByteBuffer(bytes: [3, 1, 2]))
    }

    struct Cut: Error, Equatable {}

    @Test func whyTheStreamClosedIsTheReadsError() async throws {
        let ends = try await Ends()
        try await ends.send([1])
        #expect(try await ends.stream.read(exactly: 1).readableBytes == 1)
        let pending = Task { try await ends.stream.readToEnd(atMost: 10) }
        try await ends.far.onLoop { $0.cut(Cut()) }
        await #expect(throws: Cut()) { try await pending.value }
        await #expect(throws: Cut()) { try await ends.stream.read(exactly: 1) }
    }

    @Test func aSecondReadIsRefused() async throws {
        let ends = try await Ends()
        let first = Task { try await ends.stream.read(exactly: 1) }
        let second = Task { try await ends.stream.read(exactly: 1) }
        // Which of them waits is the scheduler's choice; the other one fails at once.
        let results = Journal<Result<ByteBuffer, any Error>>()
        for task in [first, second] { Task { results.write(await task.result) } }
        let early = try #require(await results.wait(forCount: 1).first)
        #expect(throws: StreamReadError.anotherReadIsWaiting) { try early.get() }
        try await ends.send([7])
        #expect(try await results.wait(forCount: 2).last?.get() == ByteBuffer(bytes: [7]))
    }

    @Test func aCancelledReadConsumesNothing() async throws {
        let ends = try await Ends()
        try await ends.send([1, 2, 3])
        let read = Task { try await ends.stream.read(exactly: 4) }
        read.cancel()
        await #expect(throws: CancellationError.self) { try await read.value }
        #expect(try await ends.stream.read(exactly: 3) == ByteBuffer(bytes: [1, 2, 3]))
    }

    @Test func aReadOfACancelledTaskEnds() async throws {
        let ends = try await Ends()
        let read = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            return try await ends.stream.read(exactly: 1)
        }
        await #expect(throws: CancellationError.self) { try await read.value }
        try await ends.send([5])
        #expect(try await ends.stream.read(exactly: 1) == ByteBuffer(bytes: [5]))
    }

    @Test func aTimeLimitClosesTheStream() async throws {
        let ends = try await Ends()
        try await ends.send([1])
        let started = Journal<Void>()
        let read = Task {
            try await ends.stream.within(.seconds(3)) { stream in
                _ = try await stream.read(exactly: 1)
                started.write(())
                return try await stream.read(exactly: 1)
            }
        }
        await started.wait(forCount: 1)
        await ends.clock.advanceTime(by: .milliseconds(2999))
        #expect(try await ends.near.onLoop { $0.isClosed } == false)
        await ends.clock.advanceTime(by: .milliseconds(1))
        await #expect(throws: StreamReadError.timedOut) { try await read.value }
        #expect(try await ends.far.onLoop { $0.isClosed })
    }

    @Test func aTimeLimitThatWasKeptLeavesNoTrace() async throws {
        let ends = try await Ends()
        try await ends.send([1])
        _ = try await ends.stream.within(.seconds(3)) { try await $0.read(exactly: 1) }
        await ends.clock.advanceTime(by: .seconds(10))
        #expect(try await ends.near.onLoop { $0.isClosed } == false)
    }

    @Test func writesMessagesAndEnds() async throws {
        let ends = try await Ends()
        let receiver = try await ends.far.record()
        ends.stream.writeMessage([8, 9])
        ends.stream.write(ByteBuffer(bytes: [1]))
        ends.stream.closeWrite()
        await receiver.calls.wait { calls in calls.contains { if case .inputEnd = $0 { true } else { false } } }
        #expect(receiver.bytes == [2, 8, 9, 1])
        ends.stream.close()
        #expect(await receiver.closed() == nil, "both directions have ended")
    }
}
