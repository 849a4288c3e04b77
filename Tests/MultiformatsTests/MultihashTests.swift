import Multiformats
import Testing

@Suite struct MultihashTests {
    static let digest = [UInt8](0..<32)

    @Test func matchesTheVectors() throws {
        let codes: [String: UInt64] = ["sha1": 0x11, "sha2-256": 0x12, "sha2-512": 0x13]
        let items = try Vectors.multiformats.get().multihash.items
        #expect(items.count == 9)
        for item in items {
            let encoded = try #require(bytes(hex: item.multihashHex))
            guard item.valid else {
                #expect(throws: MultihashError.self) { try Multihash(bytes: encoded) }
                continue
            }
            let multihash = try Multihash(bytes: encoded)
            #expect(multihash.code.rawValue == codes[item.function])
            #expect(multihash.digest == Array(encoded.dropFirst(2)))
            #expect(multihash.digest.count == item.bits / 8)
            #expect(multihash.bytes == encoded)
        }
    }

    @Test func readsPeerIDs() throws {
        for (_, key) in try Vectors.libp2p.get().keys.items {
            let encoded = try #require(bytes(hex: key.peerIDHex))
            let multihash = try Multihash(bytes: encoded)
            #expect(multihash.bytes == encoded)
            #expect(Base58.encode(multihash.bytes) == key.peerID)
            #expect(try Base58.decode(key.peerID) == encoded)
            let cid = try CID(key.peerIDCID)
            #expect(cid.codec == .libp2pKey)
            #expect(cid.multihash == multihash)
            #expect(cid.description == key.peerIDCID)
        }
    }

    @Test(
        arguments: [
            ([], MultihashError.malformedVarint(.truncated)),
            ([0x12], .malformedVarint(.truncated)),
            ([0x92, 0x00, 0x01, 0x01], .malformedVarint(.nonMinimal)),
            ([0x12, 0xa0, 0x00], .malformedVarint(.nonMinimal)),
            ([0x11, 0x02, 0x01], .lengthMismatch(stated: 2, found: 1)),
            ([0x11, 0x02, 0x01, 0x02, 0x03], .lengthMismatch(stated: 2, found: 3)),
            ([0x12, 0x02, 0x01, 0x02], .wrongDigestLength(.sha256, bytes: 2, expected: 32)),
            ([0x12, 0x21] + digest + [0], .wrongDigestLength(.sha256, bytes: 33, expected: 32)),
            ([0x11, 0x00], .emptyDigest(Multicodec(rawValue: 0x11))),
            ([0x00, 0x81, 0x01] + [UInt8](repeating: 1, count: 129), .digestTooLong(bytes: 129)),
            ([0x00] + Varint.encode(Varint.maximumValue), .digestTooLong(bytes: Int.max)),
        ] as [([UInt8], MultihashError)])
    func namesWhatIsWrong(encoded: [UInt8], error: MultihashError) {
        #expect(throws: error) { try Multihash(bytes: encoded) }
        #expect(!error.description.isEmpty)
    }

    @Test func acceptsTheBounds() throws {
        #expect(try Multihash(bytes: [0, 0]).digest.isEmpty)
        let longest = try Multihash(code: .identity, digest: Array(repeating: 7, count: 128))
        #expect(try Multihash(bytes: longest.bytes) == longest)
        #expect(longest.bytes.count <= Multihash.maximumBytes)
        #expect(throws: MultihashError.digestTooLong(bytes: 129)) {
            try Multihash(code: .identity, digest: Array(repeating: 7, count: 129))
        }
    }

    @Test func refusesEveryTruncation() throws {
        let encoded = try Multihash(code: .sha256, digest: Self.digest).bytes
        for length in 0..<encoded.count {
            #expect(throws: MultihashError.self) { try Multihash(bytes: encoded.prefix(length)) }
        }
        #expect(throws: MultihashError.self) { try Multihash(bytes: encoded + [0]) }
        // A slice does not begin at index 0.
        #expect(try Multihash(bytes: ([9, 9] + encoded).dropFirst(2)).digest == Self.digest)
    }

    @Test func codecsHaveTheNamesOfTheTable() {
        let names: [(Multicodec, String, [UInt8])] = [
            (.identity, "identity", [0]), (.cidV1, "cidv1", [1]), (.sha256, "sha2-256", [0x12]),
            (.sha512, "sha2-512", [0x13]), (.raw, "raw", [0x55]), (.dagPB, "dag-pb", [0x70]),
            (.libp2pKey, "libp2p-key", [0x72]), (.libp2pPeerRecord, "libp2p-peer-record", [0x81, 0x06]),
            (.libp2pRelayReservation, "libp2p-relay-rsvp", [0x82, 0x06]),
        ]
        for (codec, name, encoded) in names {
            #expect(codec.description == name)
            #expect(codec.bytes == encoded)
        }
        #expect(Multicodec(rawValue: 0xd5).name == nil)
        #expect(Multicodec(rawValue: 0xd5).description == "0xd5")
    }
}
