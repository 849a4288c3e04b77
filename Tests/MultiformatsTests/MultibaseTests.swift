import Testing

@testable import Multiformats

@Suite struct MultibaseTests {
    static let bases: [String: Multibase] = [
        "base2": .base2, "base8": .base8, "base10": .base10, "base16": .base16, "base16upper": .base16Upper,
        "base32": .base32, "base32upper": .base32Upper, "base32pad": .base32Pad, "base32padupper": .base32PadUpper,
        "base32hex": .base32Hex, "base32hexupper": .base32HexUpper, "base32hexpad": .base32HexPad,
        "base32hexpadupper": .base32HexPadUpper, "base32z": .base32Z, "base36": .base36,
        "base36upper": .base36Upper, "base58btc": .base58BTC, "base58flickr": .base58Flickr, "base64": .base64,
        "base64pad": .base64Pad, "base64url": .base64URL, "base64urlpad": .base64URLPad,
    ]

    @Test func matchesTheVectors() throws {
        #expect(Self.bases.count == Multibase.allCases.count)
        let files = try Vectors.multiformats.get().multibase.files
        #expect(files.count == 4)
        for file in files {
            let decoded = try #require(bytes(hex: file.decodedHex))
            #expect(!file.canonical || file.rows.count == Multibase.allCases.count)
            for row in file.rows {
                let base = try #require(Self.bases[row.base], "\(row.base)")
                let result = try Multibase.decode(row.text)
                #expect(result.base == base)
                #expect(result.bytes == decoded, "\(row.base)")
                if file.canonical { #expect(base.encode(decoded) == row.text) }
            }
        }
    }

    @Test(arguments: Multibase.allCases)
    func roundTripsEveryLength(base: Multibase) throws {
        var random = SplitMix64(state: 2)
        for length in 0...70 {
            for input in [
                random.bytes(length), [UInt8](repeating: 0, count: length), Array(repeating: 0xff, count: length),
            ] {
                let text = base.encode(input)
                let (found, decoded) = try Multibase.decode(text)
                #expect(found == base)
                #expect(decoded == input)
                #expect(try base.decodeWithoutPrefix(base.encodeWithoutPrefix(input)) == input)
            }
        }
    }

    /// Except for letter case, every text that is accepted is the one the encoder writes.
    @Test(arguments: Multibase.allCases)
    func acceptsOnlyItsOwnOutput(base: Multibase) {
        var random = SplitMix64(state: 3)
        let digits = Array(base.encodeWithoutPrefix(Array(0...255)).utf8) + Array("=?".utf8)
        for _ in 0..<2000 {
            let length = Int.random(in: 0...20, using: &random)
            let text = String(
                decoding: (0..<length).map { _ in digits.randomElement(using: &random) ?? 0 }, as: UTF8.self)
            if let decoded = try? base.decodeWithoutPrefix(text) {
                #expect(base.encodeWithoutPrefix(decoded).lowercased() == text.lowercased())
            }
        }
    }

    @Test(arguments: [
        ("", MultibaseError.empty),
        ("\u{0}abc", .unknownBase("\u{0}")),
        ("Qabc", .unknownBase("Q")),
        ("\u{212a}1", .unknownBase("\u{212a}")),
        ("ébc", .unknownBase("é")),
        ("f6", .impossibleLength(1)),
        ("f6g", .notADigit(0x67)),
        ("b1", .notADigit(0x31)),
        ("ba", .impossibleLength(1)),
        ("bab", .spareBitsSet),
        ("caa", .wrongPadding),
        ("caa=====", .wrongPadding),
        ("caa======a", .wrongPadding),
        ("caa====a=", .wrongPadding),
        ("c========", .wrongPadding),
        ("caa==============", .wrongPadding),
        ("baa======", .notADigit(0x3d)),
        ("mAA==", .notADigit(0x3d)),
        ("MAA", .wrongPadding),
        ("MAA==AA==", .wrongPadding),
        ("uA_+A", .notADigit(0x2b)),
        ("z0", .notADigit(0x30)),
        ("zé", .notADigit(0xc3)),
        ("hA", .notADigit(0x41)),
        ("02", .notADigit(0x32)),
        ("07", .notADigit(0x37)),
        ("7777", .spareBitsSet),
    ])
    func namesWhatIsWrong(text: String, error: MultibaseError) {
        #expect(throws: error) { try Multibase.decode(text) }
    }

    @Test func boundsItsInput() throws {
        let longest = "f" + String(repeating: "0", count: Multibase.maximumTextBytes - 2)
        #expect(try Multibase.decode(longest).bytes.count == Multibase.maximumTextBytes / 2 - 1)
        #expect(throws: MultibaseError.self) { try Multibase.decode(longest + "00") }
        for base in [Multibase.base10, .base36, .base58BTC] {
            let zero = String(base.encodeWithoutPrefix([0]))
            #expect(try base.decodeWithoutPrefix(String(repeating: zero, count: 512)).count == 512)
            #expect(throws: MultibaseError.tooLong(513, maximum: 512)) {
                try base.decodeWithoutPrefix(String(repeating: zero, count: 513))
            }
        }
    }

    @Test func base58IsBase58BTCWithoutPrefix() throws {
        // Computed with another program, so that a bug in the encoder cannot hide in the decoder.
        let pairs: [(String, [UInt8])] = [
            ("", []), ("1", [0]), ("2NEpo7TZRRrLZSi2U", Array("Hello World!".utf8)),
            ("11233QC4", [0, 0, 0x28, 0x7f, 0xb4, 0xcd]), ("5Q", [0xff]), ("LUv", [0xff, 0xff]),
        ]
        for (text, decoded) in pairs {
            #expect(Base58.encode(decoded) == text)
            #expect(try Base58.decode(text) == decoded)
        }
        for text in ["0", "O", "I", "l", " 5Q", "5Q\u{0}", "5Q\n"] {
            #expect(throws: MultibaseError.self) { try Base58.decode(text) }
        }
    }

    @Test func everyErrorHasWords() {
        let errors: [MultibaseError] = [
            .empty, .unknownBase("\u{1b}"), .notADigit(0x1b), .impossibleLength(1), .wrongPadding, .spareBitsSet,
            .tooLong(2, maximum: 1),
        ]
        #expect(Set(errors.map(\.description)).count == errors.count)
        #expect(errors.allSatisfy { !$0.description.unicodeScalars.contains("\u{1b}") })
    }
}
