import Multiformats
import Testing

@testable import PeerIdentity

@Suite struct SignedEnvelopeTests {
    @Test func signsTheSpecificationsBuffer() throws {
        let vector = try Vectors.load().envelopeSigningBuffer
        let bytes = SignedEnvelope.signedBytes(
            domain: vector.domain, type: vector.payloadTypeHex.bytes, payload: vector.payloadHex.bytes)
        #expect(bytes == vector.bufferHex.bytes)
        let long = SignedEnvelope.signedBytes(domain: "d", type: [9], payload: [UInt8](repeating: 5, count: 300))
        #expect(long.prefix(6) == [1, UInt8(ascii: "d"), 1, 9, 0xac, 0x02])
    }

    @Test(arguments: KeyType.allCases) func opensWhatWasSealed(type: KeyType) throws {
        let key = try PrivateKey.generate(type)
        for payload in [[], [UInt8](repeating: 3, count: 1000)] {
            let sealed = try SignedEnvelope.seal(payload, type: [0x03, 0x02], domain: "test", with: key)
            let opened = try SignedEnvelope.open(sealed.bytes, domain: "test")
            #expect(opened == sealed)
            #expect(opened.payload == payload)
            #expect(opened.payloadType == [0x03, 0x02])
            #expect(opened.signer == PeerID(key.publicKey))
            #expect(throws: SignedEnvelopeError.invalidSignature) {
                try SignedEnvelope.open(sealed.bytes, domain: "tests")
            }
        }
    }

    /// Everything but unsigned extra fields is covered: no changed byte goes unnoticed.
    @Test(arguments: [KeyType.ed25519, .secp256k1]) func refusesChangesAndTruncations(type: KeyType) throws {
        let key = try PrivateKey.generate(type)
        let bytes = try SignedEnvelope.seal([1, 2, 3], type: [7], domain: "test", with: key).bytes
        for index in bytes.indices {
            for bit in 0..<8 {
                var changed = bytes
                changed[index] ^= 1 << bit
                #expect(throws: SignedEnvelopeError.self, "byte \(index), bit \(bit)") {
                    try SignedEnvelope.open(changed, domain: "test")
                }
            }
            #expect(throws: SignedEnvelopeError.self) {
                try SignedEnvelope.open(Array(bytes[..<index]), domain: "test")
            }
        }
    }

    @Test func forwardsUnknownFieldsAsTheyCame() throws {
        let sealed = try SignedEnvelope.seal([1], type: [7], domain: "test", with: .generate())
        let extended = sealed.bytes + [0x32, 0x01, 0xff]
        let opened = try SignedEnvelope.open(extended, domain: "test")
        #expect(opened.bytes == extended)
        #expect(opened.payload == sealed.payload)
    }

    @Test func saysWhatIsWrong() throws {
        let key = try PrivateKey.generate()
        let sealed = try SignedEnvelope.seal([1], type: [7], domain: "test", with: key).bytes
        let cases: [(bytes: [UInt8], domain: String, error: SignedEnvelopeError)] = [
            (sealed, "", .emptyDomain),
            ([], "test", .emptyPayloadType),
            ([0x0a], "test", .malformedEncoding),
            ([0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], "test", .malformedEncoding),
            ([0x12, 0x01, 0x07], "test", .invalidKey(.malformedEncoding)),
            ([0x0a, 0x02, 0x08, 0x09, 0x12, 0x01, 0x07], "test", .invalidKey(.unknownType)),
            ([UInt8](repeating: 0, count: 65_537), "test", .tooLong(bytes: 65_537, maximum: 65_536)),
        ]
        for (bytes, domain, error) in cases {
            #expect(throws: error) { try SignedEnvelope.open(bytes, domain: domain) }
        }
        #expect(throws: SignedEnvelopeError.tooLong(bytes: sealed.count, maximum: 10)) {
            try SignedEnvelope.open(sealed, domain: "test", maximumBytes: 10)
        }
        #expect(throws: SignedEnvelopeError.emptyDomain) {
            try SignedEnvelope.seal([], type: [1], domain: "", with: key)
        }
        #expect(throws: SignedEnvelopeError.emptyPayloadType) {
            try SignedEnvelope.seal([], type: [], domain: "test", with: key)
        }
        #expect(throws: SignedEnvelopeError.self) {
            try SignedEnvelope.seal([UInt8](repeating: 0, count: 65_536), type: [1], domain: "test", with: key)
        }
    }

    @Test func survivesRandomBytes() throws {
        var random = SplitMix64(seed: 3)
        for round in 0..<4000 {
            #expect(throws: SignedEnvelopeError.self) {
                try SignedEnvelope.open(random.bytes(round % 200), domain: "test")
            }
        }
    }
}

