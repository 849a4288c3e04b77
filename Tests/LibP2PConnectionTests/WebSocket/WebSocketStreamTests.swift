import LibP2PCore
import NIOCore
import NIOEmbedded
import Testing

@testable import LibP2PConnection

/// Two WebSockets over a pipe, their opening behind them.
private struct WebSocketPipe {
    let pipe = Pipe()
    let dialer: WebSocketStream
    let listener: WebSocketStream
    let dialerSide = Recorder()
    let listenerSide = Recorder()

    init(reading: Bool = true) {
        self.dialer = WebSocketStream(self.pipe.dialer, role: .dialer)
        self.listener = WebSocketStream(self.pipe.listener, role: .listener)
        for (stream, side) in [(self.dialer, self.dialerSide), (self.listener, self.listenerSide)] {
            stream.receiver = side
            stream.setReading(reading)
        }
    }
}

/// One WebSocket; the test plays the remote.
private struct HalfPipe {
    let pipe = Pipe()
    let stream: WebSocketStream
    let side = Recorder()
    let role: Role
    var near: PipeEnd { self.role == .dialer ? self.pipe.dialer : self.pipe.listener }
    var far: PipeEnd { self.role == .dialer ? self.pipe.listener : self.pipe.dialer }
    /// What the remote masks with.
    var mask: WebSocketMask? { self.role == .listener ? WebSocketMask(key: 0x1234_5678) : nil }

    init(_ role: Role, earlyInput: [UInt8] = []) {
        self.role = role
        self.stream = WebSocketStream(
            role == .dialer ? self.pipe.dialer : self.pipe.listener, role: role,
            earlyInput: ByteBuffer(bytes: earlyInput))
        self.stream.receiver = self.side
        self.stream.setReading(true)
    }

    /// As if the remote had sent this.
    func send(_ opcode: WebSocketFrameHeader.Opcode = .binary, _ payload: [UInt8], isFinal: Bool = true) {
        self.near.inject(webSocketFrame(opcode, payload, isFinal: isFinal, mask: self.mask))
        self.pipe.run()
    }

    /// The frames that the remote has got by now.
    func frames() -> [(WebSocketFrameHeader.Opcode, [UInt8])] {
        var bytes = ByteBuffer(bytes: self.far.takeInbox())
        var frames: [(WebSocketFrameHeader.Opcode, [UInt8])] = []
        while let header = try? bytes.readWebSocketHeader(), var payload = bytes.readSlice(length: header.length) {
            #expect((header.mask != nil) == (self.role == .dialer) && header.isFinal)
            if let mask = header.mask { payload.applyWebSocketMask(mask) }
            frames.append((header.opcode, Array(payload.readableBytesView)))
        }
        #expect(bytes.readableBytes == 0)
        return frames
    }

    /// The opcodes and payloads that the remote has got by now.
    func expectFrames(_ expected: [(WebSocketFrameHeader.Opcode, [UInt8])], line: Int = #line) {
        let frames = self.frames()
        let isEqual = frames.elementsEqual(expected) { $0.0 == $1.0 && $0.1 == $1.1 }
        #expect(isEqual, "line \(line): \(frames.map { ($0.0, $0.1.prefix(8)) })")
    }
}

