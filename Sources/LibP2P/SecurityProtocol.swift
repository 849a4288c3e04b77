internal import LibP2PConnection
internal import LibP2PCore
internal import PeerIdentity

/// How a connection that is not secure by itself is encrypted, and its ends proven.
public enum SecurityProtocol: Hashable, Sendable, CaseIterable {
    /// TLS 1.3, `/tls/1.0.0`: AES where both sides have instructions for it.
    case tls
    /// Noise, `/noise`: always ChaCha20.
    case noise

    /// Both, the cheaper one on this processor first.
    public static let preferred: [SecurityProtocol] = HardwareAES.isFast ? [.tls, .noise] : [.noise, .tls]

    func upgrader(for identity: PrivateKey) -> any SecurityUpgrader {
        switch self {
        case .tls: TLSUpgrader(identity: identity)
        case .noise: NoiseUpgrader(identity: identity)
        }
    }
}
