import Foundation
import Testing

@testable import LibP2PConnection

@Suite struct PreSharedKeyTests {
    static let format = "/key/swarm/psk/1.0.0/\n"
    static let sequence = (0..<32).map { UInt8($0) }
    static let base16 = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    static let base64 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

    // MARK: Files that are good

    static let good: [String] = [
        format + "/base16/\n" + base16,
        format + "/base16/\n" + base16 + "\n",
        format + "/base16/\n" + base16.uppercased() + "\n",
        (format + "/base16/\n" + base16 + "\n").replacing("\n", with: "\r\n"),
        format + "/base64/\n" + base64,
        (format + "/base64/\n" + base64 + "\n").replacing("\n", with: "\r\n"),
        format + "/bin/\n" + String(decoding: sequence, as: UTF8.self),
        format + "/bin/\n" + String(decoding: sequence, as: UTF8.self) + "\n",
        format + "/bin/\r\n" + String(decoding: sequence, as: UTF8.self) + "\r\n",
    ]

    @Test(arguments: good) func reads(file: String) throws {
        #expect(try PreSharedKey(file: file.utf8).bytes == Self.sequence)
    }

    @Test func readsWhatItWrites() throws {
        let key = try PreSharedKey.generate()
        #expect(try PreSharedKey(file: key.file.utf8) == key)
        #expect(try key != PreSharedKey.generate())
        #expect(key.file.hasPrefix(Self.format + "/base16/\n") && key.file.utf8.count == 96)
        // A key of bytes that look like lines is still one.
        let lines = try PreSharedKey(bytes: [UInt8](repeating: 10, count: 32))
        #expect(try PreSharedKey(file: Array((Self.format + "/bin/\n").utf8) + lines.bytes) == lines)
    }

    /// The file of `libp2p-vectors.json`.
    @Test func readsTheSpecificationsExample() throws {
        let zeros = String(repeating: "0", count: 63)
        let key = try PreSharedKey(file: "/key/swarm/psk/1.0.0/\n/base16/\n\(zeros)1\n".utf8)
        #expect(key.bytes == [UInt8](repeating: 0, count: 31) + [1])
    }

    // MARK: Files that are not

