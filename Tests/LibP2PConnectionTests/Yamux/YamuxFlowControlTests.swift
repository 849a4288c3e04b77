import LibP2PCore
import NIOCore
import Testing

@testable import LibP2PConnection

@Suite struct YamuxFlowControlTests {
    static let window = 256 * 1024

    // MARK: Sending

    @Test func sendsNoMoreThanTheWindowAndGoesOnWhenItOpens() throws {
        var dialer = YamuxSide(.dialer)
        let id = try dialer.announced()
        dialer.session.write(ByteBuffer(repeating: 1, count: Self.window - 1), to: id)
        dialer.session.flush(id)
        #expect(dialer.bodyBytesWritten() == Self.window - 1)
        dialer.session.write(ByteBuffer(repeating: 1, count: 1000), to: id)
        dialer.session.flush(id)
        #expect(dialer.actions() == [])
        #expect(dialer.bodyBytesWritten() == 1)
        #expect(dialer.actions() == [.sendabilityChanged(id)])
        #expect(!dialer.session.isSendable(id))
        #expect(dialer.receive(yamux(1, 2, id, 0)) == [])
        #expect(dialer.bodyBytesWritten() == 0)
        #expect(dialer.receive(yamux(1, 0, id, 5000)) == [.sendabilityChanged(id)])
        #expect(dialer.session.isSendable(id))
        #expect(dialer.bodyBytesWritten() == 999)
        #expect(dialer.session.streams[id]?.sendWindow == UInt32(4001))
    }

    @Test func aHalfClosedStreamStillTakesWindowUpdates() throws {
        var dialer = YamuxSide(.dialer)
        let id = try dialer.announced()
        dialer.session.write(ByteBuffer(repeating: 1, count: Self.window + 1), to: id)
        dialer.session.closeWrite(id)
        #expect(dialer.bodyBytesWritten() == Self.window)
        #expect(dialer.session.streams[id]?.output == .ending)
        _ = dialer.receive(yamux(1, 0, id, 1))
        #expect(dialer.written() == yamux(0, 4, id, 1) + [1])
        #expect(dialer.session.streams[id]?.output == .ended)
    }

    @Test func aWindowOfExactlyWhatIsQueuedCarriesTheEndToo() throws {
        var dialer = YamuxSide(.dialer)
        let id = try dialer.announced()
        dialer.session.write(ByteBuffer(repeating: 1, count: Self.window), to: id)
        dialer.session.flush(id)
        #expect(dialer.bodyBytesWritten() == Self.window)
        dialer.session.closeWrite(id)
        #expect(dialer.written() == yamux(1, 4, id, 0), "an end needs no window")
    }

    @Test func aStreamIsNotWritableAboveTheBoundOfItsQueue() throws {
        var configuration = YamuxConfiguration()
        configuration.sendQueueBytes = 1000
        var dialer = YamuxSide(.dialer, configuration)
        let id = try dialer.announced()
        dialer.session.write(ByteBuffer(repeating: 1, count: 999), to: id)
        #expect(dialer.session.isSendable(id))
        dialer.session.write(ByteBuffer(repeating: 1, count: 1), to: id)
        #expect(!dialer.session.isSendable(id))
        #expect(dialer.actions() == [.sendabilityChanged(id)])
        dialer.session.flush(id)
        #expect(dialer.bodyBytesWritten() == 1000)
        #expect(dialer.actions() == [.sendabilityChanged(id)])
        #expect(dialer.session.isSendable(id))
    }

    @Test func onlyWhatIsFlushedGoesOut() throws {
        var dialer = YamuxSide(.dialer)
        let id = try dialer.announced()
        dialer.session.write(ByteBuffer(string: "ab"), to: id)
        dialer.session.flush(id)
        dialer.session.write(ByteBuffer(string: "cd"), to: id)
        #expect(dialer.written() == yamux(0, 0, id, 2) + Array("ab".utf8))
        #expect(dialer.written().isEmpty)
    }

    @Test func theLargestWindowIsLegal() throws {
        var dialer = YamuxSide(.dialer)
        let id = try dialer.announced()
        #expect(dialer.receive(yamux(1, 0, id, .max - UInt32(Self.window))) == [])
        #expect(dialer.session.streams[id]?.sendWindow == UInt32.max)
        #expect(dialer.receive(yamux(1, 0, id, 1)).count == 1)
        #expect(dialer.session.isEnded)
    }

    // MARK: Receiving

