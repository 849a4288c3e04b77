internal import NIOCore

/// The header of one frame, 2 to 14 bytes:
///
/// ```
/// 0      1 bit  final frame of its message
///        3 bits reserved, zero
///        4 bits opcode
/// 1      1 bit  masked
///        7 bits payload length; 126: the next 2 bytes hold it; 127: the next 8 bytes do
/// …      4 bytes masking key, where masked
/// ```
///
/// Spec: RFC 6455 § 5.2.
struct WebSocketFrameHeader: Hashable, Sendable {
    /// What a frame is for.
    enum Opcode: UInt8, Hashable, Sendable {
        case continuation = 0
        case text = 1
        case binary = 2
        case close = 8
        case ping = 9
        case pong = 10

        var isControl: Bool { self.rawValue & 8 != 0 }
    }

    /// The longest header.
    static let maximumBytes = 14
    /// The longest payload of a control frame (§ 5.5).
    static let maximumControlBytes = 125

    /// Whether the message ends with this frame.
    var isFinal = true
    var opcode: Opcode
    /// Frames of the dialer are masked, frames of the listener are not.
    var mask: WebSocketMask?
    /// Payload bytes.
    var length: Int
}

extension ByteBuffer {
    /// Writes a header with its length in as few bytes as will hold it.
    mutating func writeWebSocketHeader(_ header: WebSocketFrameHeader) {
        self.writeInteger((header.isFinal ? 0x80 : 0) | header.opcode.rawValue)
        let masked: UInt8 = header.mask == nil ? 0 : 0x80
        switch header.length {
        case ...125: self.writeInteger(masked | UInt8(truncatingIfNeeded: max(0, header.length)))
        case ...0xffff: self.writeMultipleIntegers(masked | 126, UInt16(truncatingIfNeeded: header.length))
        default: self.writeMultipleIntegers(masked | 127, UInt64(truncatingIfNeeded: header.length))
        }
        if let mask = header.mask { self.writeInteger(mask.key, endianness: .little) }
    }

    /// Reads a header; `nil`, and nothing is consumed, when it is not complete.
    /// - Throws: What is wrong with any header, whoever sent it.
    mutating func readWebSocketHeader() throws(WebSocketError) -> WebSocketFrameHeader? {
        var rest = self
        guard let (first, second) = rest.readMultipleIntegers(as: (UInt8, UInt8).self) else { return nil }
        guard first & 0x70 == 0 else { throw .reservedBitsSet }
        guard let opcode = WebSocketFrameHeader.Opcode(rawValue: first & 0x0f) else {
            throw .unknownOpcode(first & 0x0f)
        }
        let isFinal = first & 0x80 != 0
        if opcode.isControl {
            guard isFinal else { throw .controlFrameFragmented }
            guard second & 0x7f < 126 else { throw .controlFrameTooLong }
        }
        let length: Int
        switch second & 0x7f {
        case 126:
            guard let long = rest.readInteger(as: UInt16.self) else { return nil }
            guard long > 125 else { throw .lengthNotMinimal }
            length = Int(long)
        case 127:
            guard let long = rest.readInteger(as: UInt64.self) else { return nil }
            guard long > 0xffff else { throw .lengthNotMinimal }
            guard let exact = Int(exactly: long) else { throw .lengthOutOfRange }
            length = exact
        case let short:
            length = Int(short)
        }
        var mask: WebSocketMask?
        if second & 0x80 != 0 {
            guard let key = rest.readInteger(endianness: .little, as: UInt32.self) else { return nil }
            mask = WebSocketMask(key: key)
        }
        self = rest
        return WebSocketFrameHeader(isFinal: isFinal, opcode: opcode, mask: mask, length: length)
    }
}

/// A masking key, turned so that its first byte is for the next byte of the payload.
///
/// Spec: RFC 6455 § 5.3.
struct WebSocketMask: Hashable, Sendable {
    /// The four bytes, the first one lowest.
    var key: UInt32

