/// The unsigned varint of multiformats: seven bits per byte, least significant group first, the top bit says that more follow.
///
/// Only the shortest encoding of a value is accepted, and at most nine bytes (63 bits). Protobuf's varints are another,
/// more tolerant kind (ten bytes, 64 bits): do not read one with the other's decoder.
///
/// Spec: `multiformats/unsigned-varint`.
public enum Varint {
    /// The longest encoding, in bytes.
    public static let maximumBytes = 9

    /// The largest value: 2⁶³ − 1.
    public static let maximumValue = UInt64(Int64.max)

    /// How many bytes `value` takes.
    @inlinable
    public static func encodedLength(of value: UInt64) -> Int {
        value == 0 ? 1 : (70 - value.leadingZeroBitCount) / 7
    }

    /// The encoding of `value`. Above ``maximumValue`` it takes ten bytes, which every decoder refuses.
    @inlinable
    public static func encode(_ value: UInt64) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(self.encodedLength(of: value))
        self.append(value, to: &bytes)
        return bytes
    }

    /// Appends the encoding of `value`. Above ``maximumValue`` it takes ten bytes, which every decoder refuses.
    @inlinable
    public static func append(_ value: UInt64, to bytes: inout some RangeReplaceableCollection<UInt8>) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(truncatingIfNeeded: rest))
    }

    /// Reads the varint that starts at `index` and moves `index` behind it. On an error `index` stays.
    ///
    /// ``VarintError/truncated`` means that more bytes may make it valid; the other errors are final.
    @inlinable
    public static func decode<Bytes: Collection<UInt8>>(
        _ bytes: Bytes, at index: inout Bytes.Index
    ) throws(VarintError) -> UInt64 {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        var position = index
        while position < bytes.endIndex {
            let byte = bytes[position]
            bytes.formIndex(after: &position)
            value |= UInt64(byte & 0x7f) &<< shift
            if byte < 0x80 {
                guard byte != 0 || shift == 0 else { throw .nonMinimal }
                index = position
                return value
            }
            shift &+= 7
            guard shift < 63 else { throw .tooLong }
        }
        throw .truncated
    }

    /// Reads the varint that `bytes` begins with; `length` is the number of bytes it took.
    @inlinable
    public static func decode(
        _ bytes: some Collection<UInt8>
    ) throws(VarintError) -> (value: UInt64, length: Int) {
        var index = bytes.startIndex
        let value = try self.decode(bytes, at: &index)
        return (value, self.encodedLength(of: value))
    }
}

/// Why bytes are no varint.
public enum VarintError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The bytes end before the varint does.
    case truncated
    /// A shorter encoding of the same value exists.
    case nonMinimal
    /// It goes on after nine bytes.
    case tooLong

    /// The fact in words.
    public var description: String {
        switch self {
        case .truncated: "the varint is cut off"
        case .nonMinimal: "the varint is not in its shortest form"
        case .tooLong: "the varint is longer than \(Varint.maximumBytes) bytes"
        }
    }
}
