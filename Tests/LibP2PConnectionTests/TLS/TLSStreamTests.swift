import LibP2PCore
import NIOCore
import NIOEmbedded
import PeerIdentity
import Testing

@testable import LibP2PConnection

/// Two secured streams over a pipe.
private struct SecuredPipe {
    /// Made once: certificates are not what is tested here.
    static let contexts = Result {
        (
            try TLSContext(certificate: .make(identity: .generate())),
            try TLSContext(certificate: .make(identity: .generate()))
        )
    }

    let pipe = Pipe()
    let dialer: TLSStream
    let listener: TLSStream
    let dialerSide = Recorder()
    let listenerSide = Recorder()

    struct NoHandshake: Error {}

    init() throws {
        let (alice, bob) = try Self.contexts.get()
        let outbound = TLSUpgrader(alice).secure(self.pipe.dialer, role: .dialer, expecting: nil, muxers: [])
        let inbound = TLSUpgrader(bob).secure(self.pipe.listener, role: .listener, expecting: nil, muxers: [])
        self.pipe.run()
        guard let dialer = try outcome(outbound)?.get().stream as? TLSStream,
            let listener = try outcome(inbound)?.get().stream as? TLSStream
        else { throw NoHandshake() }
        (self.dialer, self.listener) = (dialer, listener)
        self.dialer.receiver = self.dialerSide
        self.listener.receiver = self.listenerSide
        self.dialer.setReading(true)
        self.listener.setReading(true)
    }

    /// Sends `texts` from the dialer, each in a record of its own, and takes the records from the wire.
    func sealed(_ texts: String...) -> [UInt8] {
        for text in texts {
            self.dialer.write(ByteBuffer(string: text))
            self.dialer.flush()
        }
        return self.pipe.listener.takeInbox()
    }
}

/// The plaintext length of each record.
private func recordLengths(_ bytes: [UInt8]) -> [Int] {
    var lengths: [Int] = []
    var rest = bytes[...]
    while rest.count >= 5 {
        let header = Array(rest.prefix(5))
        #expect(header.prefix(3) == [23, 3, 3])
        let length = Int(header[3]) << 8 | Int(header[4])
        lengths.append(length - 17)
        rest = rest.dropFirst(5 + length)
    }
    return lengths
}

