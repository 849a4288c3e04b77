/// Why something is no multiaddr. The description names the component and the reason, for the user who typed it.
public enum MultiaddrError: Error, Hashable, Sendable, CustomStringConvertible {
    /// There are no components.
    case empty
    /// Text begins with a slash.
    case missingLeadingSlash(String)
    /// The whole address is longer than what is parsed.
    case tooLong(bytes: Int, maximum: Int)
    /// The text names a protocol that is not in the table.
    case unknownProtocol(name: String)
    /// The binary form has a protocol that is not in the table.
    case unknownProtocolCode(UInt64)
    /// The address ends where the value should be, or the value is empty.
    case missingValue(Multiaddr.ProtocolCode)
    /// The value is not one of this protocol: as text, or `0x` and its bytes; empty when it was not read.
    case invalidValue(Multiaddr.ProtocolCode, String, Fault)
    /// A code or a length is no varint.
    case malformedVarint(VarintError, offset: Int)
    /// The binary form ends within a value.
    case truncatedValue(Multiaddr.ProtocolCode, expected: Int, found: Int)
    /// Something follows a path in the binary form.
    case componentAfterPath(Multiaddr.ProtocolCode)

    /// What is wrong with a value.
    public enum Fault: Error, Hashable, Sendable {
        case takesNoValue
        case isEmpty
        case wrongLength(bytes: Int)
        case tooLong(bytes: Int, maximum: Int)
        case notIPv4Address
        case notIPv6Address
        case notPort
        case zeroPort
        case notPrefixLength
        case notNumber
        case containsSlash
        case containsControlCharacter
        case notUTF8
        case notPath
        case badPercentEncoding
        case notMultibase(MultibaseError)
        case notMultihash(MultihashError)
        case notPeerID(CIDError)
        /// The CID names other content than a libp2p key.
        case notKeyCodec(Multicodec)
        /// Peer IDs are SHA-256 or identity multihashes.
        case notPeerHash(Multicodec)
    }

    /// The component and the reason: `/ip4/300.1.1.1: not an IPv4 address`. Values are cut to 64 characters.
    public var description: String {
        switch self {
        case .empty: "the address is empty"
        case .missingLeadingSlash(let text): "\(Self.shown(text)): an address begins with a slash"
        case .tooLong(let bytes, let maximum): "the address has \(bytes) bytes, at most \(maximum) are allowed"
        case .unknownProtocol(let name): "/\(Self.shown(name)): not a known protocol"
        case .unknownProtocolCode(let code): "protocol code \(code) is not known"
        case .missingValue(let code): "/\(code): the value is missing"
        case .invalidValue(let code, let value, let fault):
            "/\(code)\(value.hasPrefix("/") || value.isEmpty ? "" : "/")\(Self.shown(value)): \(fault)"
        case .malformedVarint(let error, let offset): "at byte \(offset): \(error)"
        case .truncatedValue(let code, let expected, let found):
            "/\(code): the value should have \(expected) bytes and has \(found)"
        case .componentAfterPath(let code): "/\(code): nothing can follow a path"
        }
    }

    /// Cut, and without what could deceive a reader: control characters and those that change the writing direction.
    private static func shown(_ text: String) -> String {
        let scalars = text.unicodeScalars
        let escaped = scalars.prefix(64).map { scalar in
            switch scalar.properties.generalCategory {
            case .control, .format, .lineSeparator, .paragraphSeparator: scalar.escaped(asASCII: true)
            default: String(scalar)
            }
        }
        return escaped.joined() + (scalars.count > 64 ? "…" : "")
    }
}

extension MultiaddrError.Fault: CustomStringConvertible {
    /// The fact in words.
    public var description: String {
        switch self {
        case .takesNoValue: "takes no value"
        case .isEmpty: "the value is empty"
        case .wrongLength(let bytes): "\(bytes) bytes are not the right length"
        case .tooLong(let bytes, let maximum): "the value has \(bytes) bytes, at most \(maximum) are allowed"
        case .notIPv4Address: "not an IPv4 address"
        case .notIPv6Address: "not an IPv6 address"
        case .notPort: "not a port (0 to 65535)"
        case .zeroPort: "the port is 0"
        case .notPrefixLength: "not a prefix length (0 to 128)"
        case .notNumber: "not a number below 2^64"
        case .containsSlash: "contains a slash"
        case .containsControlCharacter: "contains a control character"
        case .notUTF8: "not UTF-8"
        case .notPath: "not a path to a socket"
        case .badPercentEncoding: "a % is not followed by two hexadecimal digits"
        case .notMultibase(let error): "\(error)"
        case .notMultihash(let error): "\(error)"
        case .notPeerID(let error): "not a peer ID: \(error)"
        case .notKeyCodec(let codec): "not a peer ID: the CID names \(codec), not a libp2p key"
        case .notPeerHash(let code): "not a peer ID: made by \(code), not by sha2-256 or identity"
        }
    }
}
