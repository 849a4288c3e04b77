import NIOCore
import Testing

@testable import LibP2PConnection

/// Headers written out by hand from the specification.
@Suite struct MplexFrameTests {
    static let rows: [(MplexFrame, [UInt8])] = [
        (MplexFrame(.newStream, number: 0, isFromOpener: true), [0, 0]),
        (MplexFrame(.newStream, number: 1, isFromOpener: true, length: 3), [8, 3]),
        (MplexFrame(.message, number: 1, isFromOpener: false, length: 5), [9, 5]),
        (MplexFrame(.message, number: 1, isFromOpener: true, length: 5), [10, 5]),
        (MplexFrame(.close, number: 1, isFromOpener: false), [11, 0]),
        (MplexFrame(.close, number: 1, isFromOpener: true), [12, 0]),
        (MplexFrame(.reset, number: 1, isFromOpener: false), [13, 0]),
        (MplexFrame(.reset, number: 1, isFromOpener: true), [14, 0]),
        (MplexFrame(.message, number: 17, isFromOpener: true, length: 300), [0x8a, 1, 0xac, 2]),
        (MplexFrame(.message, number: 2, isFromOpener: false, length: 1 << 20), [17, 0x80, 0x80, 0x40]),
        (
            MplexFrame(.reset, number: 1 << 60 - 1, isFromOpener: true),
            [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0]
        ),
    ]

    @Test(arguments: rows) func isWrittenAndRead(frame: MplexFrame, bytes: [UInt8]) throws {
        var buffer = ByteBuffer()
        buffer.writeMplexFrame(frame)
        #expect(Array(buffer.readableBytesView) == bytes)
        #expect(bytes.count <= MplexFrame.maximumHeaderBytes)
        buffer.writeInteger(UInt8(0xaa))
        #expect(try buffer.readMplexFrame() == frame)
        #expect(Array(buffer.readableBytesView) == [0xaa])
        for count in 0..<bytes.count {
            var cut = ByteBuffer(bytes: bytes.prefix(count))
            #expect(try cut.readMplexFrame() == nil)
            #expect(cut.readableBytes == count)
        }
    }

    @Test(
        arguments: [
            ([7, 0], MplexError.unknownFlag(7)), ([0xff, 1, 0], .unknownFlag(7)),
            ([10, 0x81, 0x80, 0x40], .messageTooLong(bytes: 1_048_577)),
            ([0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], .messageTooLong(bytes: 1 << 63 - 1)),
            ([0x88, 0x00, 0], .malformedHeader), ([8, 0x80, 0x00], .malformedHeader),
            ([0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1], .malformedHeader),
            ([8, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1], .malformedHeader),
        ] as [([UInt8], MplexError)])
    func refuses(bytes: [UInt8], error: MplexError) {
        var buffer = ByteBuffer(bytes: bytes)
        #expect(throws: error) { try buffer.readMplexFrame() }
    }
}