    /// The key for a payload whose first `count` bytes are done.
    func advanced(by count: Int) -> WebSocketMask {
        let shift = UInt32(truncatingIfNeeded: count & 3) * 8
        return shift == 0 ? self : WebSocketMask(key: self.key >> shift | self.key << (32 - shift))
    }

    /// Masks or unmasks `source` into `target`, which is at least as long. Both may be the same memory; otherwise they do not overlap.
    func apply(_ source: UnsafeRawBufferPointer, to target: UnsafeMutableRawBufferPointer) {
        guard let from = source.baseAddress, let into = target.baseAddress else { return }
        let count = min(source.count, target.count)
        let word = (UInt64(self.key) << 32 | UInt64(self.key)).littleEndian
        let words = SIMD4<UInt64>(repeating: word)
        var offset = 0
        while count - offset >= 32 {
            let masked = from.loadUnaligned(fromByteOffset: offset, as: SIMD4<UInt64>.self) ^ words
            into.storeBytes(of: masked, toByteOffset: offset, as: SIMD4<UInt64>.self)
            offset += 32
        }
        while count - offset >= 8 {
            let masked = from.loadUnaligned(fromByteOffset: offset, as: UInt64.self) ^ word
            into.storeBytes(of: masked, toByteOffset: offset, as: UInt64.self)
            offset += 8
        }
        while offset < count {
            let byte = UInt8(truncatingIfNeeded: self.key >> (UInt32(truncatingIfNeeded: offset & 3) * 8))
            into.storeBytes(
                of: from.load(fromByteOffset: offset, as: UInt8.self) ^ byte, toByteOffset: offset, as: UInt8.self)
            offset += 1
        }
    }
}

extension ByteBuffer {
    /// Masks or unmasks all readable bytes in place.
    mutating func applyWebSocketMask(_ mask: WebSocketMask) {
        self.withUnsafeMutableReadableBytes { mask.apply(UnsafeRawBufferPointer($0), to: $0) }
    }

    /// Appends `bytes`, masked or unmasked on the way.
    mutating func writeBuffer(_ bytes: ByteBuffer, mask: WebSocketMask) {
        let count = bytes.readableBytes
        self.writeWithUnsafeMutableBytes(minimumWritableBytes: count) { target in
            bytes.withUnsafeReadableBytes { mask.apply($0, to: target) }
            return count
        }
    }
}

/// What a close frame says.
///
/// Spec: RFC 6455 § 5.5.1 and § 7.4.
struct WebSocketClose: Hashable, Sendable {
    /// Why; `nil` where nothing was said.
    var code: UInt16?
    /// For people.
    var reason = ""

    static let normal = WebSocketClose(code: 1000)

    /// Whether it tells of no trouble: done, going away, or nothing said.
    var isOrderly: Bool { self.code == nil || self.code == 1000 || self.code == 1001 }

    /// Reads the payload of a close frame.
    init(payload: ByteBuffer) throws(WebSocketError) {
        var payload = payload
        guard payload.readableBytes > 0 else {
            self.init(code: nil)
            return
        }
        guard let code = payload.readInteger(as: UInt16.self) else { throw .malformedClose }
        switch code {
        // 1004 to 1006 and 1015 are never sent; 1016 to 2999 are not defined.
        case 1000...1003, 1007...1014, 3000...4999: break
        default: throw .malformedClose
        }
        guard let reason = String(validating: payload.readableBytesView, as: UTF8.self) else { throw .malformedClose }
        self.init(code: code, reason: reason)
    }

    init(code: UInt16?, reason: String = "") {
        self.code = code
        self.reason = reason
    }

    /// The payload that says so; a reason that does not fit is left out.
    var payload: ByteBuffer {
        var payload = ByteBuffer()
        guard let code = self.code else { return payload }
        payload.writeInteger(code)
        if self.reason.utf8.count <= WebSocketFrameHeader.maximumControlBytes - 2 { payload.writeString(self.reason) }
        return payload
    }
}
