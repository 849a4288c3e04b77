import NIOCore
import Testing

@testable import LibP2PConnection

/// Headers written out by hand from hashicorp/yamux `spec.md`, so that a bug in the encoder cannot hide in the decoder.
@Suite struct YamuxFrameTests {
    static let golden: [(YamuxFrame, [UInt8])] = [
        (YamuxFrame(.data, .syn, streamID: 1, length: 5), [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 5]),
        (YamuxFrame(.data, .fin, streamID: 0x0102_0304), [0, 0, 0, 4, 1, 2, 3, 4, 0, 0, 0, 0]),
        (YamuxFrame(.windowUpdate, .ack, streamID: 2, length: 0x40000), [0, 1, 0, 2, 0, 0, 0, 2, 0, 4, 0, 0]),
        (YamuxFrame(.windowUpdate, .rst, streamID: 7, length: 0x1002), [0, 1, 0, 8, 0, 0, 0, 7, 0, 0, 0x10, 2]),
        (YamuxFrame(.ping, .syn, length: 0xdead_beef), [0, 2, 0, 1, 0, 0, 0, 0, 0xde, 0xad, 0xbe, 0xef]),
        (YamuxFrame(.ping, .ack, length: 0xdead_beef), [0, 2, 0, 2, 0, 0, 0, 0, 0xde, 0xad, 0xbe, 0xef]),
        (YamuxFrame(.goAway, length: 1), [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        (
            YamuxFrame(.windowUpdate, [.syn, .fin], streamID: .max, length: .max),
            [0, 1, 0, 5, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]
        ),
    ]

    @Test func encodesAndDecodesGoldenHeaders() throws {
        for (frame, bytes) in Self.golden {
            var written = ByteBuffer()
            written.writeYamuxFrame(frame)
            #expect(Array(written.readableBytesView) == bytes)
            var read = ByteBuffer(bytes: bytes + [0xaa])
            #expect(try read.readYamuxFrame() == frame)
            #expect(read.readableBytes == 1)
        }
    }

    @Test func readsNothingFromAPartOfAHeader() throws {
        for count in 0..<12 {
            var buffer = ByteBuffer(repeating: 0xff, count: count)
            #expect(try buffer.readYamuxFrame() == nil)
            #expect(buffer.readableBytes == count)
        }
    }

    @Test func refusesUnknownVersionsAndTypes() {
        for value in UInt8(1)...255 {
            var version = ByteBuffer(bytes: [value, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0])
            #expect(throws: YamuxError.unknownVersion(value)) { try version.readYamuxFrame() }
        }
        for value in UInt8(4)...255 {
            var type = ByteBuffer(bytes: [0, value, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0])
            #expect(throws: YamuxError.unknownFrameType(value)) { try type.readYamuxFrame() }
        }
    }

    @Test func keepsFlagsItDoesNotKnow() throws {
        var buffer = ByteBuffer(bytes: [0, 0, 0xff, 0xf1, 0, 0, 0, 1, 0, 0, 0, 0])
        let frame = try buffer.readYamuxFrame()
        #expect(frame?.flags.contains(.syn) == true)
        #expect(frame?.flags.contains(.rst) == false)
    }

    @Test func aFullFrameFillsOneNoiseRecord() {
        #expect(YamuxFrame.headerBytes + YamuxFrame.maximumSentBodyBytes == 65_519)
    }
}
