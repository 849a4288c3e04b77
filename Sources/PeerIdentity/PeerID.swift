import Crypto
public import Multiformats

/// Who a peer is: the multihash of its public key. Equality and order are those of the bytes, never of a text form.
///
/// Keys whose encoding has at most 42 bytes (Ed25519, secp256k1) are in the ID itself, behind an identity multihash; of the
/// others the ID holds the SHA-256.
///
/// Spec: `peer-ids/peer-ids.md`.
public struct PeerID: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// The longest encoded key that is inlined, in bytes.
    public static let maximumInlinedKeyBytes = 42

    /// The multihash.
    public let bytes: [UInt8]

    /// The ID of the owner of `key`.
    public init(_ key: PublicKey) {
        if key.encoded.count <= Self.maximumInlinedKeyBytes {
            self.bytes = [0x00, UInt8(key.encoded.count)] + key.encoded
        } else {
            self.bytes = [0x12, 0x20] + Array(SHA256.hash(data: key.encoded))
        }
    }

    /// Parses the binary form: a SHA-256 multihash, or an identity multihash that holds a key of a type which is inlined.
    ///
    /// That a point of the curve belongs to an inlined secp256k1 key is found out by ``publicKey``, not here.
    public init(bytes: [UInt8]) throws(PeerIDError) {
        let multihash: Multihash
        do {
            multihash = try Multihash(bytes: bytes)
        } catch {
            throw .notMultihash(error)
        }
        switch multihash.code {
        case .sha256: break
        case .identity: guard Self.isInlinedKey(multihash.digest) else { throw .notInlinedKey }
        default: throw .notPeerHash(multihash.code)
        }
        self.bytes = bytes
    }

    /// Parses either text form: base58 (`12D3Koo…`, `16Uiu2…`, `Qm…`), or a CID of version 1 in any base (`bafz…`, `k51q…`).
    public init(_ text: String) throws(PeerIDError) {
        if text.utf8.starts(with: "1".utf8) || text.utf8.starts(with: "Qm".utf8) {
            let bytes: [UInt8]
            do {
                bytes = try Base58.decode(text)
            } catch {
                throw .notBase58(error)
            }
            try self.init(bytes: bytes)
        } else {
            let cid: CID
            do {
                cid = try CID(text)
            } catch {
                throw .notCID(error)
            }
            guard cid.codec == .libp2pKey else { throw .notKeyCodec(cid.codec) }
            try self.init(bytes: cid.multihash.bytes)
        }
    }

    /// Wraps bytes that are known to be a valid multihash.
    package init(uncheckedBytes bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// The key, where the ID holds it: `nil` for IDs that are a hash, and where the key is no point of its curve.
    public var publicKey: PublicKey? {
        guard self.bytes.first == 0x00 else { return nil }
        return try? PublicKey(encoded: Array(self.bytes.dropFirst(2)))
    }

    /// Whether this is the ID of the owner of `key`. Any key that arrives beside a peer ID must pass this check.
    public func matches(_ key: PublicKey) -> Bool { PeerID(key) == self }

    /// The base58 form, which is the one to print.
    public var description: String { Base58.encode(self.bytes) }

    /// The CID form in base32, for places where case does not survive.
    public var cidText: String {
        Multibase.base32.encode(Multicodec.cidV1.bytes + Multicodec.libp2pKey.bytes + self.bytes)
    }

    /// A few characters from both ends, `12D3…R7r3pq`, for logs that people read. Not unique.
    public var shortDescription: String {
        let text = self.description
        return text.utf8.count <= 11 ? text : "\(text.prefix(4))…\(text.suffix(6))"
    }

    /// Lexicographic order of the bytes.
    public static func < (a: PeerID, b: PeerID) -> Bool { a.bytes.lexicographicallyPrecedes(b.bytes) }

    /// Only two types have encodings short enough, and each has one length.
    private static func isInlinedKey(_ key: [UInt8]) -> Bool {
        switch key.count {
        case 36: key.starts(with: [0x08, KeyType.ed25519.rawValue, 0x12, 32])
        case 37: key.starts(with: [0x08, KeyType.secp256k1.rawValue, 0x12, 33]) && (key[4] == 2 || key[4] == 3)
        default: false
        }
    }
}

extension PeerID: Codable {
    /// Decodes either text form.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let text = try container.decode(String.self)
        do throws(PeerIDError) {
            try self.init(text)
        } catch {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "not a peer ID: \(error)")
        }
    }

    /// Encodes the base58 form.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(self.description)
    }
}

/// Why something is no peer ID.
public enum PeerIDError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The text begins like base58 and is not.
    case notBase58(MultibaseError)
    /// The text is neither base58 of a peer ID nor a CID.
    case notCID(CIDError)
    /// The CID names other content than a libp2p key.
    case notKeyCodec(Multicodec)
    /// The bytes are not one multihash.
    case notMultihash(MultihashError)
    /// Peer IDs are SHA-256 or identity multihashes.
    case notPeerHash(Multicodec)
    /// What an identity multihash holds is not the canonical encoding of a public key.
    case notInlinedKey

    /// The fact in words.
    public var description: String {
        switch self {
        case .notBase58(let error): "\(error)"
        case .notCID(let error): "neither base58 that begins with 1 or Qm, nor a CID: \(error)"
        case .notKeyCodec(let codec): "the CID names \(codec), not a libp2p key"
        case .notMultihash(let error): "\(error)"
        case .notPeerHash(let code): "made by \(code), not by sha2-256 or identity"
        case .notInlinedKey: "holds no public key"
        }
    }
}
