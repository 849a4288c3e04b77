/// The kinds of key that libp2p knows. Raw values are those on the wire.
///
/// Spec: `peer-ids/peer-ids.md` § Key Types.
public enum KeyType: UInt8, Hashable, Sendable, CaseIterable, CustomStringConvertible {
    /// RSA of 2048 to 8192 bits; PKCS #1 v1.5 signatures over SHA-256.
    case rsa = 0
    /// Ed25519, which every implementation speaks and this one creates.
    case ed25519 = 1
    /// ECDSA on Bitcoin's curve over SHA-256; signatures are DER with the lower of the two possible `s`.
    case secp256k1 = 2
    /// ECDSA on a NIST curve over SHA-256; signatures are DER.
    case ecdsa = 3

    /// The common name.
    public var description: String {
        switch self {
        case .rsa: "RSA"
        case .ed25519: "Ed25519"
        case .secp256k1: "secp256k1"
        case .ecdsa: "ECDSA"
        }
    }
}

/// Why bytes are not a key, or a key could not do its work.
public enum KeyError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The encoded key is longer than any key that is accepted.
    case tooLong(bytes: Int, maximum: Int)
    /// Not a protobuf message with a type and data.
    case malformedEncoding
    /// Another encoding of a valid key: peer IDs are made of the encoding, so exactly one is accepted.
    case notCanonical
    /// A type that this implementation does not know.
    case unknownType
    /// The data is not a key of the type that was announced.
    case invalidData(KeyType)
    /// An RSA modulus outside 2048…8192 bits.
    case rsaSizeOutOfRange(bits: Int)
    /// The public half that a private key carries does not belong to its private half.
    case halvesDoNotMatch
    /// The cryptographic library refused to sign, or to make a key.
    case cryptographyFailed(KeyType)

    /// For people.
    public var description: String {
        switch self {
        case .tooLong(let bytes, let maximum): "the key is \(bytes) bytes long; at most \(maximum) are accepted"
        case .malformedEncoding: "the key is not a protobuf message with a type and data"
        case .notCanonical: "the key is not in its canonical encoding"
        case .unknownType: "the key's type is unknown"
        case .invalidData(let type): "the data is not a valid \(type) key"
        case .rsaSizeOutOfRange(let bits): "the RSA key has \(bits) bits; 2048 to 8192 are accepted"
        case .halvesDoNotMatch: "the private key carries a public key that is not its own"
        case .cryptographyFailed(let type): "the cryptographic library failed with a \(type) key"
        }
    }
}
