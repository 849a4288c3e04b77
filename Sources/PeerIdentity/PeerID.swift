import Crypto

/// Who a peer is: the multihash of its public key. Equality and order are those of the bytes, never of a text form.
///
/// Spec: `peer-ids/peer-ids.md`.
public struct PeerID: Hashable, Comparable, Sendable {
    /// The multihash.
    public let bytes: [UInt8]

    /// Wraps bytes that are known to be a valid multihash.
    package init(uncheckedBytes bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// The ID of the owner of `key`.
    public init(_ key: PublicKey) {
        if key.encoded.count <= 42 {
            self.bytes = [0x00, UInt8(key.encoded.count)] + key.encoded
        } else {
            self.bytes = [0x12, 0x20] + Array(SHA256.hash(data: key.encoded))
        }
    }

    /// Lexicographic order of the bytes.
    public static func < (a: PeerID, b: PeerID) -> Bool { a.bytes.lexicographicallyPrecedes(b.bytes) }
}
extension PeerID: CustomStringConvertible { public var description: String { "" } }