private func content(_ count: Int, from start: Int = 0) -> [UInt8] {
    (start..<start + count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
}

@Suite struct TLSStreamTests {
    static let packings: [(writes: [Int], records: [Int])] = [
        ([1], [1]), ([16_384], [16_384]), ([16_385], [16_384, 1]), ([0, 5, 0], [5]),
        ([12, 65_536], [16_384, 16_384, 16_384, 16_384, 12]),
        (Array(repeating: 1_400, count: 12), [16_384, 416]),
        ([65_536, 12, 65_536], Array(repeating: 16_384, count: 8) + [12]),
        ([300_000], Array(repeating: 16_384, count: 18) + [5_088]),
        ([100_000, 100_000, 100_000], Array(repeating: 16_384, count: 18) + [5_088]),
    ]

    @Test(arguments: packings)
    func packsIntoFullRecords(writes: [Int], records: [Int]) throws {
        let secured = try SecuredPipe()
        var expected: [UInt8] = []
        for count in writes {
            let bytes = content(count, from: expected.count)
            secured.dialer.write(ByteBuffer(bytes: bytes))
            expected += bytes
        }
        #expect(secured.pipe.dialer.written.isEmpty)
        let flushes = secured.pipe.dialer.flushes
        secured.dialer.flush()
        #expect(secured.pipe.dialer.flushes == flushes + 1)
        let sealed = secured.pipe.listener.takeInbox()
        #expect(recordLengths(sealed) == records)
        #expect(secured.dialer.bytesSealed == UInt64(expected.count))
        secured.pipe.listener.inject(sealed)
        secured.pipe.run()
        #expect(secured.listenerSide.input == expected)
        #expect(secured.listenerSide.calls == 1)
        #expect(secured.listener.bytesOpened == UInt64(expected.count))
    }

    /// Random writes of random sizes in both directions, cut at random places, against what was written.
    @Test(arguments: 0..<6)
    func randomTraffic(seed: UInt64) throws {
        var random = SplitMix(seed: seed)
        let secured = try SecuredPipe()
        var expected: (toListener: [UInt8], toDialer: [UInt8]) = ([], [])
        let longest = [3, 40, 1_500, 20_000, 70_000, 140_000][Int(seed)]
        for _ in 0..<40 {
            for _ in 0..<Int(random.next() % 6) {
                let bytes = content(Int(random.next() % UInt64(longest)), from: Int(random.next() % 999))
                if random.next() % 2 == 0 {
                    secured.dialer.write(ByteBuffer(bytes: bytes))
                    expected.toListener += bytes
                } else {
                    secured.listener.write(ByteBuffer(bytes: bytes))
                    expected.toDialer += bytes
                }
            }
            if random.next() % 3 > 0 { secured.dialer.flush() }
            if random.next() % 3 > 0 { secured.listener.flush() }
            if random.next() % 8 == 0 { secured.pipe.loop.advanceTime(by: .seconds(11)) }
            let chunk = 1 + random.next() % UInt64(2 * longest)
            secured.pipe.run { Int(1 + random.next() % chunk) }
        }
        secured.dialer.flush()
        secured.listener.flush()
        secured.pipe.run()
        #expect(secured.listenerSide.input == expected.toListener)
        #expect(secured.dialerSide.input == expected.toDialer)
        #expect(secured.dialerSide.end == nil && secured.listenerSide.end == nil)
    }

    @Test func survivesAnySplit() throws {
        for step in [Int.max, 1] {
            var cut = 0
            var count = 0
            repeat {
                let secured = try SecuredPipe()
                let sealed = secured.sealed("first", "", "the second", "3")
                count = sealed.count
                secured.pipe.listener.inject(Array(sealed[..<cut]))
                secured.pipe.run { step }
                secured.pipe.listener.inject(Array(sealed[cut...]))
                secured.pipe.run { step }
                #expect(secured.listenerSide.input == Array("firstthe second3".utf8))
                cut += 1
            } while cut <= count
        }
    }

    /// Whichever byte is damaged, what came before is delivered, and the stream ends with a named error on both sides.
    @Test func tamperedRecordsEndTheStream() throws {
        let good = 5 + 4 + 17
        for index in good..<good + 5 + 3 + 17 {
            let secured = try SecuredPipe()
            var damaged = secured.sealed("good", "bad")
            #expect(damaged.count == good + 5 + 3 + 17)
            damaged[index] ^= 0x10
            secured.pipe.listener.inject(damaged)
            secured.pipe.run()
            #expect(secured.listenerSide.input == Array("good".utf8))
            if index < good + 3 {
                guard case .some(.some(let error as TLSError)) = secured.listenerSide.end, case .malformed = error
                else {
                    Issue.record("byte \(index): \(String(describing: secured.listenerSide.end))")
                    continue
                }
            } else if index < good + 5 {
                // A record that is longer now has not arrived yet.
                secured.pipe.listener.inject([UInt8](repeating: 0, count: 5000))
                secured.pipe.run()
                #expect(secured.listenerSide.hasEnded(with: TLSError.recordNotAuthentic), "byte \(index)")
            } else {
                #expect(secured.listenerSide.hasEnded(with: TLSError.recordNotAuthentic), "byte \(index)")
            }
            #expect(secured.pipe.listener.isClosed)
        }
    }

    @Test func aReplayedRecordEndsTheStream() throws {
        let secured = try SecuredPipe()
        let sealed = secured.sealed("once")
        secured.pipe.listener.inject(sealed + sealed)
        secured.pipe.run { 1 }
        #expect(secured.listenerSide.input == Array("once".utf8))
        #expect(secured.listenerSide.hasEnded(with: TLSError.recordNotAuthentic))
    }

    /// Without the remote's last word an end is none, wherever it comes.
    @Test func anEndWithoutALastWordIsNamed() throws {
        let count = try SecuredPipe().sealed("whole").count
        for kept in 0...count {
            let secured = try SecuredPipe()
            let sealed = secured.sealed("whole")
            secured.pipe.listener.inject(Array(sealed.prefix(kept)))
            secured.pipe.dialer.closeWrite()
            secured.pipe.run()
            #expect(secured.listenerSide.input == (kept == count ? Array("whole".utf8) : []))
            #expect(secured.listenerSide.hasEnded(with: TLSError.truncated), "\(kept)")
        }
    }

    @Test func pushesBack() throws {
        let secured = try SecuredPipe()
        secured.listener.setReading(false)
        #expect(!secured.pipe.listener.isReading)
        secured.dialer.write(ByteBuffer(string: "a"))
        secured.dialer.closeWrite()
        secured.pipe.run()
        #expect(secured.listenerSide.calls == 0)
        // One read's worth, and the end, may come all the same.
        let sealed = secured.pipe.listener.takeInbox()
        secured.listener.received(ByteBuffer(bytes: sealed))
        secured.listener.inputEnded()
        secured.listener.closed(nil)
        #expect(
            secured.listenerSide.calls == 0 && !secured.listenerSide.hasInputEnded && secured.listenerSide.end == nil)
        secured.listener.setReading(true)
        #expect(secured.listenerSide.input == Array("a".utf8))
        #expect(secured.listenerSide.bursts == 1)
        #expect(secured.listenerSide.hasInputEnded && secured.listenerSide.hasEndedOrderly)
    }

    @Test func aReceiverMayCloseWithinInput() throws {
        let secured = try SecuredPipe()
        secured.listenerSide.onInput = { secured.listener.close(BrokenPipe()) }
        let sealed = secured.sealed("a", "b")
        secured.pipe.listener.inject(sealed)
        secured.pipe.run { sealed.count / 2 }
        #expect(secured.listenerSide.input == Array("a".utf8))
        #expect(secured.listenerSide.hasEnded(with: BrokenPipe()))
        secured.listener.write(ByteBuffer(string: "ignored"))
        secured.listener.flush()
        #expect(secured.pipe.listener.written.isEmpty)
    }

    @Test func writability() throws {
        let secured = try SecuredPipe()
        secured.dialer.write(ByteBuffer(repeating: 0, count: TLSStream.writableBound - 1))
        #expect(secured.dialer.isWritable)
        secured.dialer.write(ByteBuffer(repeating: 0, count: 1))
        #expect(!secured.dialer.isWritable)
        secured.dialer.flush()
        #expect(secured.dialer.isWritable)
        #expect(secured.dialerSide.writabilityChanges == 1)
        secured.pipe.dialer.isWritable = false
        secured.dialer.writabilityChanged()
        #expect(!secured.dialer.isWritable)
        #expect(secured.dialerSide.writabilityChanges == 2)
    }

    /// One direction ends, the other lives on; then both have ended, without an error.
    @Test(arguments: [1, 7, 24, .max])
    func directionsEndOneByOne(chunk: Int) throws {
        let secured = try SecuredPipe()
        secured.dialer.write(ByteBuffer(string: "bye"))
        secured.dialer.closeWrite()
        secured.dialer.write(ByteBuffer(string: "ignored"))
        secured.dialer.flush()
        secured.pipe.run { chunk }
        #expect(secured.listenerSide.input == Array("bye".utf8) && secured.listenerSide.hasInputEnded)
        #expect(secured.listenerSide.end == nil && !secured.dialerSide.hasInputEnded)
        secured.listener.write(ByteBuffer(string: "still here"))
        secured.listener.flush()
        secured.pipe.run { chunk }
        #expect(secured.dialerSide.input == Array("still here".utf8))
        secured.listener.closeWrite()
        secured.pipe.run { chunk }
        #expect(secured.dialerSide.hasInputEnded)
        secured.dialer.close(nil)
        secured.pipe.run { chunk }
        #expect(secured.dialerSide.hasEndedOrderly && secured.listenerSide.hasEndedOrderly)
    }

    @Test func anOrderlyCloseIsNoTruncation() throws {
        let secured = try SecuredPipe()
        secured.dialer.write(ByteBuffer(string: "all of it"))
        secured.dialer.flush()
        secured.dialer.close(nil)
        secured.pipe.run()
        #expect(secured.dialerSide.hasEndedOrderly)
        #expect(secured.listenerSide.input == Array("all of it".utf8) && secured.listenerSide.hasInputEnded)
        #expect(secured.listenerSide.hasEndedOrderly)
    }

    @Test func anIdleStreamHoldsNoBuffers() throws {
        let secured = try SecuredPipe()
        #expect(!secured.dialer.holdsBuffers)
        for _ in 0..<3 {
            secured.dialer.write(ByteBuffer(string: "x"))
            secured.dialer.flush()
            secured.pipe.run()
            secured.pipe.loop.advanceTime(by: .seconds(4))
            #expect(secured.dialer.holdsBuffers && secured.listener.holdsBuffers)
        }
        secured.pipe.loop.advanceTime(by: .seconds(10))
        #expect(!secured.dialer.holdsBuffers && !secured.listener.holdsBuffers)
        secured.dialer.write(ByteBuffer(string: "y"))
        secured.dialer.flush()
        secured.pipe.run()
        #expect(secured.listenerSide.input == Array("xxxy".utf8))
    }

    /// The beginning of a record outlives the buffers.
    @Test(arguments: [1, 5, 100, 16_405, 16_406, 16_407, 20_000])
    func anIdleStreamKeepsAPartialRecord(cut: Int) throws {
        let secured = try SecuredPipe()
        let text = content(20_000)
        secured.dialer.write(ByteBuffer(bytes: text))
        secured.dialer.flush()
        let sealed = secured.pipe.listener.takeInbox()
        secured.pipe.listener.inject(Array(sealed[..<cut]))
        secured.pipe.run()
        secured.pipe.loop.advanceTime(by: .seconds(20))
        #expect(!secured.listener.holdsBuffers)
        secured.pipe.listener.inject(Array(sealed[cut...]))
        secured.pipe.run()
        #expect(secured.listenerSide.input == text)
    }
}

