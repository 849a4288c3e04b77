import Crypto
import Testing

@testable import LibP2PConnection

@Suite struct XSalsa20Tests {
    /// Encrypts `plain` in pieces that end at these places.
    static func seal(
        _ plain: [UInt8], key: [UInt8], nonce: [UInt8], ends: [Int] = [], firstBlock: UInt64 = 0, inPlace: Bool = false
    ) throws -> [UInt8] {
        var cipher = try XSalsa20(key: PreSharedKey(bytes: key), nonce: nonce, firstBlock: firstBlock)
        var output = inPlace ? plain : [UInt8](repeating: 0xee, count: plain.count)
        var start = 0
        for end in ends + [plain.count] {
            output.withUnsafeMutableBufferPointer { output in
                plain.withUnsafeBufferPointer { plain in
                    guard let to = output.baseAddress, let from = plain.baseAddress else { return }
                    cipher.apply(
                        inPlace ? UnsafePointer(to + start) : from + start, into: to + start, count: end - start)
                }
            }
            start = end
        }
        return output
    }

    static func bytes(_ hex: String) -> [UInt8] {
        stride(from: 0, to: hex.utf8.count, by: 2).compactMap { offset in
            UInt8(hex.dropFirst(offset).prefix(2), radix: 16)
        }
    }

    static let key = (0..<32).map { UInt8($0) }
    static let nonce = (100..<124).map { UInt8($0) }

    // MARK: Vectors

    /// The first is golang.org/x/crypto's, the second the beginning of every connection under the key of zeros: both from
    /// `libp2p-vectors.json`.
    @Test(arguments: [
        (
            Array("this is 32-byte key for xsalsa20".utf8), Array("24-byte nonce for xsalsa".utf8),
            Array("Hello world!".utf8),
            "002d4513843fc240c401e541"
        ),
        (
            [UInt8](repeating: 0, count: 32), (0..<24).map { UInt8($0) }, [0x13] + Array("/multistream/1.0.0\n".utf8),
            "ca321da4966cdd61938aedf5a7e7c0de71914b47"
        ),
    ])
    func encrypts(key: [UInt8], nonce: [UInt8], plain: [UInt8], sealed: String) throws {
        #expect(try Self.seal(plain, key: key, nonce: nonce) == Self.bytes(sealed))
        #expect(try Self.seal(Self.bytes(sealed), key: key, nonce: nonce) == plain)
    }

    /// "Cryptography in NaCl", section 10: the first 4 MiB of a key stream.
    @Test func producesTheStreamOfThePaper() throws {
        let stream = try Self.seal(
            [UInt8](repeating: 0, count: 4_194_304),
            key: Self.bytes("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389"),
            nonce: Self.bytes("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37"), ends: [1, 65, 1_000_000, 4_194_303])
        #expect(
            stream.prefix(32).elementsEqual(
                Self.bytes("eea6a7251c1e72916d11c2cb214d3c252539121d8e234e652d651fa4c8cff880")))
        #expect(
            Array(SHA256.hash(data: stream))
                == Self.bytes("662b9d0e3463029156069b12f918691a98f7dfb2ca0393c96bbfc6b1fbd630a2"))
    }

    /// SHA-256 of 300 bytes of key stream, computed with PyCryptodome's Salsa20 behind HSalsa20.
    static let whole = bytes("f01d20129f56794a551b0fe0207728e8868570729d61451b693e607d980af64c")

    // MARK: Any split

    @Test(arguments: [false, true]) func goesOnWhereItStopped(inPlace: Bool) throws {
        let zeros = [UInt8](repeating: 0, count: 300)
        let whole = try Self.seal(zeros, key: Self.key, nonce: Self.nonce, inPlace: inPlace)
        #expect(Array(SHA256.hash(data: whole)) == Self.whole)
        for first in 0...300 {
            #expect(try Self.seal(zeros, key: Self.key, nonce: Self.nonce, ends: [first], inPlace: inPlace) == whole)
            for second in stride(from: first, through: 300, by: 7) {
                let ends = [first, second, second]
                #expect(try Self.seal(zeros, key: Self.key, nonce: Self.nonce, ends: ends, inPlace: inPlace) == whole)
            }
        }
        for size in [1, 2, 3, 63, 64, 65, 127, 128, 129] {
            let ends = Array(stride(from: size, to: 300, by: size))
            #expect(try Self.seal(zeros, key: Self.key, nonce: Self.nonce, ends: ends, inPlace: inPlace) == whole)
        }
    }

    @Test func countsBlocksInSixtyFourBits() throws {
        let zeros = [UInt8](repeating: 0, count: 200)
        let before = UInt64(UInt32.max)
        let across = try Self.seal(zeros, key: Self.key, nonce: Self.nonce, ends: [10], firstBlock: before)
        let behind = try Self.seal(zeros, key: Self.key, nonce: Self.nonce, firstBlock: before + 1)
        #expect(across.dropFirst(64).elementsEqual(behind.prefix(136)))
        #expect(try behind != Self.seal(zeros, key: Self.key, nonce: Self.nonce))
    }

    @Test(arguments: [0, 23, 25]) func refusesOtherNonces(count: Int) {
        #expect(throws: PrivateNetworkError.cipherFailed) {
            try XSalsa20(key: PreSharedKey(bytes: Self.key), nonce: [UInt8](repeating: 0, count: count))
        }
    }
}
