import Crypto
import LibP2PCore
import NIOCore
import PeerIdentity
import Testing

@testable import LibP2PConnection

private func buffer(_ bytes: [UInt8]) -> ByteBuffer { ByteBuffer(bytes: bytes) }

/// Made once: an RSA key takes a while.
private let identities: [KeyType: PrivateKey] = {
    var keys: [KeyType: PrivateKey] = [:]
    for type in KeyType.allCases { keys[type] = try? PrivateKey.generate(type) }
    return keys
}()

@Suite struct NoiseHandshakeTests {
    static let alice = try? PrivateKey.generate()
    static let bob = try? PrivateKey.generate()

    let alice: PrivateKey
    let bob: PrivateKey

    init() throws {
        self.alice = try #require(Self.alice)
        self.bob = try #require(Self.bob)
    }

    private func dialer(expecting peer: PeerID? = nil, muxers: [ProtocolID] = []) -> NoiseHandshake {
        NoiseHandshake(.init(role: .dialer, identity: self.alice, expected: peer, muxers: muxers))
    }

    private func listener(expecting peer: PeerID? = nil, muxers: [ProtocolID] = []) -> NoiseHandshake {
        NoiseHandshake(.init(role: .listener, identity: self.bob, expected: peer, muxers: muxers))
    }

