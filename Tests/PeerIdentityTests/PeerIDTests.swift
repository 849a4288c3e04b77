import Foundation
import Multiformats
import Testing

@testable import PeerIdentity

@Suite struct PeerIDTests {
    static let ed25519 = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"
    static let rsa = "QmaeANgBs1DTSxWSrPPtobgQuxW8XTfsS4ydbK4rCHzqxG"

    @Test func derivesTheSpecificationsPeerIDs() throws {
        for (name, vector) in try Vectors.load().keys.items {
            let key = try PublicKey(encoded: vector.public.bytes)
            let peerID = PeerID(key)
            #expect(peerID.description == vector.peerId)
            #expect(peerID.bytes == vector.peerIdHex.bytes)
            #expect(peerID.cidText == vector.peerIdCidBase32)
            #expect(try PeerID(bytes: vector.peerIdHex.bytes) == peerID)
            #expect(try PeerID(vector.peerId) == peerID)
            #expect(try PeerID(vector.peerIdCidBase32) == peerID)
            let isInlined = key.type == .ed25519 || key.type == .secp256k1
            #expect(peerID.publicKey == (isInlined ? key : nil), "\(name)")
        }
    }

    @Test func readsEveryTextForm() throws {
        let text = try Vectors.load().peerIdText
        #expect(try PeerID(text.cidBase32) == PeerID(text.sameBase58))
        #expect(try PeerID(text.cidBase32).description == text.sameBase58)
        #expect(try PeerID(text.autotlsBase36) == PeerID(text.autotlsBase36Of))
        let peerID = try PeerID(Self.ed25519)
        for base in Multibase.allCases {
            #expect(try PeerID(base.encode([0x01, 0x72] + peerID.bytes)) == peerID, "\(base)")
        }
        #expect(peerID.shortDescription == "12D3…o7R3pq")
        #expect(PeerID(uncheckedBytes: [0x00, 0x01, 0x07]).shortDescription == "15Y")
    }

