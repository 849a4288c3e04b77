/// Length prefixes: unsigned varints as multiformats defines them, of the shortest form only.
enum LengthPrefix {
    /// What the first bytes of a message say about its length.
    enum Reading: Equatable {
        /// The prefix is not complete yet.
        case incomplete
        /// The message has `length` bytes and starts after `prefixBytes`.
        case message(length: Int, prefixBytes: Int)
        /// The length is beyond the limit, or the prefix is not of the shortest form.
        case invalid
    }

    /// Appends `length` as an unsigned varint.
    static func append(_ length: Int, to bytes: inout [UInt8]) {
        var rest = UInt(bitPattern: length)
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(truncatingIfNeeded: rest))
    }

    /// Reads the prefix at the start of `bytes`; a length beyond `limit` (at most 2²⁸ − 1) is invalid.
    static func read(_ bytes: [UInt8], limit: Int) -> Reading {
        var value = 0
        for (index, byte) in bytes.enumerated() {
            guard index < 4 else { return .invalid }
            value |= Int(byte & 0x7f) << (7 * index)
            guard value <= limit else { return .invalid }
            if byte & 0x80 == 0 {
                return byte == 0 && index > 0 ? .invalid : .message(length: value, prefixBytes: index + 1)
            }
        }
        return bytes.count >= 4 ? .invalid : .incomplete
    }
}

extension [UInt8] {
    /// Appends `field` behind its length as an unsigned varint.
    mutating func appendLengthPrefixed(_ field: some Collection<UInt8>) {
        LengthPrefix.append(field.count, to: &self)
        self.append(contentsOf: field)
    }
}
