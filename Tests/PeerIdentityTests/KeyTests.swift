import Crypto
import Foundation
import Testing

@testable import PeerIdentity

@Suite struct KeyTests {
    static let types: [(name: String, type: KeyType)] = [
        ("rsa", .rsa), ("ed25519", .ed25519), ("secp256k1", .secp256k1), ("ecdsa", .ecdsa),
    ]

    @Test func parsesAndEncodesTheSpecificationsKeys() throws {
        let vectors = try Vectors.load().keys.items
        for (name, type) in Self.types {
            let vector = try #require(vectors[name])
            let privateKey = try PrivateKey(encoded: vector.private.bytes)
            let publicKey = try PublicKey(encoded: vector.public.bytes)
            #expect(privateKey.type == type)
            #expect(privateKey.encoded == vector.private.bytes)
            #expect(privateKey.publicKey == publicKey)
            #expect(publicKey.encoded == vector.public.bytes)
            #expect(try PublicKey(type: type, data: publicKey.data) == publicKey)
            // Type 0 is written like any other.
            #expect(publicKey.encoded.prefix(2) == [0x08, type.rawValue])
        }
    }

    @Test(arguments: KeyType.allCases) func signsWhatOnlyItsOwnKeyVerifies(type: KeyType) throws {
        let message = Array("warren".utf8)
        let key = try PrivateKey.generate(type)
        let other = try PrivateKey.generate(type)
        #expect(key.type == type)
        #expect(key.publicKey != other.publicKey)
        let restored = try PrivateKey(encoded: key.encoded)
        #expect(restored.encoded == key.encoded)
        let publicKey = try PublicKey(encoded: key.publicKey.encoded)
        for text in [[], message, [UInt8](repeating: 7, count: 10_000)] {
            let signature = try restored.sign(text)
            #expect(publicKey.isValidSignature(signature, for: text))
            #expect(!publicKey.isValidSignature(signature, for: text + [0]))
            #expect(!other.publicKey.isValidSignature(signature, for: text))
        }
        for (name, foreign) in Self.types where foreign != type {
            let vector = try #require(Vectors.load().keys.items[name])
            let signature = try PrivateKey(encoded: vector.private.bytes).sign(message)
            #expect(!publicKey.isValidSignature(signature, for: message))
        }
    }

