import Foundation
import Multiformats

/// Test vectors in `Tests/Vectors`, found relative to this file.
enum Vectors {
    static let libp2p = Result { try Vectors.load(LibP2P.self, from: "libp2p-vectors.json") }
    static let multiformats = Result { try Vectors.load(MultiformatsFile.self, from: "multiformats-vectors.json") }

    /// The sections of `libp2p-vectors.json` that belong to this module.
    struct LibP2P: Decodable {
        struct Key: Decodable {
            let peerID: String
            let peerIDHex: String
            let peerIDCID: String

            enum CodingKeys: String, CodingKey {
                case peerID = "peer_id"
                case peerIDHex = "peer_id_hex"
                case peerIDCID = "peer_id_cid_base32"
            }
        }

        struct Keys: Decodable { let items: [String: Key] }
        struct Pairs: Decodable { let pairs: [String: String] }
        struct Items: Decodable { let items: [String] }

        struct PeerIDText: Decodable {
            let base32: String
            let base32AsBase58: String
            let base36: String
            let base36AsBase58: String

            enum CodingKeys: String, CodingKey {
                case base32 = "cid_base32"
                case base32AsBase58 = "same_base58"
                case base36 = "autotls_base36"
                case base36AsBase58 = "autotls_base36_of"
            }
        }

        let keys: Keys
        let multiaddrValid: Pairs
        let multiaddrInvalid: Items
        let multiaddrParseOK: [String]
        let uvarint: [String: String]
        let uvarintInvalid: [String]
        let peerIDText: PeerIDText

        enum CodingKeys: String, CodingKey {
            case keys, uvarint
            case multiaddrValid = "multiaddr_valid"
            case multiaddrInvalid = "multiaddr_invalid"
            case multiaddrParseOK = "multiaddr_parse_ok"
            case uvarintInvalid = "uvarint_invalid"
            case peerIDText = "peer_id_text"
        }
    }

    struct MultiformatsFile: Decodable {
        struct MultibaseFile: Decodable {
            struct Row: Decodable {
                let base: String
                let text: String
            }

            let name: String
            let decodedHex: String
            let canonical: Bool
            let rows: [Row]
        }

        struct MultihashCase: Decodable {
            let function: String
            let bits: Int
            let multihashHex: String
            let valid: Bool
        }

        struct CIDCase: Decodable {
            let v0: String?
            let codec: UInt64
            let base32: String?
            let base58btc: String?
            let digestHex: String?
        }

        struct Multibase: Decodable { let files: [MultibaseFile] }
        struct Multihash: Decodable { let items: [MultihashCase] }
        struct CIDs: Decodable { let items: [CIDCase] }

        struct Addresses: Decodable {
            let pairs: [String: String]
            let valid: [String]
            let invalid: [String]
        }

        struct Fuzz: Decodable {
            let bytesHex: [String]
            let textHex: [String]
        }

        let multibase: Multibase
        let multihash: Multihash
        let cid: CIDs
        let multiaddr: Addresses
        let multiaddrFuzz: Fuzz
    }

    private static func load<File: Decodable>(_ type: File.Type, from name: String) throws -> File {
        let tests = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        let decoder = JSONDecoder()
        if type == MultiformatsFile.self { decoder.keyDecodingStrategy = .convertFromSnakeCase }
        return try decoder.decode(type, from: Data(contentsOf: tests.appending(path: "Vectors/\(name)")))
    }
}

/// The bytes of hexadecimal text; `nil` when it is none.
func bytes(hex: String) -> [UInt8]? {
    let digits = hex.map(\.hexDigitValue)
    guard digits.count.isMultiple(of: 2) else { return nil }
    var bytes: [UInt8] = []
    for start in stride(from: 0, to: digits.count, by: 2) {
        guard let high = digits[start], let low = digits[start + 1] else { return nil }
        bytes.append(UInt8(high << 4 | low))
    }
    return bytes
}

/// A small generator with a seed, so that a failure can be repeated.
struct SplitMix64: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        self.state &+= 0x9e37_79b9_7f4a_7c15
        var value = self.state
        value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
        return value ^ value >> 31
    }

    mutating func bytes(_ count: Int) -> [UInt8] {
        (0..<count).map { _ in UInt8(truncatingIfNeeded: self.next()) }
    }
}