private func content(_ count: Int, from start: Int = 0) -> [UInt8] {
    (start..<start + count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
}

@Suite struct WebSocketStreamTests {
    static let roles = [Role.dialer, .listener]
    static let normal: [UInt8] = [0x03, 0xe8]

    // MARK: Bytes

    @Test(arguments: roles, [[1], [65_536], [12, 65_507, 3], [0, 5, 0], [262_144]])
    func aFlushIsOneFrameAndOneWrite(role: Role, writes: [Int]) {
        let half = HalfPipe(role)
        var expected: [UInt8] = []
        for count in writes {
            let bytes = content(count, from: expected.count)
            half.stream.write(ByteBuffer(bytes: bytes))
            expected += bytes
        }
        #expect(half.near.written.isEmpty)
        half.stream.flush()
        #expect(half.near.flushes == 1)
        half.expectFrames([(.binary, expected)])
        half.stream.flush()
        #expect(half.near.flushes == 1)
    }

    @Test(arguments: roles) func aLongWriteIsCut(role: Role) {
        let half = HalfPipe(role)
        let limit = WebSocketStream.maximumSentFrameBytes
        for count in [10, 2 * limit, 20] { half.stream.write(ByteBuffer(bytes: content(count))) }
        half.stream.flush()
        #expect(half.near.flushes == 1)
        let frames = half.frames()
        #expect(frames.map(\.1.count) == [10, limit, limit, 20] || frames.map(\.1.count) == [10, limit, limit + 20])
        #expect(frames.flatMap(\.1) == content(10) + content(2 * limit) + content(20))
    }

    /// Random writes of random sizes in both directions, cut at random places, against what was written.
    @Test(arguments: 0..<6)
    func randomTraffic(seed: UInt64) {
        var random = SplitMix(seed: seed)
        let both = WebSocketPipe()
        var expected: (toListener: [UInt8], toDialer: [UInt8]) = ([], [])
        let longest = [3, 40, 1_500, 20_000, 70_000, 300_000][Int(seed)]
        for _ in 0..<30 {
            for _ in 0..<Int(random.next() % 6) {
                let bytes = content(Int(random.next() % UInt64(longest)), from: Int(random.next() % 999))
                if random.next() % 2 == 0 {
                    both.dialer.write(ByteBuffer(bytes: bytes))
                    expected.toListener += bytes
                } else {
                    both.listener.write(ByteBuffer(bytes: bytes))
                    expected.toDialer += bytes
                }
            }
            both.dialer.flush()
            both.listener.flush()
            for stream in [both.dialer, both.listener] { stream.setReading(random.next() % 4 != 0) }
            both.pipe.run { 1 + Int(random.next() % UInt64(longest)) }
        }
        both.dialer.setReading(true)
        both.listener.setReading(true)
        both.pipe.run()
        #expect(both.listenerSide.input == expected.toListener)
        #expect(both.dialerSide.input == expected.toDialer)
    }

    @Test(arguments: roles) func whatTheOpeningHasReadComesFirst(role: Role) {
        let mask = role == .listener ? WebSocketMask(key: 9) : nil
        let frame = webSocketFrame(.binary, Array("early".utf8), mask: mask)
        for cut in 0...frame.count {
            let half = HalfPipe(role, earlyInput: Array(frame[..<cut]))
            half.near.inject(Array(frame[cut...]))
            half.pipe.run()
            half.send(.binary, Array(" late".utf8))
            #expect(half.side.input == Array("early late".utf8), "cut at \(cut)")
        }
    }

    @Test(arguments: roles) func inputWaitsForItsReader(role: Role) {
        let half = HalfPipe(role)
        half.side.onInput = { half.stream.setReading(false) }
        let mask = half.mask
        half.near.inject(
            webSocketFrame(.binary, [1], mask: mask) + webSocketFrame(.binary, [2], mask: mask)
                + webSocketFrame(.close, Self.normal, mask: mask))
        half.far.closeWrite()
        half.pipe.run()
        let first = half.side.input
        #expect(first == (role == .dialer ? [1] : [1, 2]))
        #expect(!half.side.hasInputEnded || role == .listener)
        #expect(!half.near.isReading || role == .listener)
        for _ in 0..<3 {
            half.stream.setReading(true)
            half.pipe.run()
        }
        #expect(half.side.input == [1, 2] && half.side.hasInputEnded)
        half.pipe.loop.advanceTime(by: WebSocketStream.closeGrace)
        #expect(half.side.hasEndedOrderly)
        half.side.onInput = nil
    }

    @Test func writabilityFollowsTheQueueAndTheStreamBeneath() {
        let half = HalfPipe(.dialer)
        #expect(half.stream.isWritable)
        half.stream.write(ByteBuffer(repeating: 1, count: WebSocketStream.writableBound))
        #expect(!half.stream.isWritable)
        half.stream.flush()
        #expect(half.stream.isWritable && half.side.writabilityChanges == 1)
        half.near.isWritable = false
        #expect(!half.stream.isWritable)
        half.stream.writabilityChanged()
        #expect(half.side.writabilityChanges == 2)
    }

    @Test(arguments: roles) func idleBuffersAreLetGo(role: Role) {
        let half = HalfPipe(role)
        half.stream.write(ByteBuffer(bytes: content(100_000)))
        half.stream.flush()
        half.send(.binary, content(100_000))
        #expect(half.stream.holdsBuffers)
        half.pipe.loop.advanceTime(by: WebSocketStream.idleTime * 2)
        #expect(!half.stream.holdsBuffers)
        half.send(.binary, [1])
        #expect(half.side.input == content(100_000) + [1])
        half.stream.close(nil)
    }

    // MARK: Control frames

    @Test(arguments: roles) func pingsAreAnswered(role: Role) {
        let half = HalfPipe(role)
        half.send(.ping, content(125))
        half.expectFrames([(.pong, content(125))])
        half.send(.pong, content(3))
        half.send(.ping, [])
        half.expectFrames([(.pong, [])])
        #expect(half.side.input.isEmpty && half.side.end == nil)
    }

    @Test(arguments: roles) func ofManyPingsTheNewestIsAnsweredWhenThereIsRoom(role: Role) {
        let half = HalfPipe(role)
        half.near.isWritable = false
        for number in 0..<100 { half.send(.ping, [UInt8(number)]) }
        half.expectFrames([])
        half.near.isWritable = true
        half.stream.writabilityChanged()
        half.expectFrames([(.pong, [99])])
        half.near.inject((0..<100).flatMap { webSocketFrame(.ping, [UInt8($0)], mask: half.mask) })
        half.pipe.run()
        half.expectFrames([(.pong, [99])])
    }

    // MARK: Ends

    @Test(arguments: roles) func bothEndsCloseInOrder(role: Role) {
        let both = WebSocketPipe()
        let (closer, other) = role == .dialer ? (both.dialer, both.listener) : (both.listener, both.dialer)
        closer.write(ByteBuffer(bytes: [1, 2, 3]))
        closer.flush()
        closer.close(nil)
        #expect(!closer.isWritable)
        both.pipe.run()
        let (near, far) = role == .dialer ? (both.dialerSide, both.listenerSide) : (both.listenerSide, both.dialerSide)
        #expect(far.input == [1, 2, 3] && far.hasInputEnded)
        #expect(near.hasEndedOrderly && far.hasEndedOrderly)
        #expect(!other.isWritable)
        both.pipe.loop.advanceTime(by: .seconds(1))
    }

    @Test(arguments: roles) func theOtherDirectionGoesOnUntilTheRemoteAnswers(role: Role) {
        let half = HalfPipe(role)
        half.stream.write(ByteBuffer(bytes: [7]))
        half.stream.closeWrite()
        half.stream.write(ByteBuffer(bytes: [8]))
        half.stream.flush()
        half.stream.closeWrite()
        half.expectFrames([(.binary, [7]), (.close, Self.normal)])
        half.send(.binary, [1])
        half.send(.ping, [1])
        half.send(.binary, [2])
        #expect(half.side.input == [1, 2] && !half.side.hasInputEnded)
        half.expectFrames([])
        half.send(.close, Self.normal)
        #expect(half.side.hasInputEnded && half.side.end == nil)
        half.far.closeWrite()
        half.pipe.run()
        #expect(half.side.hasEndedOrderly)
        half.expectFrames([])
    }

    @Test(arguments: roles) func aCloseFrameIsAnsweredBehindWhatIsQueued(role: Role) {
        for (close, answer) in [(Self.normal, Self.normal), ([], Self.normal), ([0x03, 0xe9], [0x03, 0xe9])] {
            let half = HalfPipe(role)
            half.stream.write(ByteBuffer(bytes: [7]))
            half.send(.close, close)
            #expect(half.side.hasInputEnded && half.side.end == nil)
            half.expectFrames([(.binary, [7]), (.close, answer)])
            // The remote leaves the connection open.
            half.pipe.loop.advanceTime(by: .milliseconds(99))
            #expect(half.side.end == nil)
            half.pipe.loop.advanceTime(by: .milliseconds(1))
            #expect(half.side.hasEndedOrderly && half.near.isClosed)
        }
    }

    @Test(arguments: roles) func whoClosesDoesNotWaitLongForAnAnswer(role: Role) {
        let half = HalfPipe(role)
        half.stream.write(ByteBuffer(bytes: [7]))
        half.stream.close(nil)
        half.expectFrames([(.close, Self.normal)])
        half.send(.binary, [1])
        half.send(.ping, [1])
        half.expectFrames([])
        #expect(half.side.input.isEmpty && half.side.end == nil)
        half.pipe.loop.advanceTime(by: WebSocketStream.closeGrace)
        #expect(half.side.hasEndedOrderly && half.near.isClosed)
        half.stream.close(BrokenPipe())
    }

    @Test(arguments: roles) func aFailureOfTheOwnerEndsItAtOnce(role: Role) {
        let half = HalfPipe(role)
        half.stream.close(BrokenPipe())
        #expect(half.side.hasEnded(with: BrokenPipe()) && half.near.isClosed)
        half.expectFrames([(.close, Self.normal)])
    }

    @Test(arguments: roles) func aRemoteThatFailedIsNamed(role: Role) {
        let half = HalfPipe(role)
        half.send(.close, [0x03, 0xf3] + Array("out of luck".utf8))
        #expect(half.side.hasEnded(with: WebSocketError.closedByRemote(code: 1011, reason: "out of luck")))
        half.expectFrames([(.close, [0x03, 0xf3])])
    }

    static let violations: [([UInt8], WebSocketError, code: UInt16)] = [
        ([0xf2, 0x80, 0, 0, 0, 0], .reservedBitsSet, 1002),
        (webSocketFrame(.text, [0x41], mask: WebSocketMask(key: 5)), .textFrame, 1003),
        (webSocketFrame([1]), .unmaskedFrame, 1002),
        ([0x82, 0xff, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0], .frameTooLong(bytes: 9 << 24), 1009),
    ]

    @Test(arguments: violations.indices) func aViolationIsToldAndEndsIt(index: Int) {
        let (bytes, error, code) = Self.violations[index]
        let half = HalfPipe(.listener)
        half.near.inject(webSocketFrame(.binary, [1], mask: half.mask) + bytes)
        half.pipe.run()
        #expect(half.side.input == [1])
        #expect(half.side.hasEnded(with: error) && half.near.isClosed)
        half.expectFrames([(.close, [UInt8(code >> 8), UInt8(code & 0xff)])])
    }

    @Test(arguments: roles) func anEndWithoutACloseFrame(role: Role) {
        // Between frames it is an end like any other.
        let orderly = HalfPipe(role)
        orderly.send(.binary, [1])
        orderly.far.closeWrite()
        orderly.pipe.run()
        orderly.pipe.loop.advanceTime(by: WebSocketStream.closeGrace)
        #expect(orderly.side.input == [1] && orderly.side.hasInputEnded && orderly.side.hasEndedOrderly)
        // Within a frame something is missing.
        let cut = HalfPipe(role)
        cut.near.inject(webSocketFrame(.binary, [1, 2, 3], mask: cut.mask).dropLast())
        cut.far.closeWrite()
        cut.pipe.run()
        #expect(cut.side.input == [1, 2] && cut.side.hasEnded(with: WebSocketError.frameCutOff))
        let broken = HalfPipe(role)
        broken.far.close(BrokenPipe())
        broken.pipe.run()
        #expect(broken.side.hasEnded(with: BrokenPipe()))
    }

    @Test(arguments: roles) func whoComesLateIsToldOfTheEnd(role: Role) {
        let half = HalfPipe(role)
        half.stream.receiver = nil
        half.far.close(BrokenPipe())
        half.pipe.run()
        #expect(half.side.end == nil)
        half.stream.receiver = half.side
        half.pipe.run()
        #expect(half.side.hasEnded(with: BrokenPipe()))
    }

    /// The owner does something in the middle of a delivery.
    @Test(arguments: roles) func ownersMayCloseWithinADelivery(role: Role) {
        for close in [{ (stream: WebSocketStream) in stream.close(nil) }, { $0.close(BrokenPipe()) }] {
            let half = HalfPipe(role)
            half.side.onInput = {
                close(half.stream)
                half.side.onInput = nil
            }
            half.near.inject(
                webSocketFrame(.binary, [1], mask: half.mask) + webSocketFrame(.binary, [2], mask: half.mask)
                    + webSocketFrame(.close, Self.normal, mask: half.mask))
            half.pipe.run()
            half.pipe.loop.advanceTime(by: WebSocketStream.closeGrace)
            #expect(half.side.end != nil && half.near.isClosed)
            #expect(half.side.input == (role == .dialer ? [1] : [1, 2]))
        }
    }
}
