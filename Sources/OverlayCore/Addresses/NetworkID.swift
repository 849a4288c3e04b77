internal import Crypto

/// Which network: 32 bytes that every member computes alike.
///
/// In static mode they are SHA-256(`warren static v1` ‖ uvarint(name bytes) ‖ name), followed when there is a network secret by
/// uvarint(secret bytes) ‖ secret. Name and secret are UTF-8, exactly as configured. In managed mode they are the hash of the first roster.
package struct NetworkID: Hashable, Sendable, CustomStringConvertible {
    /// The length of every network ID.
    package static let byteCount = 32

    /// The 32 bytes.
    package let bytes: [UInt8]

    /// `nil` unless there are exactly 32 bytes.
    package init?(bytes: some Collection<UInt8>) {
        guard bytes.count == Self.byteCount else { return nil }
        self.bytes = Array(bytes)
    }

    /// The ID of a network in static mode. An empty secret is another network than none.
    package init(staticName name: String, secret: String?) {
        var input = Array("warren static v1".utf8)
        input.appendLengthPrefixed(Array(name.utf8))
        if let secret { input.appendLengthPrefixed(Array(secret.utf8)) }
        self.bytes = Array(SHA256.hash(data: input))
    }

    /// 64 hexadecimal digits.
    package var description: String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: self.bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }
}
