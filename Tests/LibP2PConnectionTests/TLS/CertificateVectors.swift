import Foundation

/// Certificates of other implementations, from `Tests/Vectors`, whose files name each one's source.
struct CertificateVector: Decodable, Sendable, CustomStringConvertible {
    let name: String?
    let algorithm: String?
    let derHex: String
    let expectedPeerId: String?
    let peerId: String?
    let valid: Bool?

    var description: String { self.name ?? self.algorithm ?? "" }

    var der: [UInt8] { bytes(self.derHex) }

    /// Who the certificate proves to be there; `nil` when it proves nothing.
    var provenPeer: String? { self.valid == true ? self.expectedPeerId ?? self.peerId : nil }

    /// Those of the specification, and those with the critical flag set.
    static let libp2p: [CertificateVector] = {
        guard let file: LibP2P = load("libp2p-vectors.json") else { return [] }
        return file.tlsCertificates.items + file.tlsCertificatesCriticalExt.items
    }()

    /// One of each kind of certificate key.
    static let keys: [CertificateVector] = {
        let file: Keys? = load("tls-vectors.json")
        return file?.certificateKeys ?? []
    }()

    /// Certificates with keys that are not accepted.
    static let odd: [CertificateVector] = {
        let file: Keys? = load("tls-vectors.json")
        return file?.oddCertificates ?? []
    }()

    private struct LibP2P: Decodable {
        struct Items: Decodable {
            let items: [CertificateVector]
        }

        let tlsCertificates: Items
        let tlsCertificatesCriticalExt: Items
    }

    private struct Keys: Decodable {
        let certificateKeys: [CertificateVector]
        let oddCertificates: [CertificateVector]
    }

    private static func load<File: Decodable>(_ name: String, file: String = #filePath) -> File? {
        let url = URL(fileURLWithPath: file).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("Vectors/\(name)")
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try? decoder.decode(File.self, from: Data(contentsOf: url))
    }
}