@Suite struct TLSUpgraderTests {
    let pipe = Pipe()
    let alice: PrivateKey
    let bob: PrivateKey

    init() throws {
        self.alice = try PrivateKey.generate()
        self.bob = try PrivateKey.generate()
    }

    /// Handshake, then data at once from both sides, however the input is cut.
    @Test(arguments: [1, 2, 3, 17, 33, 100, 250, 700, 1200, .max])
    func securesAndHandsOver(chunk: Int) throws {
        let outbound = TLSUpgrader(identity: self.alice).secure(
            self.pipe.dialer, role: .dialer, expecting: PeerID(self.bob.publicKey), muxers: ["/yamux/1.0.0"])
        let inbound = TLSUpgrader(identity: self.bob).secure(
            self.pipe.listener, role: .listener, expecting: nil, muxers: ["/yamux/1.0.0"])
        let (ours, theirs) = (Recorder(), Recorder())
        for (future, recorder, text) in [(outbound, ours, "from alice"), (inbound, theirs, "from bob")] {
            future.whenSuccess { secured in
                secured.stream.write(ByteBuffer(string: text))
                secured.stream.flush()
                // Only later does somebody want input.
                secured.stream.eventLoop.execute {
                    secured.stream.receiver = recorder
                    secured.stream.setReading(true)
                }
            }
        }
        self.pipe.run { chunk }
        let dialer = try #require(try outcome(outbound)?.get())
        let listener = try #require(try outcome(inbound)?.get())
        #expect(dialer.remotePeer == PeerID(self.bob.publicKey))
        #expect(listener.remotePeer == PeerID(self.alice.publicKey))
        #expect(dialer.muxer == "/yamux/1.0.0" && listener.muxer == "/yamux/1.0.0")
        #expect(ours.input == Array("from bob".utf8))
        #expect(theirs.input == Array("from alice".utf8))
        dialer.stream.close(nil)
        self.pipe.run()
        #expect(ours.hasEndedOrderly && theirs.hasEndedOrderly)
    }

