/// What WebSockets within TLS need.
public struct WebSocketOptions: Sendable {
    /// What listeners show; without one there are none within TLS.
    public var certificate: WebCertificate?
    /// Which servers dials believe; those of the system's authorities when `nil`.
    public var trust: WebTrust?

    /// Nothing to show, and trust in the system's authorities.
    public init(certificate: WebCertificate? = nil, trust: WebTrust? = nil) {
        self.certificate = certificate
        self.trust = trust
    }
}
