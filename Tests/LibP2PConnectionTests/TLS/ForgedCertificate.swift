import Crypto
import Foundation
import LibP2PConnection
import PeerIdentity
import SwiftASN1
import X509

/// Makes certificates that differ in any one respect from those that ``PeerCertificate`` makes.
struct ForgedCertificate {
    var identity: PeerIdentity.PrivateKey
    var key = Certificate.PrivateKey(P256.Signing.PrivateKey())
    /// Who signs; the key itself when `nil`.
    var issuer: Certificate.PrivateKey?
    var notBefore = Date(timeIntervalSince1970: 1_700_000_000)
    var notAfter = Date(timeIntervalSince1970: 5_000_000_000)
    var isCritical = false
    /// What the identity key signs before the key.
    var prefix = "libp2p-tls-handshake:"
    /// The value of the libp2p extension, when it is to be another than the right one.
    var proof: [UInt8]?
    /// Whether the libp2p extension is there at all.
    var hasProof = true
    /// Extensions behind that one.
    var others: [Certificate.Extension] = []

    static let oid: ASN1ObjectIdentifier = [1, 3, 6, 1, 4, 1, 53594, 1, 1]

    func der() throws -> [UInt8] {
        var extensions = self.others
        if self.hasProof {
            let value = try self.proof ?? self.rightProof()
            extensions.insert(.init(oid: Self.oid, critical: self.isCritical, value: value[...]), at: 0)
        }
        let certificate = try Certificate(
            version: .v3, serialNumber: .init(), publicKey: self.key.publicKey,
            notValidBefore: self.notBefore, notValidAfter: self.notAfter,
            issuer: DistinguishedName(), subject: DistinguishedName(),
            extensions: .init(extensions), issuerPrivateKey: self.issuer ?? self.key)
        var serializer = DER.Serializer()
        try serializer.serialize(certificate)
        return serializer.serializedBytes
    }

    func rightProof() throws -> [UInt8] {
        var key = DER.Serializer()
        try key.serialize(self.key.publicKey)
        let signature = try self.identity.sign(Array(self.prefix.utf8) + key.serializedBytes)
        return try Self.proof(key: self.identity.publicKey.encoded, signature: signature)
    }

    static func proof(key: [UInt8], signature: [UInt8]) throws -> [UInt8] {
        var serializer = DER.Serializer()
        try serializer.appendConstructedNode(identifier: .sequence) { serializer in
            try serializer.serialize(ASN1OctetString(contentBytes: key[...]))
            try serializer.serialize(ASN1OctetString(contentBytes: signature[...]))
        }
        return serializer.serializedBytes
    }
}
