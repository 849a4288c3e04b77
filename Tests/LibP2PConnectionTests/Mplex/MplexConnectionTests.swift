import LibP2PCore
import NIOCore
import NIOEmbedded
import Testing

@testable import LibP2PConnection

/// Two whole sessions back to back over a pipe, on one loop whose clock moves by hand.
@Suite struct MplexConnectionTests {
    static func pair(
        capacity: Int = 64 * 1024, pieces: MemoryByteStream.Pieces = .whole,
        _ configure: (inout MplexConfiguration) -> Void = { _ in }
    ) -> SessionPair {
        var configuration = MplexConfiguration()
        configure(&configuration)
        return SessionPair(muxer: MplexMuxer(configuration: configuration), capacity: capacity, pieces: pieces)
    }

    @Test(arguments: 1...30) func bytesArriveInOrderAndComplete(seed: UInt64) {
        MuxerModel.check(MplexMuxer(), seed: seed)
    }

    @Test func carriesBothDirectionsAndEndsThem() throws {
        for pieces in [MemoryByteStream.Pieces.whole, .atMost(1), .lengths([12, 1, 5, 700])] {
            let pair = Self.pair(pieces: pieces)
            let (near, far) = try pair.stream()
            #expect(near.stream.id == far.stream.id)
            #expect(near.stream.role == .dialer && far.stream.role == .listener)
            near.send("ping")
            pair.run()
            #expect(far.text == "ping")
            far.send("pong")
            far.stream.closeWrite()
            pair.run()
            #expect(near.text == "pong")
            #expect(near.events.last == "ended")
            near.send("!")
            near.stream.closeWrite()
            pair.run()
            #expect(far.text == "ping!")
            #expect(near.events.last == "closed" && far.events.last == "closed")
            #expect(near.error == nil && far.error == nil)
            #expect(pair.dialer.streamCount == 0 && pair.listener.streamCount == 0)
            pair.end()
        }
    }

    @Test func streamsOfBothSidesHaveDifferentNumbers() throws {
        let pair = Self.pair()
        var ids: Set<UInt64> = []
        for session in [pair.dialer, pair.listener, pair.dialer, pair.listener] {
            let stream = try session.openStream()
            stream.flush()
            ids.insert(stream.id)
        }
        pair.run()
        #expect(ids.count == 4)
        #expect(Set((pair.nearDelegate.accepted + pair.farDelegate.accepted).map(\.stream.id)) == ids)
        pair.end()
    }

    @Test func aResetReachesTheOtherSideWithoutItsReason() throws {
        let pair = Self.pair()
        let (near, far) = try pair.stream()
        near.send("lost or not")
        near.stream.reset(.supplanted)
        #expect(near.error as? StreamResetError == StreamResetError(code: .supplanted, byRemote: false))
        pair.run()
        #expect(far.error as? StreamResetError == StreamResetError(code: .unspecified, byRemote: true))
        #expect(!near.stream.isWritable && !far.stream.isWritable)
        far.send("ignored")
        far.stream.setReading(true)
        far.stream.close(nil)
        far.stream.reset(.unspecified)
        pair.run()
        #expect(far.events.filter { $0 == "closed" }.count == 1)
        pair.end()
    }

    @Test func anOrderlyCloseLetsTheRemoteReadAll() throws {
        let pair = Self.pair()
        let (near, far) = try pair.stream()
        far.stream.setReading(false)
        near.send("all of it")
        near.stream.closeWrite()
        near.stream.close(nil)
        #expect(near.events.last == "closed" && near.error == nil)
        pair.run()
        #expect(far.text.isEmpty)
        far.stream.setReading(true)
        pair.run()
        #expect(far.text == "all of it")
        far.stream.closeWrite()
        pair.run()
        #expect(far.events.last == "closed" && far.error == nil)
        pair.end()
    }

    @Test func aStreamWithoutReceiverIsReset() throws {
        let pair = Self.pair()
        pair.farDelegate.takesStreams = false
        let near = StreamRecorder(try pair.dialer.openStream())
        near.send("x")
        pair.run()
        #expect(near.error as? StreamResetError == StreamResetError(code: .unspecified, byRemote: true))
        #expect(pair.listener.streamCount == 0)
        pair.end()
    }

