/// A content identifier: what kind of content, and its hash.
///
/// Spec: `multiformats/cid`.
public struct CID: Hashable, Sendable, CustomStringConvertible {
    /// The version. Its raw value is the number.
    public enum Version: UInt8, Hashable, Sendable {
        /// A bare SHA-256 multihash; the content is ``Multicodec/dagPB``.
        case v0 = 0
        /// Version, content codec, multihash.
        case v1 = 1
    }

    /// The version.
    public let version: Version
    /// The kind of the content.
    public let codec: Multicodec
    /// The hash of the content.
    public let multihash: Multihash

    /// A CID of version 1.
    public init(codec: Multicodec, multihash: Multihash) {
        self.version = .v1
        self.codec = codec
        self.multihash = multihash
    }

    /// A CID of version 0, which only a SHA-256 multihash has.
    public init(v0 multihash: Multihash) throws(CIDError) {
        guard multihash.code == .sha256 else { throw .notVersion0(multihash.code) }
        self.version = .v0
        self.codec = .dagPB
        self.multihash = multihash
    }

    /// Parses the text form: 46 characters of base58 that begin with `Qm` (version 0), or multibase (version 1).
    public init(_ text: String) throws(CIDError) {
        let isVersion0 = text.utf8.count == 46 && text.utf8.starts(with: "Qm".utf8)
        let bytes: [UInt8]
        do throws(MultibaseError) {
            bytes = isVersion0 ? try Base58.decode(text) : try Multibase.decode(text).bytes
        } catch {
            throw .notMultibase(error)
        }
        guard isVersion0 || bytes.first != 0x12 else { throw .version0InMultibase }
        try self.init(bytes: bytes)
    }

    /// Parses the binary form; all of `bytes` must belong to it.
    public init(bytes: some Collection<UInt8>) throws(CIDError) {
        if bytes.count == 34, bytes.starts(with: [0x12, 0x20]) {
            try self.init(v0: Self.multihash(bytes))
            return
        }
        var index = bytes.startIndex
        let version: UInt64
        let codec: UInt64
        do throws(VarintError) {
            version = try Varint.decode(bytes, at: &index)
            codec = try Varint.decode(bytes, at: &index)
        } catch {
            throw .malformedVarint(error)
        }
        guard version == Multicodec.cidV1.rawValue else { throw .unknownVersion(version) }
        self.init(codec: Multicodec(rawValue: codec), multihash: try Self.multihash(bytes[index...]))
    }

    /// The binary form.
    public var bytes: [UInt8] {
        switch self.version {
        case .v0: self.multihash.bytes
        case .v1: Multicodec.cidV1.bytes + self.codec.bytes + self.multihash.bytes
        }
    }

    /// The text form in `base`. Version 0 has one text form only, whatever `base` is.
    public func text(in base: Multibase) -> String {
        switch self.version {
        case .v0: Base58.encode(self.bytes)
        case .v1: base.encode(self.bytes)
        }
    }

    /// The usual text form: base58btc for version 0, base32 for version 1.
    public var description: String { self.text(in: .base32) }

    private static func multihash(_ bytes: some Collection<UInt8>) throws(CIDError) -> Multihash {
        do throws(MultihashError) {
            return try Multihash(bytes: bytes)
        } catch {
            throw .malformedMultihash(error)
        }
    }
}

/// Why something is no CID.
public enum CIDError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The text is not in a base.
    case notMultibase(MultibaseError)
    /// A CID of version 0 has no multibase form.
    case version0InMultibase
    /// The version or the codec is no varint.
    case malformedVarint(VarintError)
    /// Neither version 0 nor 1.
    case unknownVersion(UInt64)
    /// Version 0 needs SHA-256.
    case notVersion0(Multicodec)
    /// What should be a multihash is none.
    case malformedMultihash(MultihashError)

    /// The fact in words.
    public var description: String {
        switch self {
        case .notMultibase(let error): "\(error)"
        case .version0InMultibase: "a CID of version 0 has no multibase form"
        case .malformedVarint(let error): "\(error)"
        case .unknownVersion(let version): "CID version \(version) is not known"
        case .notVersion0(let code): "a CID of version 0 holds a sha2-256 hash, not \(code)"
        case .malformedMultihash(let error): "\(error)"
        }
    }
}
