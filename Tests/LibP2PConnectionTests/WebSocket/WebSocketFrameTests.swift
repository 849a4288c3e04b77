import LibP2PCore
import NIOCore
import Testing

@testable import LibP2PConnection

/// What a reader makes of `input`, however that is cut.
struct WebSocketReading: Equatable {
    var data: [UInt8] = []
    var pings: [[UInt8]] = []
    var close: WebSocketClose?
    var error: WebSocketError?
    var isWithinFrame = false

    init(_ pieces: [[UInt8]], from remote: Role) {
        var reader = WebSocketReader(remote: remote)
        for piece in pieces {
            var input = ByteBuffer(bytes: piece)
            do throws(WebSocketError) {
                while let event = try reader.next(&input) {
                    switch event {
                    case .data(var bytes, let mask):
                        if let mask { bytes.applyWebSocketMask(mask) }
                        self.data += bytes.readableBytesView
                    case .ping(let payload): self.pings.append(Array(payload.readableBytesView))
                    case .close(let close): self.close = close
                    }
                }
                if input.readableBytes > 0 { Issue.record("\(input.readableBytes) bytes are left") }
            } catch {
                // Nothing follows an error.
                self.error = error
                return
            }
        }
        self.isWithinFrame = reader.isWithinFrame
    }
}

/// A frame of `payload`.
func webSocketFrame(
    _ opcode: WebSocketFrameHeader.Opcode, _ payload: [UInt8], isFinal: Bool = true,
    mask: WebSocketMask? = nil
) -> [UInt8] {
    var frame = ByteBuffer()
    frame.writeWebSocketHeader(
        WebSocketFrameHeader(isFinal: isFinal, opcode: opcode, mask: mask, length: payload.count))
    frame.writeBuffer(ByteBuffer(bytes: payload), mask: mask ?? WebSocketMask(key: 0))
    return Array(frame.readableBytesView)
}

/// A frame of bytes.
func webSocketFrame(_ payload: [UInt8], mask: WebSocketMask? = nil) -> [UInt8] {
    webSocketFrame(.binary, payload, mask: mask)
}

@Suite struct WebSocketFrameTests {
    static let hello = Array("Hello".utf8)
    /// The key 37 fa 21 3d.
    static let mask = WebSocketMask(key: 0x3d21_fa37)

    // MARK: Golden bytes

    /// RFC 6455 § 5.7, with the opcode of binary where that of text stands there.
    static let examples: [(bytes: [UInt8], header: WebSocketFrameHeader, payload: [UInt8])] = [
        (
            [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f],
            WebSocketFrameHeader(opcode: .text, mask: nil, length: 5), hello
        ),
        (
            [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58],
            WebSocketFrameHeader(opcode: .text, mask: mask, length: 5), hello
        ),
        (
            [0x01, 0x03, 0x48, 0x65, 0x6c],
            WebSocketFrameHeader(isFinal: false, opcode: .text, mask: nil, length: 3), Array("Hel".utf8)
        ),
        (
            [0x80, 0x02, 0x6c, 0x6f],
            WebSocketFrameHeader(opcode: .continuation, mask: nil, length: 2), Array("lo".utf8)
        ),
        (
            [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f],
            WebSocketFrameHeader(opcode: .ping, mask: nil, length: 5), hello
        ),
        (
            [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58],
            WebSocketFrameHeader(opcode: .pong, mask: mask, length: 5), hello
        ),
        (
            [0x82, 0x7e, 0x01, 0x00] + [UInt8](repeating: 7, count: 256),
            WebSocketFrameHeader(opcode: .binary, mask: nil, length: 256), [UInt8](repeating: 7, count: 256)
        ),
        (
            [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0] + [UInt8](repeating: 9, count: 65_536),
            WebSocketFrameHeader(opcode: .binary, mask: nil, length: 65_536), [UInt8](repeating: 9, count: 65_536)
        ),
    ]

    @Test(arguments: examples.indices)
    func theSpecificationsExamples(index: Int) throws {
        let example = Self.examples[index]
        var bytes = ByteBuffer(bytes: example.bytes)
        #expect(try bytes.readWebSocketHeader() == example.header)
        if let mask = example.header.mask { bytes.applyWebSocketMask(mask) }
        #expect(Array(bytes.readableBytesView) == example.payload)
        let again = webSocketFrame(
            example.header.opcode, example.payload, isFinal: example.header.isFinal, mask: example.header.mask)
        #expect(again == example.bytes)
    }