    @Test func receiversMayDoAnythingFromWithin() throws {
        let pair = Self.pair(pieces: .atMost(3))
        let (near, far) = try pair.stream()
        let third = StreamRecorder(try pair.dialer.openStream())
        far.onReceived = { recorder in
            recorder.send("echo")
            recorder.stream.setReading(false)
            recorder.stream.setReading(true)
            if recorder.text.count > 4 { recorder.stream.reset(.rateLimited) }
        }
        near.onReceived = { _ in third.send("more") }
        near.onClosed = { recorder in
            recorder.send("too late")
            pair.dialer.close(.shutdown)
        }
        near.send("1234567890")
        pair.run()
        #expect(near.error as? StreamResetError == StreamResetError(code: .unspecified, byRemote: true))
        #expect(third.error as? ConnectionClosedError == ConnectionClosedError(code: .shutdown, byRemote: false))
        #expect(pair.nearDelegate.isClosed && pair.farDelegate.isClosed)
    }

    // MARK: Back-pressure

    @Test func messagesAreMadeOnlyWhileThePipeTakesThem() throws {
        let pair = Self.pair(capacity: 100_000)
        let (near, far) = try pair.stream()
        pair.listenerPipe.isStalled = true
        near.stream.write(ByteBuffer(repeating: 1, count: 250_000))
        near.stream.flush()
        pair.run()
        #expect(pair.dialerPipe.bytesWritten <= 100_000 + 65_519 + 200)
        #expect(!near.stream.isWritable)
        #expect(near.events == ["writability"])
        pair.listenerPipe.isStalled = false
        pair.run()
        #expect(far.count == 250_000)
        #expect(near.stream.isWritable)
        #expect(near.events == ["writability", "writability"])
        pair.end()
    }

    @Test func aStreamThatAskedLearnsWhenThePipeOpens() throws {
        let pair = Self.pair(capacity: 10_000)
        let (near, _) = try pair.stream()
        let (asking, _) = try pair.stream()
        pair.listenerPipe.isStalled = true
        near.stream.write(ByteBuffer(repeating: 1, count: 50_000))
        near.stream.flush()
        #expect(!asking.stream.isWritable)
        pair.listenerPipe.isStalled = false
        pair.run()
        #expect(asking.events.last == "writability" && asking.stream.isWritable)
        pair.end()
    }

    /// There is no flow control: the pipe fills up behind a stream that does not read, and everybody waits.
    @Test func aSlowReaderHoldsEverybodyUpAndThenLoses() throws {
        let pair = Self.pair { $0.streamBufferBytes = 50_000 }
        let (slow, farSlow) = try pair.stream()
        let (fast, farFast) = try pair.stream()
        farSlow.stream.setReading(false)
        var offered = 0
        while slow.stream.isWritable, offered < 4_000_000 {
            slow.stream.write(ByteBuffer(repeating: 2, count: 10_000))
            slow.stream.flush()
            offered += 10_000
            pair.run()
        }
        #expect(offered < 1_000_000, "nothing pushes back")
        fast.send("unharmed")
        pair.run()
        #expect(farFast.text.isEmpty)
        pair.loop.advanceTime(by: .milliseconds(4999))
        #expect(farSlow.error == nil)
        pair.loop.advanceTime(by: .milliseconds(1))
        #expect((farSlow.error as? StreamResetError)?.code == .resourceLimitExceeded)
        #expect(slow.error as? StreamResetError == StreamResetError(code: .unspecified, byRemote: true))
        #expect(farFast.text == "unharmed")
        pair.end()
    }

