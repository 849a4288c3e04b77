import Crypto
package import FoundationEssentials
package import PeerIdentity
import SwiftASN1
import X509

/// A certificate that says which peer its key works for, and that key. TLS over TCP and QUIC prove a peer's identity with it.
///
/// The certificate's own key is a fresh one. The identity key, which never meets TLS, signs it, and that signature lies with the
/// identity key in an extension. Whoever presents the certificate proves within the handshake that it has the certificate's key.
///
/// Spec: `tls/tls.md`.
package struct PeerCertificate: Sendable {
    /// The certificate, DER.
    package let certificate: [UInt8]
    /// Its private key, DER (PKCS #8). **Secret**.
    package let privateKey: [UInt8]

    /// The longest certificate that is accepted, in bytes. With the longest RSA keys and signatures in every place one stays
    /// below 6,000.
    package static let maximumBytes = 8192

    /// How long before its making a certificate is valid, for peers whose clocks are behind.
    static let clockTolerance: TimeInterval = 3600
    /// How long a certificate is valid: a hundred years of 365 days. It lives as long as the process, whose clock may be wrong.
    static let lifetime: TimeInterval = 100 * 365 * 86400

    /// Makes a certificate for a fresh ECDSA key on P-256, with a random serial number.
    ///
    /// - Parameter identity: Who we are; it vouches for the fresh key.
    /// - Throws: ``PeerCertificateError/signingFailed(_:)``, ``PeerCertificateError/creationFailed``.
    package static func make(identity: PeerIdentity.PrivateKey, now: Date = Date()) throws(PeerCertificateError) -> Self
    {
        let key = P256.Signing.PrivateKey()
        let signature: [UInt8]
        do {
            signature = try identity.sign(PeerExtension.signedBytes(for: Array(key.publicKey.derRepresentation)))
        } catch {
            throw .signingFailed(error)
        }
        do {
            let proof = try PeerExtension(identityKey: identity.publicKey.encoded, signature: signature).encoded()
            // RFC 5280 wants an issuer that is not empty.
            let name = try DistinguishedName { OrganizationName("libp2p.io") }
            let certificate = try Certificate(
                version: .v3, serialNumber: Certificate.SerialNumber(), publicKey: .init(key.publicKey),
                notValidBefore: now - Self.clockTolerance, notValidAfter: now + Self.lifetime,
                issuer: name, subject: name, signatureAlgorithm: .ecdsaWithSHA256,
                extensions: .init([.init(oid: PeerExtension.oid, critical: false, value: proof[...])]),
                issuerPrivateKey: .init(key))
            var serializer = DER.Serializer()
            try serializer.serialize(certificate)
            return PeerCertificate(
                certificate: serializer.serializedBytes, privateKey: Array(key.derRepresentation))
        } catch {
            throw .creationFailed
        }
    }

    /// Checks all that a chain of certificates from a peer must fulfil, and returns the peer's identity key.
    ///
    /// That the peer has the certificate's private key is for the TLS handshake to prove.
    ///
    /// - Parameters:
    ///   - chain: What the peer has sent, each certificate as DER. Exactly one is allowed.
    ///   - now: The time within the validity period.
    package static func verify(
        chainDER chain: [[UInt8]], now: Date = Date()
    ) throws(PeerCertificateError) -> PeerIdentity.PublicKey {
        guard chain.count == 1, let der = chain.first else { throw .wrongChainLength(chain.count) }
        guard der.count <= Self.maximumBytes else { throw .tooLong(bytes: der.count, maximum: Self.maximumBytes) }
        let fields: CertificateFields
        do {
            fields = try CertificateFields(derEncoded: der)
        } catch {
            throw .malformed
        }
        guard now >= fields.notBefore else { throw .notYetValid(notBefore: fields.notBefore) }
        guard now <= fields.notAfter else { throw .expired(notAfter: fields.notAfter) }
        let proof = try Self.peerExtension(among: fields.extensions)
        guard fields.hasSupportedKey else { throw .unsupportedKey }
        try SelfSignature.verify(der)

        let identity: PeerIdentity.PublicKey
        do {
            identity = try PeerIdentity.PublicKey(encoded: proof.identityKey)
        } catch {
            throw .invalidIdentityKey(error)
        }
        guard identity.isValidSignature(proof.signature, for: PeerExtension.signedBytes(for: fields.publicKeyInfo))
        else {
            throw .invalidIdentitySignature
        }
        return identity
    }

    private static func peerExtension(
        among extensions: [Certificate.Extension]
    ) throws(PeerCertificateError) -> PeerExtension {
        var proof: PeerExtension?
        var seen: Set<ASN1ObjectIdentifier> = []
        for found in extensions {
            guard seen.insert(found.oid).inserted else { throw .repeatedExtension(oid: found.oid.description) }
            if found.oid == PeerExtension.oid {
                guard let parsed = try? PeerExtension(derEncoded: found.value) else { throw .malformedPeerExtension }
                proof = parsed
            } else if found.critical {
                throw .unknownCriticalExtension(oid: found.oid.description)
            }
        }
        guard let proof else { throw .noPeerExtension }
        return proof
    }
}

/// The libp2p extension: the identity key, and its signature over the certificate's key.
///
/// Spec: `tls/tls.md` § libp2p Public Key Extension.
struct PeerExtension {
    static let oid: ASN1ObjectIdentifier = [1, 3, 6, 1, 4, 1, 53594, 1, 1]

    /// In the libp2p encoding.
    let identityKey: [UInt8]
    let signature: [UInt8]

    init(identityKey: [UInt8], signature: [UInt8]) {
        self.identityKey = identityKey
        self.signature = signature
    }

    init(derEncoded bytes: ArraySlice<UInt8>) throws {
        self = try DER.sequence(DER.parse(bytes), identifier: .sequence) { nodes in
            let identityKey = try ASN1OctetString(derEncoded: &nodes)
            let signature = try ASN1OctetString(derEncoded: &nodes)
            return PeerExtension(identityKey: Array(identityKey.bytes), signature: Array(signature.bytes))
        }
    }

    func encoded() throws -> [UInt8] {
        var serializer = DER.Serializer()
        try serializer.appendConstructedNode(identifier: .sequence) { serializer in
            try serializer.serialize(ASN1OctetString(contentBytes: self.identityKey[...]))
            try serializer.serialize(ASN1OctetString(contentBytes: self.signature[...]))
        }
        return serializer.serializedBytes
    }

    /// What the identity key signs.
    ///
    /// - Parameter publicKeyInfo: The certificate's key as it stands there: a SubjectPublicKeyInfo, DER.
    static func signedBytes(for publicKeyInfo: [UInt8]) -> [UInt8] {
        Array("libp2p-tls-handshake:".utf8) + publicKeyInfo
    }
}
