import LibP2PCore
import NIOCore
import NIOEmbedded
import TestKit
import Testing

@testable import LibP2PConnection

/// One end is protected, of the other the test sees the wire.
@Suite struct ProtectedByteStreamTests {
    static let zeros = Result { try PreSharedKey(bytes: [UInt8](repeating: 0, count: 32)) }
    static let nonce = (0..<24).map { UInt8($0) }
    static let header: [UInt8] = [0x13] + Array("/multistream/1.0.0\n".utf8)
    /// What `header` becomes under the key of zeros: `libp2p-vectors.json`.
    static let sealedHeader = XSalsa20Tests.bytes("ca321da4966cdd61938aedf5a7e7c0de71914b47")

    let loop = EmbeddedEventLoop()
    let wire: MemoryByteStream
    let seen = RecordingReceiver()
    let beneath: MemoryByteStream
    let stream: ProtectedByteStream

    init() throws {
        (self.beneath, self.wire) = MemoryByteStream.pair(on: self.loop)
        self.stream = try ProtectedByteStream(self.beneath, key: Self.zeros.get(), nonce: Self.nonce)
        self.wire.receiver = self.seen
        self.wire.setReading(true)
    }

    func listen() -> RecordingReceiver {
        let receiver = RecordingReceiver()
        self.stream.receiver = receiver
        self.stream.setReading(true)
        return receiver
    }

    func arrive(_ bytes: some Sequence<UInt8>) {
        self.wire.write(ByteBuffer(bytes: bytes))
        self.wire.flush()
        self.loop.run()
    }

    /// What a remote with `key` sends.
    static func sealed(_ plain: [UInt8], key: PreSharedKey) throws -> [UInt8] {
        let nonce = (50..<74).map { UInt8($0) }
        return nonce + (try XSalsa20Tests.seal(plain, key: key.bytes, nonce: nonce))
    }

    static func ends(_ receiver: RecordingReceiver) -> [(any Error)?] {
        receiver.calls.entries.compactMap { call -> (any Error)?? in
            if case .closed(let error) = call { .some(error) } else { .none }
        }
    }

    // MARK: Out

    @Test func theNonceGoesBeforeTheFirstByte() {
        self.stream.flush()
        self.stream.write(ByteBuffer())
        self.stream.flush()
        self.loop.run()
        #expect(self.seen.bytes.isEmpty)
        self.stream.write(ByteBuffer(bytes: Self.header.prefix(7)))
        self.stream.write(ByteBuffer(bytes: Self.header.dropFirst(7)))
        self.loop.run()
        #expect(self.seen.bytes.isEmpty, "nothing goes out before a flush")
        self.stream.flush()
        self.loop.run()
        #expect(self.seen.bytes == Self.nonce + Self.sealedHeader)
    }

    @Test func whatIsWrittenIsNotChanged() {
        let bytes = ByteBuffer(bytes: Self.header)
        for _ in 0..<10 { self.stream.write(bytes) }
        self.stream.flush()
        self.loop.run()
        #expect(bytes == ByteBuffer(bytes: Self.header))
        #expect(self.seen.bytes.count == 24 + 10 * 20)
        #expect(Set((0..<10).map { self.seen.bytes.dropFirst(24 + 20 * $0).prefix(20) }.map(Array.init)).count == 10)
    }

    @Test func everyStreamHasANonceOfItsOwn() throws {
        var nonces: Set<[UInt8]> = []
        for _ in 0..<3 {
            let (beneath, wire) = MemoryByteStream.pair(on: self.loop)
            let stream = try ProtectedByteStream(beneath, key: Self.zeros.get())
            let seen = RecordingReceiver()
            wire.receiver = seen
            wire.setReading(true)
            stream.write(ByteBuffer(bytes: Self.header))
            stream.flush()
            self.loop.run()
            nonces.insert(Array(seen.bytes.prefix(24)))
        }
        #expect(nonces.count == 3)
    }

    // MARK: In

    @Test func survivesAnySplit() throws {
        let plain = Self.header + (0..<180).map { UInt8($0) }
        let input = try Self.sealed(plain, key: Self.zeros.get())
        func outcome(_ ends: [Int]) throws -> [UInt8] {
            let (beneath, wire) = MemoryByteStream.pair(on: self.loop)
            let stream = try ProtectedByteStream(beneath, key: Self.zeros.get())
            let receiver = RecordingReceiver()
            stream.receiver = receiver
            stream.setReading(true)
            var start = 0
            for end in ends + [input.count] {
                wire.write(ByteBuffer(bytes: input[start..<end]))
                start = end
                wire.flush()
                self.loop.run()
            }
            #expect(stream.isProven && Self.ends(receiver).isEmpty)
            return receiver.bytes
        }
        #expect(try outcome([]) == plain)
        for first in 0...input.count {
            #expect(try outcome([first]) == plain)
            for second in stride(from: first, through: input.count, by: 13) {
                #expect(try outcome([first, second]) == plain)
            }
        }
        #expect(try outcome(Array(1..<input.count)) == plain)
    }

