/// The digits of a base encoding and the values they stand for.
struct DigitAlphabet: Sendable {
    private static let noDigit: UInt8 = 0xff

    let digits: [UInt8]
    private let values: [UInt8]

    /// - Parameter anyCase: Whether letters are accepted in either case. What is written keeps the case of `digits`.
    init(_ digits: StaticString, anyCase: Bool = false) {
        self.digits = digits.withUTF8Buffer { Array($0) }
        var values = [UInt8](repeating: Self.noDigit, count: 256)
        for (value, digit) in self.digits.enumerated() {
            values[Int(digit)] = UInt8(value)
            if anyCase, (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(digit | 0x20) {
                values[Int(digit ^ 0x20)] = UInt8(value)
            }
        }
        self.values = values
    }

    func value(of digit: UInt8) -> UInt8? {
        let value = self.values[Int(digit)]
        return value == Self.noDigit ? nil : value
    }
}

/// A base whose digits are groups of bits, most significant first: RFC 4648 and its relatives.
struct BitGroupEncoding: Sendable {
    /// What to do with bits behind the last whole byte that are not zero.
    enum SpareBits {
        case mustBeZero
        case ignored
    }

    let bitsPerDigit: Int
    let alphabet: DigitAlphabet
    /// With padding, the text is filled up with `=` to a multiple of this many characters.
    let paddedGroup: Int?

    init(bitsPerDigit: Int, _ alphabet: DigitAlphabet, paddedGroup: Int? = nil) {
        self.bitsPerDigit = bitsPerDigit
        self.alphabet = alphabet
        self.paddedGroup = paddedGroup
    }

    func encode(_ bytes: some Collection<UInt8>) -> [UInt8] {
        var text: [UInt8] = []
        text.reserveCapacity(bytes.count * 8 / self.bitsPerDigit + 8)
        let mask = (1 << self.bitsPerDigit) - 1
        var pending = 0
        var pendingBits = 0
        for byte in bytes {
            pending = (pending << 8 | Int(byte)) & 0xffff
            pendingBits += 8
            while pendingBits >= self.bitsPerDigit {
                pendingBits -= self.bitsPerDigit
                text.append(self.alphabet.digits[pending >> pendingBits & mask])
            }
        }
        if pendingBits > 0 {
            text.append(self.alphabet.digits[pending << (self.bitsPerDigit - pendingBits) & mask])
        }
        if let group = self.paddedGroup {
            while text.count % group != 0 { text.append(UInt8(ascii: "=")) }
        }
        return text
    }

    func decode(
        _ text: some Collection<UInt8>, spareBits: SpareBits = .mustBeZero
    ) throws(MultibaseError) -> [UInt8] {
        let length = text.count
        var digits = text[...]
        if let group = self.paddedGroup {
            guard length % group == 0 else { throw .wrongPadding }
            var padding = 0
            digits = digits.prefix { $0 != UInt8(ascii: "=") }
            for character in text[digits.endIndex...] {
                guard character == UInt8(ascii: "=") else { throw .wrongPadding }
                padding += 1
            }
            guard padding < group else { throw .wrongPadding }
        }

        var bytes: [UInt8] = []
        bytes.reserveCapacity(length * self.bitsPerDigit / 8)
        var pending = 0
        var pendingBits = 0
        for digit in digits {
            guard let value = self.alphabet.value(of: digit) else { throw .notADigit(digit) }
            pending = (pending << self.bitsPerDigit | Int(value)) & 0xffff
            pendingBits += self.bitsPerDigit
            if pendingBits >= 8 {
                pendingBits -= 8
                bytes.append(UInt8(truncatingIfNeeded: pending >> pendingBits))
            }
        }
        guard pendingBits < self.bitsPerDigit else { throw .impossibleLength(length) }
        guard spareBits == .ignored || pending & ((1 << pendingBits) - 1) == 0 else { throw .spareBitsSet }
        return bytes
    }
}

/// A base that writes all bytes as one big number. Leading zero bytes become leading zero digits, one each.
///
/// The cost grows with the square of the length, so the length of what is decoded is bounded.
struct BigNumberEncoding: Sendable {
    /// The longest text decoded, in digits.
    static let maximumDigits = 512

    let alphabet: DigitAlphabet

    init(_ alphabet: DigitAlphabet) {
        self.alphabet = alphabet
    }

    func encode(_ bytes: some Collection<UInt8>) -> [UInt8] {
        let number = Self.convert(bytes, from: 256, to: self.alphabet.digits.count)
        return number.map { self.alphabet.digits[Int($0)] }
    }

    func decode(_ text: some Collection<UInt8>) throws(MultibaseError) -> [UInt8] {
        let length = text.count
        guard length <= Self.maximumDigits else { throw .tooLong(length, maximum: Self.maximumDigits) }
        var values: [UInt8] = []
        values.reserveCapacity(length)
        for digit in text {
            guard let value = self.alphabet.value(of: digit) else { throw .notADigit(digit) }
            values.append(value)
        }
        return Self.convert(values, from: self.alphabet.digits.count, to: 256)
    }

    /// Rewrites a number, most significant digit first; every leading zero is kept.
    private static func convert(_ digits: some Collection<UInt8>, from: Int, to: Int) -> [UInt8] {
        let significant = digits.drop { $0 == 0 }
        // Least significant first while it grows.
        var number: [UInt8] = []
        for digit in significant {
            var carry = Int(digit)
            for position in number.indices {
                carry += Int(number[position]) * from
                number[position] = UInt8(truncatingIfNeeded: carry % to)
                carry /= to
            }
            while carry > 0 {
                number.append(UInt8(truncatingIfNeeded: carry % to))
                carry /= to
            }
        }
        return [UInt8](repeating: 0, count: digits.count - significant.count) + number.reversed()
    }
}
