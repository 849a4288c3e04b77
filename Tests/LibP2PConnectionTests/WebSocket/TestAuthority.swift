import Crypto
import Foundation
import LibP2PConnection
import SwiftASN1
import X509

/// An authority of the test's own, and the web servers' certificates that it signs.
struct TestAuthority {
    let key = Certificate.PrivateKey(P256.Signing.PrivateKey())
    let certificate: Certificate
    let name: DistinguishedName

    static let longAgo = Date(timeIntervalSince1970: 1_500_000_000)
    static let farAhead = Date(timeIntervalSince1970: 4_000_000_000)

    init() throws {
        self.name = try DistinguishedName { CommonName("authority \(UUID())") }
        self.certificate = try Certificate(
            version: .v3, serialNumber: .init(), publicKey: self.key.publicKey, notValidBefore: Self.longAgo,
            notValidAfter: Self.farAhead, issuer: self.name, subject: self.name,
            extensions: Certificate.Extensions {
                Critical(BasicConstraints.isCertificateAuthority(maxPathLength: nil))
                Critical(KeyUsage(keyCertSign: true))
            }, issuerPrivateKey: self.key)
    }

    /// In PEM.
    var root: String { get throws { try self.certificate.serializeAsPEM().pemString } }

    func trust(acceptsSelfSigned: Bool = false) throws -> WebTrust {
        try WebTrust(usesSystemRoots: false, roots: try self.root, acceptsSelfSigned: acceptsSelfSigned)
    }

    /// What is to be different from a certificate that is in order.
    struct Leaf {
        var names = ["a.example"]
        var addresses: [[UInt8]] = []
        var notBefore = TestAuthority.longAgo
        var notAfter = TestAuthority.farAhead
        var isSelfSigned = false
    }

    /// Certificate and key, in PEM.
    func issue(_ leaf: Leaf = Leaf()) throws -> (chain: String, key: String) {
        let privateKey = P256.Signing.PrivateKey()
        let key = Certificate.PrivateKey(privateKey)
        let subject = try DistinguishedName { CommonName("server") }
        let alternatives =
            leaf.names.map { GeneralName.dnsName($0) }
            + leaf.addresses.map { GeneralName.ipAddress(ASN1OctetString(contentBytes: $0[...])) }
        let certificate = try Certificate(
            version: .v3, serialNumber: .init(), publicKey: key.publicKey, notValidBefore: leaf.notBefore,
            notValidAfter: leaf.notAfter, issuer: leaf.isSelfSigned ? subject : self.name, subject: subject,
            extensions: Certificate.Extensions { SubjectAlternativeNames(alternatives) },
            issuerPrivateKey: leaf.isSelfSigned ? key : self.key)
        return (try certificate.serializeAsPEM().pemString, privateKey.pemRepresentation)
    }

    func certificate(_ leaf: Leaf = Leaf()) throws -> WebCertificate {
        let (chain, key) = try self.issue(leaf)
        return try WebCertificate(chain: chain, key: key)
    }
}