    @Test func aReaderThatIsOnlyALittleSlowLosesNothing() throws {
        let pair = Self.pair { $0.streamBufferBytes = 50_000 }
        let (near, far) = try pair.stream()
        far.stream.setReading(false)
        for _ in 0..<3 {
            near.stream.write(ByteBuffer(repeating: 2, count: 200_000))
            near.stream.flush()
            pair.run()
            pair.loop.advanceTime(by: .seconds(4))
            far.stream.setReading(true)
            pair.run()
            far.stream.setReading(false)
        }
        #expect(far.count == 600_000 && far.error == nil)
        pair.loop.advanceTime(by: .minutes(1))
        #expect(far.error == nil)
        pair.end()
    }

    // MARK: The end

    @Test func thereAreNoPings() throws {
        let pair = Self.pair()
        #expect(throws: MplexError.noPings) { try pair.dialer.ping().wait() }
        #expect(pair.dialer.roundTripTime == nil)
        pair.end()
    }

    @Test func closingTellsBothSidesAndThenThePipe() throws {
        for code in [ConnectionErrorCode.none, .shutdown] {
            let pair = Self.pair()
            let (near, far) = try pair.stream()
            pair.dialer.close(code)
            pair.dialer.close(.gated)
            pair.run()
            #expect(near.error as? ConnectionClosedError == ConnectionClosedError(code: code, byRemote: false))
            #expect(far.error as? ConnectionClosedError == ConnectionClosedError(code: .none, byRemote: true))
            #expect(pair.nearDelegate.isClosed && pair.farDelegate.isClosed && pair.farDelegate.error == nil)
            #expect(pair.nearDelegate.streamsOpenAtEnd == 0)
            pair.loop.advanceTime(by: .seconds(2))
            #expect(pair.dialerPipe.isClosed && pair.listenerPipe.isClosed)
            #expect(throws: MuxerError.sessionClosed) { try pair.dialer.openStream() }
        }
    }

    @Test func anEndThatNobodySeesIsGivenUp() throws {
        let pair = Self.pair()
        pair.listenerPipe.isStalled = true
        pair.dialer.close(.none)
        pair.run()
        #expect(!pair.dialerPipe.isClosed)
        pair.loop.advanceTime(by: .seconds(1))
        #expect(pair.dialerPipe.isClosed)
    }

    @Test func aCutEndsEverythingWithItsReason() throws {
        let pair = Self.pair()
        let (near, far) = try pair.stream()
        pair.dialerPipe.cut(PipeFault())
        pair.run()
        #expect(near.error is PipeFault && far.error is PipeFault)
        #expect(pair.nearDelegate.error is PipeFault && pair.farDelegate.error is PipeFault)
    }

    @Test func anAbortSaysNothing() throws {
        let pair = Self.pair()
        let (near, far) = try pair.stream()
        near.stream.write(ByteBuffer(bytes: [1]))
        pair.dialer.abort()
        #expect(near.error as? TransportError == .aborted)
        #expect(pair.dialerPipe.closeReason as? TransportError == .aborted && pair.nearDelegate.isClosed)
        pair.run()
        #expect(far.error != nil && far.bytes.isEmpty)
    }

    @Test func aBrokenProtocolEndsThePipe() throws {
        let loop = EmbeddedEventLoop()
        let (pipe, remote) = MemoryByteStream.pair(on: loop)
        let session = MplexMuxer().multiplex(pipe, role: .listener)
        let delegate = SessionRecorder()
        session.delegate = delegate
        session.start()
        let tap = PipeTap(remote)
        remote.write(ByteBuffer(bytes: mplex(0, 1) + mplex(7, 1)))
        remote.flush()
        loop.run()
        #expect(delegate.error as? MplexError == .unknownFlag(7))
        #expect(tap.bytes.isEmpty && pipe.isClosed)
    }

    @Test func nothingIsKeptAliveAfterTheEnd() throws {
        weak var session: (any MuxerSession)?
        weak var stream: (any MuxedStream)?
        weak var recorder: StreamRecorder?
        do {
            let pair = Self.pair()
            let (near, _) = try pair.stream()
            (session, stream, recorder) = (pair.dialer, near.stream, near)
            pair.end()
            pair.loop.advanceTime(by: .seconds(60))
        }
        #expect(session == nil && stream == nil && recorder == nil)
    }
}