    @Test func grantsFromHalfTheWindowOnHoweverSmallThePieces() {
        for pieceBytes in [1000, 65_536, Self.window / 2] {
            var listener = YamuxSide(.listener)
            listener.openInbound(1)
            var consumed = 0
            while consumed + pieceBytes < Self.window / 2 {
                listener.feed(1, bytes: pieceBytes)
                consumed += pieceBytes
                #expect(listener.written().isEmpty)
            }
            listener.feed(1, bytes: pieceBytes)
            consumed += pieceBytes
            #expect(listener.written() == yamux(1, 0, 1, UInt32(consumed)))
            #expect(listener.session.streams[1]?.receiveCredit == UInt32(Self.window))
        }
    }

    @Test func coalescesTheUpdatesOfABurst() {
        var listener = YamuxSide(.listener)
        listener.openInbound(1)
        listener.openInbound(3)
        for _ in 0..<4 {
            listener.feed(1, bytes: Self.window / 4)
            listener.feed(3, bytes: Self.window / 4)
        }
        #expect(listener.written() == yamux(1, 0, 1, UInt32(Self.window)) + yamux(1, 0, 3, UInt32(Self.window)))
    }

    @Test func grantsNothingWhileNobodyReads() {
        var listener = YamuxSide(.listener)
        listener.openInbound(1)
        listener.session.setReading(false, on: 1)
        for _ in 0..<4 { listener.feed(1, bytes: Self.window / 4) }
        #expect(listener.written().isEmpty)
        #expect(listener.session.streams[1]?.receiveCredit == 0)
        #expect(listener.session.streams[1]?.isConsistent == true)
        listener.session.setReading(true, on: 1)
        #expect(listener.bodyBytesDelivered() == Self.window)
        #expect(listener.written() == yamux(1, 0, 1, UInt32(Self.window)))
        listener.session.setReading(false, on: 1)
        listener.feed(1, bytes: Self.window)
        #expect(
            listener.receive(yamux(0, 0, 1, 1)) == [
                .end(.failure(.receiveWindowExceeded(streamID: 1, bytes: 1, window: 0)))
            ])
    }

    @Test func readingMayStopAndStartBetweenPieces() {
        var listener = YamuxSide(.listener)
        listener.openInbound(1)
        listener.session.setReading(false, on: 1)
        for byte in UInt8(0)..<5 { _ = listener.receive(yamux(0, 0, 1, 2000) + [UInt8](repeating: byte, count: 2000)) }
        _ = listener.receive(yamux(1, 4, 1, 0))
        listener.session.setReading(true, on: 1)
        var delivered: [UInt8] = []
        var hasEnded = false
        for round in 0..<100 {
            listener.session.setReading(round % 2 == 0, on: 1)
            switch listener.session.nextAction() {
            case .deliver(1, let bytes)?: delivered += bytes.readableBytesView
            case .endInput(1)?: hasEnded = true
            default: break
            }
            if round % 2 == 1 { #expect(listener.session.nextAction() == nil) }
        }
        #expect(delivered == (UInt8(0)..<5).flatMap { [UInt8](repeating: $0, count: 2000) })
        #expect(hasEnded)
    }

    @Test func grantsNothingAfterTheRemoteEnded() {
        var listener = YamuxSide(.listener)
        listener.openInbound(1)
        listener.feed(1, bytes: Self.window / 2)
        _ = listener.receive(yamux(1, 4, 1, 0))
        #expect(listener.written().isEmpty)
    }

    // MARK: Growth

    @Test func theWindowDoublesWhileItIsUsedUpWithinFourRoundTrips() throws {
        var listener = YamuxSide(.listener)
        try listener.measure(.milliseconds(100))
        listener.openInbound(1)
        var window = Self.window
        var seen: [Int] = []
        for _ in 0..<10 {
            listener.now = listener.now + .milliseconds(399)
            listener.feed(1, bytes: window / 2)
            let grown = min(2 * window, 16 * 1024 * 1024)
            #expect(listener.written() == yamux(1, 0, 1, UInt32(window / 2 + grown - window)))
            window = grown
            seen.append(window)
            #expect(listener.session.streams[1]?.receiveWindow == UInt32(window))
            #expect(listener.session.streams[1]?.receiveCredit == UInt32(window))
        }
        #expect(seen.last == 16 * 1024 * 1024)
        listener.now = listener.now + .milliseconds(400)
        listener.feed(1, bytes: window / 2)
        #expect(listener.written() == yamux(1, 0, 1, UInt32(window / 2)))
    }

    @Test func theWindowStaysWhileItIsUsedSlowlyOrNothingIsMeasured() throws {
        for isMeasured in [true, false] {
            var listener = YamuxSide(.listener)
            if isMeasured { try listener.measure(.milliseconds(100)) }
            listener.openInbound(1)
            for _ in 0..<5 {
                listener.now = listener.now + .milliseconds(isMeasured ? 400 : 1)
                listener.feed(1, bytes: Self.window / 2)
                #expect(listener.written() == yamux(1, 0, 1, UInt32(Self.window / 2)))
            }
        }
    }

    @Test func aShortRoundTripCountsAsTheLeast() throws {
        var listener = YamuxSide(.listener)
        try listener.measure(.microseconds(10))
        listener.openInbound(1)
        listener.now = listener.now + .microseconds(3999)
        listener.feed(1, bytes: Self.window / 2)
        #expect(listener.written() == yamux(1, 0, 1, UInt32(Self.window / 2 + Self.window)))
    }

    @Test func theSumOfAllGrowthIsBoundedAndComesBack() throws {
        var configuration = YamuxConfiguration()
        configuration.windowGrowthBytes = 400_000
        var listener = YamuxSide(.listener, configuration)
        try listener.measure(.milliseconds(100))
        for id in [1, 3, 5] as [UInt32] { listener.openInbound(id) }
        func grown(_ id: UInt32) -> Int { Int(listener.session.streams[id]?.receiveWindow ?? 0) - Self.window }
        for id in [1, 3, 5] as [UInt32] {
            listener.feed(id, bytes: Self.window / 2)
            _ = listener.written()
        }
        #expect([grown(1), grown(3), grown(5)] == [Self.window, 400_000 - Self.window, 0])
        #expect(listener.session.grownBytes == 400_000)
        _ = listener.receive(yamux(1, 8, 1, 0))
        #expect(listener.session.grownBytes == 400_000 - Self.window)
        listener.feed(5, bytes: Self.window / 2)
        _ = listener.written()
        #expect(grown(5) == Self.window)
    }

    @Test func sillyLimitsAreHarmless() throws {
        for limit in [Int.min, 0, Int.max] {
            var configuration = YamuxConfiguration()
            configuration.maximumReceiveWindowBytes = limit
            configuration.windowGrowthBytes = limit
            var listener = YamuxSide(.listener, configuration)
            try listener.measure(.seconds(1))
            listener.openInbound(1)
            for _ in 0..<16 {
                var missing = Int(listener.session.streams[1]?.receiveWindow ?? 0) / 2
                if missing > 40_000_000 { break }
                while missing > 0 {
                    listener.feed(1, bytes: min(missing, 1_000_000))
                    missing -= 1_000_000
                }
                _ = listener.written()
                #expect(listener.session.streams[1]?.isConsistent == true)
            }
        }
    }
}

