import LibP2PCore
import NIOCore
import NIOEmbedded
import TestKit
import Testing

@testable import LibP2PConnection

@Suite(.timeLimit(.minutes(1))) struct ChannelByteStreamTests {
    /// Notes what it is told, and may push back in the middle of a burst.
    final class Owner: ByteStreamReceiver {
        var told: [String] = []
        var onInput: (() -> Void)?

        func received(_ bytes: ByteBuffer) {
            self.told.append(String(buffer: bytes))
            self.onInput?()
        }
        func receiveComplete() { self.told.append("complete") }
        func writabilityChanged() { self.told.append("writability") }
        func inputEnded() { self.told.append("end") }
        func closed(_ error: (any Error)?) { self.told.append("closed \(error.map { "\($0)" } ?? "orderly")") }
    }

    let channel = EmbeddedChannel()
    let stream: ChannelByteStream
    let owner = Owner()

    init() throws {
        self.stream = ChannelByteStream(eventLoop: self.channel.eventLoop)
        try self.channel.pipeline.syncOperations.addHandler(self.stream)
        try self.channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
        self.stream.receiver = self.owner
    }

    func arrive(_ pieces: String...) {
        for piece in pieces { self.channel.pipeline.fireChannelRead(ByteBuffer(string: piece)) }
        self.channel.pipeline.fireChannelReadComplete()
        self.channel.embeddedEventLoop.run()
    }

    @Test func inputWaitsUntilItIsWanted() {
        self.arrive("a", "b")
        #expect(self.owner.told == [])
        self.stream.setReading(true)
        self.channel.embeddedEventLoop.run()
        #expect(self.owner.told == ["a", "b", "complete"])
        self.arrive("c")
        #expect(self.owner.told == ["a", "b", "complete", "c", "complete"])
    }

    @Test func pushingBackInABurstKeepsTheRestAndStillCompletesIt() {
        self.stream.setReading(true)
        self.owner.onInput = { self.stream.setReading(false) }
        self.arrive("a", "b", "c")
        #expect(self.owner.told == ["a", "complete"])
        self.owner.onInput = nil
        self.stream.setReading(true)
        self.channel.embeddedEventLoop.run()
        #expect(self.owner.told == ["a", "complete", "b", "c", "complete"])
    }

    @Test func theEndOfInputComesAfterTheInput() {
        self.channel.pipeline.fireChannelRead(ByteBuffer(string: "a"))
        self.channel.pipeline.fireChannelReadComplete()
        self.channel.pipeline.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
        #expect(self.owner.told == [])
        self.stream.setReading(true)
        self.channel.embeddedEventLoop.run()
        #expect(self.owner.told == ["a", "complete", "end"])
    }

    struct Broken: Error, CustomStringConvertible { var description: String { "broken" } }

    @Test(arguments: [true, false]) func theEndOfAllDoesNotWait(isReading: Bool) throws {
        if isReading { self.stream.setReading(true) }
        self.channel.pipeline.fireChannelRead(ByteBuffer(string: "a"))
        self.channel.pipeline.fireErrorCaught(Broken())
        self.channel.embeddedEventLoop.run()
        #expect(self.owner.told.filter { $0 != "complete" } == ["a", "closed broken"])
        // Nothing is told twice, and calls on what is gone do nothing.
        self.stream.setReading(true)
        self.stream.write(ByteBuffer(string: "x"))
        self.stream.flush()
        self.stream.closeWrite()
        self.stream.close(nil)
        self.channel.embeddedEventLoop.run()
        #expect(self.owner.told.filter { $0 != "complete" } == ["a", "closed broken"])
        #expect(try self.channel.readOutbound(as: ByteBuffer.self) == nil)
        #expect(!self.stream.isWritable)
    }

    @Test func theFirstReasonCounts() {
        self.stream.close(Broken())
        self.stream.close(nil)
        self.channel.embeddedEventLoop.run()
        #expect(self.owner.told == ["closed broken"])
    }

    @Test func whoComesLateIsToldOfTheEnd() {
        self.stream.receiver = nil
        self.stream.close(nil)
        self.channel.embeddedEventLoop.run()
        self.stream.receiver = self.owner
        self.channel.embeddedEventLoop.run()
        #expect(self.owner.told == ["closed orderly"])
    }

    @Test func nothingGoesOutBeforeAFlush() throws {
        self.stream.write(ByteBuffer(string: "a"))
        self.stream.write(ByteBuffer(string: "b"))
        #expect(try self.channel.readOutbound(as: ByteBuffer.self) == nil)
        self.stream.flush()
        #expect(try self.channel.readOutbound(as: ByteBuffer.self) == ByteBuffer(string: "a"))
        #expect(try self.channel.readOutbound(as: ByteBuffer.self) == ByteBuffer(string: "b"))
    }

    /// On a real socket: what is queued goes out before the end of our direction, and the other direction lives on.
    @Test func endingOurDirectionSendsWhatIsQueued() async throws {
        let listener = try await RawListener()
        let near = try await RawConnection.connect(to: listener.address)
        let far = try await listener.connection()
        let payload = [UInt8](repeating: 7, count: 3_000_000)
        try await near.stream.onLoop {
            $0.write(ByteBuffer(bytes: payload))
            $0.closeWrite()
        }
        #expect(await far.receiver.bytes(atLeast: payload.count) == payload)
        await far.receiver.calls.wait { calls in calls.contains { if case .inputEnd = $0 { true } else { false } } }
        try await far.send([1, 2, 3])
        #expect(await near.receiver.bytes(atLeast: 3) == [1, 2, 3])
        try await far.stream.onLoop { $0.closeWrite() }
        #expect(await near.receiver.closed() == nil)
        #expect(await far.receiver.closed() == nil)
        try await listener.channel.close().get()
    }

    /// Who does not read pushes the sender back.
    @Test func whoDoesNotReadPushesBack() async throws {
        let listener = try await RawListener()
        let near = try await RawConnection.connect(to: listener.address)
        let far = try await listener.connection()
        try await far.stream.onLoop { $0.setReading(false) }
        let megabyte = ByteBuffer(repeating: 7, count: 1 << 20)
        // More than any socket buffers hold.
        let count = 64
        try await near.stream.onLoop { stream in
            for _ in 0..<count { stream.write(megabyte) }
            stream.flush()
        }
        #expect(try await near.stream.onLoop { $0.isWritable } == false)
        try await far.stream.onLoop { $0.setReading(true) }
        await near.receiver.calls.wait { calls in calls.contains { if case .writability = $0 { true } else { false } } }
        #expect(await far.receiver.bytes(atLeast: count << 20).count == count << 20)
        for end in [near, far] { end.close() }
        try await listener.channel.close().get()
    }
}
