/// Text encodings of bytes that say which encoding they are: the first character names the base.
///
/// Each case's raw value is that character. The identity base (U+0000) is not here: the table has withdrawn it.
///
/// Spec: `multiformats/multibase`, `multibase.csv`.
public enum Multibase: Character, CaseIterable, Hashable, Sendable {
    case base2 = "0"
    case base8 = "7"
    case base10 = "9"
    case base16 = "f"
    case base16Upper = "F"
    case base32 = "b"
    case base32Upper = "B"
    case base32Pad = "c"
    case base32PadUpper = "C"
    case base32Hex = "v"
    case base32HexUpper = "V"
    case base32HexPad = "t"
    case base32HexPadUpper = "T"
    /// z-base-32, made for people.
    case base32Z = "h"
    case base36 = "k"
    case base36Upper = "K"
    case base58BTC = "z"
    case base58Flickr = "Z"
    case base64 = "m"
    case base64Pad = "M"
    case base64URL = "u"
    case base64URLPad = "U"

    /// The longest text decoded, in bytes, prefix included. Bases 10, 36 and 58 accept 512 digits: their cost grows
    /// with the square of the length.
    public static let maximumTextBytes = 8192

    /// `bytes` in this base, behind the base's prefix.
    public func encode(_ bytes: some Collection<UInt8>) -> String {
        String(self.rawValue) + self.encodeWithoutPrefix(bytes)
    }

    /// `bytes` in this base, without a prefix.
    public func encodeWithoutPrefix(_ bytes: some Collection<UInt8>) -> String {
        switch self.encoding {
        case .bitGroups(let encoding): String(decoding: encoding.encode(bytes), as: UTF8.self)
        case .bigNumber(let encoding): String(decoding: encoding.encode(bytes), as: UTF8.self)
        }
    }

    /// Decodes text that begins with the prefix of its base.
    public static func decode(_ text: String) throws(MultibaseError) -> (base: Multibase, bytes: [UInt8]) {
        guard let prefix = text.unicodeScalars.first else { throw .empty }
        // Compared as a scalar: as a Character, U+212A would equal "K".
        guard prefix.isASCII, let base = Multibase(rawValue: Character(prefix)) else { throw .unknownBase(prefix) }
        return (base, try base.decodeWithoutPrefix(text.utf8.dropFirst()))
    }

    /// Decodes text of this base that has no prefix.
    public func decodeWithoutPrefix(_ text: String) throws(MultibaseError) -> [UInt8] {
        try self.decodeWithoutPrefix(text.utf8)
    }

    func decodeWithoutPrefix(_ text: some Collection<UInt8>) throws(MultibaseError) -> [UInt8] {
        let length = text.count
        guard length < Self.maximumTextBytes else { throw .tooLong(length, maximum: Self.maximumTextBytes - 1) }
        switch self.encoding {
        case .bitGroups(let encoding): return try encoding.decode(text)
        case .bigNumber(let encoding): return try encoding.decode(text)
        }
    }
}

/// Base58 with the alphabet of Bitcoin and no prefix: the common text form of peer IDs.
public enum Base58 {
    /// The text of `bytes`. The cost grows with the square of their number: for identifiers, not for content.
    public static func encode(_ bytes: some Collection<UInt8>) -> String {
        Multibase.base58BTC.encodeWithoutPrefix(bytes)
    }

    /// The bytes of `text`, which has at most 512 digits.
    public static func decode(_ text: String) throws(MultibaseError) -> [UInt8] {
        try Multibase.base58BTC.decodeWithoutPrefix(text)
    }
}

/// Why text is not in a base.
public enum MultibaseError: Error, Hashable, Sendable, CustomStringConvertible {
    /// There is no prefix to tell the base.
    case empty
    /// No base has this prefix.
    case unknownBase(Unicode.Scalar)
    /// This byte of the text is no digit of the base.
    case notADigit(UInt8)
    /// No number of bytes makes this many digits.
    case impossibleLength(Int)
    /// Padding is missing, superfluous or misplaced.
    case wrongPadding
    /// The last digit has bits beyond the last byte that are not zero.
    case spareBitsSet
    /// The text is longer than what is decoded.
    case tooLong(Int, maximum: Int)

