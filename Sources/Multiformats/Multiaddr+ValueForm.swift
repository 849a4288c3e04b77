extension Multiaddr {
    /// What kind of value a protocol has: how it is checked, and how it goes to text and back.
    enum ValueForm: Hashable, Sendable {
        case none
        case ipv4
        case ipv6
        case port
        /// The length of an address prefix.
        case prefixLength
        /// UTF-8 without slashes.
        case name(maximumBytes: Int)
        /// A path of the file system. It takes up the rest of the text.
        case path
        /// A peer ID: a multihash, in text base58 or a CID.
        case peer
        /// Tor: a host, then a port.
        case onion(hostBytes: Int)
        /// I2P: a whole destination.
        case garlic64
        /// I2P: the hash of a destination.
        case garlic32
        /// A multihash, in text any base.
        case certificateHash
        /// Any bytes, in text percent-encoded.
        case httpPath
        case number

        /// DNS allows 253 bytes and a final dot; 255 is its limit on the wire.
        static let domain = ValueForm.name(maximumBytes: 255)

        private static let maximumPathBytes = 1024
        private static let maximumGarlic64Bytes = 1024
        private static let maximumGarlic32Bytes = 128
    }
}

// MARK: - Binary

extension Multiaddr.ValueForm {
    var size: Multiaddr.ProtocolCode.Size {
        switch self {
        case .none: .none
        case .ipv4: .fixed(4)
        case .ipv6: .fixed(16)
        case .port: .fixed(2)
        case .prefixLength: .fixed(1)
        case .number: .fixed(8)
        case .onion(let hostBytes): .fixed(hostBytes + 2)
        case .name(let maximum): .lengthPrefixed(maximum: maximum)
        case .path, .httpPath: .lengthPrefixed(maximum: Self.maximumPathBytes)
        case .peer, .certificateHash: .lengthPrefixed(maximum: Multihash.maximumBytes)
        case .garlic64: .lengthPrefixed(maximum: Self.maximumGarlic64Bytes)
        case .garlic32: .lengthPrefixed(maximum: Self.maximumGarlic32Bytes)
        }
    }

    /// What is wrong with `value`; `nil` when it is valid.
    func fault(in value: some Collection<UInt8>) -> MultiaddrError.Fault? {
        switch self.size {
        case .none:
            guard value.isEmpty else { return .takesNoValue }
        case .fixed(let bytes):
            guard value.count == bytes else { return .wrongLength(bytes: value.count) }
        case .lengthPrefixed(let maximum):
            guard !value.isEmpty else { return .isEmpty }
            guard value.count <= maximum else { return .tooLong(bytes: value.count, maximum: maximum) }
        }
        switch self {
        case .none, .ipv4, .ipv6, .port, .httpPath, .number:
            return nil
        case .prefixLength:
            return value.allSatisfy { $0 <= 128 } ? nil : .notPrefixLength
        case .name:
            return Self.faultInText(value) ?? (value.contains(UInt8(ascii: "/")) ? .containsSlash : nil)
        case .path:
            guard value.first == UInt8(ascii: "/"), value.count > 1 else { return .notPath }
            guard !value.dropFirst(value.count - 1).elementsEqual("/".utf8) else { return .notPath }
            return Self.faultInText(value)
        case .peer:
            do throws(MultihashError) {
                let code = try Multihash(bytes: value).code
                return code == .sha256 || code == .identity ? nil : .notPeerHash(code)
            } catch {
                return .notMultihash(error)
            }
        case .certificateHash:
            do throws(MultihashError) {
                _ = try Multihash(bytes: value)
                return nil
            } catch {
                return .notMultihash(error)
            }
        case .onion(let hostBytes):
            return value.dropFirst(hostBytes).contains { $0 != 0 } ? nil : .zeroPort
        case .garlic64:
            return value.count >= 386 ? nil : .wrongLength(bytes: value.count)
        case .garlic32:
            // A plain hash has 32 bytes; that of an encrypted lease set has 35 or more.
            return value.count == 32 || value.count >= 35 ? nil : .wrongLength(bytes: value.count)
        }
    }

    /// Names and paths end up in logs and terminals: no control characters.
    private static func faultInText(_ value: some Collection<UInt8>) -> MultiaddrError.Fault? {
        guard let text = String(validating: value, as: UTF8.self) else { return .notUTF8 }
        return text.unicodeScalars.contains { $0.properties.generalCategory == .control }
            ? .containsControlCharacter : nil
    }
}

// MARK: - Text

extension Multiaddr.ValueForm {
    /// The text of a valid value.
    func text(of value: [UInt8]) -> String {
        switch self {
        case .none: ""
        case .ipv4, .ipv6: IPAddress(bytes: value)?.description ?? ""
        case .port, .prefixLength, .number: Self.decimal(value)
        case .name, .path: String(decoding: value, as: UTF8.self)
        case .peer: Base58.encode(value)
        case .onion(let hostBytes):
            Multibase.base32.encodeWithoutPrefix(value.prefix(hostBytes)) + ":"
                + Self.decimal(value.dropFirst(hostBytes))
        case .garlic64: String(decoding: Self.garlicBase64.encode(value), as: UTF8.self)
        case .garlic32: Multibase.base32.encodeWithoutPrefix(value)
        case .certificateHash: Multibase.base64URL.encode(value)
        case .httpPath: Self.percentEncode(value)
        }
    }

