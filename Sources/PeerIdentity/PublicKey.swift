import Crypto
import CryptoExtras
import FoundationEssentials

/// A peer's public key. Two keys are equal when their encodings are.
///
/// Spec: `peer-ids/peer-ids.md` § Keys.
public struct PublicKey: Hashable, Sendable, CustomStringConvertible {
    /// The longest encoded key that is accepted, in bytes. RSA with 8192 bits needs 1067.
    public static let maximumEncodedBytes = 2048

    /// What kind of key it is.
    public let type: KeyType
    /// The key alone: 32 bytes for Ed25519, the 33-byte compressed point for secp256k1, PKIX DER for RSA and ECDSA.
    public let data: [UInt8]
    /// The libp2p encoding, which the peer ID is made of: a protobuf message with type and data.
    public let encoded: [UInt8]

    private let verifier: Verifier

    /// Parses the libp2p encoding. Only the canonical encoding of a valid key is accepted.
    public init(encoded: [UInt8]) throws(KeyError) {
        let (type, data) = try KeyEncoding.decode(encoded, maximumBytes: Self.maximumEncodedBytes)
        self.type = type
        self.data = data
        self.encoded = encoded
        self.verifier = try Verifier(type, data)
    }

    /// Wraps the key itself, in the form described at ``data``.
    public init(type: KeyType, data: [UInt8]) throws(KeyError) {
        guard data.count <= Self.maximumEncodedBytes else {
            throw .tooLong(bytes: data.count, maximum: Self.maximumEncodedBytes)
        }
        self.type = type
        self.data = data
        self.verifier = try Verifier(type, data)
        self.encoded = try KeyEncoding.encode(type, data)
    }

    /// Whether the owner of this key has signed `message`. Whatever `signature` holds, the answer is just no.
    ///
    /// secp256k1 signatures must have the lower `s` (BIP 62), as every implementation makes them.
    public func isValidSignature(_ signature: [UInt8], for message: [UInt8]) -> Bool {
        self.verifier.isValidSignature(signature, for: message)
    }

    /// The type and the peer ID.
    public var description: String { "\(self.type) \(PeerID(self))" }

    /// Equality of the encodings.
    public static func == (a: PublicKey, b: PublicKey) -> Bool { a.encoded == b.encoded }

    /// Hashes the encoding.
    public func hash(into hasher: inout Hasher) { hasher.combine(self.encoded) }
}

/// The key in the form that the cryptographic libraries want.
private enum Verifier: Sendable {
    case ed25519(Curve25519.Signing.PublicKey)
    case rsa(_RSA.Signing.PublicKey)
    case secp256k1(Secp256k1Key)
    case p256(P256.Signing.PublicKey)
    case p384(P384.Signing.PublicKey)
    case p521(P521.Signing.PublicKey)

    init(_ type: KeyType, _ data: [UInt8]) throws(KeyError) {
        let der: Data
        do {
            switch type {
            case .ed25519:
                self = .ed25519(try Curve25519.Signing.PublicKey(rawRepresentation: data))
                return
            case .secp256k1:
                guard let key = Secp256k1Key(compressedPoint: data) else { throw KeyError.invalidData(.secp256k1) }
                self = .secp256k1(key)
                return
            case .rsa:
                let key = try _RSA.Signing.PublicKey(unsafeDERRepresentation: data)
                guard RSALimits.bits.contains(key.keySizeInBits) else {
                    throw KeyError.rsaSizeOutOfRange(bits: key.keySizeInBits)
                }
                self = .rsa(key)
                der = key.derRepresentation
            case .ecdsa:
                // The length of the PKIX form, which is fixed for each curve, tells them apart.
                switch data.count {
                case 91:
                    let key = try P256.Signing.PublicKey(derRepresentation: data)
                    self = .p256(key)
                    der = key.derRepresentation
                case 120:
                    let key = try P384.Signing.PublicKey(derRepresentation: data)
                    self = .p384(key)
                    der = key.derRepresentation
                case 158:
                    let key = try P521.Signing.PublicKey(derRepresentation: data)
                    self = .p521(key)
                    der = key.derRepresentation
                default:
                    throw KeyError.invalidData(.ecdsa)
                }
            }
        } catch let error as KeyError {
            throw error
        } catch {
            throw .invalidData(type)
        }
        guard der.elementsEqual(data) else { throw .notCanonical }
    }

    func isValidSignature(_ signature: [UInt8], for message: [UInt8]) -> Bool {
        switch self {
        case .ed25519(let key):
            return key.isValidSignature(signature, for: message)
        case .rsa(let key):
            return key.isValidSignature(
                _RSA.Signing.RSASignature(rawRepresentation: signature), for: SHA256.hash(data: message),
                padding: .insecurePKCS1v1_5)
        case .secp256k1(let key):
            return key.isValidSignature(signature, for: message)
        case .p256(let key):
            guard let parsed = try? P256.Signing.ECDSASignature(derRepresentation: signature) else { return false }
            return key.isValidSignature(parsed, for: SHA256.hash(data: message))
        case .p384(let key):
            guard let parsed = try? P384.Signing.ECDSASignature(derRepresentation: signature) else { return false }
            return key.isValidSignature(parsed, for: SHA256.hash(data: message))
        case .p521(let key):
            guard let parsed = try? P521.Signing.ECDSASignature(derRepresentation: signature) else { return false }
            return key.isValidSignature(parsed, for: SHA256.hash(data: message))
        }
    }
}

enum RSALimits {
    /// Go refuses smaller and larger keys too.
    static let bits = 2048...8192
}