    /// The fact in words.
    public var description: String {
        switch self {
        case .empty: "the text is empty"
        case .unknownBase(let prefix): "no base has the prefix \(prefix.escaped(asASCII: true))"
        case .notADigit(let byte): "\(Unicode.Scalar(byte).escaped(asASCII: true)) is not a digit of its base"
        case .impossibleLength(let length): "no bytes make \(length) digits"
        case .wrongPadding: "the padding is wrong"
        case .spareBitsSet: "the last digit has bits that belong to no byte"
        case .tooLong(let length, let maximum): "the text has \(length) bytes, at most \(maximum) are allowed"
        }
    }
}

extension Multibase {
    private enum Encoding {
        case bitGroups(BitGroupEncoding)
        case bigNumber(BigNumberEncoding)
    }

    static let lowercaseBase32 = BitGroupEncoding(bitsPerDigit: 5, Alphabets.base32)

    private enum Alphabets {
        static let base2 = DigitAlphabet("01")
        static let base8 = DigitAlphabet("01234567")
        static let base10 = DigitAlphabet("0123456789")
        static let base16 = DigitAlphabet("0123456789abcdef", anyCase: true)
        static let base16Upper = DigitAlphabet("0123456789ABCDEF", anyCase: true)
        static let base32 = DigitAlphabet("abcdefghijklmnopqrstuvwxyz234567", anyCase: true)
        static let base32Upper = DigitAlphabet("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", anyCase: true)
        static let base32Hex = DigitAlphabet("0123456789abcdefghijklmnopqrstuv", anyCase: true)
        static let base32HexUpper = DigitAlphabet("0123456789ABCDEFGHIJKLMNOPQRSTUV", anyCase: true)
        static let base32Z = DigitAlphabet("ybndrfg8ejkmcpqxot1uwisza345h769")
        static let base36 = DigitAlphabet("0123456789abcdefghijklmnopqrstuvwxyz", anyCase: true)
        static let base36Upper = DigitAlphabet("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", anyCase: true)
        static let base58BTC = DigitAlphabet("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz")
        static let base58Flickr = DigitAlphabet("123456789abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ")
        static let base64 = DigitAlphabet("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
        static let base64URL = DigitAlphabet("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    }

    private var encoding: Encoding {
        func bits(_ count: Int, _ alphabet: DigitAlphabet, padded group: Int? = nil) -> Encoding {
            .bitGroups(BitGroupEncoding(bitsPerDigit: count, alphabet, paddedGroup: group))
        }
        func number(_ alphabet: DigitAlphabet) -> Encoding { .bigNumber(BigNumberEncoding(alphabet)) }
        return switch self {
        case .base2: bits(1, Alphabets.base2)
        case .base8: bits(3, Alphabets.base8)
        case .base10: number(Alphabets.base10)
        case .base16: bits(4, Alphabets.base16)
        case .base16Upper: bits(4, Alphabets.base16Upper)
        case .base32: bits(5, Alphabets.base32)
        case .base32Upper: bits(5, Alphabets.base32Upper)
        case .base32Pad: bits(5, Alphabets.base32, padded: 8)
        case .base32PadUpper: bits(5, Alphabets.base32Upper, padded: 8)
        case .base32Hex: bits(5, Alphabets.base32Hex)
        case .base32HexUpper: bits(5, Alphabets.base32HexUpper)
        case .base32HexPad: bits(5, Alphabets.base32Hex, padded: 8)
        case .base32HexPadUpper: bits(5, Alphabets.base32HexUpper, padded: 8)
        case .base32Z: bits(5, Alphabets.base32Z)
        case .base36: number(Alphabets.base36)
        case .base36Upper: number(Alphabets.base36Upper)
        case .base58BTC: number(Alphabets.base58BTC)
        case .base58Flickr: number(Alphabets.base58Flickr)
        case .base64: bits(6, Alphabets.base64)
        case .base64Pad: bits(6, Alphabets.base64, padded: 4)
        case .base64URL: bits(6, Alphabets.base64URL)
        case .base64URLPad: bits(6, Alphabets.base64URL, padded: 4)
        }
    }
}
