import LibP2PCore
import NIOCore
import NIOEmbedded
import Testing

@testable import LibP2PConnection

private typealias Bytes = MultistreamBytes

@Suite struct StreamNegotiatorTests {
    let pipe = Pipe()
    let recorder = Recorder()
    let limit = TimeAmount.seconds(15)

    /// Both ends negotiate, both write at once, and both read all of it, however the input is cut.
    @Test(arguments: [1, 2, 3, 7, 20, 30, .max])
    func agreesAndHandsOver(chunk: Int) throws {
        let dialed = StreamNegotiator.dial(self.pipe.dialer, protocols: ["/tls/1.0.0", "/noise"], timeout: self.limit)
        let listened = StreamNegotiator.listen(self.pipe.listener, accepts: { $0 == "/noise" }, timeout: self.limit)
        let other = Recorder()
        dialed.whenSuccess { stream in
            stream.write(ByteBuffer(string: "from the dialer"))
            stream.flush()
        }
        self.pipe.run { chunk }
        let dialer = try #require(try outcome(dialed)?.get())
        let listener = try #require(try outcome(listened)?.get())
        #expect(dialer.agreedProtocol == "/noise")
        #expect(listener.agreedProtocol == "/noise")
        dialer.receiver = self.recorder
        dialer.setReading(true)
        #expect(self.pipe.dialer.receiver === self.recorder)
        listener.write(ByteBuffer(string: "from the listener"))
        listener.flush()
        // The listener's input waits until it is wanted.
        listener.receiver = other
        self.pipe.run { chunk }
        #expect(other.input.isEmpty)
        listener.setReading(true)
        self.pipe.run { chunk }
        #expect(self.recorder.input == Array("from the listener".utf8))
        #expect(other.input == Array("from the dialer".utf8))
        #expect(self.pipe.listener.receiver === other)
        #expect(other.bursts > 0)
        listener.closeWrite()
        self.pipe.run()
        #expect(self.recorder.hasInputEnded)
        dialer.close(nil)
        self.pipe.run()
        #expect(self.recorder.hasEndedOrderly && other.hasEndedOrderly)
    }

    @Test func optimisticIsOneFlight() throws {
        let stream = try StreamNegotiator.dialStreamOptimistically(
            self.pipe.dialer, protocolID: "/noise", timeout: self.limit)
        #expect(stream.protocolID == "/noise")
        #expect(stream.id == 7 && stream.role == .dialer)
        stream.receiver = self.recorder
        stream.setReading(true)
        stream.write(ByteBuffer(string: "hello"))
        stream.flush()
        self.pipe.loop.run()
        #expect(self.pipe.dialer.flushes == 1)
        #expect(self.pipe.listener.takeInbox() == Bytes.header + Bytes.noise + Array("hello".utf8))
        self.pipe.dialer.inject(Bytes.header)
        self.pipe.run()
        #expect(self.recorder.calls == 0)
        self.pipe.dialer.inject(Bytes.noise + Array("world".utf8))
        self.pipe.run()
        #expect(self.recorder.input == Array("world".utf8))
        #expect(self.pipe.dialer.receiver === self.recorder)
        // The timer is gone.
        self.pipe.loop.advanceTime(by: .hours(1))
        #expect(self.recorder.end == nil)
    }

    @Test(arguments: [1, 2, 5, 19, 21, 27, 28, .max])
    func optimisticHidesTheEchoes(chunk: Int) throws {
        let stream = try StreamNegotiator.dialStreamOptimistically(
            self.pipe.dialer, protocolID: "/noise", timeout: self.limit)
        let listened = StreamNegotiator.listenStream(self.pipe.listener, accepts: { _ in true }, timeout: self.limit)
        let other = Recorder()
        listened.whenSuccess { accepted in
            accepted.receiver = other
            accepted.setReading(true)
            accepted.write(ByteBuffer(string: "answer"))
            accepted.closeWrite()
        }
        stream.receiver = self.recorder
        stream.setReading(true)
        stream.write(ByteBuffer(string: "question"))
        stream.closeWrite()
        self.pipe.run { chunk }
        #expect(other.input == Array("question".utf8) && other.hasInputEnded)
        #expect(self.recorder.input == Array("answer".utf8) && self.recorder.hasInputEnded)
        #expect(self.pipe.listener.protocolID == "/noise")
    }

