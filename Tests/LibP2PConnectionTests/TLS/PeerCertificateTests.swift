import Crypto
import Foundation
import LibP2PConnection
import PeerIdentity
import SwiftASN1
import Testing
import X509

/// Certificates that prove who a peer is, and all the ways in which they do not.
@Suite struct PeerCertificateTests {
    static let now = Date(timeIntervalSince1970: 1_800_000_000)

    private static func verify(_ der: [UInt8], now: Date = now) -> Result<PeerID, PeerCertificateError> {
        do throws(PeerCertificateError) {
            return .success(PeerID(try PeerCertificate.verify(chainDER: [der], now: now)))
        } catch {
            return .failure(error)
        }
    }

    private func forged(_ change: (inout ForgedCertificate) throws -> Void) throws -> [UInt8] {
        var certificate = ForgedCertificate(identity: try .generate())
        try change(&certificate)
        return try certificate.der()
    }

    // MARK: Our own

    @Test(arguments: KeyType.allCases)
    func provesItsMaker(_ type: KeyType) throws {
        let identity = try PeerIdentity.PrivateKey.generate(type)
        let own = try PeerCertificate.make(identity: identity)
        let other = try PeerCertificate.make(identity: identity)
        #expect(own.certificate != other.certificate && own.privateKey != other.privateKey)
        #expect(try PeerCertificate.verify(chainDER: [own.certificate]) == identity.publicKey)
        #expect(try PeerCertificate.verify(chainDER: [other.certificate]) == identity.publicKey)

        let parsed = try Certificate(derEncoded: own.certificate)
        let key = try P256.Signing.PrivateKey(derRepresentation: own.privateKey)
        #expect(parsed.publicKey == Certificate.PublicKey(key.publicKey))
        #expect(parsed.publicKey.isValidSignature(parsed.signature, for: parsed))
        #expect(parsed.serialNumber != (try Certificate(derEncoded: other.certificate)).serialNumber)
        #expect(parsed.extensions.map(\.oid) == [ForgedCertificate.oid])
        #expect(parsed.extensions.first?.critical == false)
    }

    @Test func isValidFromAnHourAgoForAHundredYears() throws {
        let own = try PeerCertificate.make(identity: .generate(), now: Self.now)
        let parsed = try Certificate(derEncoded: own.certificate)
        #expect(parsed.notValidBefore == Self.now - 3600)
        #expect(parsed.notValidAfter == Self.now + 100 * 365 * 86400)
        for (now, expected) in [
            (parsed.notValidBefore - 1, PeerCertificateError.notYetValid(notBefore: parsed.notValidBefore)),
            (parsed.notValidBefore, nil), (parsed.notValidAfter, nil),
            (parsed.notValidAfter + 1, .expired(notAfter: parsed.notValidAfter)),
        ] {
            switch Self.verify(own.certificate, now: now) {
            case .success: #expect(expected == nil)
            case .failure(let error): #expect(error == expected)
            }
        }
    }

    // MARK: Those of others

    @Test func vectorsAreThere() {
        #expect(CertificateVector.libp2p.count == 9)
        #expect(CertificateVector.libp2p.filter { $0.provenPeer != nil }.count == 6)
        #expect(CertificateVector.keys.count == 10)
    }

    @Test(arguments: CertificateVector.libp2p)
    func knowsTheVectors(_ vector: CertificateVector) throws {
        switch Self.verify(vector.der) {
        case .success(let peer): #expect(peer.description == vector.provenPeer)
        case .failure(let error):
            #expect(vector.provenPeer == nil)
            #expect(error == .invalidIdentitySignature || error == .invalidSelfSignature)
        }
    }

    /// Every kind of certificate key; the self-signature is looked at before the identity's.
    @Test(arguments: CertificateVector.keys)
    func checksSelfSignaturesOfEveryKind(_ vector: CertificateVector) throws {
        let inItsTime = Date(timeIntervalSince1970: 1_640_000_000)
        let result = Self.verify(vector.der, now: inItsTime)
        if vector.algorithm == "RSA-PSS SHA-384" {
            #expect((try? result.get()) != nil)
        } else {
            #expect(result == .failure(.invalidIdentitySignature))
        }
        var changed = vector.der
        changed[changed.count - 5] ^= 1
        #expect(Self.verify(changed, now: inItsTime) == .failure(.invalidSelfSignature))
    }

    // MARK: Forgeries

    @Test func takesEveryKindOfCertificateKeyWithEitherFlag() throws {
        let identity = try PeerIdentity.PrivateKey.generate()
        let keys: [Certificate.PrivateKey] = [
            .init(P256.Signing.PrivateKey()), .init(P384.Signing.PrivateKey()), .init(P521.Signing.PrivateKey()),
            .init(Curve25519.Signing.PrivateKey()),
        ]
        for key in keys {
            for isCritical in [false, true] {
                let der = try ForgedCertificate(identity: identity, key: key, isCritical: isCritical).der()
                #expect(Self.verify(der) == .success(PeerID(identity.publicKey)), "\(key)")
            }
        }
    }