    @Test func matchesItsOwnKeyOnly() throws {
        let keys = try Vectors.load().keys.items.values.map { try PublicKey(encoded: $0.public.bytes) }
        for key in keys {
            for other in keys { #expect(PeerID(key).matches(other) == (key == other)) }
        }
    }

    @Test func refusesWhatIsNoPeerID() throws {
        let inlined = try PeerID(Self.ed25519).bytes
        let point = try PeerID("16Uiu2HAmLhLvBoYaoZfaMUKuibM6ac163GwKY74c5kiSLg5KvLpY").bytes
        let hash = [UInt8](repeating: 1, count: 32)
        let binary: [(bytes: [UInt8], error: PeerIDError)] = [
            ([], .notMultihash(.malformedVarint(.truncated))),
            ([0x12, 0x20] + hash + [0], .notMultihash(.lengthMismatch(stated: 32, found: 33))),
            ([0x12, 0x1f] + hash.dropLast(), .notMultihash(.wrongDigestLength(.sha256, bytes: 31, expected: 32))),
            ([0x92, 0x00, 0x20] + hash, .notMultihash(.malformedVarint(.nonMinimal))),
            ([0x16, 0x20] + hash, .notPeerHash(Multicodec(rawValue: 0x16))),
            ([0x00, 0x00], .notInlinedKey),
            ([0x00, 0x20] + hash, .notInlinedKey),
            ([0x00, 0x24, 0x08, 0x00] + inlined[4...], .notInlinedKey),
            ([0x00, 0x25] + inlined[2...] + [0], .notInlinedKey),
            (point[..<6] + [0x04] + point[7...], .notInlinedKey),
        ]
        for (bytes, error) in binary {
            #expect(throws: error) { try PeerID(bytes: bytes) }
        }
        let keyCID = try CID(PeerID(Self.ed25519).cidText)
        let texts: [(text: String, error: PeerIDError)] = [
            ("", .notCID(.notMultibase(.empty))),
            ("Qm0", .notBase58(.notADigit(UInt8(ascii: "0")))),
            ("1", .notMultihash(.malformedVarint(.truncated))),
            (String(repeating: "1", count: 513), .notBase58(.tooLong(513, maximum: 512))),
            (CID(codec: .dagPB, multihash: keyCID.multihash).description, .notKeyCodec(.dagPB)),
            ("ü", .notCID(.notMultibase(.unknownBase("ü")))),
        ]
        for (text, error) in texts {
            #expect(throws: error, "\(text)") { try PeerID(text) }
        }
        for length in Self.ed25519.indices {
            #expect(throws: PeerIDError.self) { try PeerID(String(Self.ed25519[..<length])) }
        }
        // A valid form around 32 bytes that are the x of no point.
        let noPoint = try PeerID(bytes: point[..<7] + [UInt8](repeating: 0xff, count: 32))
        #expect(noPoint.publicKey == nil)
    }

    @Test func refusesEveryTruncation() throws {
        for text in [Self.ed25519, Self.rsa] {
            let bytes = try PeerID(text).bytes
            for length in bytes.indices {
                #expect(throws: PeerIDError.self) { try PeerID(bytes: Array(bytes[..<length])) }
            }
        }
    }

    /// What is accepted comes back as it was, in all forms.
    @Test func survivesRandomInput() throws {
        var random = SplitMix64(seed: 2)
        let seeds = [try PeerID(Self.ed25519), try PeerID(Self.rsa)]
        let texts = seeds.flatMap { [$0.description, $0.cidText] }.map { Array($0.utf8) }
        for round in 0..<3000 {
            var bytes = round.isMultiple(of: 2) ? random.bytes(round % 50) : seeds[round / 2 % 2].bytes
            var text = texts[round % texts.count]
            for _ in 0..<(round % 3) {
                if !bytes.isEmpty { bytes[Int.random(in: bytes.indices, using: &random)] = UInt8(random.next() & 0xff) }
                text[Int.random(in: text.indices, using: &random)] = UInt8(random.next() & 0xff)
            }
            if let peerID = try? PeerID(bytes: bytes) {
                #expect(peerID.bytes == bytes)
                #expect(try PeerID(peerID.description) == peerID)
                #expect(try PeerID(peerID.cidText) == peerID)
            }
            if let peerID = try? PeerID(String(decoding: text, as: UTF8.self)) {
                #expect(try PeerID(bytes: peerID.bytes) == peerID)
            }
        }
    }

    @Test func isCodedAsText() throws {
        let peerID = try PeerID(Self.rsa)
        #expect(try String(decoding: JSONEncoder().encode([peerID]), as: UTF8.self) == "[\"\(Self.rsa)\"]")
        #expect(try JSONDecoder().decode([PeerID].self, from: Data("[\"\(peerID.cidText)\"]".utf8)) == [peerID])
        #expect(throws: DecodingError.self) { try JSONDecoder().decode([PeerID].self, from: Data("[\"Qm\"]".utf8)) }
    }

    @Test func ordersByBytes() throws {
        // As text, 1… comes before Q…; so do the bytes 00… and 12….
        let ids = try [Self.rsa, Self.ed25519].map { try PeerID($0) }
        #expect(ids.sorted().map(\.description) == [Self.ed25519, Self.rsa])
        #expect(PeerID(uncheckedBytes: [1]) < PeerID(uncheckedBytes: [1, 0]))
    }
}

@Suite struct MultiaddrPeerIDTests {
    static let address = "/ip4/192.0.2.7/tcp/4117"
    static let circuit = "\(address)/p2p/\(PeerIDTests.rsa)/p2p-circuit"

    @Test func splitsAndJoins() throws {
        let peerID = try PeerID(PeerIDTests.ed25519)
        for text in [Self.address, Self.circuit, "/ip4/192.0.2.7/udp/4117/quic-v1"] {
            let plain = try Multiaddr(text)
            let full = plain.appending(peerID)
            #expect(full == (try Multiaddr("\(text)/p2p/\(peerID)")))
            #expect(full.appending(peerID) == full)
            #expect(full.peerID == peerID)
            #expect(full.splittingPeerID() == (plain, peerID))
            #expect(plain.peerID == nil)
            #expect(plain.splittingPeerID() == (plain, nil))
        }
        let alone = try Multiaddr("/p2p/\(peerID)")
        #expect(alone.peerID == peerID)
        #expect(alone.splittingPeerID().address.isEmpty)
        #expect(alone.splittingPeerID().address.appending(peerID) == alone)
        #expect(try Multiaddr("/unix/run/socket").appending(peerID) == Multiaddr("/unix/run/socket"))
    }

    @Test func doesNotNameAPeerWithoutAKey() throws {
        let odd = try Multiaddr("\(Self.address)/p2p/\(Base58.encode([0x00, 0x01, 0x07]))")
        #expect(odd.peerID == nil)
        #expect(odd.splittingPeerID() == (odd, nil))
    }
}
