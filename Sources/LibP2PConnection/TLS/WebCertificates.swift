internal import COpenSSL

#if canImport(Glibc)
    internal import Glibc
#endif

/// What a web server shows of itself: its certificate, those that lead from it to an authority, and its key.
public struct WebCertificate: Sendable {
    let context: WebTLSContext

    /// - Parameters:
    ///   - chain: Certificates in PEM, the server's own first.
    ///   - key: Its private key in PEM, not encrypted.
    public init(chain: String, key: String) throws(WebCertificateError) {
        self.context = try WebTLSContext(chain: chain, key: key)
    }

    /// Reads both from files, once.
    public init(chainFile: String, keyFile: String) throws(WebCertificateError) {
        try self.init(chain: try Self.read(chainFile), key: try Self.read(keyFile))
    }

    /// The longest file read, in bytes.
    private static let maximumFileBytes = 1 << 20

    private static func read(_ path: String) throws(WebCertificateError) -> String {
        guard let file = fopen(path, "re") else {
            throw .unreadable(path: path, reason: String(cString: strerror(errno)))
        }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: Self.maximumFileBytes + 1)
        let count = fread(&bytes, 1, bytes.count, file)
        guard ferror(file) == 0 else { throw .unreadable(path: path, reason: String(cString: strerror(errno))) }
        guard count <= Self.maximumFileBytes else { throw .unreadable(path: path, reason: "too long") }
        return String(decoding: bytes.prefix(count), as: UTF8.self)
    }
}

/// Which web servers are believed: those whose certificate comes from a known authority, names them, and is valid now.
///
/// Who is behind a WebSocket is proven within it, by libp2p's own security. This here is for the way there: that nobody between reads along,
/// and that the network takes it for any other traffic of the web.
public struct WebTrust: Sendable {
    let context: WebTLSContext

    /// - Parameters:
    ///   - usesSystemRoots: Whether the system's authorities are known.
    ///   - roots: Others, certificates in PEM.
    ///   - acceptsSelfSigned: Whether a certificate may also come from nobody but its own key. Name and dates count all the same.
    public init(
        usesSystemRoots: Bool = true, roots: String = "", acceptsSelfSigned: Bool = false
    ) throws(WebCertificateError) {
        self.context = try WebTLSContext(
            usesSystemRoots: usesSystemRoots, roots: roots, acceptsSelfSigned: acceptsSelfSigned)
    }
}

/// Why certificates given to us cannot be used.
public enum WebCertificateError: Error, Hashable, Sendable, CustomStringConvertible {
    /// A file cannot be read.
    case unreadable(path: String, reason: String)
    /// There is no certificate in PEM, or one that cannot be read.
    case malformedCertificate(reason: String)
    /// There is no private key in PEM, or it cannot be read, as when it is encrypted.
    case malformedKey(reason: String)
    /// The key is not that of the first certificate.
    case keyMismatch
    /// The library could not do its part.
    case engineFailed(reason: String)

    /// For people.
    public var description: String {
        switch self {
        case .unreadable(let path, let reason): "\(path) cannot be read: \(reason)"
        case .malformedCertificate(let reason): "not a certificate in PEM: \(reason)"
        case .malformedKey(let reason): "not a private key in PEM: \(reason)"
        case .keyMismatch: "the key is not that of the first certificate"
        case .engineFailed(let reason): "the TLS library failed: \(reason)"
        }
    }
}
