import Multiformats
import Testing

@Suite struct CIDTests {
    @Test func matchesTheVectors() throws {
        let items = try Vectors.multiformats.get().cid.items
        #expect(items.count == 5)
        for item in items {
            let codec = Multicodec(rawValue: item.codec)
            var multihashes: Set<Multihash> = []
            for (text, base) in [(item.base32, Multibase.base32), (item.base58btc, .base58BTC)] {
                guard let text else { continue }
                let cid = try CID(text)
                #expect(cid.version == .v1)
                #expect(cid.codec == codec)
                #expect(cid.text(in: base) == text)
                #expect(try CID(bytes: cid.bytes) == cid)
                #expect(CID(codec: codec, multihash: cid.multihash) == cid)
                multihashes.insert(cid.multihash)
            }
            if let text = item.v0 {
                let cid = try CID(text)
                #expect(cid.version == .v0)
                #expect(cid.codec == .dagPB)
                #expect(cid.description == text)
                #expect(cid.text(in: .base36) == text)
                #expect(try CID(bytes: cid.bytes) == cid)
                #expect(try CID(v0: cid.multihash) == cid)
                multihashes.insert(cid.multihash)
            }
            if let hex = item.digestHex {
                multihashes.insert(try Multihash(code: .sha256, digest: #require(bytes(hex: hex))))
            }
            #expect(multihashes.count == 1)
        }
    }

    @Test func readsPeerIDsInOtherBases() throws {
        let text = try Vectors.libp2p.get().peerIDText
        let base32 = try CID(text.base32)
        #expect(base32.codec == .libp2pKey)
        #expect(Base58.encode(base32.multihash.bytes) == text.base32AsBase58)
        #expect(base32.text(in: .base32) == text.base32)
        let base36 = try CID(text.base36)
        #expect(base36.codec == .libp2pKey)
        #expect(Base58.encode(base36.multihash.bytes) == text.base36AsBase58)
        #expect(base36.text(in: .base36) == text.base36)
    }

    @Test func refusesWhatIsNone() throws {
        let v0 = "QmS4ustL54uo8FzR9455qaxZwuMiUhyvMcX9Ba8nUH4uVv"
        let multihash = try CID(v0).multihash
        let cases: [(String, CIDError)] = [
            ("", .notMultibase(.empty)),
            ("QmS4ustL54uo8FzR9455qaxZwuMiUhyvMcX9Ba8nUH4uV", .notMultibase(.unknownBase("Q"))),
            ("QmS4ustL54uo8FzR9455qaxZwuMiUhyvMcX9Ba8nUH4uV0", .notMultibase(.notADigit(0x30))),
            ("z" + v0, .version0InMultibase),
            ("f", .malformedVarint(.truncated)),
            ("f01", .malformedVarint(.truncated)),
            ("f8100", .malformedVarint(.nonMinimal)),
            ("f0255", .unknownVersion(2)),
            ("f0055", .unknownVersion(0)),
            ("f0155", .malformedMultihash(.malformedVarint(.truncated))),
            ("f01551202aaaa", .malformedMultihash(.wrongDigestLength(.sha256, bytes: 2, expected: 32))),
        ]
        for (text, error) in cases {
            #expect(throws: error, "\(text)") { try CID(text) }
            #expect(!error.description.isEmpty)
        }
        let identity = try Multihash(code: .identity, digest: [1])
        #expect(throws: CIDError.notVersion0(.identity)) { try CID(v0: identity) }
        for cid in [CID(codec: .libp2pPeerRecord, multihash: multihash), try CID(v0)] {
            for length in 0..<cid.bytes.count {
                #expect(throws: CIDError.self) { try CID(bytes: cid.bytes.prefix(length)) }
            }
            #expect(throws: CIDError.self) { try CID(bytes: cid.bytes + [0]) }
        }
    }
}
