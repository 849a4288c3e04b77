/// A digest that says which hash function made it.
///
/// Binary form: varint code, varint digest length, digest. Digests are bounded by ``maximumDigestBytes``; SHA-256 digests
/// are never truncated.
///
/// Spec: `multiformats/multihash`.
public struct Multihash: Hashable, Sendable {
    /// The longest digest accepted, in bytes. Ours: the specification sets no limit, and nothing in libp2p comes near it.
    public static let maximumDigestBytes = 128

    /// The longest binary form.
    public static let maximumBytes = Varint.maximumBytes + 2 + Self.maximumDigestBytes

    /// The hash function.
    public let code: Multicodec
    /// What it made: 32 bytes for SHA-256, the data itself for ``Multicodec/identity``.
    public let digest: [UInt8]

    /// Pairs a hash function with its digest.
    public init(code: Multicodec, digest: some Collection<UInt8>) throws(MultihashError) {
        let length = digest.count
        guard length <= Self.maximumDigestBytes else { throw .digestTooLong(bytes: length) }
        switch code {
        case .identity: break
        case .sha256:
            guard length == 32 else { throw .wrongDigestLength(code, bytes: length, expected: 32) }
        default:
            guard length > 0 else { throw .emptyDigest(code) }
        }
        self.code = code
        self.digest = Array(digest)
    }

    /// Parses the binary form; all of `bytes` must belong to it.
    public init(bytes: some Collection<UInt8>) throws(MultihashError) {
        var index = bytes.startIndex
        let code: UInt64
        let length: UInt64
        do throws(VarintError) {
            code = try Varint.decode(bytes, at: &index)
            length = try Varint.decode(bytes, at: &index)
        } catch {
            throw .malformedVarint(error)
        }
        guard length <= Self.maximumDigestBytes else { throw .digestTooLong(bytes: Int(clamping: length)) }
        let digest = bytes[index...]
        guard digest.count == Int(length) else {
            throw .lengthMismatch(stated: Int(length), found: digest.count)
        }
        try self.init(code: Multicodec(rawValue: code), digest: digest)
    }

    /// The binary form.
    public var bytes: [UInt8] {
        self.code.bytes + Varint.encode(UInt64(self.digest.count)) + self.digest
    }
}

/// Why something is no multihash.
public enum MultihashError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The code or the length is no varint.
    case malformedVarint(VarintError)
    /// The digest is shorter or longer than its length says.
    case lengthMismatch(stated: Int, found: Int)
    /// The digest is longer than ``Multihash/maximumDigestBytes``.
    case digestTooLong(bytes: Int)
    /// The hash function makes digests of another length.
    case wrongDigestLength(Multicodec, bytes: Int, expected: Int)
    /// A hash function's digest is never empty.
    case emptyDigest(Multicodec)

    /// The fact in words.
    public var description: String {
        switch self {
        case .malformedVarint(let error): "\(error)"
        case .lengthMismatch(let stated, let found): "the digest should have \(stated) bytes and has \(found)"
        case .digestTooLong(let bytes):
            "the digest has \(bytes) bytes, at most \(Multihash.maximumDigestBytes) are allowed"
        case .wrongDigestLength(let code, let bytes, let expected):
            "a \(code) digest has \(expected) bytes, not \(bytes)"
        case .emptyDigest(let code): "the \(code) digest is empty"
        }
    }
}