    /// As a connection is made: multistream-select, optimistic on one side, and TLS on what it leaves.
    @Test(arguments: [1, 5, 21, 60, .max])
    func runsOnANegotiatedStream(chunk: Int) throws {
        let (alice, bob) = (TLSUpgrader(identity: self.alice), TLSUpgrader(identity: self.bob))
        let plain = try StreamNegotiator.dialOptimistically(
            self.pipe.dialer, protocolID: "/tls/1.0.0", timeout: .seconds(15))
        let outbound = alice.secure(plain, role: .dialer, expecting: nil, muxers: [])
        let inbound = StreamNegotiator.listen(
            self.pipe.listener, accepts: { $0 == "/tls/1.0.0" }, timeout: .seconds(15)
        ).flatMap { bob.secure($0, role: .listener, expecting: nil, muxers: []) }
        let recorder = Recorder()
        inbound.whenSuccess { secured in
            secured.stream.receiver = recorder
            secured.stream.setReading(true)
        }
        outbound.whenSuccess { secured in
            secured.stream.write(ByteBuffer(string: "hello"))
            secured.stream.flush()
        }
        self.pipe.run { chunk }
        #expect(recorder.input == Array("hello".utf8))
        #expect(try outcome(outbound)?.get().muxer == nil)
    }

