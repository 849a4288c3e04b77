import LibP2PCore
import NIOCore
import Testing

@testable import LibP2PConnection

/// The session alone: bytes and commands in, actions and bytes out. Messages are written out by hand where their layout matters.
@Suite struct MplexSessionTests {
    typealias StreamID = MplexSession.StreamID

    static func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }
    static func ours(_ number: UInt64) -> StreamID { MplexSide.ours(number) }
    static func theirs(_ number: UInt64) -> StreamID { MplexSide.theirs(number) }

    // MARK: Opening and closing, byte for byte

    @Test(arguments: [(Role.dialer, UInt8(1)), (.listener, 2)])
    func opensWithTheFirstBytesAndEndsWithTheLast(role: Role, number: UInt8) throws {
        var side = MplexSide(role)
        let id = try side.session.openStream()
        #expect(id == Self.ours(UInt64(number)))
        side.session.write(ByteBuffer(string: "hello"), to: id)
        #expect(side.written().isEmpty, "nothing goes out before a flush")
        side.session.flush(id)
        #expect(side.written() == mplex(0, number) + mplex(2, number, Self.bytes("hello")))
        side.session.write(ByteBuffer(string: "by"), to: id)
        side.session.write(ByteBuffer(string: "e"), to: id)
        side.session.closeWrite(id)
        #expect(side.written() == mplex(2, number, Self.bytes("bye")) + mplex(4, number))
        #expect(side.actions() == [.sendabilityChanged(id)])
        side.session.setReading(true, on: id)
        #expect(side.receive(mplex(1, number, [7])) == [.deliver(id, ByteBuffer(bytes: [7]))])
        #expect(side.receive(mplex(3, number)) == [.endInput(id), .closeStream(id, nil)])
        #expect(side.session.streamCount == 0)
        #expect(try side.session.openStream() == Self.ours(UInt64(number) + 2))
    }

    @Test func acceptsStreamsWithNamesAndData() {
        var side = MplexSide(.listener)
        let id = Self.theirs(1)
        #expect(side.receive(mplex(0, 1, Self.bytes("a name")) + mplex(2, 1, [0xca, 0xfe])) == [.accept(id)])
        #expect(side.written().isEmpty)
        side.session.setReading(true, on: id)
        #expect(side.actions() == [.deliver(id, ByteBuffer(bytes: [0xca, 0xfe]))])
        #expect(
            side.receive(mplex(2, 1, [0xbe]) + mplex(2, 1) + mplex(4, 1))
                == [.deliver(id, ByteBuffer(bytes: [0xbe])), .endInput(id)])
        side.session.write(ByteBuffer(bytes: [1]), to: id)
        side.session.closeWrite(id)
        #expect(side.written() == mplex(1, 1, [1]) + mplex(3, 1))
        #expect(side.actions() == [.sendabilityChanged(id), .closeStream(id, nil)])
    }

    @Test func bothSidesMayUseTheSameNumber() throws {
        var side = MplexSide(.dialer)
        let ours = try side.announced()
        #expect(ours == Self.ours(1))
        let theirs = Self.theirs(1)
        #expect(side.receive(mplex(0, 1)) == [.accept(theirs)])
        for id in [ours, theirs] { side.session.setReading(true, on: id) }
        #expect(side.receive(mplex(1, 1, [1])) == [.deliver(ours, ByteBuffer(bytes: [1]))])
        #expect(side.receive(mplex(2, 1, [2])) == [.deliver(theirs, ByteBuffer(bytes: [2]))])
        for id in [ours, theirs] {
            side.session.write(ByteBuffer(bytes: [9]), to: id)
            side.session.flush(id)
        }
        #expect(side.written() == mplex(2, 1, [9]) + mplex(1, 1, [9]))
        #expect(
            side.receive(mplex(6, 1)) == [
                .closeStream(theirs, StreamResetError(code: .unspecified, byRemote: true))
            ])
        #expect(side.session.streamCount == 1)
    }

    @Test func announcesAnEmptyStreamAtItsFlush() throws {
        var side = MplexSide(.listener)
        let id = try side.session.openStream()
        #expect(side.written().isEmpty)
        side.session.flush(id)
        #expect(side.written() == mplex(0, 2))
        side.session.flush(id)
        #expect(side.written().isEmpty)
        // One that ends at once is announced all the same.
        let other = try side.session.openStream()
        side.session.closeWrite(other)
        #expect(side.written() == mplex(0, 4) + mplex(4, 4))
    }

    @Test func resetsBothWays() throws {
        var side = MplexSide(.dialer)
        let (a, b) = (try side.announced(), try side.announced())
        side.session.write(ByteBuffer(string: "lost"), to: a)
        side.session.flush(a)
        side.session.reset(a, .rateLimited)
        #expect(side.written() == mplex(6, 1))
        #expect(side.actions() == [.closeStream(a, StreamResetError(code: .rateLimited, byRemote: false))])
        #expect(
            side.receive(mplex(5, 3)) == [.closeStream(b, StreamResetError(code: .unspecified, byRemote: true))])
        #expect(side.receive(mplex(0, 1) + mplex(2, 1, [1, 2])) == [.accept(Self.theirs(1))])
        side.session.reset(Self.theirs(1), .unspecified)
        #expect(side.written() == mplex(5, 1))
        #expect(side.session.streamCount == 1 - 1 && side.session.bufferedBytes == 0)
        // What was under way on a stream that is gone is thrown away.
        _ = side.actions()
        #expect(side.receive(mplex(1, 1, [1]) + mplex(2, 1, [1]) + mplex(3, 1) + mplex(5, 1) + mplex(6, 3)) == [])
        #expect(side.written().isEmpty)
    }

    @Test func keepsAStreamSecretThatWasNeverFlushed() throws {
        var side = MplexSide(.dialer)
        for end in [
            { $0.session.reset($1, .rateLimited) }, { $0.session.close($1) },
        ] as [(inout MplexSide, StreamID) -> Void] {
            let id = try side.session.openStream()
            #expect(
                side.receive(mplex(1, UInt8(id.number), [9]) + mplex(5, UInt8(id.number))) == [],
                "the remote cannot know it yet")
            end(&side, id)
            #expect(side.actions().count == 1)
            #expect(side.written().isEmpty)
        }
    }

    @Test func anOrderlyCloseEndsOurDirectionAndRefusesMoreOnce() throws {
        var side = MplexSide(.dialer)
        let id = try side.announced()
        side.session.close(id)
        #expect(side.actions() == [.closeStream(id, nil)])
        #expect(side.written() == mplex(4, 1))
        #expect(side.receive(mplex(1, 1, [1, 2, 3])) == [])
        #expect(side.written() == mplex(6, 1))
        #expect(side.receive(mplex(1, 1, [1]) + mplex(3, 1)) == [])
        #expect(side.written().isEmpty)
    }

    @Test func forgetsOrphansBeyondItsBound() throws {
        var side = MplexSide(.dialer)
        for _ in 0..<(MplexSession.maximumOrphans + 10) { side.session.close(try side.announced()) }
        #expect(side.session.orphans.count == MplexSession.maximumOrphans)
        #expect(side.session.streamCount == 0)
    }

    @Test func dataBehindTheEndIsAViolation() {
        var side = MplexSide(.listener)
        let id = Self.theirs(1)
        #expect(side.receive(mplex(0, 1) + mplex(4, 1) + mplex(4, 1)) == [.accept(id)])
        #expect(
            side.receive(mplex(2, 1, [1])) == [
                .closeStream(id, StreamResetError(code: .protocolViolation, byRemote: false))
            ])
        #expect(side.written() == mplex(5, 1))
    }

    @Test func longWritesAreCutIntoMessagesInTurn() throws {
        var side = MplexSide(.dialer)
        let (a, b) = (try side.announced(), try side.announced())
        let most = MplexFrame.maximumSentBodyBytes
        side.session.write(ByteBuffer(repeating: 1, count: most + 10), to: a)
        side.session.flush(a)
        side.session.write(ByteBuffer(repeating: 2, count: 20), to: b)
        side.session.flush(b)
        var sizes: [Int] = []
        while var header = side.session.nextWrite() {
            let frame = try #require(try header.readMplexFrame())
            var length = 0
            while length < frame.length, let piece = side.session.nextWrite() { length += piece.readableBytes }
            #expect(length == frame.length && header.readableBytes == 0)
            sizes.append(length)
        }
        #expect(sizes == [most, 20, 10])
    }

    // MARK: Any split

    /// Messages of every kind, some for streams that are not open, and what they must lead to in whatever pieces they arrive.
    @Test func survivesAnySplit() {
        let input: [UInt8] =
            mplex(0, 1, Self.bytes("name")) + mplex(2, 1, Self.bytes("abcde")) + mplex(0, 3) + mplex(2, 3, [1, 2])
            + mplex(2, 9, [7, 7, 7]) + mplex(1, 1, [8]) + mplex(2, 1) + [0x82, 0x01, 0] + mplex(2, 1, Self.bytes("f"))
            + mplex(4, 1) + mplex(6, 3) + mplex(5, 11)
        func outcome(_ pieces: [ArraySlice<UInt8>]) -> Outcome {
            var side = MplexSide(.listener)
            var outcome = Outcome()
            for piece in pieces {
                side.session.receive(ByteBuffer(bytes: piece))
                while let action = side.session.nextAction(now: side.now) {
                    switch action {
                    case .accept(let id):
                        outcome.events.append("accept \(id.number)")
                        side.session.setReading(true, on: id)
                    case .deliver(let id, let bytes): outcome.bytes[id.number, default: []] += bytes.readableBytesView
                    default: outcome.events.append("\(action)")
                    }
                }
            }
            outcome.written = side.written()
            return outcome
        }
        let whole = outcome([input[...]])
        #expect(whole.bytes == [1: Self.bytes("abcdef"), 3: [1, 2]])
        #expect(whole.events.count == 4)
        #expect(whole.written.isEmpty)
        for first in 0...input.count {
            #expect(outcome([input[..<first], input[first...]]) == whole)
            for second in stride(from: first, through: input.count, by: 5) {
                #expect(outcome([input[..<first], input[first..<second], input[second...]]) == whole)
            }
        }
        #expect(outcome(input.indices.map { input[$0...$0] }) == whole)
    }

    struct Outcome: Equatable {
        var bytes: [UInt64: [UInt8]] = [:]
        var events: [String] = []
        var written: [UInt8] = []
    }

    // MARK: Limits

    @Test func oneStreamTooManyIsReset() {
        var configuration = MplexConfiguration()
        configuration.maximumInboundStreams = 2
        configuration.acceptBacklog = 1
        var side = MplexSide(.listener, configuration)
        #expect(side.receive(mplex(0, 1) + mplex(0, 3)) == [.accept(Self.theirs(1))])
        #expect(side.written() == mplex(5, 3))
        side.session.negotiated(Self.theirs(1))
        #expect(side.receive(mplex(0, 5)) == [.accept(Self.theirs(5))])
        side.session.negotiated(Self.theirs(5))
        #expect(side.receive(mplex(0, 7) + mplex(2, 7, [1])) == [])
        #expect(side.written() == mplex(5, 7))
        _ = side.receive(mplex(6, 1))
        #expect(side.receive(mplex(0, 1)) == [.accept(Self.theirs(1))])
    }

    @Test func ourOwnStreamsAreLimitedToo() throws {
        var configuration = MplexConfiguration()
        configuration.maximumOutboundStreams = 1
        var side = MplexSide(.dialer, configuration)
        let id = try side.session.openStream()
        #expect(throws: MuxerError.tooManyStreams) { try side.session.openStream() }
        side.session.reset(id, .unspecified)
        side.session.nextNumber = MplexFrame.maximumNumber
        let last = try side.session.openStream()
        side.session.reset(last, .unspecified)
        #expect(throws: MuxerError.streamIDsExhausted) { try side.session.openStream() }
    }

    @Test func aRemoteThatReadsNoResetsIsGivenUp() {
        var side = MplexSide(.listener)
        var end: MplexSession.Action?
        for _ in 0..<100_000 where end == nil {
            end = side.receive(mplex(0, 1) + mplex(4, 1) + mplex(2, 1, [1])).last {
                if case .end = $0 { true } else { false }
            }
        }
        guard case .end(.failure(.answersNotRead(let bytes))) = end else {
            Issue.record("it goes on for ever")
            return
        }
        #expect(bytes <= MplexSession.maximumControlBytes + MplexFrame.maximumHeaderBytes)
        #expect(side.written().isEmpty)
    }

    // MARK: Slow readers

    static var small: MplexConfiguration {
        var configuration = MplexConfiguration()
        configuration.streamBufferBytes = 100
        configuration.totalBufferBytes = 250
        return configuration
    }

    @Test func aSlowReaderHoldsUpTheConnectionUntilItReads() {
        var side = MplexSide(.listener, Self.small)
        let (slow, fast) = (Self.theirs(1), Self.theirs(3))
        _ = side.receive(mplex(0, 1) + mplex(0, 3))
        side.session.setReading(true, on: fast)
        #expect(side.receive(mplex(2, 1, [UInt8](repeating: 1, count: 100))) == [])
        #expect(side.session.wantsInput, "a full buffer hurts nobody before there is more")
        #expect(side.receive(mplex(2, 3, [5])) == [.deliver(fast, ByteBuffer(bytes: [5]))])
        #expect(side.receive(mplex(2, 1, [2, 3]) + mplex(2, 3, [6])) == [])
        #expect(!side.session.wantsInput)
        #expect(side.session.nextDeadline == side.now + .seconds(5))
        #expect(side.session.bufferedBytes == 100)
        // What it reads makes room for the rest.
        side.session.setReading(true, on: slow)
        let delivered = side.actions()
        #expect(
            delivered.suffix(2) == [.deliver(slow, ByteBuffer(bytes: [2, 3])), .deliver(fast, ByteBuffer(bytes: [6]))])
        #expect(side.session.wantsInput && side.session.nextDeadline == nil && side.session.bufferedBytes == 0)
    }

    @Test func aReaderThatIsTooSlowLosesItsStream() {
        var side = MplexSide(.listener, Self.small)
        let (slow, fast) = (Self.theirs(1), Self.theirs(3))
        _ = side.receive(mplex(0, 1) + mplex(0, 3))
        side.session.setReading(true, on: fast)
        _ = side.receive(mplex(2, 1, [UInt8](repeating: 1, count: 120)) + mplex(2, 3, [6]))
        #expect(side.session.bufferedBytes == 100 && !side.session.wantsInput)
        side.now = side.now + .milliseconds(4999)
        side.session.tick(now: side.now)
        #expect(side.actions() == [])
        side.now = side.now + .milliseconds(1)
        side.session.tick(now: side.now)
        #expect(
            side.actions() == [
                .closeStream(slow, StreamResetError(code: .resourceLimitExceeded, byRemote: false)),
                .deliver(fast, ByteBuffer(bytes: [6])),
            ])
        #expect(side.written() == mplex(5, 1))
        #expect(side.session.wantsInput && side.session.bufferedBytes == 0)
    }

    @Test func whoHoldsMostOfWhatAllShareLosesFirst() {
        var side = MplexSide(.listener, Self.small)
        _ = side.receive(mplex(0, 1) + mplex(0, 3) + mplex(0, 5) + mplex(0, 7))
        _ = side.receive(mplex(2, 1, [UInt8](repeating: 1, count: 80)) + mplex(2, 3, [UInt8](repeating: 1, count: 90)))
        _ = side.receive(mplex(2, 5, [UInt8](repeating: 1, count: 70)) + mplex(2, 7, [UInt8](repeating: 1, count: 20)))
        #expect(side.session.bufferedBytes == 250 && !side.session.wantsInput)
        side.now = side.now + .seconds(5)
        side.session.tick(now: side.now)
        #expect(
            side.actions() == [
                .closeStream(Self.theirs(3), StreamResetError(code: .resourceLimitExceeded, byRemote: false))
            ])
        #expect(side.session.bufferedBytes == 80 + 70 + 20 && side.session.wantsInput)
    }

    @Test func singleBytesDoNotHoldWholeBuffers() {
        var side = MplexSide(.listener)
        _ = side.receive(mplex(0, 1))
        for _ in 0..<1000 {
            var large = ByteBuffer()
            large.reserveCapacity(65_536)
            large.writeBytes(mplex(2, 1, [1]))
            side.session.receive(large)
            _ = side.actions()
        }
        let queue = side.session.streams[Self.theirs(1)].map { Array($0.receiveQueue) } ?? []
        #expect(queue.count == 1 && queue.reduce(0) { $0 + $1.storageCapacity } < 65_536)
    }

    // MARK: Mistakes and ends

    @Test(
        arguments: [
            (mplex(7, 1), MplexError.unknownFlag(7)), (mplex(0, 1) + mplex(0, 1), .duplicateStream(number: 1)),
            ([10, 0x81, 0x80, 0x40], .messageTooLong(bytes: 1_048_577)), ([0x80, 0x00, 0x00], .malformedHeader),
        ] as [([UInt8], MplexError)])
    func mistakesEndTheSession(bytes: [UInt8], error: MplexError) throws {
        var side = MplexSide(.listener)
        let id = try side.announced()
        side.session.write(ByteBuffer(bytes: [1]), to: id)
        side.session.flush(id)
        #expect(side.receive(bytes + mplex(0, 5)).last == .end(.failure(error)))
        #expect(side.session.isEnded && side.session.streamCount == 0 && !side.session.wantsInput)
        #expect(side.written().isEmpty)
        #expect(throws: MuxerError.sessionClosed) { try side.session.openStream() }
        #expect(side.receive(mplex(0, 5)) == [])
    }

    @Test func theEndOfInputIsOrderlyBetweenMessagesOnly() {
        let input = mplex(0, 1, [1]) + mplex(2, 1, [2, 3])
        for count in 0...input.count {
            var side = MplexSide(.listener)
            _ = side.receive(Array(input.prefix(count)))
            side.session.inputEnded()
            let ending: MplexSession.Ending =
                [0, 3, input.count].contains(count) ? .closed(.none, byRemote: true) : .failure(.cutOff)
            #expect(side.actions() == [.end(ending)])
        }
    }

    @Test func closingCompletesTheMessageThatIsUnderWay() throws {
        var side = MplexSide(.dialer)
        let id = try side.announced()
        side.session.write(ByteBuffer(bytes: [1, 2]), to: id)
        side.session.flush(id)
        #expect(side.session.nextWrite() == ByteBuffer(bytes: [10, 2]))
        side.session.close(.shutdown)
        side.session.close(.gated)
        #expect(side.actions() == [.end(.closed(.shutdown, byRemote: false))])
        #expect(side.written() == [1, 2])
        side.session.lost()
        #expect(side.actions() == [])
    }
}
