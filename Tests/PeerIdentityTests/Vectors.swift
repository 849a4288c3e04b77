import Foundation

/// Values made by other implementations, from `Tests/Vectors/libp2p-vectors.json`, which names each one's source.
struct Vectors: Decodable {
    struct Keys: Decodable {
        var items: [String: Key]
    }

    struct Key: Decodable {
        var `private`: Hex
        var `public`: Hex
        var peerId: String
        var peerIdHex: Hex
        var peerIdCidBase32: String
    }

    struct Certificates: Decodable {
        var items: [Certificate]
    }

    struct Certificate: Decodable {
        var name: String
        var derHex: Hex
        var expectedPeerId: String?
        var peerId: String?
        var valid: Bool
    }

    struct EnvelopeBuffer: Decodable {
        var domain: String
        var payloadTypeHex: Hex
        var payloadHex: Hex
        var bufferHex: Hex
    }

    struct PeerIDText: Decodable {
        var cidBase32: String
        var sameBase58: String
        var autotlsBase36Of: String
        var autotlsBase36: String
    }

    var keys: Keys
    var tlsCertificates: Certificates
    var tlsCertificatesCriticalExt: Certificates
    var envelopeSigningBuffer: EnvelopeBuffer
    var peerIdText: PeerIDText

    static func load(file: String = #filePath) throws -> Vectors {
        let url = URL(fileURLWithPath: file).deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("Vectors/libp2p-vectors.json")
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(Vectors.self, from: Data(contentsOf: url))
    }
}

/// Bytes written as hexadecimal text.
struct Hex: Decodable, ExpressibleByStringLiteral {
    struct Malformed: Error {
        var text: String
    }

    var bytes: [UInt8]

    init(_ text: String) throws {
        let digits = text.compactMap { $0.hexDigitValue }
        guard digits.count == text.count, digits.count.isMultiple(of: 2) else { throw Malformed(text: text) }
        self.bytes = stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
    }

    init(from decoder: any Decoder) throws {
        try self.init(decoder.singleValueContainer().decode(String.self))
    }

    init(stringLiteral text: String) {
        self.bytes = (try? Hex(text))?.bytes ?? []
    }
}

/// The same random numbers in every run.
struct SplitMix64: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) {
        self.state = seed
    }

    mutating func next() -> UInt64 {
        self.state &+= 0x9e37_79b9_7f4a_7c15
        var z = self.state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    mutating func bytes(_ count: Int) -> [UInt8] {
        (0..<count).map { _ in UInt8.random(in: .min ... .max, using: &self) }
    }
}