/// Pings, round trips and silence.
@Suite struct YamuxLivenessTests {
    @Test func measuresRoundTripsAndSmoothsThem() throws {
        var side = YamuxSide(.dialer)
        let first = try side.session.ping(now: side.now)
        side.now = side.now + .milliseconds(50)
        #expect(side.written() == yamux(2, 1, 0, first), "a ping that waits for the stream beneath is not yet measured")
        side.now = side.now + .milliseconds(80)
        #expect(side.receive(yamux(2, 2, 0, first)) == [.completePing(first, .milliseconds(80))])
        #expect(side.session.roundTripTime == .milliseconds(80))
        #expect(side.receive(yamux(2, 2, 0, first)) == [], "one answer is enough")
        try side.measure(.milliseconds(40))
        #expect(side.session.roundTripTime == .milliseconds(60))
    }

    @Test func ignoresAnAnswerThatComesBeforeItsPingWasSent() throws {
        var side = YamuxSide(.dialer)
        let token = try side.session.ping(now: side.now)
        #expect(side.receive(yamux(2, 2, 0, token)) == [])
        #expect(side.session.roundTripTime == nil)
    }

    @Test func pingsOnlyAfterSilenceAndEndsWhenThatGoesOn() {
        var side = YamuxSide(.dialer)
        let start = side.now
        #expect(side.session.nextDeadline == start + .seconds(30))
        side.now = start + .seconds(20)
        _ = side.receive(yamux(1, 0, 9, 0))
        side.now = start + .seconds(30)
        side.session.tick(now: side.now)
        #expect(side.written().isEmpty)
        #expect(side.session.nextDeadline == start + .seconds(50))
        side.now = start + .seconds(50)
        side.session.tick(now: side.now)
        #expect(side.written() == yamux(2, 1, 0, 0))
        #expect(side.session.nextDeadline == start + .seconds(60))
        side.session.tick(now: start + .seconds(60) - .nanoseconds(1))
        #expect(side.actions() == [])
        side.session.tick(now: start + .seconds(60))
        #expect(side.actions() == [.end(.failure(.keepaliveTimedOut(after: .seconds(10))))])
        #expect(side.written().isEmpty, "there is nobody to say goodbye to")
        #expect(side.session.nextDeadline == nil)
    }