    @Test func refusesEveryChangedOrCutSignature() throws {
        let message = Array("warren".utf8)
        for (name, _) in Self.types {
            let key = try PrivateKey(encoded: try #require(Vectors.load().keys.items[name]).private.bytes)
            let signature = try key.sign(message)
            for index in signature.indices {
                var changed = signature
                changed[index] ^= UInt8(1 << (index % 8))
                #expect(!key.publicKey.isValidSignature(changed, for: message), "\(name), byte \(index)")
                #expect(!key.publicKey.isValidSignature(Array(signature[..<index]), for: message))
            }
            #expect(!key.publicKey.isValidSignature(signature + [0], for: message))
        }
    }

    /// RSA and Ed25519 signatures have no randomness: `openssl dgst -sha256 -sign` and `openssl pkeyutl -sign -rawin` made these
    /// of the specification's keys.
    @Test func signsLikeOpenSSL() throws {
        let vectors = try Vectors.load().keys.items
        let message = Array("warren".utf8)
        let rsa = try PrivateKey(encoded: try #require(vectors["rsa"]).private.bytes).sign(message)
        let rsaDigest: Hex = "27241cb8d66b76cb7dcf16a0823e4c00fe49c84458551dffcc8eb992de372246"
        #expect(Array(SHA256.hash(data: rsa)) == rsaDigest.bytes)
        let ed25519 = try PrivateKey(encoded: try #require(vectors["ed25519"]).private.bytes)
        let expected: Hex = """
            44d3bcd65a071974d5ba0bd39ffbda99e978cfe959571bdd63565349d394ae72\
            debc03bf036377b4ce49d656559d0c26b59b1038975dfca31a2d9f564dd24407
            """
        #expect(ed25519.publicKey.isValidSignature(expected.bytes, for: message))
        #expect(try ed25519.sign(message) == expected.bytes)
    }

    /// Signatures of all elliptic types by other implementations, taken from the libp2p TLS extension of the vectors'
    /// certificates: over a fixed prefix and the certificate's own P-256 key.
    @Test func verifiesSignaturesOfOtherImplementations() throws {
        let vectors = try Vectors.load()
        var seen: Set<KeyType> = []
        for certificate in vectors.tlsCertificates.items + vectors.tlsCertificatesCriticalExt.items.prefix(3) {
            let (key, signature, message) = try #require(Self.signedKey(in: certificate.derHex.bytes))
            #expect(key.isValidSignature(signature, for: message) == certificate.valid, "\(certificate.name)")
            if certificate.valid {
                seen.insert(key.type)
                #expect(PeerID(key).description == certificate.expectedPeerId ?? certificate.peerId)
            }
        }
        #expect(seen == [.ed25519, .ecdsa, .secp256k1])
    }

    /// Keys and signatures made by OpenSSL.
    @Test func verifiesOnTheLargerNISTCurves() throws {
        let vectors: [(key: Hex, signature: Hex)] = [
            (
                """
                3076301006072a8648ce3d020106052b810400220362000465d03336edde2591d1f4704fbb256a220f3a763bbaab71520e6792a2\
                e28e9027c267f58ffd54ca1234f3754ca63b15821850fb77bd05be3a5d6e729368c396c722454d83ce4ab302521c9a55361d9595\
                b3fb71bd380022d23e1a58afe3f53567
                """,
                """
                3065023100a11a6651eb3734903997e6d2d7ebb0a6746cedb3297b6458a554ae21ff57c57c192a095f75074f15122f22153ff8e6\
                48023018dcfc3daf6931bff1de8671f23072e3ad748c379445106894acca1b93d8900a7a0fd9d91cabf5c070513e8cb27754f8
                """
            ),
            (
                """
                30819b301006072a8648ce3d020106052b810400230381860004003e153801427802a4ef3d5b81223ddb3d535511d94512343d14\
                45b3e926cb7fa2c149cd5c203aaad4d6bc371cb0244e2b6ec8e8d4dc2104a55a415959c3bf3f15600051c7b913f81b711fe49e99\
                9ab789d7c2a7d2f6bdb297bd4985613691aae03b6a612015744d7e12e9b888857b7dcb1e75ffd414a98a8f9292c253c8b033ff48\
                124b
                """,
                """
                3081880242018ebabbaab042f21b55f689b6c66da1880dbf69988e098bebbc4a388f88c53f18252e3a7b8bf7929863dd05a43f33\
                fc21ce618f14cde880168faf9ea1c23c9edf9a024201ff3d56e2b84f9c7c3706815b3c4270d2b4f90e814d3432d1dbb73a540cee\
                8084c6e0ab452243471e359542e42e78790bc736a48fe62b582b02c8985d9aea095b4f
                """
            ),
        ]
        for (keyData, signature) in vectors {
            let key = try PublicKey(type: .ecdsa, data: keyData.bytes)
            #expect(try PublicKey(encoded: key.encoded) == key)
            #expect(key.isValidSignature(signature.bytes, for: Array("warren".utf8)))
            #expect(!key.isValidSignature(signature.bytes, for: Array("Warren".utf8)))
        }
    }

    @Test func refusesTheHigherSOnSecp256k1() throws {
        let message = Array("warren".utf8)
        let key = try PrivateKey.generate(.secp256k1)
        for _ in 0..<20 {
            let signature = try key.sign(message)
            let parsed = try #require(ECDSASignature(der: signature))
            #expect(parsed.hasLowS)
            let high = try #require(Self.withOtherS(parsed))
            #expect(!high.hasLowS)
            #expect(!key.publicKey.isValidSignature(high.der, for: message))
            #expect(high.withLowS()?.der == signature)
        }
    }

    @Test func sharesOneKeyAmongThreads() async throws {
        let key = try PrivateKey.generate(.secp256k1)
        let allValid = try await withThrowingTaskGroup(of: Bool.self) { group in
            for number in UInt8(0)..<50 {
                group.addTask { key.publicKey.isValidSignature(try key.sign([number]), for: [number]) }
            }
            return try await group.reduce(true) { $0 && $1 }
        }
        #expect(allValid)
    }

    @Test func refusesKeysThatAreNotCanonicalOrNotKeys() throws {
        let vectors = try Vectors.load().keys.items
        let ed25519 = try #require(vectors["ed25519"]).public.bytes
        let secp256k1 = try #require(vectors["secp256k1"]).public.bytes
        let ecdsa = try #require(vectors["ecdsa"]).public.bytes
        let rsa = try #require(vectors["rsa"]).public.bytes
        let p224: Hex = """
            304e301006072a8648ce3d020106052b81040021033a00041c4e9294c7beae33d9903a37a43f91469182aae9c60204c83b97d4f77b16\
            c0717a9b37af9469390789b869b7df84bc6b32e670bd554de820
            """
        let cases: [(what: String, bytes: [UInt8], error: KeyError)] = [
            ("nothing", [], .malformedEncoding),
            ("no type", Array(ed25519[2...]), .malformedEncoding),
            ("no data", [0x08, 0x01], .malformedEncoding),
            ("unknown type", [0x08, 0x04] + ed25519[2...], .unknownType),
            ("fields swapped", Array(ed25519[2...]) + ed25519[..<2], .notCanonical),
            ("type twice", ed25519[..<2] + ed25519, .notCanonical),
            ("long varint", [0x08, 0x81, 0x00] + ed25519[2...], .notCanonical),
            ("another field", ed25519 + [0x18, 0x01], .notCanonical),
            ("short Ed25519", [0x08, 0x01, 0x12, 0x1f] + ed25519[5...], .invalidData(.ed25519)),
            ("Ed25519 called secp256k1", [0x08, 0x02] + ed25519[2...], .invalidData(.secp256k1)),
            ("uncompressed prefix", secp256k1[..<4] + [0x04] + secp256k1[5...], .invalidData(.secp256k1)),
            ("x without a point", secp256k1[..<5] + [UInt8](repeating: 0xff, count: 32), .invalidData(.secp256k1)),
            ("point off the curve", ecdsa.dropLast() + [ecdsa[ecdsa.count - 1] ^ 1], .invalidData(.ecdsa)),
            ("P-224", [0x08, 0x03, 0x12, 0x50] + p224.bytes, .invalidData(.ecdsa)),
            ("byte after the DER", rsa[..<3] + [0xa7, 0x04] + rsa[5...] + [0], .notCanonical),
            ("RSA 1024", Self.rsaKey(bytes: 128), .rsaSizeOutOfRange(bits: 1024)),
            ("RSA 2040", Self.rsaKey(bytes: 255), .rsaSizeOutOfRange(bits: 2040)),
            ("RSA 8200", Self.rsaKey(bytes: 1025), .invalidData(.rsa)),
            ("huge", [UInt8](repeating: 8, count: 2049), .tooLong(bytes: 2049, maximum: 2048)),
        ]
        for (what, bytes, error) in cases {
            #expect(throws: error, "\(what)") { try PublicKey(encoded: bytes) }
        }
        for bytes in [256, 1024] {
            #expect(try PublicKey(encoded: Self.rsaKey(bytes: bytes)).type == .rsa)
        }
        for bits in [1024, 2040, 8200] {
            #expect(throws: KeyError.rsaSizeOutOfRange(bits: bits)) { try PrivateKey.generate(.rsa, rsaBits: bits) }
        }
    }

    @Test func checksThePublicHalfOfEd25519() throws {
        let key = try PrivateKey(encoded: try #require(Vectors.load().keys.items["ed25519"]).private.bytes)
        let publicData = key.publicKey.data
        let long = [0x08, 0x01, 0x12, 0x60] + key.encoded[4...] + publicData
        #expect(try PrivateKey(encoded: long).encoded == key.encoded)
        #expect(try PrivateKey(ed25519Seed: Array(key.encoded[4..<36])).encoded == key.encoded)
        for index in [36, 67, 68, 99] {
            var wrong = long
            wrong[index] ^= 1
            #expect(throws: KeyError.halvesDoNotMatch) { try PrivateKey(encoded: wrong) }
        }
        #expect(throws: KeyError.invalidData(.ed25519)) {
            try PrivateKey(encoded: [0x08, 0x01, 0x12, 0x20] + key.encoded[4..<36])
        }
        #expect(throws: KeyError.invalidData(.ed25519)) { try PrivateKey(ed25519Seed: [1, 2, 3]) }
    }

    @Test func checksTheRangeOfSecp256k1Scalars() throws {
        let order: Hex = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
        let prefix: [UInt8] = [0x08, 0x02, 0x12, 0x20]
        let below = order.bytes.dropLast() + [0x40]
        // 1 · G is the generator, (order - 1) · G its negative.
        let generator: Hex = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
        let one = [UInt8](repeating: 0, count: 31) + [1]
        #expect(try PrivateKey(encoded: prefix + one).publicKey.data == [0x02] + generator.bytes)
        #expect(try PrivateKey(encoded: prefix + below).publicKey.data == [0x03] + generator.bytes)
        for scalar in [order.bytes, [UInt8](repeating: 0, count: 32), [UInt8](repeating: 0xff, count: 32)] {
            #expect(throws: KeyError.invalidData(.secp256k1)) { try PrivateKey(encoded: prefix + scalar) }
        }
    }

    @Test func refusesEveryTruncation() throws {
        for (name, _) in Self.types {
            let vector = try #require(Vectors.load().keys.items[name])
            for length in vector.public.bytes.indices {
                #expect(throws: KeyError.self) { try PublicKey(encoded: Array(vector.public.bytes[..<length])) }
            }
            for length in vector.private.bytes.indices {
                #expect(throws: KeyError.self) { try PrivateKey(encoded: Array(vector.private.bytes[..<length])) }
            }
        }
    }

    /// Whatever is accepted encodes to what was parsed.
    @Test func survivesRandomBytes() throws {
        var random = SplitMix64(seed: 1)
        let keys = try Vectors.load().keys.items
        let seeds = keys.sorted { $0.key < $1.key }.flatMap { [$0.value.public.bytes, $0.value.private.bytes] }
        for round in 0..<4000 {
            var bytes = round.isMultiple(of: 2) ? random.bytes(round % 120) : seeds[round / 2 % seeds.count]
            for _ in 0..<(round % 4) where !bytes.isEmpty {
                bytes[Int.random(in: bytes.indices, using: &random)] = UInt8.random(in: .min ... .max, using: &random)
            }
            if let key = try? PublicKey(encoded: bytes) {
                #expect(key.encoded == bytes)
                #expect(!key.isValidSignature(random.bytes(72), for: bytes))
            }
            if let key = try? PrivateKey(encoded: bytes) { #expect(!key.encoded.isEmpty) }
        }
    }

    @Test func keepsTheSecretOutOfDescriptions() throws {
        let key = try PrivateKey.generate()
        var dumped = ""
        dump(key, to: &dumped)
        for text in [String(describing: key), String(reflecting: key), dumped] {
            #expect(text.contains(PeerID(key.publicKey).description))
            #expect(!text.contains("\(key.encoded[4]), \(key.encoded[5]), \(key.encoded[6])"))
        }
    }
}

extension KeyTests {
    /// An RSA public key with a modulus of all ones. Nobody needs its factors to parse it.
    static func rsaKey(bytes: Int) -> [UInt8] {
        func der(_ tag: UInt8, _ body: [UInt8]) -> [UInt8] {
            body.count < 128
                ? [tag, UInt8(body.count)] + body
                : body.count < 256
                    ? [tag, 0x81, UInt8(body.count)] + body
                    : [tag, 0x82, UInt8(body.count >> 8), UInt8(body.count & 0xff)] + body
        }
        let modulus = der(0x02, [0] + [UInt8](repeating: 0xff, count: bytes))
        let key = der(0x30, modulus + [0x02, 0x03, 0x01, 0x00, 0x01])
        let algorithm: Hex = "300d06092a864886f70d0101010500"
        let data = der(0x30, algorithm.bytes + der(0x03, [0] + key))
        return [0x08, 0x00, 0x12]
            + (data.count < 128
                ? [UInt8(data.count)] : [UInt8(data.count & 0x7f) | 0x80, UInt8(data.count >> 7)]) + data
    }

    /// The key and signature of the libp2p extension in a certificate, and what is signed.
    static func signedKey(in der: [UInt8]) -> (key: PublicKey, signature: [UInt8], message: [UInt8])? {
        let publicKeyInfo: Hex = "3059301306072a8648ce3d020106082a8648ce3d030107"
        let extensionID: Hex = "060a2b0601040183a25a0101"
        guard let keyRange = der.firstRange(of: publicKeyInfo.bytes),
            let idRange = der.firstRange(of: extensionID.bytes)
        else { return nil }
        var rest = der[idRange.upperBound...]
        func open(_ tag: UInt8) -> ArraySlice<UInt8>? {
            guard rest.popFirst() == tag, var length = rest.popFirst().map(Int.init) else { return nil }
            if length == 0x81 { length = rest.popFirst().map(Int.init) ?? 0 }
            return rest.prefix(length)
        }
        if rest.first == 0x01 { rest = rest.dropFirst(3) }  // critical
        guard open(0x04) != nil, open(0x30) != nil, let key = open(0x04) else { return nil }
        rest = rest[key.endIndex...]
        guard let signature = open(0x04), let publicKey = try? PublicKey(encoded: Array(key)) else { return nil }
        let message = Array("libp2p-tls-handshake:".utf8) + der[keyRange.lowerBound...].prefix(91)
        return (publicKey, Array(signature), message)
    }

    /// The other valid `s` of a signature, written by hand: DER with `order - s`.
    static func withOtherS(_ signature: ECDSASignature) -> ECDSASignature? {
        let order: Hex = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
        let der = signature.der
        let r = der[2..<(4 + Int(der[3]))]
        let s = der[(r.endIndex + 2)...]
        var borrow = 0
        var other = [UInt8](repeating: 0, count: 32)
        let padded = ([UInt8](repeating: 0, count: 32) + s).suffix(32)
        for (index, (a, b)) in zip(order.bytes, padded).enumerated().reversed() {
            let difference = Int(a) - Int(b) - borrow
            borrow = difference < 0 ? 1 : 0
            other[index] = UInt8(difference & 0xff)
        }
        var integer = Array(other.drop { $0 == 0 })
        if integer[0] >= 0x80 { integer.insert(0, at: 0) }
        let body = Array(r) + [0x02, UInt8(integer.count)] + integer
        return ECDSASignature(der: [0x30, UInt8(body.count)] + body)
    }
}
