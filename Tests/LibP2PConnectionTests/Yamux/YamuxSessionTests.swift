import LibP2PCore
import NIOCore
import Testing

@testable import LibP2PConnection

/// The session alone: bytes and commands in, actions and bytes out. Frames are written out by hand where their layout matters.
@Suite struct YamuxSessionTests {
    // MARK: Opening and closing, byte for byte

    @Test func opensWithTheFirstBytesAndEndsWithTheLast() throws {
        var dialer = YamuxSide(.dialer)
        let id = try dialer.session.openStream(now: dialer.now)
        #expect(id == 1)
        dialer.session.write(ByteBuffer(string: "hello"), to: id)
        #expect(dialer.written().isEmpty, "nothing goes out before a flush")
        dialer.session.flush(id)
        #expect(dialer.written() == [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 5] + Array("hello".utf8))
        dialer.session.write(ByteBuffer(string: "by"), to: id)
        dialer.session.write(ByteBuffer(string: "e"), to: id)
        dialer.session.closeWrite(id)
        #expect(dialer.written() == [0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 3] + Array("bye".utf8))
        #expect(dialer.actions() == [.sendabilityChanged(1)])
        dialer.session.setReading(true, on: id)
        #expect(dialer.receive(yamux(1, 0b0110, 1, 0)) == [.endInput(1), .closeStream(1, nil)])
        #expect(dialer.session.streamCount == 0)
        #expect(dialer.session.unacknowledgedCount == 0)
    }

    @Test func acceptsDataWithTheOpening() {
        var listener = YamuxSide(.listener)
        #expect(listener.receive(yamux(0, 1, 1, 2) + [0xca, 0xfe]) == [.accept(1)])
        listener.session.accept(1)
        #expect(listener.written() == yamux(1, 2, 1, 0))
        listener.session.setReading(true, on: 1)
        #expect(listener.actions() == [.deliver(1, ByteBuffer(bytes: [0xca, 0xfe]))])
        #expect(listener.receive(yamux(0, 4, 1, 1) + [0xbe]) == [.deliver(1, ByteBuffer(bytes: [0xbe])), .endInput(1)])
        listener.session.closeWrite(1)
        #expect(listener.written() == yamux(1, 4, 1, 0))
        #expect(listener.actions() == [.sendabilityChanged(1), .closeStream(1, nil)])
    }

    @Test func announcesAnEmptyStreamAtItsFlush() throws {
        var listener = YamuxSide(.listener)
        let id = try listener.session.openStream(now: listener.now)
        #expect(id == 2)
        #expect(listener.written().isEmpty)
        listener.session.flush(id)
        #expect(listener.written() == yamux(1, 1, 2, 0))
        listener.session.flush(id)
        #expect(listener.written().isEmpty)
    }