    @Test func failuresCloseTheStream() throws {
        let expected = PeerID(self.alice.publicKey)
        let outbound = TLSUpgrader(identity: self.alice).secure(
            self.pipe.dialer, role: .dialer, expecting: expected, muxers: [])
        let inbound = TLSUpgrader(identity: self.bob).secure(
            self.pipe.listener, role: .listener, expecting: nil, muxers: [])
        self.pipe.run()
        let error = TransportError.peerMismatch(expected: expected, found: PeerID(self.bob.publicKey))
        #expect(outcome(outbound)?.failed() == error)
        #expect(self.pipe.dialer.isClosed && self.pipe.listener.isClosed)
        // Told with an alert, or at least by the end.
        #expect(
            outcome(inbound)?.failed() == TLSError.refused(alert: 42) || outcome(inbound)?.failed() == BrokenPipe())

        let silent = Pipe()
        let cutOff = TLSUpgrader(identity: self.bob).secure(
            silent.listener, role: .listener, expecting: nil, muxers: [])
        silent.listener.inject([22, 3, 1])
        silent.dialer.closeWrite()
        silent.run()
        #expect(outcome(cutOff)?.failed() == TLSError.handshakeCutOff)
        #expect(silent.listener.isClosed)

        // The caller's time-out closes the stream beneath.
        let slow = Pipe()
        let cancelled = TLSUpgrader(identity: self.bob).secure(
            slow.listener, role: .listener, expecting: nil, muxers: [])
        slow.listener.close(NegotiationError.timedOut)
        #expect(outcome(cancelled)?.failed() == NegotiationError.timedOut)
    }

    /// In TLS 1.3 the dialer is done first, so the listener's refusal ends its secured stream.
    @Test func aRefusedDialerLearnsItLater() throws {
        let outbound = TLSUpgrader(identity: self.alice).secure(
            self.pipe.dialer, role: .dialer, expecting: nil, muxers: [])
        let inbound = TLSUpgrader(identity: self.bob).secure(
            self.pipe.listener, role: .listener, expecting: PeerID(self.bob.publicKey), muxers: [])
        let recorder = Recorder()
        outbound.whenSuccess { secured in
            secured.stream.receiver = recorder
            secured.stream.setReading(true)
        }
        self.pipe.run()
        let mismatch = TransportError.peerMismatch(
            expected: PeerID(self.bob.publicKey), found: PeerID(self.alice.publicKey))
        #expect(outcome(inbound)?.failed() == mismatch)
        #expect(recorder.input.isEmpty)
        #expect(recorder.hasEnded(with: TLSError.refused(alert: 42)) || recorder.hasEnded(with: BrokenPipe()))
        #expect(try outcome(outbound)?.get().remotePeer == PeerID(self.bob.publicKey))
    }
}
