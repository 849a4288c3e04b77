import Crypto
import CryptoExtras
import FoundationEssentials

/// A key pair. Its description never shows the secret.
///
/// Spec: `peer-ids/peer-ids.md` § Keys.
public struct PrivateKey: Sendable, CustomStringConvertible, CustomReflectable {
    /// The longest encoded key that is accepted, in bytes. RSA with 8192 bits needs about 4700.
    public static let maximumEncodedBytes = 8192

    /// The public half.
    public let publicKey: PublicKey
    /// The libp2p encoding, **secret**: a protobuf message with type and data. Ed25519 data is the seed and the public key
    /// (64 bytes), secp256k1 data the 32-byte scalar, RSA data PKCS #1 DER, ECDSA data the EC private key DER of RFC 5915.
    public let encoded: [UInt8]

    private let signer: Signer

    /// What kind of key it is.
    public var type: KeyType { self.publicKey.type }

    /// Makes a new key. ECDSA keys are on P-256.
    ///
    /// - Parameters:
    ///   - type: The kind of key.
    ///   - rsaBits: Size of an RSA modulus, a multiple of 8 in 2048…8192; of no effect otherwise.
    public static func generate(_ type: KeyType = .ed25519, rsaBits: Int = 2048) throws(KeyError) -> PrivateKey {
        do {
            switch type {
            case .ed25519:
                return try PrivateKey(.ed25519(Curve25519.Signing.PrivateKey()))
            case .ecdsa:
                return try PrivateKey(.p256(P256.Signing.PrivateKey()))
            case .secp256k1:
                guard let key = Secp256k1Key.generate() else { throw KeyError.cryptographyFailed(type) }
                return try PrivateKey(.secp256k1(key))
            case .rsa:
                guard RSALimits.bits.contains(rsaBits) else { throw KeyError.rsaSizeOutOfRange(bits: rsaBits) }
                return try PrivateKey(.rsa(_RSA.Signing.PrivateKey(keySize: .init(bitCount: rsaBits))))
            }
        } catch let error as KeyError {
            throw error
        } catch {
            throw .cryptographyFailed(type)
        }
    }

    /// Parses the libp2p encoding.
    ///
    /// Beyond the forms at ``encoded`` it takes Ed25519 data with the public key twice (96 bytes), and ECDSA data
    /// without the optional parts; the result is encoded canonically.
    public init(encoded: [UInt8]) throws(KeyError) {
        let (type, data) = try KeyEncoding.decode(encoded, maximumBytes: Self.maximumEncodedBytes)
        try self.init(Signer(type, data))
    }

    /// The Ed25519 key of a 32-byte seed (RFC 8032's private key).
    public init(ed25519Seed seed: [UInt8]) throws(KeyError) {
        guard let key = try? Curve25519.Signing.PrivateKey(rawRepresentation: seed) else {
            throw .invalidData(.ed25519)
        }
        try self.init(.ed25519(key))
    }

    private init(_ signer: Signer) throws(KeyError) {
        let (type, privateData, publicData) = signer.data
        self.signer = signer
        self.publicKey = try PublicKey(type: type, data: publicData)
        self.encoded = try KeyEncoding.encode(type, privateData)
    }

    /// Signs `message`, which is hashed first where the type asks for that.
    ///
    /// - Returns: 64 bytes for Ed25519, as many as the modulus has for RSA, DER for ECDSA and secp256k1.
    public func sign(_ message: [UInt8]) throws(KeyError) -> [UInt8] {
        do {
            switch self.signer {
            case .ed25519(let key):
                return Array(try key.signature(for: message))
            case .p256(let key):
                return Array(try key.signature(for: SHA256.hash(data: message)).derRepresentation)
            case .rsa(let key):
                return Array(
                    try key.signature(for: SHA256.hash(data: message), padding: .insecurePKCS1v1_5).rawRepresentation)
            case .secp256k1(let key):
                guard let signature = key.sign(message) else { throw KeyError.cryptographyFailed(.secp256k1) }
                return signature
            }
        } catch {
            throw .cryptographyFailed(self.type)
        }
    }

    /// The type and the peer ID.
    public var description: String { "private key of \(self.publicKey)" }

    /// The public half alone, so that `dump` and test failures leak nothing.
    public var customMirror: Mirror { Mirror(self, children: ["publicKey": self.publicKey]) }
}

/// The key in the form that the cryptographic libraries want.
private enum Signer: Sendable {
    case ed25519(Curve25519.Signing.PrivateKey)
    case rsa(_RSA.Signing.PrivateKey)
    case secp256k1(Secp256k1Key)
    case p256(P256.Signing.PrivateKey)

    init(_ type: KeyType, _ data: [UInt8]) throws(KeyError) {
        do {
            switch type {
            case .ed25519:
                guard data.count == 64 || data.count == 96 else { throw KeyError.invalidData(.ed25519) }
                let key = try Curve25519.Signing.PrivateKey(rawRepresentation: data[..<32])
                let publicData = key.publicKey.rawRepresentation
                guard data[32..<64].elementsEqual(publicData),
                    data.count == 64 || data[64..<96].elementsEqual(publicData)
                else { throw KeyError.halvesDoNotMatch }
                self = .ed25519(key)
            case .secp256k1:
                guard let key = Secp256k1Key(scalar: data) else { throw KeyError.invalidData(.secp256k1) }
                self = .secp256k1(key)
            case .rsa:
                let key = try _RSA.Signing.PrivateKey(unsafeDERRepresentation: data)
                guard RSALimits.bits.contains(key.keySizeInBits) else {
                    throw KeyError.rsaSizeOutOfRange(bits: key.keySizeInBits)
                }
                guard key.derRepresentation.elementsEqual(data) else { throw KeyError.notCanonical }
                self = .rsa(key)
            case .ecdsa:
                self = .p256(try P256.Signing.PrivateKey(derRepresentation: data))
            }
        } catch let error as KeyError {
            throw error
        } catch {
            throw .invalidData(type)
        }
    }

    /// The data fields of the two encoded keys.
    var data: (type: KeyType, privateData: [UInt8], publicData: [UInt8]) {
        switch self {
        case .ed25519(let key):
            let publicData = Array(key.publicKey.rawRepresentation)
            return (.ed25519, Array(key.rawRepresentation) + publicData, publicData)
        case .secp256k1(let key):
            return (.secp256k1, key.scalar, key.compressedPoint)
        case .rsa(let key):
            return (.rsa, Array(key.derRepresentation), Array(key.publicKey.derRepresentation))
        case .p256(let key):
            return (.ecdsa, key.ecPrivateKeyDER, Array(key.publicKey.derRepresentation))
        }
    }
}

extension P256.Signing.PrivateKey {
    /// RFC 5915 with curve and public key. All lengths are fixed, so the DER around the two values is a constant.
    fileprivate var ecPrivateKeyDER: [UInt8] {
        [0x30, 0x77, 0x02, 0x01, 0x01, 0x04, 0x20]
            + Array(self.rawRepresentation)
            + [0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0xa1, 0x44, 0x03, 0x42, 0x00]
            + Array(self.publicKey.x963Representation)
    }
}