    @Test func tellsTheReasonOfAResetBothWays() throws {
        var dialer = YamuxSide(.dialer)
        let a = try dialer.announced()
        let b = try dialer.announced()
        let c = try dialer.announced()
        dialer.session.reset(a, .rateLimited)
        #expect(dialer.written() == yamux(1, 8, 1, 0x1003))
        #expect(dialer.actions() == [.closeStream(a, StreamResetError(code: .rateLimited, byRemote: false))])
        #expect(
            dialer.receive(yamux(1, 8, b, 0x1007)) == [
                .closeStream(b, StreamResetError(code: .shutdown, byRemote: true))
            ])
        #expect(
            dialer.receive(yamux(0, 8, c, 2) + [1, 2]) == [
                .closeStream(c, StreamResetError(code: .unspecified, byRemote: true))
            ], "the length of a data frame is no reason, and its body is drained")
        #expect(dialer.session.streamCount == 0)
        #expect(dialer.written().isEmpty)
    }

    @Test func keepsAStreamSecretThatWasNeverFlushed() throws {
        var dialer = YamuxSide(.dialer)
        for end in [
            { $0.session.reset($1, .rateLimited) }, { $0.session.close($1) },
        ] as [(inout YamuxSide, UInt32) -> Void] {
            let id = try dialer.session.openStream(now: dialer.now)
            #expect(dialer.receive(yamux(0, 0, id, 1) + [9]) == [], "the remote cannot know it yet")
            end(&dialer, id)
            #expect(dialer.actions().count == 1)
            #expect(dialer.written().isEmpty)
        }
        #expect(dialer.session.streamCount == 0)
    }

    @Test func anOrderlyCloseEndsOurDirectionAndRefusesMoreOnce() throws {
        var dialer = YamuxSide(.dialer)
        let id = try dialer.announced()
        dialer.session.close(id)
        #expect(dialer.actions() == [.closeStream(id, nil)])
        #expect(dialer.written() == yamux(1, 4, id, 0))
        #expect(dialer.receive(yamux(1, 0, id, 100)) == [])
        #expect(dialer.receive(yamux(0, 0, id, 3) + [1, 2, 3]) == [])
        #expect(dialer.written() == yamux(1, 8, id, 0), "the remote must not wait for a window that never comes")
        #expect(dialer.receive(yamux(0, 0, id, 3) + [1, 2, 3] + yamux(1, 4, id, 0)) == [])
        #expect(dialer.written().isEmpty)
    }

    @Test func closingWithBytesQueuedIsAReset() throws {
        var dialer = YamuxSide(.dialer)
        let id = try dialer.announced()
        dialer.session.write(ByteBuffer(string: "lost"), to: id)
        dialer.session.flush(id)
        dialer.session.close(id)
        #expect(dialer.written() == yamux(1, 8, id, 0))
        #expect(dialer.actions() == [.closeStream(id, StreamResetError(code: .unspecified, byRemote: false))])
    }

    @Test func forgetsOrphansBeyondItsBound() throws {
        var dialer = YamuxSide(.dialer)
        for _ in 0..<(YamuxSession.maximumOrphans + 10) {
            let id = try dialer.announced()
            dialer.session.close(id)
            _ = dialer.receive(yamux(1, 2, id, 0))
        }
        #expect(dialer.session.orphans.count == YamuxSession.maximumOrphans)
        #expect(dialer.session.streamCount == 0)
    }

    // MARK: Any split

    /// Frames of every kind, some for streams that are not open, and what they must lead to in whatever pieces they arrive.
    @Test func survivesAnySplit() {
        let input: [UInt8] =
            yamux(0, 1, 1, 5) + Array("abcde".utf8) + yamux(1, 1, 3, 0) + yamux(2, 1, 0, 77) + yamux(0, 0, 3, 2) + [
                1, 2,
            ]
            + yamux(0, 0, 9, 3) + [7, 7, 7] + yamux(1, 0, 1, 1000) + yamux(0, 4, 1, 1) + Array("f".utf8)
            + yamux(1, 8, 3, 0x1008) + yamux(1, 8, 11, 0)
        func outcome(_ pieces: [ArraySlice<UInt8>]) -> Outcome {
            var side = YamuxSide(.listener)
            var outcome = Outcome()
            for piece in pieces {
                side.session.receive(ByteBuffer(bytes: piece), now: side.now)
                while let action = side.session.nextAction() {
                    switch action {
                    case .accept(let id):
                        outcome.events.append("accept \(id)")
                        side.session.accept(id)
                        side.session.setReading(true, on: id)
                    case .deliver(let id, let bytes): outcome.bytes[id, default: []] += bytes.readableBytesView
                    default: outcome.events.append("\(action)")
                    }
                }
            }
            outcome.written = side.written()
            outcome.window = side.session.streams[1]?.sendWindow
            return outcome
        }
        let whole = outcome([input[...]])
        #expect(whole.bytes == [1: Array("abcdef".utf8), 3: [1, 2]])
        #expect(whole.events.count == 4)
        #expect(whole.window == UInt32(263_144))
        // Answers come in the order ping answers, then the rest, however they were asked for.
        #expect(whole.written.count == 3 * 12)
        for first in 0...input.count {
            #expect(outcome([input[..<first], input[first...]]) == whole)
            for second in stride(from: first, through: input.count, by: 5) {
                #expect(outcome([input[..<first], input[first..<second], input[second...]]) == whole)
            }
        }
        #expect(outcome(input.indices.map { input[$0...$0] }) == whole)
    }

    struct Outcome: Equatable {
        var bytes: [UInt32: [UInt8]] = [:]
        var events: [String] = []
        var written: [UInt8] = []
        var window: UInt32?
    }

    @Test func deliversSlicesOfWhatArrivedWithoutCopies() {
        var listener = YamuxSide(.listener)
        _ = listener.receive(yamux(1, 1, 1, 0))
        listener.session.accept(1)
        listener.session.setReading(true, on: 1)
        let body = [UInt8](repeating: 7, count: 50_000)
        let input = ByteBuffer(bytes: yamux(0, 0, 1, 60_000) + body)
        let base = input.withUnsafeReadableBytes { UInt(bitPattern: $0.baseAddress) }
        listener.session.receive(input, now: listener.now)
        guard case .deliver(1, let piece) = listener.session.nextAction() else {
            Issue.record("a part of a body must be delivered when it arrives")
            return
        }
        #expect(piece.readableBytes == 50_000)
        #expect(piece.withUnsafeReadableBytes { UInt(bitPattern: $0.baseAddress) } == base + 12)
    }

    @Test func sendsSlicesOfWhatWasWrittenWithoutCopies() throws {
        var dialer = YamuxSide(.dialer)
        let id = try dialer.announced()
        let bytes = ByteBuffer(repeating: 1, count: 150_000)
        let base = bytes.withUnsafeReadableBytes { UInt(bitPattern: $0.baseAddress) }
        dialer.session.write(bytes, to: id)
        dialer.session.flush(id)
        var offset: UInt = 0
        for expected in [65_507, 65_507, 150_000 - 2 * 65_507] {
            let next = [dialer.session.nextWrite(now: dialer.now), dialer.session.nextWrite(now: dialer.now)]
            let (header, body) = (try #require(next[0]), try #require(next[1]))
            #expect(Array(header.readableBytesView) == yamux(0, 0, id, UInt32(expected)))
            #expect(body.readableBytes == expected)
            #expect(body.withUnsafeReadableBytes { UInt(bitPattern: $0.baseAddress) } == base + offset)
            offset += UInt(expected)
        }
        #expect(dialer.session.nextWrite(now: dialer.now) == nil)
    }

    // MARK: Fairness and order

    @Test func streamsTakeTurnsFrameByFrameAndControlGoesFirst() throws {
        var dialer = YamuxSide(.dialer)
        let ids = [try dialer.announced(), try dialer.announced(), try dialer.announced()]
        for id in ids {
            dialer.session.write(ByteBuffer(repeating: UInt8(id), count: 131_014), to: id)
            dialer.session.flush(id)
        }
        let first = dialer.session.nextWrite(now: dialer.now)
        #expect(first?.readableBytes == 12)
        _ = dialer.receive(yamux(2, 1, 0, 5))
        let doomed = ids[1]
        dialer.session.reset(doomed, .unspecified)
        var rest = ByteBuffer(bytes: dialer.written())
        rest.moveReaderIndex(forwardBy: 65_507)
        var order: [YamuxFrame] = []
        while let frame = try rest.readYamuxFrame() {
            order.append(frame)
            if frame.kind == .data { rest.moveReaderIndex(forwardBy: Int(frame.length)) }
        }
        let length = UInt32(65_507)
        #expect(
            order == [
                YamuxFrame(.windowUpdate, .rst, streamID: doomed), YamuxFrame(.ping, .ack, length: 5),
                YamuxFrame(.data, streamID: ids[2], length: length),
                YamuxFrame(.data, streamID: ids[0], length: length),
                YamuxFrame(.data, streamID: ids[2], length: length),
            ])
    }

    // MARK: Limits

    @Test func boundsUnacknowledgedStreams() throws {
        var dialer = YamuxSide(.dialer)
        for _ in 0..<256 { _ = try dialer.announced() }
        #expect(throws: MuxerError.tooManyUnacknowledgedStreams) { try dialer.session.openStream(now: dialer.now) }
        _ = dialer.receive(yamux(1, 2, 1, 0) + yamux(1, 2, 1, 0))
        #expect(dialer.session.unacknowledgedCount == 255, "a second acknowledgement does not count")
        _ = try dialer.announced()
        dialer.session.reset(3, .unspecified)
        _ = try dialer.announced()
        #expect(throws: MuxerError.tooManyUnacknowledgedStreams) { try dialer.session.openStream(now: dialer.now) }
    }

    @Test func boundsInboundStreamsAndTheAcceptBacklog() {
        var configuration = YamuxConfiguration()
        configuration.maximumInboundStreams = 5
        configuration.acceptBacklog = 3
        var listener = YamuxSide(.listener, configuration)
        func open(_ id: UInt32) -> Bool {
            let isAccepted = listener.receive(yamux(0, 1, id, 2) + [1, 2]) == [.accept(id)]
            let answer = listener.written()
            #expect(answer == (isAccepted ? [] : yamux(1, 8, id, 0x1002)))
            return isAccepted
        }
        #expect(open(1) && open(3) && open(5))
        #expect(!open(7), "three streams have no protocol yet")
        listener.session.negotiated(1)
        listener.session.negotiated(1)
        #expect(open(9))
        #expect(!open(11))
        for id in [3, 5, 9] as [UInt32] { listener.session.negotiated(id) }
        #expect(open(13))
        #expect(!open(15), "five streams are open")
        _ = listener.receive(yamux(1, 8, 1, 0))
        #expect(open(17))
        #expect(listener.session.inboundCount == 5)
    }

    @Test func boundsOutboundStreamsAndNumbers() throws {
        var configuration = YamuxConfiguration()
        configuration.maximumOutboundStreams = 2
        var dialer = YamuxSide(.dialer, configuration)
        _ = try dialer.announced()
        _ = try dialer.announced()
        #expect(throws: MuxerError.tooManyStreams) { try dialer.session.openStream(now: dialer.now) }
        for (role, last) in [(Role.dialer, UInt32.max - 2), (.listener, UInt32.max - 3)] {
            var side = YamuxSide(role)
            side.session.nextStreamID = last
            #expect(try side.session.openStream(now: side.now) == last)
            #expect(throws: MuxerError.streamIDsExhausted) { try side.session.openStream(now: side.now) }
        }
    }

    // MARK: The end of the session

    @Test func saysGoodbyeAfterTheFrameThatHasBegun() throws {
        var dialer = YamuxSide(.dialer)
        let id = try dialer.announced()
        dialer.session.write(ByteBuffer(string: "abc"), to: id)
        dialer.session.flush(id)
        _ = dialer.session.nextWrite(now: dialer.now)
        dialer.session.close(.shutdown)
        #expect(dialer.actions() == [.end(.goAway(.shutdown, byRemote: false))])
        #expect(dialer.written() == Array("abc".utf8) + yamux(3, 0, 0, 0x1006))
        dialer.session.close(.none)
        dialer.session.lost()
        #expect(dialer.actions() == [])
        #expect(throws: MuxerError.sessionClosed) { try dialer.session.openStream(now: dialer.now) }
    }

    @Test func aNormalGoAwayLetsStreamsFinish() throws {
        var dialer = YamuxSide(.dialer)
        let id = try dialer.announced()
        #expect(dialer.receive(yamux(3, 0, 0, 0)) == [])
        #expect(throws: MuxerError.sessionClosed) { try dialer.session.openStream(now: dialer.now) }
        dialer.session.write(ByteBuffer(string: "last"), to: id)
        dialer.session.setReading(true, on: id)
        dialer.session.closeWrite(id)
        #expect(dialer.receive(yamux(1, 4, id, 0)) == [.sendabilityChanged(id), .endInput(id)])
        #expect(dialer.written() == yamux(0, 4, id, 4) + Array("last".utf8) + yamux(3, 0, 0, 0))
        #expect(dialer.actions() == [.closeStream(id, nil), .end(.goAway(.none, byRemote: true))])
    }

    @Test func endsAtOnceOnAGoAwayThatTellsAReason() throws {
        for code in [1, 2, 0x1005] as [UInt32] {
            var dialer = YamuxSide(.dialer)
            _ = try dialer.announced()
            let ending = YamuxSession.Ending.goAway(ConnectionErrorCode(rawValue: code), byRemote: true)
            #expect(dialer.receive(yamux(3, 0, 0, code) + yamux(9, 9, 9, 9)) == [.end(ending)])
            #expect(dialer.written().isEmpty)
        }
    }

    @Test func tellsACutFromAnOrderlyEnd() throws {
        var dialer = YamuxSide(.dialer)
        dialer.session.inputEnded()
        #expect(dialer.actions() == [.end(.failure(.endedWithoutGoAway))])
        var other = YamuxSide(.dialer)
        _ = try other.announced()
        _ = other.receive(yamux(3, 0, 0, 0))
        other.session.inputEnded()
        #expect(other.actions() == [.end(.goAway(.none, byRemote: true))])
    }

    // MARK: Illegal input

    /// Each ends the session with this error and with a go-away that says "protocol error".
    @Test func endsTheSessionOnBrokenProtocol() throws {
        let window = UInt32(256 * 1024)
        let table: [(String, [UInt8], YamuxError)] = [
            ("version", [1] + yamux(0, 0, 1, 0).dropFirst(), .unknownVersion(1)),
            ("type", yamux(4, 0, 1, 0), .unknownFrameType(4)),
            ("our own parity", yamux(1, 1, 2, 0), .wrongStreamParity(streamID: 2)),
            ("our own parity with data", yamux(0, 1, 4, 1) + [0], .wrongStreamParity(streamID: 4)),
            ("stream 0", yamux(1, 1, 0, 0), .wrongStreamParity(streamID: 0)),
            ("opened twice", yamux(1, 1, 1, 0) + yamux(1, 1, 1, 0), .duplicateStream(streamID: 1)),
            (
                "opened twice with data", yamux(1, 1, 1, 0) + yamux(0, 1, 1, 1) + [0], .duplicateStream(streamID: 1)
            ),
            ("body", yamux(0, 0, 1, 0x10_0001), .bodyTooLarge(streamID: 1, bytes: 0x10_0001)),
            ("body of nothing", yamux(0, 0, 99, .max), .bodyTooLarge(streamID: 99, bytes: .max)),
            (
                "first window", yamux(0, 1, 1, window + 1),
                .receiveWindowExceeded(streamID: 1, bytes: window + 1, window: window)
            ),
            (
                "window", yamux(1, 1, 1, 0) + yamux(0, 0, 1, 2) + [1, 2] + yamux(0, 0, 1, window - 1),
                .receiveWindowExceeded(streamID: 1, bytes: window - 1, window: window - 2)
            ),
            (
                "window overflow", yamux(1, 1, 1, 5) + yamux(1, 0, 1, .max - window - 4),
                .sendWindowOverflow(streamID: 1, window: window + 5, increment: .max - window - 4)
            ),
        ]
        for (name, input, error) in table {
            for isWhole in [true, false] {
                var listener = YamuxSide(.listener)
                var last: YamuxSession.Action?
                for piece in isWhole ? [input[...]] : input.indices.map({ input[$0...$0] }) {
                    last = listener.receive(Array(piece)).last ?? last
                }
                #expect(last == .end(.failure(error)), "\(name)")
                #expect(listener.written() == yamux(3, 0, 0, 1), "\(name)")
                #expect(listener.receive(yamux(2, 1, 0, 1)) == [], "\(name)")
                #expect(listener.written().isEmpty, "\(name)")
            }
        }
    }

    /// What is merely odd, or late, changes nothing.
    @Test func ignoresWhatComesTooLate() throws {
        let table: [(String, [UInt8])] = [
            ("data for a stream never opened", yamux(0, 0, 1, 3) + [1, 2, 3]),
            ("data for a stream of ours never opened", yamux(0, 0, 2, 3) + [1, 2, 3]),
            ("data for the session", yamux(0, 0, 0, 3) + [1, 2, 3]),
            ("end of a stream never opened", yamux(0, 4, 1, 1) + [1]),
            ("reset of a stream never opened", yamux(1, 8, 1, 3)),
            ("reset with data of a stream never opened", yamux(0, 8, 1, 3) + [1, 2, 3]),
            ("window of a stream never opened", yamux(1, 0, 1, .max)),
            ("window of the session", yamux(1, 0, 0, 1000)),
            ("acknowledgement of a stream never opened", yamux(1, 2, 2, 0)),
            ("answer to no ping", yamux(2, 2, 0, 9)),
            ("ping without a mark", yamux(2, 0, 0, 9)),
            ("opened and reset at once", yamux(1, 9, 1, 0)),
            ("empty data", yamux(0, 0, 1, 0)),
        ]
        for (name, input) in table {
            var listener = YamuxSide(.listener)
            #expect(listener.receive(input) == [], "\(name)")
            #expect(listener.written().isEmpty, "\(name)")
            #expect(listener.receive(yamux(1, 1, 7, 0)) == [.accept(7)], "\(name)")
        }
    }

    @Test func resetsAStreamThatGoesOnAfterItsEnd() {
        var listener = YamuxSide(.listener)
        _ = listener.receive(yamux(1, 5, 1, 0))
        let error = StreamResetError(code: .protocolViolation, byRemote: false)
        #expect(listener.receive(yamux(0, 0, 1, 2) + [1, 2] + yamux(2, 1, 0, 3)) == [.closeStream(1, error)])
        #expect(listener.written() == yamux(1, 8, 1, 0x1004) + yamux(2, 2, 0, 3))
    }

    @Test func commandsForStreamsThatAreGoneDoNothing() throws {
        var dialer = YamuxSide(.dialer)
        let gone = try dialer.announced()
        dialer.session.reset(gone, .unspecified)
        _ = dialer.actions()
        _ = dialer.written()
        for id in [gone, 2, 77, 0] {
            dialer.session.write(ByteBuffer(string: "x"), to: id)
            dialer.session.flush(id)
            dialer.session.closeWrite(id)
            dialer.session.close(id)
            dialer.session.reset(id, .unspecified)
            dialer.session.setReading(true, on: id)
            dialer.session.accept(id)
            dialer.session.negotiated(id)
            #expect(!dialer.session.isSendable(id))
        }
        #expect(dialer.actions() == [])
        #expect(dialer.written().isEmpty)
    }

    @Test func writingAfterTheEndIsIgnored() throws {
        var dialer = YamuxSide(.dialer)
        let id = try dialer.announced()
        dialer.session.closeWrite(id)
        dialer.session.write(ByteBuffer(string: "x"), to: id)
        dialer.session.flush(id)
        dialer.session.closeWrite(id)
        #expect(dialer.written() == yamux(1, 4, id, 0))
        #expect(dialer.written().isEmpty)
    }

    // MARK: Hostile

    @Test func givesUpOnARemoteThatAsksButNeverReads() {
        let floods: [(String, (UInt32) -> [UInt8])] = [
            ("refused streams", { yamux(1, 1, $0 * 2 + 1, 0) }),
            ("opened and reset", { yamux(1, 1, $0 * 2 + 1, 0) + yamux(1, 8, $0 * 2 + 1, 0) }),
        ]
        for (name, frame) in floods {
            var listener = YamuxSide(.listener)
            var rounds: UInt32 = 0
            var ending: YamuxSession.Action?
            while ending == nil, rounds < 20_000 {
                listener.session.receive(ByteBuffer(bytes: frame(rounds)), now: listener.now)
                while let action = listener.session.nextAction() {
                    if case .accept(let id) = action { listener.session.accept(id) }
                    if case .end = action { ending = action }
                }
                rounds += 1
            }
            #expect(
                ending == .end(.failure(.answersNotRead(bytes: 65_544))), "\(name)")
            #expect(listener.session.streams.isEmpty)
        }
    }

    @Test func drainsARemoteThatGoesOnAfterOurReset() throws {
        var dialer = YamuxSide(.dialer)
        let (doomed, other) = (try dialer.announced(), try dialer.announced())
        dialer.session.setReading(true, on: other)
        _ = dialer.receive(yamux(0, 2, doomed, 4) + [1, 2])
        dialer.session.reset(doomed, .rateLimited)
        #expect(dialer.written() == yamux(1, 8, doomed, 0x1003))
        _ = dialer.actions()
        #expect(dialer.receive([3, 4]) == [], "the rest of a body whose stream is gone")
        let body = [UInt8](repeating: 5, count: 1 << 20)
        for _ in 0..<3 {
            #expect(dialer.receive(yamux(0, 0, doomed, 1 << 20) + body + yamux(1, 0, doomed, .max)) == [])
        }
        #expect(dialer.receive(yamux(0, 6, other, 1) + [6]).first == .deliver(other, ByteBuffer(bytes: [6])))
        #expect(dialer.written().isEmpty)
    }

    @Test func aFloodOfPingsIsAnsweredThirtyTwoAtATime() {
        var listener = YamuxSide(.listener)
        #expect(listener.receive((0..<10_000).flatMap { yamux(2, 1, 0, $0) }) == [])
        #expect(listener.written() == (0..<32).flatMap { yamux(2, 2, 0, $0) })
        #expect(listener.written().isEmpty)
    }

    @Test func whatAStreamKeepsWhileItDoesNotReadIsBounded() throws {
        var listener = YamuxSide(.listener)
        _ = listener.receive(yamux(1, 1, 1, 0))
        listener.session.accept(1)
        // Single bytes, each a slice of a buffer of its own that is far larger.
        for index in 0..<40_000 {
            var input = ByteBufferAllocator().buffer(capacity: 4096)
            input.writeBytes(yamux(0, 0, 1, 1) + [UInt8(truncatingIfNeeded: index)])
            listener.session.receive(input, now: listener.now)
            if listener.session.nextAction() != nil {
                Issue.record("nothing is delivered to a stream that does not read")
            }
        }
        let kept = try #require(listener.session.streams[1]).receiveQueue
        #expect(kept.reduce(0) { $0 + $1.storageCapacity } <= 4 * 40_000)
        listener.session.setReading(true, on: 1)
        let bytes = listener.actions().flatMap { action -> [UInt8] in
            if case .deliver(1, let bytes) = action { Array(bytes.readableBytesView) } else { [] }
        }
        #expect(bytes == (0..<40_000).map { UInt8(truncatingIfNeeded: $0) })
    }

    @Test(arguments: 1...20) func randomBytesNeverTrap(seed: UInt64) {
        var random = SplitMix(seed: seed)
        for _ in 0..<20 {
            var side = YamuxSide(Bool.random(using: &random) ? .dialer : .listener)
            for _ in 0..<40 {
                var input = ByteBuffer()
                for _ in 0..<Int.random(in: 1...6, using: &random) {
                    if Int.random(in: 0..<12, using: &random) == 0 {
                        input.writeInteger(random.next())
                    } else {
                        let length: UInt32 =
                            switch Int.random(in: 0..<4, using: &random) {
                            case 0: UInt32.random(in: 0...20, using: &random)
                            case 1: 0
                            case 2: UInt32.random(in: 0...300_000, using: &random)
                            default: .random(in: 0 ... .max, using: &random)
                            }
                        input.writeBytes(
                            yamux(
                                .random(in: 0...3, using: &random), .random(in: 0...15, using: &random),
                                .random(in: 0...12, using: &random), length))
                        input.writeRepeatingByte(0, count: Int.random(in: 0...30, using: &random))
                    }
                }
                side.session.receive(input, now: side.now)
                _ = try? side.session.openStream(now: side.now)
                while let action = side.session.nextAction() {
                    guard case .accept(let id) = action else { continue }
                    side.session.accept(id)
                    side.session.setReading(.random(using: &random), on: id)
                }
                let id = UInt32.random(in: 0...12, using: &random)
                switch Int.random(in: 0..<8, using: &random) {
                case 0: side.session.reset(id, .unspecified)
                case 1: side.session.close(id)
                case 2: side.session.closeWrite(id)
                case 3: side.session.write(ByteBuffer(repeating: 1, count: 100_000), to: id)
                case 4: side.session.flush(id)
                case 5: side.session.setReading(true, on: id)
                default: while side.session.nextWrite(now: side.now) != nil {}
                }
                side.now = side.now + .milliseconds(Int64.random(in: 0...4000, using: &random))
                side.session.tick(now: side.now)
                #expect(side.session.streams.values.allSatisfy { $0.isConsistent })
            }
        }
    }
}

extension YamuxSession.StreamState {
    /// What must hold of a stream's books at any time between two actions.
    var isConsistent: Bool {
        let kept = self.receiveQueue.reduce(0) { $0 + $1.readableBytes }
        return self.sendQueue.reduce(0) { $0 + $1.readableBytes } == self.queuedBytes
            && self.flushedBytes <= self.queuedBytes && self.receiveCredit <= self.receiveWindow
            && Int(self.receiveCredit) + kept + Int(self.consumedBytes) <= Int(self.receiveWindow)
    }
}