    @Test(arguments: KeyType.allCases, KeyType.allCases)
    func allKeyTypes(ours: KeyType, theirs: KeyType) throws {
        let (ours, theirs) = (try #require(identities[ours]), try #require(identities[theirs]))
        var dialer = NoiseHandshake(.init(role: .dialer, identity: ours, expected: PeerID(theirs.publicKey)))
        var listener = NoiseHandshake(.init(role: .listener, identity: theirs, expected: nil))
        let first = try sent(dialer.start())
        let second = try sent(listener.receive(first))
        let (outbound, third, none) = try finished(dialer.receive(second))
        let (inbound, reply, leftover) = try finished(listener.receive(try #require(third)))
        #expect(none.readableBytes == 0 && reply == nil && leftover.readableBytes == 0)
        #expect(outbound.remotePeer == PeerID(theirs.publicKey) && outbound.remoteKey == theirs.publicKey)
        #expect(inbound.remotePeer == PeerID(ours.publicKey) && inbound.remoteKey == ours.publicKey)
        #expect(outbound.keys.sending == inbound.keys.receiving && outbound.keys.receiving == inbound.keys.sending)
        #expect(outbound.handshakeHash == inbound.handshakeHash)
        #expect(outbound.muxer == nil && inbound.muxer == nil)
        #expect(first.readableBytes == 34)
    }

    /// Every message in two parts, cut everywhere, with the beginning of the transport phase behind the last.
    @Test func survivesAnySplit() throws {
        let early = buffer([1, 2, 3])
        var dialer = self.dialer()
        var listener = self.listener()
        let first = try sent(dialer.start())
        for cut in 1..<first.readableBytes {
            var copy = listener
            #expect(copy.receive(first.getSlice(at: 0, length: cut) ?? first) == .wait)
            _ = try sent(copy.receive(first.getSlice(at: cut, length: first.readableBytes - cut) ?? first))
        }
        var second = try sent(listener.receive(first))
        let secondBytes = second.readableBytes
        second.writeImmutableBuffer(early)
        for cut in 1..<second.readableBytes {
            var copy = dialer
            let part = second.getSlice(at: cut, length: second.readableBytes - cut) ?? second
            let action = copy.receive(second.getSlice(at: 0, length: cut) ?? second)
            if cut < secondBytes {
                #expect(action == .wait)
                #expect(try finished(copy.receive(part)).leftover == early)
            } else {
                #expect(try finished(action).leftover.readableBytes == cut - secondBytes)
            }
        }
        var third = try #require(try finished(dialer.receive(second)).reply)
        let thirdBytes = third.readableBytes
        third.writeImmutableBuffer(early)
        for cut in 1..<thirdBytes {
            var copy = listener
            #expect(copy.receive(third.getSlice(at: 0, length: cut) ?? third) == .wait)
            let part = third.getSlice(at: cut, length: third.readableBytes - cut) ?? third
            #expect(try finished(copy.receive(part)).leftover == early)
        }
    }

    @Test func anotherPeerIsRefused() throws {
        let (a, b) = (PeerID(self.alice.publicKey), PeerID(self.bob.publicKey))
        var dialer = self.dialer(expecting: a)
        var listener = self.listener()
        let second = try sent(listener.receive(try sent(dialer.start())))
        #expect(dialer.receive(second) == .fail(.unexpectedPeer(expected: a, found: b)))
        #expect(dialer.receive(second) == .fail(.handshakeOutOfTurn))

        dialer = self.dialer(expecting: b)
        listener = self.listener(expecting: b)
        let reply = try sent(listener.receive(try sent(dialer.start())))
        let third = try #require(try finished(dialer.receive(reply)).reply)
        #expect(listener.receive(third) == .fail(.unexpectedPeer(expected: b, found: a)))
    }

    static let muxers: [(ours: [ProtocolID], theirs: [ProtocolID], result: Result<ProtocolID?, NoiseError>)] = [
        ([], [], .success(nil)),
        (["/yamux/1.0.0"], [], .success(nil)),
        ([], ["/yamux/1.0.0"], .success(nil)),
        (["/yamux/1.0.0"], ["/yamux/1.0.0"], .success("/yamux/1.0.0")),
        (["/a", "/b"], ["/b", "/a"], .success("/a")),
        (["/x", "/b", "/a"], ["/a", "/b"], .success("/b")),
        (["/a"], ["/b"], .failure(.noCommonMuxer(ours: ["/a"], theirs: ["/b"]))),
    ]

    /// The dialer's order counts, and both sides come to the same result.
    @Test(arguments: muxers)
    func earlyMuxer(ours: [ProtocolID], theirs: [ProtocolID], result: Result<ProtocolID?, NoiseError>) throws {
        var dialer = self.dialer(muxers: ours)
        var listener = self.listener(muxers: theirs)
        let action = dialer.receive(try sent(listener.receive(try sent(dialer.start()))))
        switch result {
        case .failure(let error):
            #expect(action == .fail(error))
        case .success(let muxer):
            let (session, third, _) = try finished(action)
            #expect(session.muxer == muxer)
            #expect(try finished(listener.receive(try #require(third))).session.muxer == muxer)
        }
        #expect(
            result
                == Result { () throws(NoiseError) in
                    try NoisePayload.muxer(ours: ours, theirs: theirs, isInitiator: true)
                })
    }

    @Test func listenerNamesTheLackOfAMuxer() {
        let many = (0..<100).map { ProtocolID(rawValue: "/\($0)") }
        #expect(throws: NoiseError.noCommonMuxer(ours: ["/a"], theirs: Array(many.prefix(8)))) {
            try NoisePayload.muxer(ours: ["/a"], theirs: many, isInitiator: false)
        }
    }

    /// What a listener with a valid handshake but another payload is answered with.
    @Test func badPayloads() throws {
        let staticKey = NoiseXX.PrivateKey()
        let honest = try NoisePayload(
            identity: self.bob, staticKey: Array(staticKey.publicKey.rawRepresentation), muxers: ["/yamux/1.0.0"])
        let foreign = try NoisePayload(identity: self.bob, staticKey: [UInt8](repeating: 1, count: 32), muxers: [])
        var damagedSignature = honest.signature
        damagedSignature[3] ^= 1
        func payload(key: [UInt8]?, signature: [UInt8]?) -> [UInt8] {
            (key.map { [0x0a, UInt8($0.count)] + $0 } ?? []) + (signature.map { [0x12, UInt8($0.count)] + $0 } ?? [])
        }
        let key = self.bob.publicKey.encoded
        let noKey: [UInt8] = [0x08, 0x01, 0x12, 0x01, 0x00]
        let keyError = try #require(throws: KeyError.self) { try PublicKey(encoded: noKey) }
        let cases: [([UInt8], NoiseError)] = [
            (payload(key: key, signature: foreign.signature), .invalidSignature),
            (payload(key: key, signature: damagedSignature), .invalidSignature),
            (payload(key: key, signature: []), .invalidSignature),
            (payload(key: self.alice.publicKey.encoded, signature: honest.signature), .invalidSignature),
            (payload(key: noKey, signature: honest.signature), .invalidIdentityKey(keyError)),
            (payload(key: nil, signature: honest.signature), .malformedPayload),
            (payload(key: key, signature: nil), .malformedPayload),
            ([], .malformedPayload),
            ([0xff, 0xff], .malformedPayload),
            ([0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], .malformedPayload),
        ]
        for (payload, error) in [(try honest.encode(), nil)] + cases.map({ ($0.0, Optional($0.1)) }) {
            var dialer = self.dialer()
            var listener = NoiseXX(isInitiator: false, prologue: [], staticKey: staticKey, ephemeralKey: .init())
            _ = try listener.readMessage(unframed(try sent(dialer.start())))
            let action = dialer.receive(framed(try listener.writeMessage(payload: payload)))
            if let error {
                #expect(action == .fail(error))
            } else {
                _ = try finished(action)
            }
        }
    }

    /// The payload as the specification lays it out, byte by byte.
    @Test func payloadBytes() throws {
        let payload = try NoisePayload(
            identity: self.bob, staticKey: [UInt8](repeating: 7, count: 32), muxers: ["/a", "/yamux/1.0.0"])
        let message = Array("noise-libp2p-static-key:".utf8) + [UInt8](repeating: 7, count: 32)
        #expect(self.bob.publicKey.isValidSignature(payload.signature, for: message))
        let extensions: [UInt8] = [0x12, 0x02] + Array("/a".utf8) + [0x12, 0x0c] + Array("/yamux/1.0.0".utf8)
        var expected: [UInt8] = [0x0a, 36] + self.bob.publicKey.encoded
        expected += [0x12, 64] + payload.signature
        expected += [0x22, UInt8(extensions.count)] + extensions
        #expect(try payload.encode() == expected)
    }

    /// No single flipped bit goes unnoticed, in whichever message.
    @Test func tamperedMessages() throws {
        for message in 1...3 {
            var index = 2
            while true {
                var dialer = self.dialer()
                var listener = self.listener()
                var failed = false
                func passed(_ bytes: ByteBuffer, _ number: Int) -> ByteBuffer {
                    var bytes = bytes
                    if number == message, let byte = bytes.getInteger(at: index, as: UInt8.self) {
                        bytes.setInteger(byte ^ 0x10, at: index)
                    }
                    return bytes
                }
                let first = passed(try sent(dialer.start()), 1)
                if message == 1, index >= first.readableBytes { break }
                guard case .send(let reply) = listener.receive(first) else { break }
                let second = passed(reply, 2)
                if message == 2, index >= second.readableBytes { break }
                switch dialer.receive(second) {
                case .finished(_, let reply, _):
                    let third = passed(try #require(reply), 3)
                    if message == 3, index >= third.readableBytes { failed = true }
                    if case .fail = listener.receive(third) { failed = true }
                    if message == 3, index >= third.readableBytes { index = .max }
                case .fail: failed = true
                case .wait, .send: Issue.record("neither finished nor failed")
                }
                #expect(failed, "message \(message), byte \(index)")
                if index == .max { break }
                index += 7
            }
        }
    }

    @Test func replayedMessagesAreRefused() throws {
        var dialer = self.dialer()
        var listener = self.listener()
        let first = try sent(dialer.start())
        let second = try sent(listener.receive(first))
        var other = listener
        #expect(other.receive(first) == .fail(.handshakeMessageTooShort(message: 3, bytes: 32)))
        // The second and third messages of this session, to another one.
        let third = try #require(try finished(dialer.receive(second)).reply)
        var next = self.dialer()
        _ = next.start()
        #expect(next.receive(second) == .fail(.handshakeMessageNotAuthentic(message: 2)))
        var otherListener = self.listener()
        _ = otherListener.receive(first)
        #expect(otherListener.receive(third) == .fail(.handshakeMessageNotAuthentic(message: 3)))
    }

    @Test func lengthsAreBounded() throws {
        var listener = self.listener()
        #expect(listener.receive(buffer([0x40])) == .wait)
        #expect(listener.receive(buffer([0x01])) == .fail(.handshakeMessageTooLong(bytes: 16_385)))
        listener = self.listener()
        #expect(listener.receive(buffer([0x00, 0x00])) == .fail(.handshakeMessageTooShort(message: 1, bytes: 0)))
        listener = self.listener()
        #expect(listener.receive(buffer([0x40, 0x00])) == .wait)
        #expect(listener.inputEnded() == .handshakeCutOff)
        #expect(listener.receive(buffer([1])) == .fail(.handshakeOutOfTurn))
        // Our own muxers would not fit either.
        let long = ProtocolID(rawValue: String(repeating: "x", count: 20_000))
        var dialer = self.dialer()
        listener = self.listener(muxers: [long])
        let first = try sent(dialer.start())
        guard case .fail(.payloadTooLong) = listener.receive(first) else {
            Issue.record("sent a message that no remote would read")
            return
        }
    }

    @Test func anUnauthenticatedFirstPayloadMeansNothing() throws {
        var dialer = NoiseXX(isInitiator: true, prologue: [], staticKey: .init(), ephemeralKey: .init())
        var listener = self.listener()
        _ = try sent(listener.receive(framed(try dialer.writeMessage(payload: [1, 2, 3]))))
    }

    @Test func randomInputNeverTraps() throws {
        var random = SplitMix(seed: 2)
        for round in 0..<400 {
            var machine = round.isMultiple(of: 2) ? self.dialer() : self.listener()
            _ = machine.start()
            var length = Int(random.next() % 300)
            if random.next() % 8 == 0 { length = 20_000 }
            var input = (0..<length).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            if random.next() % 2 == 0, input.count > 1 { (input[0], input[1]) = (0, UInt8(input.count / 2 % 256)) }
            switch machine.receive(buffer(input)) {
            case .finished: Issue.record("random bytes are no handshake")
            case .fail, .wait, .send: break
            }
        }
    }
}

func sent(_ action: NoiseHandshake.Action) throws -> ByteBuffer {
    guard case .send(let bytes) = action else { throw Unexpected(action: "\(action)") }
    return bytes
}

func finished(
    _ action: NoiseHandshake.Action
) throws -> (session: NoiseSession, reply: ByteBuffer?, leftover: ByteBuffer) {
    guard case .finished(let session, let reply, let leftover) = action else { throw Unexpected(action: "\(action)") }
    return (session, reply, leftover)
}

struct Unexpected: Error {
    let action: String
}

private func framed(_ message: [UInt8]) -> ByteBuffer {
    buffer([UInt8(message.count >> 8), UInt8(message.count & 0xff)] + message)
}

private func unframed(_ bytes: ByteBuffer) -> [UInt8] { Array(bytes.readableBytesView.dropFirst(2)) }
