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

    /// Lexicographic order of the bytes.
    public static func < (a: PeerID, b: PeerID) -> Bool { a.bytes.lexicographicallyPrecedes(b.bytes) }
}
