/// A code of the multicodec table. Any number is a legal code; the ones this stack uses have names here.
///
/// Spec: `multiformats/multicodec`, `table.csv`.
public struct Multicodec: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    /// The code.
    public let rawValue: UInt64

    /// Wraps a code, known or not.
    public init(rawValue: UInt64) {
        self.rawValue = rawValue
    }

    /// Multihash: the data itself.
    public static let identity = Multicodec(rawValue: 0x00)
    /// Multihash: SHA-256.
    public static let sha256 = Multicodec(rawValue: 0x12)
    /// Multihash: SHA-512.
    public static let sha512 = Multicodec(rawValue: 0x13)
    /// CID version 1.
    public static let cidV1 = Multicodec(rawValue: 0x01)
    /// Content: raw bytes.
    public static let raw = Multicodec(rawValue: 0x55)
    /// Content: a MerkleDAG node in protobuf. What every CID of version 0 names.
    public static let dagPB = Multicodec(rawValue: 0x70)
    /// Content: a libp2p public key. The codec of a peer ID in CID form.
    public static let libp2pKey = Multicodec(rawValue: 0x72)
    /// Payload of a signed envelope: a peer record. There it travels as the two raw bytes `03 01`, not as ``bytes``.
    public static let libp2pPeerRecord = Multicodec(rawValue: 0x0301)
    /// Payload of a signed envelope: a relay voucher. There it travels as the two raw bytes `03 02`, not as ``bytes``.
    public static let libp2pRelayReservation = Multicodec(rawValue: 0x0302)

    /// The code as a varint.
    public var bytes: [UInt8] { Varint.encode(self.rawValue) }

    /// The name in the multicodec table; `nil` for codes this stack does not use.
    public var name: String? {
        switch self {
        case .identity: "identity"
        case .cidV1: "cidv1"
        case .sha256: "sha2-256"
        case .sha512: "sha2-512"
        case .raw: "raw"
        case .dagPB: "dag-pb"
        case .libp2pKey: "libp2p-key"
        case .libp2pPeerRecord: "libp2p-peer-record"
        case .libp2pRelayReservation: "libp2p-relay-rsvp"
        default: nil
        }
    }

    /// The name, or the code in hexadecimal.
    public var description: String { self.name ?? "0x" + String(self.rawValue, radix: 16) }
}