    /// Who only listens still makes the remote speak.
    @Test func optimisticHeaderGoesOutForAReader() throws {
        let stream = try StreamNegotiator.dialOptimistically(
            self.pipe.dialer, protocolID: "/noise", timeout: self.limit)
        stream.receiver = self.recorder
        #expect(self.pipe.listener.takeInbox() == [])
        stream.setReading(true)
        #expect(self.pipe.listener.takeInbox() == [])
        self.pipe.loop.run()
        #expect(self.pipe.listener.takeInbox() == Bytes.header + Bytes.noise)
    }

    @Test func earlyInputWaitsForAReader() throws {
        let stream = try StreamNegotiator.dialOptimistically(
            self.pipe.dialer, protocolID: "/noise", timeout: self.limit)
        stream.receiver = self.recorder
        stream.flush()
        self.pipe.dialer.inject(Bytes.header + Bytes.noise + [1, 2, 3])
        self.pipe.run()
        #expect(self.recorder.calls == 0)
        #expect(!self.pipe.dialer.isReading)
        // An orderly end of everything does not overtake it.
        self.pipe.listener.close(nil)
        self.pipe.run()
        stream.closed(nil)
        #expect(self.recorder.end == nil)
        stream.setReading(true)
        #expect(self.recorder.input == [1, 2, 3])
        #expect(self.recorder.bursts == 1)
        #expect(self.recorder.hasEndedOrderly)
    }

    @Test func aReceiverMayPushBackOrLeaveWithinEarlyInput() throws {
        let other = Recorder()
        let stream = try StreamNegotiator.dialOptimistically(
            self.pipe.dialer, protocolID: "/noise", timeout: self.limit)
        stream.receiver = self.recorder
        stream.setReading(true)
        self.recorder.onInput = {
            stream.setReading(false)
            stream.receiver = other
        }
        self.pipe.run()
        self.pipe.dialer.inject(Bytes.header + Bytes.noise + [1])
        self.pipe.run()
        self.pipe.dialer.inject([2])
        self.pipe.run()
        #expect(self.recorder.input == [1])
        #expect(other.input == [])
        stream.setReading(true)
        self.pipe.run()
        #expect(other.input == [2])
    }

    static let refusals: [([UInt8], NegotiationError)] = [
        (Bytes.header + Bytes.na, .unsupported(["/noise"])),
        (Bytes.tls, .unexpectedHeader("/tls/1.0.0")),
        (Bytes.header + Bytes.tls, .unexpectedReply("/tls/1.0.0")),
        ([0xff, 0xff, 0x01], .messageTooLong(bytes: 32767)),
    ]

    @Test(arguments: refusals)
    func aRefusalEndsTheStream(reply: [UInt8], error: NegotiationError) throws {
        let stream = try StreamNegotiator.dialStreamOptimistically(
            self.pipe.dialer, protocolID: "/noise", timeout: self.limit)
        stream.receiver = self.recorder
        stream.setReading(true)
        self.pipe.run()
        self.pipe.dialer.inject(reply)
        self.pipe.run()
        #expect(self.recorder.hasEnded(with: error))
        #expect(self.pipe.dialer.resetCode == .protocolNegotiationFailed)

        let plain = Pipe()
        let dialed = StreamNegotiator.dial(plain.dialer, protocols: ["/noise"], timeout: self.limit)
        plain.dialer.inject(reply)
        plain.run()
        #expect(outcome(dialed)?.failed() == error)
        #expect(plain.dialer.isClosed && plain.dialer.resetCode == nil)
    }

    @Test func aResetMayBeTheRefusal() throws {
        let stream = try StreamNegotiator.dialStreamOptimistically(
            self.pipe.dialer, protocolID: "/noise", timeout: self.limit)
        stream.receiver = self.recorder
        stream.setReading(true)
        self.pipe.run()
        self.pipe.listener.reset(.protocolNegotiationFailed)
        self.pipe.run()
        #expect(self.recorder.hasEnded(with: NegotiationError.unsupported(["/noise"])))
    }

