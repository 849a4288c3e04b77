import Crypto
import LibP2PCore
import NIOCore
import NIOEmbedded
import PeerIdentity
import Testing

@testable import LibP2PConnection

/// Two secured streams over a pipe.
private struct SecuredPipe {
    let pipe = Pipe()
    let dialer: NoiseStream
    let listener: NoiseStream
    let dialerSide = Recorder()
    let listenerSide = Recorder()

    init(firstRecord: UInt64 = 0) throws {
        let keys = (
            SymmetricKey(data: [UInt8](repeating: 1, count: 32)), SymmetricKey(data: [UInt8](repeating: 2, count: 32))
        )
        self.dialer = try NoiseStream(
            self.pipe.dialer, keys: NoiseTransportKeys(sending: keys.0, receiving: keys.1), firstRecord: firstRecord)
        self.listener = try NoiseStream(
            self.pipe.listener, keys: NoiseTransportKeys(sending: keys.1, receiving: keys.0), firstRecord: firstRecord)
        self.pipe.dialer.receiver = self.dialer
        self.pipe.listener.receiver = self.listener
        self.dialer.receiver = self.dialerSide
        self.listener.receiver = self.listenerSide
        self.dialer.setReading(true)
        self.listener.setReading(true)
    }
}

/// The plaintext length of each record.
private func recordLengths(_ bytes: [UInt8]) -> [Int] {
    var lengths: [Int] = []
    var rest = bytes[...]
    while let high = rest.popFirst(), let low = rest.popFirst() {
        let length = Int(high) << 8 | Int(low)
        lengths.append(length - 16)
        rest = rest.dropFirst(length)
    }
    return lengths
}

