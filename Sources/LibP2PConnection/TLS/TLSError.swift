package import LibP2PCore

/// Why a TLS handshake or a connection secured by TLS ended.
package enum TLSError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The remote's certificate does not prove who it is.
    case badCertificate(PeerCertificateError)
    /// Both sides named what they want to speak above TLS, and nothing is on both lists.
    case noCommonProtocol(ours: [ProtocolID])
    /// The remote chose something to speak above TLS that was not offered.
    case unexpectedProtocol(ProtocolID)
    /// One side does not speak TLS 1.3.
    case wrongVersion
    /// No cipher, group or signature that both sides know.
    case noCommonParameters
    /// A record fails authentication: damaged, replayed, or out of order.
    case recordNotAuthentic
    /// What arrived is not TLS, or not what TLS allows at this point; `reason` in the library's words.
    case malformed(reason: String)
    /// The remote gave up, and said why with an alert of this number (RFC 8446 § 6).
    case refused(alert: UInt8)
    /// The stream ended before the handshake did.
    case handshakeCutOff
    /// The stream ended without the remote's close_notify: what it last sent may be missing.
    case truncated
    /// The library could not do its part; `reason` in its words.
    case engineFailed(reason: String)

    /// For people.
    package var description: String {
        switch self {
        case .badCertificate(let error): "\(error)"
        case .noCommonProtocol(let ours): "the remote speaks none of \(ours) above TLS"
        case .unexpectedProtocol(let found): "the remote chose \(found), which was not offered"
        case .wrongVersion: "one side does not speak TLS 1.3"
        case .noCommonParameters: "no common cipher, group or signature"
        case .recordNotAuthentic: "a record is not authentic"
        case .malformed(let reason): "not what TLS allows: \(reason)"
        case .refused(let alert): "the remote refused with TLS alert \(alert)"
        case .handshakeCutOff: "the stream ended within the TLS handshake"
        case .truncated: "the stream was cut off"
        case .engineFailed(let reason): "the TLS library failed: \(reason)"
        }
    }
}
