import LibP2PCore
import NIOCore
import Testing

@Suite struct LengthPrefixedTests {
    @Test(arguments: [0, 1, 127, 128, 300, 16_383, 16_384]) func readsWhatItWrites(count: Int) throws {
        let message = (0..<count).map { UInt8(truncatingIfNeeded: $0) }
        var buffer = ByteBuffer()
        buffer.writeLengthPrefixed(message)
        buffer.writeBytes([1, 2, 3])
        #expect(try buffer.readLengthPrefixed(atMost: count).map { Array($0.readableBytesView) } == message)
        #expect(Array(buffer.readableBytesView) == [1, 2, 3])
    }

    @Test func consumesNothingWhileIncomplete() throws {
        var whole = ByteBuffer()
        whole.writeLengthPrefixed(Array(repeating: 7, count: 200))
        for count in 0..<whole.readableBytes {
            var part = try #require(whole.getSlice(at: 0, length: count))
            #expect(try part.readLengthPrefixed(atMost: 200) == nil)
            #expect(part.readableBytes == count)
        }
    }

    static let refused: [([UInt8], Int, StreamReadError)] = [
        ([0xc8, 0x01], 199, .tooLong(limit: 199)),  // known before the message has come
        ([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], 10, .tooLong(limit: 10)),
        ([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 10, .malformedLength),
        ([0x80, 0x00], 10, .malformedLength),  // not the shortest form
        ([0x81, 0x80, 0x00], 10, .malformedLength),
    ]

    @Test(arguments: refused) func refuses(bytes: [UInt8], limit: Int, error: StreamReadError) {
        var buffer = ByteBuffer(bytes: bytes)
        #expect(throws: error) { try buffer.readLengthPrefixed(atMost: limit) }
    }

    @Test func doesNotOverflowOnTheLargestLength() throws {
        var buffer = ByteBuffer(bytes: [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1])
        #expect(try buffer.readLengthPrefixed(atMost: .max) == nil)
    }
}