    @Test func anUnansweredPingIsHarmlessWhileOtherBytesArrive() throws {
        var side = YamuxSide(.dialer)
        let token = try side.session.ping(now: side.now)
        _ = side.written()
        side.now = side.now + .seconds(9)
        _ = side.receive(yamux(1, 0, 9, 0))
        side.now = side.now + .seconds(1)
        side.session.tick(now: side.now)
        #expect(side.actions() == [.failPing(token, .pingTimedOut(after: .seconds(10)))])
        #expect(!side.session.isEnded)
        #expect(side.receive(yamux(2, 2, 0, token)) == [])
    }

    @Test func measuresAgainEveryThirtySecondsWhileDataArrives() throws {
        var side = YamuxSide(.listener)
        side.openInbound(1)
        try side.measure(.milliseconds(1))
        let start = side.now
        var sent: [Int] = []
        for second in 1...100 {
            side.now = start + .seconds(Int64(second))
            side.feed(1, bytes: 1)
            side.session.tick(now: side.now)
            let bytes = side.written()
            guard !bytes.isEmpty else { continue }
            #expect(bytes.prefix(4) == [0, 2, 0, 1])
            sent.append(second)
            _ = side.receive([0, 2, 0, 2] + bytes[4...])
        }
        #expect(sent == [30, 60, 90])
    }

    @Test func anIdleSessionWakesTwiceInThirtySecondsAtMost() {
        var side = YamuxSide(.dialer)
        let end = side.now + .minutes(10)
        var wakes = 0
        while let deadline = side.session.nextDeadline, deadline < end {
            side.now = deadline
            side.session.tick(now: side.now)
            wakes += 1
            let bytes = side.written()
            if !bytes.isEmpty { _ = side.receive([0, 2, 0, 2] + bytes[4...]) }
        }
        #expect(wakes <= 40)
        #expect(!side.session.isEnded)
    }

    @Test func boundsPingsThatAwaitAnswers() throws {
        var side = YamuxSide(.dialer)
        for _ in 0..<32 { _ = try side.session.ping(now: side.now) }
        #expect(throws: YamuxError.tooManyPings) { try side.session.ping(now: side.now) }
        #expect(side.written().count == 32 * 12)
    }
}

extension YamuxSide {
    private static let zeros = ByteBuffer(bytes: [UInt8](repeating: 0, count: 1 << 20))

    /// Lets a ping take `time`.
    mutating func measure(_ time: TimeAmount) throws {
        let token = try self.session.ping(now: self.now)
        _ = self.written()
        self.now = self.now + time
        _ = self.receive(yamux(2, 2, 0, token))
    }

    /// Opens a stream from the remote, accepts it and reads from it.
    mutating func openInbound(_ id: UInt32) {
        _ = self.receive(yamux(1, 1, id, 0))
        self.session.accept(id)
        self.session.setReading(true, on: id)
        _ = self.written()
    }

    /// Lets one frame with so many bytes arrive.
    mutating func feed(_ id: UInt32, bytes: Int) {
        var missing = bytes
        while missing > 0 {
            let length = min(missing, 1 << 20)
            missing -= length
            self.session.receive(ByteBuffer(bytes: yamux(0, 0, id, UInt32(length))), now: self.now)
            if let body = Self.zeros.getSlice(at: 0, length: length) { self.session.receive(body, now: self.now) }
            while self.session.nextAction() != nil {}
        }
    }

    mutating func bodyBytesDelivered() -> Int {
        self.actions().reduce(0) { sum, action in
            if case .deliver(_, let bytes) = action { sum + bytes.readableBytes } else { sum }
        }
    }

    /// Sends everything and counts the bytes of bodies.
    mutating func bodyBytesWritten() -> Int {
        var bytes = ByteBuffer(bytes: self.written())
        var sum = 0
        while let frame = try? bytes.readYamuxFrame() {
            guard frame.kind == .data else { continue }
            sum += Int(frame.length)
            bytes.moveReaderIndex(forwardBy: Int(frame.length))
        }
        return sum
    }
}