@Suite struct PeerRecordTests {
    static let addresses = ["/ip4/192.0.2.7/tcp/4117", "/ip6/2001:db8::1/udp/4117/quic-v1"]
    /// Written field by field outside this library, with the specification's Ed25519 key, and signed by
    /// `openssl pkeyutl -sign -rawin`. Sequence 1.7e18, the two addresses above.
    static let golden: Hex = """
        0a24080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e120203011a590a26002408011220\
        1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e108080a8b1e39fe7cb171a0a0a0804c000020706\
        10151a190a172920010db800000000000000000000000191021015cd032a40ff21659dbbeb370a80b219e172bae5c93ee9ddb347\
        d552dff070871bf8009bab4f981740ba23cbbb3e1cb3ffe45e94e0237366dd7965ff8f45247be4a8f31500
        """

    @Test func readsAndWritesTheGoldenRecord() throws {
        let key = try PrivateKey(encoded: try #require(Vectors.load().keys.items["ed25519"]).private.bytes)
        let addresses = try Self.addresses.map { try Multiaddr($0) }
        let (record, envelope) = try PeerRecord.open(Self.golden.bytes)
        #expect(record.peerID == PeerID(key.publicKey))
        #expect(record.sequence == 1_700_000_000_000_000_000)
        #expect(record.addresses == addresses)
        #expect(envelope.bytes == Self.golden.bytes)
        #expect(try record.seal(with: key).bytes == Self.golden.bytes)
        for length in Self.golden.bytes.indices {
            #expect(throws: PeerRecordError.self) { try PeerRecord.open(Array(Self.golden.bytes[..<length])) }
        }
    }

    @Test func refusesARecordAboutAnotherPeer() throws {
        let (author, victim) = (try PrivateKey.generate(), try PrivateKey.generate())
        let record = PeerRecord(peerID: PeerID(victim.publicKey), sequence: 1, addresses: [])
        let mismatch = PeerRecordError.peerIDMismatch(claimed: record.peerID, signer: PeerID(author.publicKey))
        #expect(throws: mismatch) { try record.seal(with: author) }
        // The same by force: the victim's payload in the author's envelope.
        let payload = try record.seal(with: victim).payload
        let forged = try SignedEnvelope.seal(
            payload, type: PeerRecord.payloadType, domain: PeerRecord.domain, with: author)
        #expect(throws: mismatch) { try PeerRecord.open(forged.bytes) }
        let empty = try SignedEnvelope.seal([], type: PeerRecord.payloadType, domain: PeerRecord.domain, with: author)
        #expect(throws: PeerRecordError.peerIDMismatch(claimed: nil, signer: PeerID(author.publicKey))) {
            try PeerRecord.open(empty.bytes)
        }
    }