    @Test(arguments: [
        (0, 2), (125, 2), (126, 4), (127, 4), (65_535, 4), (65_536, 10), (1 << 24, 10), (1 << 62, 10),
    ])
    func lengthsTakeAsFewBytesAsTheyCan(length: Int, headerBytes: Int) throws {
        for mask in [nil, Self.mask] {
            let header = WebSocketFrameHeader(opcode: .binary, mask: mask, length: length)
            var bytes = ByteBuffer()
            bytes.writeWebSocketHeader(header)
            #expect(bytes.readableBytes == headerBytes + (mask == nil ? 0 : 4))
            for count in 0..<bytes.readableBytes {
                var part = try #require(bytes.getSlice(at: 0, length: count))
                #expect(try part.readWebSocketHeader() == nil)
                #expect(part.readableBytes == count)
            }
            #expect(try bytes.readWebSocketHeader() == header)
            #expect(bytes.readableBytes == 0)
        }
    }

    // MARK: Masks

    /// Against the definition in RFC 6455 § 5.3, at every offset and across all three loops.
    @Test(arguments: [0, 1, 3, 4, 7, 8, 9, 15, 31, 32, 33, 63, 64, 100, 1_001])
    func masksAsDefined(count: Int) {
        let key: [UInt8] = [0x37, 0xfa, 0x21, 0x3d]
        for start in 0..<9 {
            let plain = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 37 &+ start) }
            let expected = plain.enumerated().map { $1 ^ key[($0 + start) % 4] }
            let mask = Self.mask.advanced(by: start)
            var inPlace = ByteBuffer(bytes: plain)
            inPlace.applyWebSocketMask(mask)
            #expect(Array(inPlace.readableBytesView) == expected)
            // Not at an even address.
            var copied = ByteBuffer(bytes: [1])
            copied.writeBuffer(ByteBuffer(bytes: plain), mask: mask)
            #expect(Array(copied.readableBytesView) == [1] + expected)
        }
    }

    // MARK: Reading

    /// All that a stream may look like, and what is in it.
    static func conversation(mask: WebSocketMask?) -> (bytes: [UInt8], reading: WebSocketReading) {
        var bytes: [UInt8] = []
        bytes += webSocketFrame(.binary, Array("first ".utf8), mask: mask)
        bytes += webSocketFrame(.ping, [], mask: mask)
        bytes += webSocketFrame(.binary, [], mask: mask)
        bytes += webSocketFrame(.binary, Array("a ".utf8), isFinal: false, mask: mask)
        bytes += webSocketFrame(.ping, hello, mask: mask)
        bytes += webSocketFrame(.continuation, [], isFinal: false, mask: mask)
        bytes += webSocketFrame(.continuation, Array("long ".utf8), isFinal: false, mask: mask)
        bytes += webSocketFrame(.pong, hello, mask: mask)
        bytes += webSocketFrame(.continuation, Array("message ".utf8), mask: mask)
        bytes += webSocketFrame(.binary, [UInt8](repeating: 0x2e, count: 130), mask: mask)
        bytes += webSocketFrame(.close, [0x03, 0xe8] + Array("bye".utf8), mask: mask)
        bytes += Array("what comes behind is not read".utf8)
        var reading = WebSocketReading([], from: .dialer)
        reading.data = Array("first a long message ".utf8) + [UInt8](repeating: 0x2e, count: 130)
        reading.pings = [[], hello]
        reading.close = WebSocketClose(code: 1000, reason: "bye")
        return (bytes, reading)
    }

    @Test(arguments: [Role.dialer, .listener])
    func everyCutReadsTheSame(remote: Role) {
        let (bytes, expected) = Self.conversation(mask: remote == .dialer ? Self.mask : nil)
        #expect(WebSocketReading([bytes], from: remote) == expected)
        #expect(WebSocketReading(bytes.map { [$0] }, from: remote) == expected)
        for cut in 0...bytes.count {
            #expect(WebSocketReading([Array(bytes[..<cut]), Array(bytes[cut...])], from: remote) == expected)
        }
    }

    /// What must not be, from a listener unless said otherwise.
    static let illegal: [(name: String, bytes: [UInt8], from: Role, error: WebSocketError)] = [
        ("reserved bit 1", [0xc2, 0], .listener, .reservedBitsSet),
        ("reserved bit 2", [0xa2, 0], .listener, .reservedBitsSet),
        ("reserved bit 3", [0x92, 0], .listener, .reservedBitsSet),
        ("opcode 3", [0x83, 0], .listener, .unknownOpcode(3)),
        ("opcode 11", [0x8b, 0], .listener, .unknownOpcode(11)),
        ("text", webSocketFrame(.text, hello), .listener, .textFrame),
        ("text from a dialer", webSocketFrame(.text, hello, mask: mask), .dialer, .textFrame),
        ("masked by a listener", webSocketFrame(hello, mask: mask), .listener, .maskedFrame),
        ("unmasked by a dialer", webSocketFrame(hello), .dialer, .unmaskedFrame),
        ("unmasked ping by a dialer", webSocketFrame(.ping, hello), .dialer, .unmaskedFrame),
        ("fragmented ping", [0x09, 0], .listener, .controlFrameFragmented),
        ("fragmented close", [0x08, 0], .listener, .controlFrameFragmented),
        ("long ping", [0x89, 126, 0, 126], .listener, .controlFrameTooLong),
        ("long close", [0x88, 127, 0, 0, 0, 0, 0, 1, 0, 0], .listener, .controlFrameTooLong),
        ("125 bytes in 16 bits", [0x82, 126, 0, 125], .listener, .lengthNotMinimal),
        ("65535 bytes in 64 bits", [0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff], .listener, .lengthNotMinimal),
        ("64 bits of length", [0x82, 127] + [UInt8](repeating: 0xff, count: 8), .listener, .lengthOutOfRange),
        ("too long", [0x82, 127, 0, 0, 0, 0, 1, 0, 0, 1], .listener, .frameTooLong(bytes: 1 << 24 + 1)),
        ("continuation of nothing", [0x80, 0], .listener, .unexpectedContinuation),
        (
            "continuation of what is complete", webSocketFrame(hello) + webSocketFrame(.continuation, hello),
            .listener, .unexpectedContinuation
        ),
        (
            "a message within a message", webSocketFrame(.binary, hello, isFinal: false) + webSocketFrame(hello),
            .listener, .continuationExpected
        ),
        ("close of one byte", webSocketFrame(.close, [3]), .listener, .malformedClose),
        ("close with no status", webSocketFrame(.close, [0x03, 0xed]), .listener, .malformedClose),
        ("close with 999", webSocketFrame(.close, [0x03, 0xe7]), .listener, .malformedClose),
        ("close with 2000", webSocketFrame(.close, [0x07, 0xd0]), .listener, .malformedClose),
        ("close with 5000", webSocketFrame(.close, [0x13, 0x88]), .listener, .malformedClose),
        ("close with no text", webSocketFrame(.close, [0x03, 0xe8, 0xff]), .listener, .malformedClose),
    ]

    @Test(arguments: illegal.indices)
    func illegalFramesAreNamed(index: Int) {
        let (name, illegal, remote, error) = Self.illegal[index]
        let mask = remote == .dialer ? Self.mask : nil
        let before = webSocketFrame(Array("before".utf8), mask: mask)
        for bytes in [illegal, illegal + before] {
            let whole = WebSocketReading([before + bytes], from: remote)
            #expect(whole.error == error, "\(name)")
            #expect(whole.data.starts(with: Array("before".utf8)))
            #expect(WebSocketReading((before + bytes).map { [$0] }, from: remote) == whole)
        }
    }

    @Test func whatIsCutOffIsKnown() {
        let first = webSocketFrame(.binary, Self.hello, isFinal: false)
        let bytes = first + webSocketFrame(.continuation, Self.hello)
        for count in 0...bytes.count {
            let reading = WebSocketReading([Array(bytes[..<count])], from: .listener)
            #expect(reading.isWithinFrame == (count != 0 && count != bytes.count), "after \(count) bytes")
        }
    }

    @Test func theLongestFrameIsPassedOnInPieces() throws {
        var reader = WebSocketReader(remote: .listener)
        var header = ByteBuffer()
        header.writeWebSocketHeader(
            WebSocketFrameHeader(opcode: .binary, mask: nil, length: WebSocketReader.maximumFrameBytes))
        #expect(try reader.next(&header) == nil)
        let piece = ByteBuffer(repeating: 1, count: 1 << 20)
        for _ in 0..<16 {
            #expect(reader.isWithinFrame)
            var input = piece
            #expect(try reader.next(&input) == .data(piece, nil))
        }
        #expect(!reader.isWithinFrame)
    }

    @Test func closeFramesSayWhatFits() throws {
        let long = WebSocketClose(code: 1011, reason: String(repeating: "a", count: 124))
        #expect(try WebSocketClose(payload: long.payload) == WebSocketClose(code: 1011))
        let fits = WebSocketClose(code: 4000, reason: String(repeating: "a", count: 123))
        #expect(try WebSocketClose(payload: fits.payload) == fits)
        #expect(try WebSocketClose(payload: WebSocketClose(code: nil).payload) == WebSocketClose(code: nil))
    }
}