    static let bad: [(String, PreSharedKeyError, String)] = [
        ("", .missingLine(1), "line 1 is missing"),
        ("\n", .unknownFormat(line: 1), "line 1 is not '/key/swarm/psk/1.0.0/'"),
        (base16, .unknownFormat(line: 1), "line 1 is not '/key/swarm/psk/1.0.0/'"),
        (
            "/key/swarm/psk/2.0.0/\n/base16/\n" + base16, .unknownFormat(line: 1),
            "line 1 is not '/key/swarm/psk/1.0.0/'"
        ),
        ("\u{feff}" + format, .unknownFormat(line: 1), "line 1 is not '/key/swarm/psk/1.0.0/'"),
        ("/key/swarm/psk/1.0.0/", .missingLine(2), "line 2 is missing"),
        (format, .missingLine(2), "line 2 is missing"),
        (format + base16, .unknownEncoding(line: 2), "line 2 is not '/base16/', '/base64/' or '/bin/'"),
        (format + "/base32/\nx", .unknownEncoding(line: 2), "line 2 is not '/base16/', '/base64/' or '/bin/'"),
        (format + "/base16/ \n" + base16, .unknownEncoding(line: 2), "line 2 is not '/base16/', '/base64/' or '/bin/'"),
        (format + "/base16/", .missingLine(3), "line 3 is missing"),
        (format + "/base16/\n", .missingLine(3), "line 3 is missing"),
        (format + "/base16/\n\n", .wrongLength(line: 3, found: 0, expected: 64), "line 3 has 0 characters, not 64"),
        (
            format + "/base16/\n" + base16.dropLast(), .wrongLength(line: 3, found: 63, expected: 64),
            "line 3 has 63 characters, not 64"
        ),
        (
            format + "/base16/\n" + base16 + "00", .wrongLength(line: 3, found: 66, expected: 64),
            "line 3 has 66 characters, not 64"
        ),
        (
            format + "/base16/\n0g" + base16.dropFirst(2), .invalidDigit(line: 3, column: 2),
            "line 3: column 2 is no digit of the key"
        ),
        (
            format + "/base16/\n" + base16 + " ", .invalidDigit(line: 3, column: 65),
            "line 3: column 65 is no digit of the key"
        ),
        (
            format + "/base16/\n" + base16 + "\n\n", .trailingBytes(line: 4), "line 4: something follows the key"
        ),
        (
            format + "/base64/\n" + base16, .wrongLength(line: 3, found: 64, expected: 44),
            "line 3 has 64 characters, not 44"
        ),
        (
            format + "/base64/\n" + base64.dropLast(), .wrongLength(line: 3, found: 43, expected: 44),
            "line 3 has 43 characters, not 44"
        ),
        (
            format + "/base64/\n" + base64.replacing("=", with: "A"), .invalidDigit(line: 3, column: 44),
            "line 3: column 44 is no digit of the key"
        ),
        (
            format + "/base64/\n" + base64.replacing("8=", with: "9="), .invalidDigit(line: 3, column: 43),
            "line 3: column 43 is no digit of the key"
        ),
        (
            format + "/base64/\n" + base64.replacing("C", with: "-"), .invalidDigit(line: 3, column: 4),
            "line 3: column 4 is no digit of the key"
        ),
        (format + "/bin/\n", .wrongLength(line: 3, found: 0, expected: 32), "line 3 has 0 characters, not 32"),
        (
            format + "/bin/\n" + String(repeating: "x", count: 31), .wrongLength(line: 3, found: 31, expected: 32),
            "line 3 has 31 characters, not 32"
        ),
        (
            format + "/bin/\n" + String(repeating: "x", count: 33), .wrongLength(line: 3, found: 33, expected: 32),
            "line 3 has 33 characters, not 32"
        ),
        (
            format + String(repeating: "\n", count: 1100), .fileTooLong(bytes: 1122, limit: 1024),
            "1122 bytes are no key file, which has at most 1024"
        ),
    ]

    @Test(arguments: bad) func refuses(file: String, error: PreSharedKeyError, text: String) {
        #expect(throws: error) { try PreSharedKey(file: file.utf8) }
        #expect(error.description == text)
    }

    @Test func refusesOtherLengths() {
        for count in [0, 31, 33] {
            #expect(throws: PreSharedKeyError.wrongLength(line: 0, found: count, expected: 32)) {
                try PreSharedKey(bytes: [UInt8](repeating: 0, count: count))
            }
        }
    }

    // MARK: The fingerprint

    /// The first one is Kubo's own output, by way of rust-libp2p's tests (`transports/pnet/src/lib.rs`). The others were computed with
    /// PyCryptodome's Salsa20 and hashlib's SHAKE128.
    @Test(arguments: [
        (
            "6189c5cf0b87fb800c1a9feeda73c6ab5e998db48fb9e6a978575c770ceef683", "45fc986bbc9388a11d939df26f730f0c"
        ),
        (String(repeating: "0", count: 64), "708a75afd05affb08736cbf17c73773e"),
        (base16, "41dfbf48d882a8ee665983adfa7a48f7"),
    ])
    func tellsKeysApart(hex: String, fingerprint: String) throws {
        let key = try PreSharedKey(file: (Self.format + "/base16/\n" + hex).utf8)
        #expect(try key.fingerprint() == fingerprint)
    }

    @Test func isNeverPrinted() throws {
        let key = try PreSharedKey(bytes: Self.sequence)
        let expected = "pre-shared key 41dfbf48d882a8ee665983adfa7a48f7"
        #expect(key.description == expected && String(reflecting: key) == expected)
        var dumped = ""
        dump(key, to: &dumped)
        dump([key], to: &dumped)
        #expect(!dumped.contains("31"))
    }
}