private func content(_ count: Int, from start: Int = 0) -> [UInt8] {
    (start..<start + count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
}

@Suite struct NoiseStreamTests {
    static let packings: [(writes: [Int], records: [Int])] = [
        ([1], [1]),
        ([12, 65_507], [65_519]),
        ([12, 65_508], [65_519, 1]),
        ([65_519], [65_519]),
        ([65_520], [65_519, 1]),
        (Array(repeating: 1_400, count: 46), [64_400]),
        (Array(repeating: 1_400, count: 47), [64_400, 1_400]),
        ([60_000, 16_384], [60_000, 16_384]),
        ([60_000, 16_385], [65_519, 10_866]),
        ([65_507, 12, 12], [65_519, 12]),
        ([65_510, 12, 65_507], [65_510, 65_519]),
        ([12, 65_507, 12, 65_507], [65_519, 65_519]),
        ([1_000, 12, 65_507], [65_519, 1_000]),
        ([400_000], [65_519, 65_519, 65_519, 65_519, 65_519, 65_519, 6_886]),
        (Array(repeating: 16_384, count: 18), [49_152, 49_152, 49_152, 49_152, 49_152, 49_152]),
        ([0, 5, 0], [5]),
    ]

    @Test(arguments: packings)
    func packsIntoFewRecords(writes: [Int], records: [Int]) throws {
        let secured = try SecuredPipe()
        var expected: [UInt8] = []
        for count in writes {
            let bytes = content(count, from: expected.count)
            secured.dialer.write(ByteBuffer(bytes: bytes))
            expected += bytes
        }
        #expect(secured.pipe.dialer.written.isEmpty)
        secured.dialer.flush()
        #expect(secured.pipe.dialer.flushes == 1)
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
        let secured = try SecuredPipe()
        for text in ["first", "", "the second", "3"] {
            secured.dialer.write(ByteBuffer(string: text))
            secured.dialer.flush()
        }
        let sealed = secured.pipe.listener.takeInbox()
        for cut in 0...sealed.count {
            for step in [sealed.count, 1] {
                let other = try SecuredPipe()
                other.pipe.listener.inject(Array(sealed[..<cut]))
                other.pipe.run { step }
                other.pipe.listener.inject(Array(sealed[cut...]))
                other.pipe.run { step }
                #expect(other.listenerSide.input == Array("firstthe second3".utf8))
            }
        }
    }

    @Test func emptyRecordsAreLegal() throws {
        var sealer = try RecordSealer(key: SymmetricKey(data: [UInt8](repeating: 1, count: 32)))
        let empty = try sealer.seal([])
        let full = try sealer.seal(Array("x".utf8))
        let secured = try SecuredPipe()
        secured.pipe.listener.inject([0, 16] + empty)
        secured.pipe.run()
        #expect(secured.listenerSide.calls == 0)
        secured.pipe.listener.inject([0, 17] + full)
        secured.pipe.run()
        #expect(secured.listenerSide.input == Array("x".utf8))
    }

    /// Whichever byte is damaged, what came before is delivered, and the stream ends with a named error.
    @Test func tamperedRecordsEndTheStream() throws {
        let secured = try SecuredPipe()
        secured.dialer.write(ByteBuffer(string: "good"))
        secured.dialer.flush()
        secured.dialer.write(ByteBuffer(string: "bad"))
        secured.dialer.flush()
        let sealed = secured.pipe.listener.takeInbox()
        for index in 24..<sealed.count {
            let other = try SecuredPipe()
            var damaged = sealed
            damaged[index] ^= 0x80
            other.pipe.listener.inject(damaged)
            other.pipe.run()
            #expect(other.listenerSide.input == Array("good".utf8))
            #expect(other.listenerSide.hasEnded(with: NoiseError.recordNotAuthentic(number: 1)))
            #expect(other.pipe.listener.isClosed)
            other.pipe.run()
            #expect(other.dialerSide.hasEnded(with: BrokenPipe()))
        }
    }

    @Test func aReplayedRecordEndsTheStream() throws {
        let secured = try SecuredPipe()
        secured.dialer.write(ByteBuffer(string: "once"))
        secured.dialer.flush()
        let sealed = secured.pipe.listener.takeInbox()
        secured.pipe.listener.inject(sealed + sealed)
        secured.pipe.run { 1 }
        #expect(secured.listenerSide.input == Array("once".utf8))
        #expect(secured.listenerSide.hasEnded(with: NoiseError.recordNotAuthentic(number: 1)))
    }

    @Test(arguments: 0..<16)
    func shortRecordsEndTheStream(length: Int) throws {
        let secured = try SecuredPipe()
        secured.pipe.listener.inject([0, UInt8(length)] + [UInt8](repeating: 0, count: length))
        secured.pipe.run()
        #expect(secured.listenerSide.hasEnded(with: NoiseError.recordTooShort(bytes: length)))
    }

    @Test func noncesRunOut() throws {
        let secured = try SecuredPipe(firstRecord: .max - 1)
        secured.dialer.write(ByteBuffer(string: "last"))
        secured.dialer.flush()
        secured.dialer.write(ByteBuffer(string: "one too many"))
        secured.dialer.flush()
        #expect(secured.dialerSide.hasEnded(with: NoiseError.nonceExhausted))
        let sealed = secured.pipe.listener.takeInbox()
        let other = try SecuredPipe(firstRecord: .max - 1)
        other.pipe.listener.inject(sealed + sealed)
        other.pipe.run()
        #expect(other.listenerSide.input == Array("last".utf8))
        #expect(other.listenerSide.hasEnded(with: NoiseError.nonceExhausted))
    }

    @Test func anEndWithinARecordIsNamed() throws {
        let secured = try SecuredPipe()
        secured.dialer.write(ByteBuffer(string: "whole"))
        secured.dialer.flush()
        let sealed = secured.pipe.listener.takeInbox()
        for count in 0...sealed.count {
            let other = try SecuredPipe()
            other.pipe.listener.inject(Array(sealed.prefix(count)))
            other.pipe.dialer.closeWrite()
            other.pipe.run()
            if count == 0 || count == sealed.count {
                #expect(other.listenerSide.hasInputEnded && other.listenerSide.end == nil)
            } else {
                #expect(other.listenerSide.hasEnded(with: NoiseError.recordCutOff))
            }
        }
    }

    @Test func pushesBack() throws {
        let secured = try SecuredPipe()
        secured.listener.setReading(false)
        #expect(!secured.pipe.listener.isReading)
        secured.dialer.write(ByteBuffer(string: "a"))
        secured.dialer.flush()
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
        for text in ["a", "b"] {
            secured.dialer.write(ByteBuffer(string: text))
            secured.dialer.flush()
        }
        secured.pipe.run { 19 }
        #expect(secured.listenerSide.input == Array("a".utf8))
        #expect(secured.listenerSide.hasEnded(with: BrokenPipe()))
        secured.listener.write(ByteBuffer(string: "ignored"))
        secured.listener.flush()
        #expect(secured.pipe.listener.written.isEmpty)
    }

    @Test func writability() throws {
        let secured = try SecuredPipe()
        #expect(secured.dialer.isWritable)
        secured.dialer.write(ByteBuffer(repeating: 0, count: NoiseStream.writableBound - 1))
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

    @Test func closeWriteFlushesFirst() throws {
        let secured = try SecuredPipe()
        secured.dialer.write(ByteBuffer(string: "bye"))
        secured.dialer.closeWrite()
        secured.dialer.write(ByteBuffer(string: "ignored"))
        secured.dialer.flush()
        secured.listener.write(ByteBuffer(string: "still here"))
        secured.listener.flush()
        secured.pipe.run()
        #expect(secured.listenerSide.input == Array("bye".utf8) && secured.listenerSide.hasInputEnded)
        #expect(secured.dialerSide.input == Array("still here".utf8))
    }

    @Test func anEarlyEndIsTold() throws {
        let secured = try SecuredPipe()
        secured.dialer.receiver = nil
        secured.pipe.listener.close(BrokenPipe())
        secured.pipe.run()
        secured.dialer.receiver = secured.dialerSide
        secured.pipe.run()
        #expect(secured.dialerSide.hasEnded(with: BrokenPipe()))
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

    /// The beginning of a record outlives the buffers, whether it was copied or kept where it lay.
    @Test(arguments: [1, 100, 5_000, 20_017])
    func anIdleStreamKeepsAPartialRecord(cut: Int) throws {
        let secured = try SecuredPipe()
        let bytes = content(20_000)
        secured.dialer.write(ByteBuffer(bytes: bytes))
        secured.dialer.flush()
        let sealed = secured.pipe.listener.takeInbox()
        secured.pipe.listener.inject(Array(sealed[..<cut]))
        secured.pipe.run()
        secured.pipe.loop.advanceTime(by: .seconds(20))
        #expect(!secured.listener.holdsBuffers)
        secured.pipe.listener.inject(Array(sealed[cut...]))
        secured.pipe.run()
        #expect(secured.listenerSide.input == bytes)
    }

    /// A buffer that nobody holds any more is used again; one that somebody holds is left alone.
    @Test func buffersTakeTurns() {
        var ring = BufferRing(count: 2)
        func fill(_ text: String) -> ByteBuffer { ring.fill(minimumCapacity: 64) { $0.writeString(text) } }
        func address(_ buffer: ByteBuffer) -> UnsafeRawPointer? { buffer.withVeryUnsafeBytes { $0.baseAddress } }
        let held = fill("held")
        let first = address(fill("b"))
        let other = address(fill("c"))
        #expect(other != address(held))
        #expect(address(fill("d")) == first)
        #expect(address(fill("e")) == other)
        #expect(String(buffer: held) == "held")
    }
}

@Suite struct NoiseUpgraderTests {
    let pipe = Pipe()
    let alice: PrivateKey
    let bob: PrivateKey

    init() throws {
        self.alice = try PrivateKey.generate()
        self.bob = try PrivateKey.generate()
    }

    /// Handshake, then data at once from both sides, however the input is cut.
    @Test(arguments: [1, 2, 3, 17, 33, 34, 35, 100, 150, 250, .max])
    func securesAndHandsOver(chunk: Int) throws {
        let outbound = NoiseUpgrader(identity: self.alice).secure(
            self.pipe.dialer, role: .dialer, expecting: PeerID(self.bob.publicKey), muxers: ["/yamux/1.0.0"])
        let inbound = NoiseUpgrader(identity: self.bob).secure(
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

    /// As a connection is made: multistream-select, optimistic on one side, and Noise on what it leaves.
    @Test(arguments: [1, 5, 21, 60, .max])
    func runsOnANegotiatedStream(chunk: Int) throws {
        let (alice, bob) = (NoiseUpgrader(identity: self.alice), NoiseUpgrader(identity: self.bob))
        let plain = try StreamNegotiator.dialOptimistically(
            self.pipe.dialer, protocolID: "/noise", timeout: .seconds(15))
        let outbound = alice.secure(plain, role: .dialer, expecting: nil, muxers: [])
        let inbound = StreamNegotiator.listen(
            self.pipe.listener, accepts: { $0 == "/noise" }, timeout: .seconds(15)
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
        let outbound = NoiseUpgrader(identity: self.alice).secure(
            self.pipe.dialer, role: .dialer, expecting: expected, muxers: [])
        let inbound = NoiseUpgrader(identity: self.bob).secure(
            self.pipe.listener, role: .listener, expecting: nil, muxers: [])
        self.pipe.run()
        let error = TransportError.peerMismatch(expected: expected, found: PeerID(self.bob.publicKey))
        #expect(outcome(outbound)?.failed() == error)
        #expect(self.pipe.dialer.isClosed)
        #expect(outcome(inbound)?.failed() == BrokenPipe())

        let silent = Pipe()
        let cutOff = NoiseUpgrader(identity: self.bob).secure(
            silent.listener, role: .listener, expecting: nil, muxers: [])
        silent.listener.inject([0])
        silent.dialer.closeWrite()
        silent.run()
        #expect(outcome(cutOff)?.failed() == NoiseError.handshakeCutOff)
        #expect(silent.listener.isClosed)

        // The caller's time-out closes the stream beneath.
        let slow = Pipe()
        let cancelled = NoiseUpgrader(identity: self.bob).secure(
            slow.listener, role: .listener, expecting: nil, muxers: [])
        slow.listener.close(NegotiationError.timedOut)
        #expect(outcome(cancelled)?.failed() == NegotiationError.timedOut)
    }

    /// Nothing that arrives before the handshake has succeeded is delivered.
    @Test func anotherPrologueFails() throws {
        let outbound = NoiseUpgrader(identity: self.alice, prologue: [1]).secure(
            self.pipe.dialer, role: .dialer, expecting: nil, muxers: [])
        let inbound = NoiseUpgrader(identity: self.bob, prologue: [2]).secure(
            self.pipe.listener, role: .listener, expecting: nil, muxers: [])
        self.pipe.run()
        #expect(outcome(outbound)?.failed() == NoiseError.handshakeMessageNotAuthentic(message: 2))
        #expect(outcome(inbound)?.failed() == BrokenPipe())
    }
}