    @Test func refusesOtherDomainsTypesAndPayloads() throws {
        let key = try PrivateKey.generate()
        let payload = try PeerRecord(peerID: PeerID(key.publicKey), sequence: 1, addresses: []).seal(with: key).payload
        func seal(_ payload: [UInt8], type: [UInt8], domain: String = PeerRecord.domain) throws -> SignedEnvelope {
            try SignedEnvelope.seal(payload, type: type, domain: domain, with: key)
        }
        let voucher = try seal(payload, type: PeerRecord.payloadType, domain: "libp2p-relay-rsvp")
        #expect(throws: PeerRecordError.wrongDomain("libp2p-relay-rsvp")) { try PeerRecord(voucher) }
        #expect(throws: PeerRecordError.envelope(.invalidSignature)) { try PeerRecord.open(voucher.bytes) }
        #expect(throws: PeerRecordError.wrongPayloadType([0x03, 0x02])) {
            try PeerRecord.open(seal(payload, type: [0x03, 0x02]).bytes)
        }
        for length in 1..<payload.count - 2 {
            // The last field is the sequence: without it the record is one of sequence 0.
            #expect(throws: PeerRecordError.malformedPayload) {
                try PeerRecord.open(seal(Array(payload[..<length]), type: PeerRecord.payloadType).bytes)
            }
        }
    }

    @Test func skipsAddressesThatDoNotParseAndCountsTheRest() throws {
        let key = try PrivateKey.generate()
        let peerID = PeerID(key.publicKey)
        func open(addresses: [[UInt8]]) throws -> PeerRecord {
            var payload: [UInt8] = [0x0a, UInt8(peerID.bytes.count)] + peerID.bytes + [0x10, 0x05]
            for address in addresses {
                payload += [0x1a, UInt8(address.count + 2), 0x0a, UInt8(address.count)] + address
            }
            let envelope = try SignedEnvelope.seal(
                payload, type: PeerRecord.payloadType, domain: PeerRecord.domain, with: key)
            return try PeerRecord.open(envelope.bytes).record
        }
        let good = try Multiaddr(Self.addresses[0])
        #expect(try open(addresses: [[], [0xff], good.bytes, good.bytes.dropLast()]).addresses == [good])
        let many = [[UInt8]](repeating: [0xff], count: 200) + [[UInt8]](repeating: good.bytes, count: 300)
        #expect(try open(addresses: many).addresses.count == PeerRecord.maximumAddresses)
        #expect(throws: PeerRecordError.self) { try open(addresses: .init(repeating: good.bytes, count: 1000)) }

        let most = PeerRecord(peerID: peerID, sequence: 5, addresses: .init(repeating: good, count: 128))
        #expect(try PeerRecord.open(most.seal(with: key).bytes).record == most)
        let surplus = PeerRecord(peerID: peerID, sequence: 5, addresses: .init(repeating: good, count: 129))
        #expect(throws: PeerRecordError.tooManyAddresses(129, maximum: 128)) { try surplus.seal(with: key) }
        let long = try Multiaddr("/unix/" + String(repeating: "x", count: 100))
        let large = PeerRecord(peerID: peerID, sequence: 5, addresses: .init(repeating: long, count: 100))
        #expect(throws: PeerRecordError.self) { try large.seal(with: key) }
    }

    @Test func ordersBySequence() throws {
        let (peer, other) = (PeerID(uncheckedBytes: [1]), PeerID(uncheckedBytes: [2]))
        func record(_ sequence: UInt64, of peerID: PeerID) -> PeerRecord {
            PeerRecord(peerID: peerID, sequence: sequence, addresses: [])
        }
        #expect(record(2, of: peer).supersedes(record(1, of: peer)))
        #expect(!record(2, of: peer).supersedes(record(2, of: peer)))
        #expect(!record(1, of: peer).supersedes(record(2, of: peer)))
        #expect(!record(2, of: peer).supersedes(record(1, of: other)))

        var sequence = PeerRecordSequence(after: 100)
        let clock: [UInt64] = [50, 200, 200, 10, 300, .max, 0]
        #expect(clock.map { sequence.next(at: $0) } == [101, 200, 201, 202, 300, .max, .max])
        #expect(sequence.last == .max)
    }
}
