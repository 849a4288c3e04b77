import Multiformats
import Testing

@Suite struct VarintTests {
    @Test func matchesTheVectors() throws {
        let vectors = try Vectors.libp2p.get()
        #expect(vectors.uvarint.count == 6)
        for (text, hex) in vectors.uvarint {
            let value = try #require(UInt64(text))
            let encoded = try #require(bytes(hex: hex))
            #expect(Varint.encode(value) == encoded)
            let decoded = try Varint.decode(encoded)
            #expect(decoded.value == value)
            #expect(decoded.length == encoded.count)
        }
        for text in vectors.uvarintInvalid {
            let encoded = try #require(bytes(hex: String(text.prefix { $0 != " " })))
            #expect(throws: VarintError.self) { try Varint.decode(encoded) }
        }
    }

    @Test(
        arguments: [
            ([], VarintError.truncated),
            ([0x80], .truncated),
            ([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], .truncated),
            ([0x81, 0x00], .nonMinimal),
            ([0x80, 0x00], .nonMinimal),
            ([0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00], .nonMinimal),
            ([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], .tooLong),
            ([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], .tooLong),
            ([0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00], .tooLong),
        ] as [([UInt8], VarintError)])
    func namesWhatIsWrong(encoded: [UInt8], error: VarintError) {
        var index = 0
        #expect(throws: error) { try Varint.decode(encoded, at: &index) }
        #expect(index == 0)
    }

    @Test func roundTripsAtEveryWidth() throws {
        for bits in 0..<63 {
            for value in [UInt64(1) << UInt64(bits), (UInt64(1) << UInt64(bits)) - 1, UInt64(1) << UInt64(bits) | 1] {
                let encoded = Varint.encode(value)
                #expect(encoded.count == Varint.encodedLength(of: value))
                #expect(encoded.count <= Varint.maximumBytes)
                #expect(try Varint.decode(encoded).value == value)
                for length in 0..<encoded.count {
                    #expect(throws: VarintError.truncated) { try Varint.decode(encoded.prefix(length)) }
                }
            }
        }
        let largest = Varint.encode(Varint.maximumValue)
        #expect(largest == [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f])
        #expect(try Varint.decode(largest).value == Varint.maximumValue)
        for value in [Varint.maximumValue + 1, .max] {
            #expect(Varint.encodedLength(of: value) == 10)
            #expect(Varint.encode(value).count == 10)
            #expect(throws: VarintError.tooLong) { try Varint.decode(Varint.encode(value)) }
        }
    }

    @Test func readsFromTheMiddleOfASlice() throws {
        let all: [UInt8] = [0xaa, 0xac, 0x02, 0x07, 0xbb]
        let slice = all[1...]
        var index = slice.startIndex
        #expect(try Varint.decode(slice, at: &index) == 300)
        #expect(try Varint.decode(slice, at: &index) == 7)
        #expect(index == 4)
        var text: [UInt8] = [1]
        Varint.append(300, to: &text)
        #expect(text == [1, 0xac, 0x02])
    }

    /// Whatever is accepted is what the encoder would have written.
    @Test func acceptsOnlyItsOwnOutput() {
        var random = SplitMix64(state: 1)
        var accepted = 0
        for _ in 0..<20_000 {
            // Mostly continuation bytes, so that long forms occur.
            let input = random.bytes(Int.random(in: 0...12, using: &random)).map { byte in
                Bool.random(using: &random) ? byte | 0x80 : byte & 0x83
            }
            if let (value, length) = try? Varint.decode(input) {
                accepted += 1
                #expect(Varint.encode(value) == Array(input.prefix(length)))
            }
        }
        #expect(accepted > 1000)
    }
}