    /// The value that `text` stands for. Its form is right then; ``fault(in:)`` still has to be asked about the rest.
    func parse(_ text: String) throws(MultiaddrError.Fault) -> [UInt8] {
        switch self {
        case .none:
            guard text.isEmpty else { throw .takesNoValue }
            return []
        case .ipv4:
            guard let address = IPAddress(text), address.family == .ipv4 else { throw .notIPv4Address }
            return address.bytes
        case .ipv6:
            guard let address = IPAddress(text), address.family == .ipv6 else { throw .notIPv6Address }
            return address.bytes
        case .port:
            guard let port = Self.number(text, as: UInt16.self) else { throw .notPort }
            return port.networkOrder
        case .prefixLength:
            guard let length = Self.number(text, as: UInt8.self) else { throw .notPrefixLength }
            return [length]
        case .number:
            guard let number = Self.number(text, as: UInt64.self) else { throw .notNumber }
            return number.networkOrder
        case .name, .path:
            return Array(text.utf8)
        case .peer:
            return try Self.parsePeer(text)
        case .onion(let hostBytes):
            let parts = text.utf8.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
            guard parts.count == 2, let port = Self.number(String(Substring(parts[1])), as: UInt16.self) else {
                throw .notPort
            }
            let host = try Self.decode { () throws(MultibaseError) in try Multibase.lowercaseBase32.decode(parts[0]) }
            guard host.count == hostBytes else { throw .wrongLength(bytes: host.count + 2) }
            return host + port.networkOrder
        case .garlic64:
            return try Self.decode { () throws(MultibaseError) in try Self.garlicBase64.decode(text.utf8) }
        case .garlic32:
            // Other implementations write and accept names whose last digit has spare bits.
            return try Self.decode { () throws(MultibaseError) in
                try Multibase.lowercaseBase32.decode(text.utf8, spareBits: .ignored)
            }
        case .certificateHash:
            return try Self.decode { () throws(MultibaseError) in try Multibase.decode(text).bytes }
        case .httpPath:
            return try Self.percentDecode(text)
        }
    }

    private static let garlicBase64 = BitGroupEncoding(
        bitsPerDigit: 6,
        DigitAlphabet("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-~"), paddedGroup: 4)

    /// Spec: `libp2p/specs` `peer-ids/peer-ids.md` § Decoding.
    private static func parsePeer(_ text: String) throws(MultiaddrError.Fault) -> [UInt8] {
        if text.utf8.starts(with: "1".utf8) || text.utf8.starts(with: "Qm".utf8) {
            return try Self.decode { () throws(MultibaseError) in try Base58.decode(text) }
        }
        let cid: CID
        do throws(CIDError) {
            cid = try CID(text)
        } catch {
            throw .notPeerID(error)
        }
        guard cid.codec == .libp2pKey else { throw .notKeyCodec(cid.codec) }
        return cid.multihash.bytes
    }

    private static func decode(
        _ body: () throws(MultibaseError) -> [UInt8]
    ) throws(MultiaddrError.Fault) -> [UInt8] {
        do throws(MultibaseError) {
            return try body()
        } catch {
            throw .notMultibase(error)
        }
    }

    /// Digits only, no sign.
    private static func number<Number: FixedWidthInteger>(_ text: String, as: Number.Type) -> Number? {
        guard text.utf8.count <= 20, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        return Number(text)
    }

    private static func decimal(_ bytes: some Collection<UInt8>) -> String {
        bytes.reduce(UInt64(0)) { $0 << 8 | UInt64($1) }.description
    }

    /// Leaves only unreserved characters as they are: others may be read in two ways (`+` is a space to some).
    ///
    /// Spec: RFC 3986 § 2; `multiformats/multiaddr` `protocols/http-path.md`.
    private static func percentEncode(_ value: [UInt8]) -> String {
        var text: [UInt8] = []
        for byte in value {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
                UInt8(ascii: "~"):
                text.append(byte)
            default:
                text.append(UInt8(ascii: "%"))
                text += Multibase.base16Upper.encodeWithoutPrefix([byte]).utf8
            }
        }
        return String(decoding: text, as: UTF8.self)
    }

    private static func percentDecode(_ text: String) throws(MultiaddrError.Fault) -> [UInt8] {
        var value: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                value.append(byte)
                continue
            }
            guard rest.count >= 2, let decoded = try? Multibase.base16.decodeWithoutPrefix(rest.prefix(2)) else {
                throw .badPercentEncoding
            }
            value += decoded
            rest = rest.dropFirst(2)
        }
        return value
    }
}
