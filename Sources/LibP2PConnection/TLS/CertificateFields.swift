import FoundationEssentials
import SwiftASN1
import X509

#if canImport(Glibc)
    import Glibc
#endif

/// What matters in a certificate, read from its DER without a look at who signed it.
///
/// The certificate type of swift-certificates is not used for this: it reads no certificate that is signed with RSA-PSS, which
/// RFC 8446 § 9.1 makes mandatory, nor one with an Ed448 key; and it would give the key as it writes it itself, not as it stood.
///
/// Spec: RFC 5280 § 4.1.
struct CertificateFields {
    let notBefore: Date
    let notAfter: Date
    /// The SubjectPublicKeyInfo, DER, byte for byte.
    let publicKeyInfo: [UInt8]
    /// Whether TLS 1.3 has signatures by keys of this kind.
    let hasSupportedKey: Bool
    let extensions: [Certificate.Extension]

    init(derEncoded der: [UInt8]) throws {
        self = try DER.sequence(DER.parse(der), identifier: .sequence) { nodes in
            let fields = try Self(toBeSigned: &nodes)
            try Self.skip(.sequence, in: &nodes)  // signatureAlgorithm
            try Self.skip(.bitString, in: &nodes)  // signatureValue
            return fields
        }
    }

    private init(toBeSigned outer: inout ASN1NodeCollection.Iterator) throws {
        guard let node = outer.next() else { throw Malformed() }
        self = try DER.sequence(node, identifier: .sequence) { nodes in
            let version = try DER.explicitlyTagged(&nodes, tagNumber: 0, tagClass: .contextSpecific) {
                try Int(derEncoded: $0)
            }
            guard version == 2 else { throw Malformed() }
            try Self.skip(.integer, in: &nodes)  // serialNumber
            try Self.skip(.sequence, in: &nodes)  // signature
            try Self.skip(.sequence, in: &nodes)  // issuer
            let (notBefore, notAfter) = try Self.validity(&nodes)
            try Self.skip(.sequence, in: &nodes)  // subject
            guard let key = nodes.next() else { throw Malformed() }
            for tagNumber in UInt(1)...2 {  // issuerUniqueID, subjectUniqueID
                let tag = ASN1Identifier(tagWithNumber: tagNumber, tagClass: .contextSpecific)
                let _: ASN1BitString? = try DER.optionalImplicitlyTagged(&nodes, tag: tag)
            }
            let extensions = try DER.optionalExplicitlyTagged(&nodes, tagNumber: 3, tagClass: .contextSpecific) {
                try Self.extensions($0)
            }
            return Self(
                notBefore: notBefore, notAfter: notAfter, publicKeyInfo: Array(key.encodedBytes),
                hasSupportedKey: try Self.isSupportedKey(key), extensions: extensions ?? [])
        }
    }

    private init(
        notBefore: Date, notAfter: Date, publicKeyInfo: [UInt8], hasSupportedKey: Bool,
        extensions: [Certificate.Extension]
    ) {
        self.notBefore = notBefore
        self.notAfter = notAfter
        self.publicKeyInfo = publicKeyInfo
        self.hasSupportedKey = hasSupportedKey
        self.extensions = extensions
    }

    private struct Malformed: Error {}

    private static func skip(_ kind: ASN1Identifier, in nodes: inout ASN1NodeCollection.Iterator) throws {
        guard nodes.next()?.identifier == kind else { throw Malformed() }
    }

    private static func validity(_ nodes: inout ASN1NodeCollection.Iterator) throws -> (Date, Date) {
        guard let node = nodes.next() else { throw Malformed() }
        return try DER.sequence(node, identifier: .sequence) { nodes in
            guard let notBefore = nodes.next(), let notAfter = nodes.next() else { throw Malformed() }
            return (try Date(certificateTime: notBefore), try Date(certificateTime: notAfter))
        }
    }

    private static func extensions(_ node: ASN1Node) throws -> [Certificate.Extension] {
        try DER.sequence(node, identifier: .sequence) { nodes in
            var extensions: [Certificate.Extension] = []
            while let node = nodes.next() {
                let one = try DER.sequence(node, identifier: .sequence) { nodes in
                    let oid = try ASN1ObjectIdentifier(derEncoded: &nodes)
                    let isCritical = try DER.decodeDefault(&nodes, defaultValue: false)
                    let value = try ASN1OctetString(derEncoded: &nodes)
                    return Certificate.Extension(oid: oid, critical: isCritical, value: value.bytes)
                }
                extensions.append(one)
            }
            return extensions
        }
    }

    /// RSA, Ed25519, Ed448, and the NIST curves by name: a key that brings the parameters of its curve along is refused.
    ///
    /// Spec: RFC 8446 § 4.2.3.
    private static func isSupportedKey(_ node: ASN1Node) throws -> Bool {
        try DER.sequence(node, identifier: .sequence) { nodes in
            guard let algorithm = nodes.next() else { throw Malformed() }
            try Self.skip(.bitString, in: &nodes)
            return try DER.sequence(algorithm, identifier: .sequence) { nodes in
                let kind = try ASN1ObjectIdentifier(derEncoded: &nodes)
                let parameters = nodes.next()
                guard kind == Self.ellipticCurve else { return Self.otherKeys.contains(kind) }
                guard let parameters, parameters.identifier == .objectIdentifier else { return false }
                return Self.curves.contains(try ASN1ObjectIdentifier(derEncoded: parameters))
            }
        }
    }

    private static let ellipticCurve: ASN1ObjectIdentifier = [1, 2, 840, 10045, 2, 1]
    /// P-256, P-384, P-521.
    private static let curves: Set<ASN1ObjectIdentifier> = [
        [1, 2, 840, 10045, 3, 1, 7], [1, 3, 132, 0, 34], [1, 3, 132, 0, 35],
    ]
    /// RSA, RSA-PSS, Ed25519, Ed448.
    private static let otherKeys: Set<ASN1ObjectIdentifier> = [
        [1, 2, 840, 113549, 1, 1, 1], [1, 2, 840, 113549, 1, 1, 10], [1, 3, 101, 112], [1, 3, 101, 113],
    ]
}

extension Date {
    /// Reads a UTCTime or a GeneralizedTime.
    fileprivate init(certificateTime node: ASN1Node) throws {
        var parts = tm()
        if node.identifier == .generalizedTime {
            let time = try GeneralizedTime(derEncoded: node)
            parts.setDay(time.year, time.month, time.day)
            parts.setTime(time.hours, time.minutes, time.seconds)
        } else {
            let time = try UTCTime(derEncoded: node)
            parts.setDay(time.year, time.month, time.day)
            parts.setTime(time.hours, time.minutes, time.seconds)
        }
        self.init(timeIntervalSince1970: TimeInterval(timegm(&parts)))
    }
}

extension tm {
    /// The year has four digits at most.
    fileprivate mutating func setDay(_ year: Int, _ month: Int, _ day: Int) {
        self.tm_year = Int32(truncatingIfNeeded: year - 1900)
        self.tm_mon = Int32(truncatingIfNeeded: month - 1)
        self.tm_mday = Int32(truncatingIfNeeded: day)
    }

    fileprivate mutating func setTime(_ hours: Int, _ minutes: Int, _ seconds: Int) {
        self.tm_hour = Int32(truncatingIfNeeded: hours)
        self.tm_min = Int32(truncatingIfNeeded: minutes)
        self.tm_sec = Int32(truncatingIfNeeded: seconds)
    }
}
