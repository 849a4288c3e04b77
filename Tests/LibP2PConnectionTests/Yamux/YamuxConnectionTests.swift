import LibP2PCore
import NIOCore
import NIOEmbedded
import Testing

@testable import LibP2PConnection

/// Two whole sessions back to back over a pipe, on one loop whose clock moves by hand.
@Suite struct YamuxConnectionTests {
    @Test func carriesBothDirectionsAndEndsThem() throws {
        for pieces in [MemoryByteStream.Pieces.whole, .atMost(1), .lengths([12, 1, 5, 700])] {
            let pair = SessionPair(pieces: pieces)
            let (near, far) = try pair.stream()
            #expect(near.stream.id == 1 && near.stream.role == .dialer && far.stream.role == .listener)
            near.send("ping")
            pair.run()
            #expect(far.text == "ping")
            #expect(far.events == ["received", "complete"] || pieces.isCut)
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

    @Test func aResetReachesTheOtherSideWithItsReason() throws {
        let pair = SessionPair()
        let (near, far) = try pair.stream()
        near.send("lost or not")
        near.stream.reset(.supplanted)
        #expect(near.error as? StreamResetError == StreamResetError(code: .supplanted, byRemote: false))
        pair.run()
        #expect(far.error as? StreamResetError == StreamResetError(code: .supplanted, byRemote: true))
        #expect(!near.stream.isWritable && !far.stream.isWritable)
        far.send("ignored")
        far.stream.setReading(true)
        far.stream.close(nil)
        far.stream.reset(.unspecified)
        pair.run()
        #expect(far.events.filter { $0 == "closed" }.count == 1)
        pair.end()
    }

    @Test func closingWithAnErrorTellsUsOurReasonAndTheRemoteItsCode() throws {
        let pair = SessionPair()
        let (near, far) = try pair.stream()
        near.stream.close(PipeFault())
        pair.run()
        #expect(near.error is PipeFault)
        #expect(far.error as? StreamResetError == StreamResetError(code: .unspecified, byRemote: true))
        let (near2, far2) = try pair.stream()
        near2.stream.close(StreamResetError(code: .rateLimited, byRemote: false))
        pair.run()
        #expect(far2.error as? StreamResetError == StreamResetError(code: .rateLimited, byRemote: true))
        pair.end()
    }

    @Test func anOrderlyCloseLetsTheRemoteReadAll() throws {
        let pair = SessionPair()
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
        let pair = SessionPair()
        pair.farDelegate.takesStreams = false
        let near = StreamRecorder(try pair.dialer.openStream())
        near.send("x")
        pair.run()
        #expect(near.error as? StreamResetError == StreamResetError(code: .unspecified, byRemote: true))
        #expect(pair.listener.streamCount == 0)
        pair.end()
    }

    @Test func aStreamBecomesNegotiatedWhenItsProtocolIsSet() throws {
        var configuration = YamuxConfiguration()
        configuration.acceptBacklog = 1
        let pair = SessionPair(configuration: configuration)
        let (_, far) = try pair.stream()
        let refused = StreamRecorder(try pair.dialer.openStream())
        refused.stream.flush()
        pair.run()
        #expect((refused.error as? StreamResetError)?.code == .resourceLimitExceeded)
        far.stream.protocolID = "/test"
        far.stream.protocolID = "/other"
        _ = try pair.stream()
        pair.end()
    }

    // MARK: Callbacks that call back

    @Test func receiversMayDoAnythingFromWithin() throws {
        let pair = SessionPair(pieces: .atMost(3))
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
        #expect(near.error as? StreamResetError == StreamResetError(code: .rateLimited, byRemote: true))
        #expect(third.error as? ConnectionClosedError == ConnectionClosedError(code: .shutdown, byRemote: false))
        #expect(pair.nearDelegate.isClosed && pair.farDelegate.isClosed)
    }

    @Test func anotherReceiverGetsTheNextByte() throws {
        let pair = SessionPair()
        let (near, far) = try pair.stream()
        let second = StreamRecorder(far.stream, takesOver: false)
        far.onReceived = { recorder in recorder.stream.receiver = second }
        near.send("first")
        pair.run()
        near.send("second")
        pair.run()
        #expect(far.text == "first" && second.text == "second")
        pair.end()
    }

    // MARK: Bursts and back-pressure

    @Test func aBurstIsAnsweredWithOneFlush() throws {
        let pair = SessionPair()
        let (near, far) = try pair.stream()
        far.onReceived = { $0.send("answer") }
        for _ in 0..<50 { near.send("question") }
        let before = pair.listenerPipe.flushCount
        pair.run()
        #expect(pair.listenerPipe.flushCount == before + 1)
        #expect(near.text.count >= 6)
        pair.end()
    }

    @Test func framesAreMadeOnlyWhileThePipeTakesThem() throws {
        let pair = SessionPair(capacity: 100_000)
        let (near, far) = try pair.stream()
        pair.listenerPipe.isStalled = true
        near.stream.write(ByteBuffer(repeating: 1, count: 250_000))
        near.stream.flush()
        pair.run()
        let written = pair.dialerPipe.bytesWritten
        #expect(written <= 100_000 + 65_519 + 200)
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
        let pair = SessionPair(capacity: 10_000)
        let (near, _) = try pair.stream()
        let (idle, _) = try pair.stream()
        let (asking, _) = try pair.stream()
        pair.listenerPipe.isStalled = true
        near.stream.write(ByteBuffer(repeating: 1, count: 50_000))
        near.stream.flush()
        #expect(!asking.stream.isWritable)
        pair.listenerPipe.isStalled = false
        pair.run()
        #expect(asking.events == ["writability"])
        #expect(idle.events.isEmpty)
        pair.end()
    }

    @Test func aRemoteThatNeverReadsStopsOnlyItsOwnStream() throws {
        let pair = SessionPair()
        let (slow, far) = try pair.stream()
        let (fast, farFast) = try pair.stream()
        far.stream.setReading(false)
        var offered = 0
        while slow.stream.isWritable, offered < 4_000_000 {
            slow.stream.write(ByteBuffer(repeating: 2, count: 10_000))
            slow.stream.flush()
            offered += 10_000
            pair.run()
        }
        #expect(offered <= 256 * 1024 + 10_000, "the window is all that a remote which does not read can take")
        fast.send("unharmed")
        pair.run()
        #expect(farFast.text == "unharmed")
        far.stream.setReading(true)
        pair.run()
        #expect(far.count == offered)
        #expect(slow.stream.isWritable)
        pair.end()
    }

    // MARK: The clock

    @Test func measuresTheRoundTripAtTheStart() throws {
        let pair = SessionPair()
        #expect(pair.dialer.roundTripTime != nil && pair.listener.roundTripTime != nil)
        let answer = pair.dialer.ping()
        pair.dialerPipe.isStalled = true
        pair.run()
        pair.loop.advanceTime(by: .milliseconds(70))
        pair.dialerPipe.isStalled = false
        pair.run()
        #expect(try answer.wait() == .milliseconds(70))
        pair.end()
    }

    @Test func idleSessionsStayAliveAndDeadOnesEnd() throws {
        let pair = SessionPair()
        let (near, far) = try pair.stream()
        for _ in 0..<600 { pair.loop.advanceTime(by: .seconds(1)) }
        #expect(!pair.nearDelegate.isClosed && !pair.farDelegate.isClosed)
        let quiet = pair.dialerPipe.bytesWritten
        #expect(quiet < 2000)
        pair.dialerPipe.isStalled = true
        pair.listenerPipe.isStalled = true
        let ping = pair.dialer.ping()
        for _ in 0..<41 { pair.loop.advanceTime(by: .seconds(1)) }
        let error = YamuxError.keepaliveTimedOut(after: .seconds(10))
        #expect(near.error as? YamuxError == error)
        #expect(far.events.last == "closed" && far.error != nil)
        #expect(pair.nearDelegate.error as? YamuxError == error)
        #expect(throws: error) { try ping.wait() }
        #expect(pair.dialerPipe.closeReason as? YamuxError == error)
        #expect(throws: MuxerError.sessionClosed) { try pair.dialer.openStream() }
        #expect(throws: MuxerError.sessionClosed) { try pair.dialer.ping().wait() }
    }

    // MARK: The end

    @Test func closingTellsBothSidesAndThenThePipe() throws {
        for code in [ConnectionErrorCode.none, .shutdown] {
            let pair = SessionPair()
            let (near, far) = try pair.stream()
            pair.dialer.close(code)
            pair.dialer.close(.gated)
            pair.run()
            #expect(near.error as? ConnectionClosedError == ConnectionClosedError(code: code, byRemote: false))
            #expect(far.error as? ConnectionClosedError == ConnectionClosedError(code: code, byRemote: true))
            let expected = code == .none ? nil : ConnectionClosedError(code: code, byRemote: true)
            #expect(pair.farDelegate.error as? ConnectionClosedError == expected)
            #expect(pair.nearDelegate.isClosed && pair.farDelegate.isClosed)
            #expect(pair.nearDelegate.streamsOpenAtEnd == 0)
            pair.loop.advanceTime(by: .seconds(2))
            #expect(pair.dialerPipe.isClosed && pair.listenerPipe.isClosed)
        }
    }

    @Test func aGoodbyeThatNobodyTakesIsGivenUp() throws {
        let pair = SessionPair()
        pair.listenerPipe.isStalled = true
        pair.dialer.close(.none)
        pair.run()
        #expect(!pair.dialerPipe.isClosed)
        pair.loop.advanceTime(by: .seconds(1))
        #expect(pair.dialerPipe.isClosed)
    }

    @Test func aCutEndsEverythingWithItsReason() throws {
        let pair = SessionPair()
        let (near, far) = try pair.stream()
        let ping = pair.dialer.ping()
        pair.dialerPipe.cut(PipeFault())
        pair.run()
        #expect(near.error is PipeFault && far.error is PipeFault)
        #expect(pair.nearDelegate.error is PipeFault && pair.farDelegate.error is PipeFault)
        #expect(throws: PipeFault.self) { try ping.wait() }
    }

    @Test func anEndWithoutGoodbyeIsAnError() throws {
        let pair = SessionPair()
        let (near, _) = try pair.stream()
        pair.listenerPipe.closeWrite()
        pair.run()
        #expect(near.error as? YamuxError == .endedWithoutGoAway)
        #expect(pair.nearDelegate.error as? YamuxError == .endedWithoutGoAway)
        #expect(pair.dialerPipe.isClosed)
    }

    @Test func brokenProtocolIsAnsweredWithAGoAway() throws {
        let loop = EmbeddedEventLoop()
        let (pipe, remote) = MemoryByteStream.pair(on: loop)
        let session = YamuxMuxer().multiplex(pipe, role: .listener)
        let delegate = SessionRecorder()
        session.delegate = delegate
        session.start()
        let tap = PipeTap(remote)
        remote.write(ByteBuffer(bytes: yamux(1, 1, 2, 0)))
        remote.flush()
        loop.run()
        #expect(delegate.error as? YamuxError == .wrongStreamParity(streamID: 2))
        #expect(tap.bytes == yamux(2, 1, 0, 0) + yamux(3, 0, 0, 1))
        #expect(tap.hasEnded)
        remote.closeWrite()
        loop.run()
        #expect(pipe.isClosed)
    }

    @Test func nothingIsKeptAliveAfterTheEnd() throws {
        weak var session: (any MuxerSession)?
        weak var stream: (any MuxedStream)?
        weak var recorder: StreamRecorder?
        do {
            let pair = SessionPair()
            let (near, _) = try pair.stream()
            (session, stream, recorder) = (pair.dialer, near.stream, near)
            pair.end()
            pair.loop.advanceTime(by: .seconds(60))
        }
        #expect(session == nil && stream == nil && recorder == nil)
    }
}

// MARK: - Support

struct PipeFault: Error {}

extension MemoryByteStream.Pieces {
    var isCut: Bool { if case .whole = self { false } else { true } }
}