    @Test func carriesMuchBothWays() throws {
        for pieces in [MemoryByteStream.Pieces.whole, .atMost(63), .lengths([64, 1, 700, 65_536])] {
            let (near, far) = MemoryByteStream.pair(on: self.loop, pieces: pieces)
            let ends = try [near, far].map { try ProtectedByteStream($0, key: Self.zeros.get()) }
            let bytes = Self.header + (0..<200_000).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) }
            let receivers = ends.map { stream in
                let receiver = RecordingReceiver()
                stream.receiver = receiver
                stream.setReading(true)
                return receiver
            }
            for stream in ends {
                for start in stride(from: 0, to: bytes.count, by: 4099) {
                    stream.write(ByteBuffer(bytes: bytes[start..<min(start + 4099, bytes.count)]))
                    if start % 3 == 0 { stream.flush() }
                }
                stream.closeWrite()
            }
            self.loop.run()
            for receiver in receivers {
                #expect(receiver.bytes == bytes)
                #expect(Self.ends(receiver).count == 1 && Self.ends(receiver)[0] == nil)
            }
        }
    }

    // MARK: Keys that do not match

    /// However much of it comes at once: one byte, or the greeting and all behind it.
    @Test(arguments: [1, 20, 500]) func anotherKeyIsNamed(pieces: Int) throws {
        self.beneath.pieces = .atMost(pieces)
        let receiver = self.listen()
        let other = try PreSharedKey(bytes: [UInt8](repeating: 1, count: 32))
        self.arrive(try Self.sealed(Self.header + [UInt8](repeating: 7, count: 200), key: other))
        #expect(Self.ends(receiver).map { $0 as? PrivateNetworkError } == [.keyMismatch])
        #expect(!self.stream.isProven && self.beneath.isClosed)
        #expect(self.beneath.closeReason as? PrivateNetworkError == .keyMismatch)
        // All is over: nothing goes out any more, and nobody is told twice.
        self.stream.write(ByteBuffer(bytes: Self.header))
        self.stream.flush()
        self.loop.run()
        #expect(Self.ends(receiver).count == 1)
    }

    @Test func aRemoteWithoutAKeyIsNamed() {
        let receiver = self.listen()
        self.arrive(Self.header)
        #expect(Self.ends(receiver).isEmpty, "these may be a nonce")
        self.arrive([0x07] + Array("/noise\n".utf8))
        #expect(Self.ends(receiver).map { $0 as? PrivateNetworkError } == [.keyMismatch])
    }

    /// Whoever has the key but speaks another protocol is no member either.
    @Test func otherWordsAreNoProof() throws {
        for count in [0, 1, 19] {
            let (beneath, wire) = MemoryByteStream.pair(on: self.loop)
            let stream = try ProtectedByteStream(beneath, key: Self.zeros.get())
            let receiver = RecordingReceiver()
            stream.receiver = receiver
            stream.setReading(true)
            wire.write(ByteBuffer(bytes: try Self.sealed(Self.header.prefix(count) + [0], key: Self.zeros.get())))
            wire.flush()
            self.loop.run()
            #expect(Self.ends(receiver).map { $0 as? PrivateNetworkError } == [.keyMismatch])
        }
    }

    @Test func explainsOtherEndsWhileNothingIsProven() throws {
        let timedOut = "the remote did not show that it has our pre-shared key: no answer in time"
        #expect(String(describing: self.stream.explain(TransportError.timedOut)) == timedOut)
        #expect(self.stream.explain(TransportError.cancelled) as? TransportError == .cancelled)
        #expect(self.stream.explain(PrivateNetworkError.keyMismatch) as? PrivateNetworkError == .keyMismatch)
        _ = self.listen()
        self.arrive(try Self.sealed(Self.header, key: Self.zeros.get()))
        #expect(self.stream.explain(TransportError.timedOut) as? TransportError == .timedOut)
    }

    // MARK: The end

    @Test func whoComesLateIsToldOfTheEnd() {
        struct Cut: Error {}
        self.beneath.cut(Cut())
        self.loop.run()
        let receiver = self.listen()
        #expect(Self.ends(receiver).isEmpty, "not while the receiver is being set")
        self.loop.run()
        #expect(Self.ends(receiver).count == 1 && Self.ends(receiver)[0] is Cut)
    }

    @Test func endsInOrder() throws {
        let receiver = self.listen()
        self.wire.write(ByteBuffer(bytes: try Self.sealed(Self.header + [9], key: Self.zeros.get())))
        self.wire.closeWrite()
        self.loop.run()
        self.stream.closeWrite()
        self.loop.run()
        let kinds = receiver.calls.entries.map { call in
            switch call {
            case .bytes: "bytes"
            case .complete: "complete"
            case .writability: "writability"
            case .inputEnd: "end"
            case .closed(let error): error == nil ? "closed" : "failed"
            }
        }
        #expect(kinds == ["bytes", "complete", "end", "closed"])
    }

    @Test func pushesBack() throws {
        let receiver = self.listen()
        self.stream.setReading(false)
        self.arrive(try Self.sealed(Self.header, key: Self.zeros.get()))
        #expect(receiver.bytes.isEmpty)
        self.stream.setReading(true)
        self.loop.run()
        #expect(receiver.bytes == Self.header)
        self.wire.isStalled = true
        #expect(self.stream.isWritable)
        self.stream.write(ByteBuffer(repeating: 0, count: 100_000))
        #expect(!self.stream.isWritable)
    }

    @Test func holdsNoBufferWhenIdle() throws {
        _ = self.listen()
        #expect(!self.stream.holdsBuffers)
        self.arrive(try Self.sealed(Self.header, key: Self.zeros.get()))
        self.stream.write(ByteBuffer(bytes: Self.header))
        self.stream.flush()
        #expect(self.stream.holdsBuffers)
        self.loop.advanceTime(by: ProtectedByteStream.idleTime)
        #expect(self.stream.holdsBuffers)
        self.loop.advanceTime(by: ProtectedByteStream.idleTime)
        #expect(!self.stream.holdsBuffers)
    }
}
