package import FoundationEssentials
package import PeerIdentity

/// Why a certificate does not prove who a peer is, or could not be made.
package enum PeerCertificateError: Error, Hashable, Sendable, CustomStringConvertible {
    /// A chain must be one certificate.
    case wrongChainLength(Int)
    /// Longer than any certificate that is accepted.
    case tooLong(bytes: Int, maximum: Int)
    /// Not the DER of an X.509 certificate, version 3.
    case malformed
    /// The certificate's own key is of a kind, or on a curve, that TLS 1.3 knows no signature of.
    case unsupportedKey
    /// The certificate's own key, or the hash it was signed with, is too weak, or the key is larger than accepted.
    case keyOutOfRange(bits: Int, securityBits: Int)
    /// The validity period begins later.
    case notYetValid(notBefore: Date)
    /// The validity period is over.
    case expired(notAfter: Date)
    /// A critical extension that is not understood; `oid` in dots.
    case unknownCriticalExtension(oid: String)
    /// The same extension twice; `oid` in dots.
    case repeatedExtension(oid: String)
    /// There is no libp2p extension.
    case noPeerExtension
    /// The libp2p extension does not hold a key and a signature.
    case malformedPeerExtension
    /// The identity key in the libp2p extension is none.
    case invalidIdentityKey(KeyError)
    /// The certificate was not signed with its own key.
    case invalidSelfSignature
    /// The identity key has not signed the certificate's key.
    case invalidIdentitySignature
    /// Our own identity key cannot sign.
    case signingFailed(KeyError)
    /// The libraries would not make a certificate.
    case creationFailed

    /// For people.
    package var description: String {
        switch self {
        case .wrongChainLength(let count): "\(count) certificates instead of one"
        case .tooLong(let bytes, let maximum): "the certificate has \(bytes) bytes; at most \(maximum) are accepted"
        case .malformed: "the certificate is malformed"
        case .unsupportedKey: "the certificate's key is of an unsupported kind"
        case .keyOutOfRange(let bits, let security):
            "the certificate's key has \(bits) bits, its signature a strength of \(security) bits"
        case .notYetValid(let notBefore): "the certificate is not valid before \(notBefore.formatted(.iso8601))"
        case .expired(let notAfter): "the certificate has expired on \(notAfter.formatted(.iso8601))"
        case .unknownCriticalExtension(let oid): "the certificate has a critical extension \(oid), which is unknown"
        case .repeatedExtension(let oid): "the certificate has the extension \(oid) more than once"
        case .noPeerExtension: "the certificate has no libp2p extension"
        case .malformedPeerExtension: "the certificate's libp2p extension is malformed"
        case .invalidIdentityKey(let error): "the certificate's identity key is invalid: \(error)"
        case .invalidSelfSignature: "the certificate was not signed with its own key"
        case .invalidIdentitySignature: "the identity key has not signed the certificate's key"
        case .signingFailed(let error): "the identity key cannot sign: \(error)"
        case .creationFailed: "no certificate could be made"
        }
    }
}
