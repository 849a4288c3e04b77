/// Why a QUIC connection could not be made, or has ended. What the remote's application gave as its reason is a
/// `ConnectionClosedError`.
public enum QUICError: Error, Hashable, Sendable, CustomStringConvertible {
    /// No key for the handshake, as the TLS library says.
    case credentials(reason: String)
    /// The TLS handshake failed on our side; the alert that the remote was sent. RFC 8446 § 6.
    case handshakeFailed(alert: UInt8)
    /// The remote's certificate is not that of a libp2p peer.
    case badCertificate(reason: String)
    /// The remote ended the connection beneath the application: a code of RFC 9000 § 20.1, and what it said.
    case closedByRemote(code: UInt64, reason: String)
    /// The remote speaks other versions of QUIC only.
    case noCommonVersion
    /// The remote broke the protocol, or something of ours failed; the QUIC library's words.
    case failed(reason: String)
    /// Nothing was heard from the remote for too long.
    case idle
    /// The remote no longer knows the connection.
    case reset
    /// The socket is closed.
    case socketClosed
    /// The socket could not be made or used; the system's number.
    case system(call: String, errno: Int32)

    /// For people.
    public var description: String {
        switch self {
        case .credentials(let reason): "no TLS credentials: \(reason)"
        case .handshakeFailed(let alert): "the TLS handshake failed (alert \(alert))"
        case .badCertificate(let reason): "the remote's certificate is not that of a libp2p peer: \(reason)"
        case .closedByRemote(let code, let reason):
            "the remote ended the connection (code 0x\(String(code, radix: 16)))\(reason.isEmpty ? "" : ": \(reason)")"
        case .noCommonVersion: "the remote speaks other versions of QUIC"
        case .failed(let reason): "QUIC: \(reason)"
        case .idle: "nothing was heard for too long"
        case .reset: "the remote no longer knows the connection"
        case .socketClosed: "the socket is closed"
        case .system(let call, let errno): "\(call): error \(errno)"
        }
    }
}
