public import NIOCore

extension ByteBuffer {
    /// Appends `message` behind an unsigned varint of its length.
    public mutating func writeLengthPrefixed(_ message: some Collection<UInt8>) {
        var length = UInt64(message.count)
        while length >= 0x80 {
            self.writeInteger(UInt8(truncatingIfNeeded: length) | 0x80)
            length >>= 7
        }
        self.writeInteger(UInt8(truncatingIfNeeded: length))
        self.writeBytes(message)
    }

    /// Reads a message behind an unsigned varint of its length; `nil` while it is incomplete, and nothing is consumed then.
    /// - Throws: ``StreamReadError/tooLong(limit:)`` as soon as the length is known, ``StreamReadError/malformedLength``.
    public mutating func readLengthPrefixed(atMost limit: Int) throws(StreamReadError) -> ByteBuffer? {
        var length: UInt64 = 0
        for index in 0..<9 {
            guard let byte = self.getInteger(at: self.readerIndex + index, as: UInt8.self) else { return nil }
            length |= UInt64(byte & 0x7f) << UInt64(7 * index)
            guard byte & 0x80 == 0 else { continue }
            if byte == 0, index > 0 { throw .malformedLength }
            guard length <= UInt64(limit) else { throw .tooLong(limit: limit) }
            guard self.readableBytes >= index + 1 + Int(length) else { return nil }
            self.moveReaderIndex(forwardBy: index + 1)
            return self.readSlice(length: Int(length))
        }
        throw .malformedLength
    }
}
