internal import Multiformats
public import NIOCore

extension ByteBuffer {
    /// Appends `message` behind an unsigned varint of its length.
    public mutating func writeLengthPrefixed(_ message: some Collection<UInt8>) {
        self.writeBytes(Varint.encode(UInt64(message.count)))
        self.writeBytes(message)
    }

    /// Reads a message behind an unsigned varint of its length; `nil` while it is incomplete, and nothing is consumed then.
    /// - Throws: ``StreamReadError/tooLong(limit:)`` as soon as the length is known, ``StreamReadError/malformedLength``.
    public mutating func readLengthPrefixed(atMost limit: Int) throws(StreamReadError) -> ByteBuffer? {
        let view = self.readableBytesView
        var start = view.startIndex
        let length: UInt64
        do {
            length = try Varint.decode(view, at: &start)
        } catch .truncated {
            return nil
        } catch {
            throw .malformedLength
        }
        guard let count = Int(exactly: length), count <= limit else { throw .tooLong(limit: limit) }
        guard view.endIndex - start >= count else { return nil }
        self.moveReaderIndex(forwardBy: start - view.startIndex)
        return self.readSlice(length: count)
    }
}