    @Test func needsExactlyOneCertificate() throws {
        let one = try self.forged { _ in }
        #expect(throws: PeerCertificateError.wrongChainLength(0)) { try PeerCertificate.verify(chainDER: []) }
        #expect(throws: PeerCertificateError.wrongChainLength(2)) {
            try PeerCertificate.verify(chainDER: [one, one], now: Self.now)
        }
    }

    @Test func refusesWhatIsNotSignedWithItsOwnKey() throws {
        let foreign = try self.forged { $0.issuer = .init(P256.Signing.PrivateKey()) }
        #expect(Self.verify(foreign) == .failure(.invalidSelfSignature))
        let otherKind = try self.forged { $0.issuer = .init(Curve25519.Signing.PrivateKey()) }
        #expect(Self.verify(otherKind) == .failure(.invalidSelfSignature))
    }

    @Test func refusesAnIdentityThatHasNotSigned() throws {
        let stranger = try PeerIdentity.PrivateKey.generate()
        let otherPrefix = try self.forged { $0.prefix = "libp2p-tls-handshake" }
        #expect(Self.verify(otherPrefix) == .failure(.invalidIdentitySignature))
        // Somebody else's proof, copied.
        let copied = try ForgedCertificate(identity: stranger).rightProof()
        let thief = try self.forged { $0.proof = copied }
        #expect(Self.verify(thief) == .failure(.invalidIdentitySignature))
        let unsigned = try self.forged {
            $0.proof = try ForgedCertificate.proof(key: stranger.publicKey.encoded, signature: [])
        }
        #expect(Self.verify(unsigned) == .failure(.invalidIdentitySignature))
    }

    @Test func wantsTheExtensionOnceAndWellFormed() throws {
        #expect(Self.verify(try self.forged { $0.hasProof = false }) == .failure(.noPeerExtension))
        let right = try ForgedCertificate(identity: .generate()).rightProof()
        for proof in [[], [0x30, 0x00], [0x04, 0x01, 0x00], Array(right.dropLast()), right + [0x05, 0x00]] {
            let der = try self.forged { $0.proof = proof }
            #expect(Self.verify(der) == .failure(.malformedPeerExtension), "\(proof)")
        }
        let noKey = try self.forged { $0.proof = try ForgedCertificate.proof(key: [8, 9], signature: [1]) }
        guard case .failure(.invalidIdentityKey) = Self.verify(noKey) else {
            Issue.record("a key that is none was accepted")
            return
        }
    }

    @Test func refusesCriticalExtensionsOfOthers() throws {
        let basic = try self.forged {
            $0.others = [.init(oid: [2, 5, 29, 19], critical: true, value: [0x30, 0x00])]
        }
        #expect(Self.verify(basic) == .failure(.unknownCriticalExtension(oid: "2.5.29.19")))
        let harmless = try self.forged {
            $0.others = [.init(oid: [1, 2, 3], critical: false, value: [0xff])]
        }
        #expect((try? Self.verify(harmless).get()) != nil)
    }

    @Test func refusesKeysThatAreTooWeakOrUnknownToTLS() throws {
        for (name, expected) in [
            ("RSA with 1024 bits", PeerCertificateError.keyOutOfRange(bits: 1024, securityBits: 80)),
            ("secp256k1", .unsupportedKey),
            ("P-256 with parameters of its own", .unsupportedKey),
            ("SHA-1", .keyOutOfRange(bits: 256, securityBits: 63)),
        ] {
            let der = try #require(CertificateVector.odd.first { $0.name == name }).der
            #expect(Self.verify(der) == .failure(expected), "\(name)")
        }
    }

    // MARK: Bytes

    @Test func refusesOtherVersionsAndLengths() throws {
        let der = try self.forged { _ in }
        #expect(Self.verify([]) == .failure(.malformed))
        #expect(Self.verify(der + [0]) == .failure(.malformed))
        #expect(
            Self.verify([UInt8](repeating: 0x30, count: 8193)) == .failure(.tooLong(bytes: 8193, maximum: 8192)))
        var version = der
        let place = try #require(version.indices.first { version[$0...].starts(with: [0xa0, 0x03, 0x02, 0x01, 0x02]) })
        version[place + 4] = 1
        #expect(Self.verify(version) == .failure(.malformed))
    }

    /// No byte can change, and none be missing.
    @Test func refusesEveryDamage() throws {
        let der = try self.forged { _ in }
        for place in der.indices {
            #expect((try? Self.verify(Array(der[..<place])).get()) == nil, "cut at \(place)")
            var changed = der
            changed[place] ^= 1 << UInt8(place % 8)
            #expect((try? Self.verify(changed).get()) == nil, "changed at \(place)")
        }
    }
}