    /// An end that comes before there is a receiver is not lost.
    @Test func anEarlyEndIsTold() throws {
        let stream = try StreamNegotiator.dialStreamOptimistically(
            self.pipe.dialer, protocolID: "/noise", timeout: self.limit)
        self.pipe.listener.reset(.gated)
        self.pipe.run()
        stream.receiver = self.recorder
        #expect(self.recorder.end == nil)
        self.pipe.run()
        #expect(self.recorder.hasEnded(with: StreamResetError(code: .gated, byRemote: true)))
    }

    @Test func ourOwnCloseIsNoFailure() throws {
        let stream = try StreamNegotiator.dialStreamOptimistically(
            self.pipe.dialer, protocolID: "/noise", timeout: self.limit)
        stream.receiver = self.recorder
        stream.setReading(true)
        stream.close(nil)
        #expect(self.recorder.hasEndedOrderly)
        self.pipe.run()
        self.pipe.loop.advanceTime(by: .hours(1))
    }

    @Test func timesOut() throws {
        let dialed = StreamNegotiator.dialStream(self.pipe.dialer, protocols: ["/noise"], timeout: self.limit)
        let other = Pipe()
        let listened = StreamNegotiator.listen(other.listener, accepts: { _ in true }, timeout: self.limit)
        let third = Pipe()
        let stream = try StreamNegotiator.dialOptimistically(third.dialer, protocolID: "/noise", timeout: self.limit)
        stream.receiver = self.recorder
        for pipe in [self.pipe, other, third] { pipe.loop.advanceTime(by: .seconds(14)) }
        #expect(outcome(dialed) == nil && outcome(listened) == nil)
        stream.flush()
        for pipe in [self.pipe, other, third] { pipe.loop.advanceTime(by: .seconds(1)) }
        #expect(outcome(dialed)?.failed() == NegotiationError.timedOut)
        #expect(outcome(listened)?.failed() == NegotiationError.timedOut)
        #expect(self.pipe.dialer.resetCode == .protocolNegotiationFailed)
        #expect(other.listener.isClosed)
        // The optimistic one counts from its first flush.
        #expect(self.recorder.end == nil)
        third.loop.advanceTime(by: .seconds(14))
        #expect(self.recorder.hasEnded(with: NegotiationError.timedOut))
    }

    @Test func anEndBeforeAgreementFails() {
        let dialed = StreamNegotiator.dial(self.pipe.dialer, protocols: ["/noise"], timeout: self.limit)
        self.pipe.listener.closeWrite()
        self.pipe.run()
        #expect(outcome(dialed)?.failed() == NegotiationError.streamEnded)
        let other = Pipe()
        let listened = StreamNegotiator.listen(other.listener, accepts: { _ in true }, timeout: self.limit)
        other.dialer.close(BrokenPipe())
        other.run()
        #expect(outcome(listened)?.failed() == BrokenPipe())
        let none = StreamNegotiator.dial(Pipe().dialer, protocols: [], timeout: self.limit)
        #expect(outcome(none)?.failed() == NegotiationError.noProtocolsProposed)
        #expect(throws: NegotiationError.messageTooLong(bytes: 2001)) {
            try StreamNegotiator.dialOptimistically(
                Pipe().dialer, protocolID: ProtocolID(rawValue: String(repeating: "x", count: 2000)),
                timeout: self.limit)
        }
    }

    @Test func listenerClosesWhenTheDialerGivesUp() {
        let dialed = StreamNegotiator.dial(self.pipe.dialer, protocols: ["/a", "/b"], timeout: self.limit)
        let listened = StreamNegotiator.listen(self.pipe.listener, accepts: { _ in false }, timeout: self.limit)
        self.pipe.run()
        #expect(outcome(dialed)?.failed() == NegotiationError.unsupported(["/a", "/b"]))
        #expect(outcome(listened)?.failed() == BrokenPipe())
    }
}
