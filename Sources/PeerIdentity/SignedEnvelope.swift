import FoundationEssentials
import Multiformats
import SwiftProtobuf

/// A payload that its author has signed, for a purpose (the domain) that is signed too but never transmitted.
///
/// Every value has a valid signature: there is no way to make one without ``seal(_:type:domain:with:)`` or
/// ``open(_:domain:maximumBytes:)``, so nobody can decode a payload that was not verified.
///
/// Spec: `RFC/0002-signed-envelopes.md`.
public struct SignedEnvelope: Hashable, Sendable {
    /// The longest envelope that is opened or sealed when the caller says nothing, in bytes.
    public static let maximumBytes = 65_536

    /// What the payload is for.
    public let domain: String
    /// The author's key.
    public let publicKey: PublicKey
    /// How the payload is to be decoded.
    public let payloadType: [UInt8]
    /// What was signed.
    public let payload: [UInt8]
    /// The envelope as it is on the wire; a received one is forwarded as it came.
    public let bytes: [UInt8]

    /// The author.
    public var signer: PeerID { PeerID(self.publicKey) }

    /// Signs `payload`.
    ///
    /// - Parameters:
    ///   - payload: The encoded content.
    ///   - type: How it is encoded; not empty.
    ///   - domain: What it is for; not empty.
    ///   - key: The author's.
    public static func seal(
        _ payload: [UInt8], type: [UInt8], domain: String, with key: PrivateKey
    ) throws(SignedEnvelopeError) -> SignedEnvelope {
        guard !domain.isEmpty else { throw .emptyDomain }
        guard !type.isEmpty else { throw .emptyPayloadType }
        var message = WireEnvelope()
        let bytes: [UInt8]
        do {
            message.publicKey = Data(key.publicKey.encoded)
            message.payloadType = Data(type)
            message.payload = Data(payload)
            message.signature = Data(try key.sign(self.signedBytes(domain: domain, type: type, payload: payload)))
            bytes = try message.serializedBytes()
        } catch {
            throw .signingFailed
        }
        guard bytes.count <= self.maximumBytes else {
            throw .tooLong(bytes: bytes.count, maximum: self.maximumBytes)
        }
        return SignedEnvelope(
            domain: domain, publicKey: key.publicKey, payloadType: type, payload: payload, bytes: bytes)
    }

    /// Verifies the signature of an envelope, whatever its payload is.
    ///
    /// Fields that the specification does not know are tolerated and stay in ``bytes``; they are not signed.
    ///
    /// - Parameters:
    ///   - bytes: The whole envelope.
    ///   - domain: What it must have been signed for; not empty.
    ///   - maximumBytes: Longer envelopes are refused unread.
    public static func open(
        _ bytes: [UInt8], domain: String, maximumBytes: Int = Self.maximumBytes
    ) throws(SignedEnvelopeError) -> SignedEnvelope {
        guard !domain.isEmpty else { throw .emptyDomain }
        guard bytes.count <= maximumBytes else { throw .tooLong(bytes: bytes.count, maximum: maximumBytes) }
        let message: WireEnvelope
        do {
            message = try WireEnvelope(serializedBytes: bytes)
        } catch {
            throw .malformedEncoding
        }
        guard !message.payloadType.isEmpty else { throw .emptyPayloadType }
        let publicKey: PublicKey
        do {
            publicKey = try PublicKey(encoded: Array(message.publicKey))
        } catch {
            throw .invalidKey(error)
        }
        let payloadType = Array(message.payloadType)
        let payload = Array(message.payload)
        let signed = self.signedBytes(domain: domain, type: payloadType, payload: payload)
        guard publicKey.isValidSignature(Array(message.signature), for: signed) else { throw .invalidSignature }
        return SignedEnvelope(
            domain: domain, publicKey: publicKey, payloadType: payloadType, payload: payload, bytes: bytes)
    }

    private init(domain: String, publicKey: PublicKey, payloadType: [UInt8], payload: [UInt8], bytes: [UInt8]) {
        self.domain = domain
        self.publicKey = publicKey
        self.payloadType = payloadType
        self.payload = payload
        self.bytes = bytes
    }

    /// Domain, type and payload, each behind its length. Spec: § Signature Production / Verification.
    static func signedBytes(domain: String, type: [UInt8], payload: [UInt8]) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(domain.utf8.count + type.count + payload.count + 3 * Varint.maximumBytes)
        for part in [Array(domain.utf8), type, payload] {
            Varint.append(UInt64(part.count), to: &bytes)
            bytes += part
        }
        return bytes
    }
}

/// Why an envelope could not be opened or sealed.
public enum SignedEnvelopeError: Error, Hashable, Sendable, CustomStringConvertible {
    /// It is longer than allowed.
    case tooLong(bytes: Int, maximum: Int)
    /// It is not the protobuf message.
    case malformedEncoding
    /// The caller named no domain.
    case emptyDomain
    /// The payload has no type.
    case emptyPayloadType
    /// The author's key is not a valid one.
    case invalidKey(KeyError)
    /// The author has not signed this payload, or for another domain.
    case invalidSignature
    /// The key could not sign.
    case signingFailed

    /// The fact in words.
    public var description: String {
        switch self {
        case .tooLong(let bytes, let maximum): "the envelope is \(bytes) bytes long; at most \(maximum) are allowed"
        case .malformedEncoding: "the envelope is not a protobuf message of that kind"
        case .emptyDomain: "the envelope's domain is empty"
        case .emptyPayloadType: "the envelope's payload has no type"
        case .invalidKey(let error): "in the envelope, \(error)"
        case .invalidSignature: "the envelope's signature does not match its key, domain, type and payload"
        case .signingFailed: "the envelope could not be signed"
        }
    }
}
