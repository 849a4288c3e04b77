import COpenSSL
import LibP2PCore
import Multiformats
import NIOCore

/// What all TLS connections to web servers, or of one web server, have in common: TLS 1.2 and 1.3, ciphers with authentication and forward
/// secrecy, no resumption.
final class WebTLSContext: @unchecked Sendable {
    // Not `Sendable` by the compiler's rules: OpenSSL shares a context between threads as long as nobody changes it, and nobody does.

    /// Whom a server's certificate must name.
    enum ServerName: Hashable, Sendable {
        case name(String)
        /// Where nobody has said a name.
        case address(IPAddress)

        /// Has `ssl` ask for this server, and insist on it; false when OpenSSL does not want to.
        func isRequired(by ssl: OpaquePointer) -> Bool {
            switch self {
            case .name(let name):
                SSL_set_hostflags(ssl, UInt32(X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS))
                let isSent = name.withCString { pointer in
                    SSL_ctrl(
                        ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, Int(TLSEXT_NAMETYPE_host_name),
                        UnsafeMutableRawPointer(mutating: pointer)) == 1
                }
                return isSent && SSL_set1_host(ssl, name) == 1
            case .address(let ip):
                return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), ip.description) == 1
            }
        }
    }

    private static let ciphers = "ECDHE+AESGCM:ECDHE+CHACHA20"

    let pointer: OpaquePointer

    private init() throws(WebCertificateError) {
        ERR_clear_error()
        guard let context = SSL_CTX_new(TLS_method()) else {
            throw .engineFailed(reason: OpenSSLErrors.takeReason())
        }
        self.pointer = context
        SSL_CTX_set_options(context, copenssl_web_options())
        SSL_CTX_ctrl(context, SSL_CTRL_SET_SESS_CACHE_MODE, Int(SSL_SESS_CACHE_OFF), nil)
        guard SSL_CTX_ctrl(context, SSL_CTRL_SET_MIN_PROTO_VERSION, Int(TLS1_2_VERSION), nil) == 1,
            SSL_CTX_set_cipher_list(context, Self.ciphers) == 1, SSL_CTX_set_num_tickets(context, 0) == 1
        else { throw .engineFailed(reason: OpenSSLErrors.takeReason()) }
    }

    /// For a server.
    convenience init(chain: String, key: String) throws(WebCertificateError) {
        try self.init()
        let certificates = try Self.certificates(in: chain)
        defer { for certificate in certificates { X509_free(certificate) } }
        guard let own = certificates.first else { throw .malformedCertificate(reason: "there is none") }
        let privateKey = try Self.privateKey(in: key)
        defer { EVP_PKEY_free(privateKey) }
        ERR_clear_error()
        guard SSL_CTX_use_certificate(self.pointer, own) == 1 else {
            throw .malformedCertificate(reason: OpenSSLErrors.takeReason())
        }
        for certificate in certificates.dropFirst() {
            // 1: the context holds the certificate for itself.
            let added = SSL_CTX_ctrl(self.pointer, SSL_CTRL_CHAIN_CERT, 1, UnsafeMutableRawPointer(certificate))
            guard added == 1 else { throw .malformedCertificate(reason: OpenSSLErrors.takeReason()) }
        }
        guard SSL_CTX_use_PrivateKey(self.pointer, privateKey) == 1, SSL_CTX_check_private_key(self.pointer) == 1
        else {
            ERR_clear_error()
            throw .keyMismatch
        }
    }

    /// For those who dial servers.
    convenience init(usesSystemRoots: Bool, roots: String, acceptsSelfSigned: Bool) throws(WebCertificateError) {
        try self.init()
        ERR_clear_error()
        if usesSystemRoots, SSL_CTX_set_default_verify_paths(self.pointer) != 1 {
            throw .engineFailed(reason: OpenSSLErrors.takeReason())
        }
        if !roots.isEmpty {
            let certificates = try Self.certificates(in: roots)
            defer { for certificate in certificates { X509_free(certificate) } }
            for certificate in certificates
            where X509_STORE_add_cert(SSL_CTX_get_cert_store(self.pointer), certificate) != 1 {
                throw .malformedCertificate(reason: OpenSSLErrors.takeReason())
            }
        }
        guard acceptsSelfSigned else {
            SSL_CTX_set_verify(self.pointer, SSL_VERIFY_PEER, nil)
            return
        }
        SSL_CTX_set_verify(
            self.pointer, SSL_VERIFY_PEER,
            { isFine, store in
                guard isFine == 0, X509_STORE_CTX_get_error(store) == X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT else {
                    return isFine
                }
                X509_STORE_CTX_set_error(store, X509_V_OK)
                return 1
            })
    }

    deinit { SSL_CTX_free(self.pointer) }

    // MARK: PEM

    /// The most certificates read from one text.
    private static let maximumCertificates = 1024

    /// All certificates in a text, to be freed by the caller.
    private static func certificates(in pem: String) throws(WebCertificateError) -> [OpaquePointer] {
        var certificates: [OpaquePointer] = []
        let reason: String? = self.withBIO(pem) { bio in
            while certificates.count < Self.maximumCertificates, let certificate = PEM_read_bio_X509(bio, nil, nil, nil)
            {
                certificates.append(certificate)
            }
            let code = ERR_peek_last_error()
            let isAtEnd = ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE
            return isAtEnd && !certificates.isEmpty ? nil : OpenSSLErrors.takeReason()
        }
        ERR_clear_error()
        guard let reason else { return certificates }
        for certificate in certificates { X509_free(certificate) }
        throw .malformedCertificate(reason: reason)
    }

    /// The private key in a text, to be freed by the caller.
    private static func privateKey(in pem: String) throws(WebCertificateError) -> OpaquePointer {
        var key: OpaquePointer?
        let reason: String? = self.withBIO(pem) { bio in
            // Nobody is there to be asked for a password.
            key = PEM_read_bio_PrivateKey(bio, nil, { _, _, _, _ in -1 }, nil)
            return key == nil ? OpenSSLErrors.takeReason() : nil
        }
        guard let key else { throw .malformedKey(reason: reason ?? "") }
        return key
    }

    private static func withBIO(_ text: String, _ body: (OpaquePointer) -> String?) -> String? {
        ERR_clear_error()
        return Array(text.utf8).withUnsafeBytes { bytes -> String? in
            guard let bio = BIO_new_mem_buf(bytes.baseAddress, Int32(clamping: bytes.count)) else {
                return OpenSSLErrors.takeReason()
            }
            defer { BIO_free(bio) }
            return body(bio)
        }
    }
}

/// The handshake of a ``TLSSession`` of the web.
struct WebTLSOpening: OpeningMachine, @unchecked Sendable {
    // Not `Sendable` by the compiler's rules: it goes to the stream's event loop, and stays there.

    /// What protects the stream once the handshake is over.
    let session: TLSSession

    func start() -> ByteBuffer? {
        // A client speaks first. What goes wrong here goes wrong again with the first input.
        if case .send(let bytes) = self.session.receiveWeb(ByteBuffer()) { bytes } else { nil }
    }

    func receive(_ bytes: ByteBuffer) -> OpeningAction<Opened, WebTLSError> { self.session.receiveWeb(bytes) }

    func cutOff() -> WebTLSError { .cutOff }
}

/// Why a TLS connection of the web could not be made.
package enum WebTLSError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The server's certificate names another.
    case wrongName
    /// The server's certificate is valid no more.
    case expired
    /// The server's certificate is not valid yet.
    case notYetValid
    /// The server's certificate comes from nobody but its own key.
    case selfSigned
    /// No authority that we know stands behind the server's certificate.
    case unknownAuthority
    /// The server's certificate is not in order for another reason.
    case badCertificate(reason: String)
    /// The protocol itself failed.
    case handshake(TLSError)
    /// The connection ended within the handshake.
    case cutOff

    /// What the verification of a server's certificate came to; `nil` where nothing was wrong.
    init?(verification code: Int) {
        guard let code = Int32(exactly: code), code != X509_V_OK else { return nil }
        switch code {
        case X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH: self = .wrongName
        case X509_V_ERR_CERT_HAS_EXPIRED: self = .expired
        case X509_V_ERR_CERT_NOT_YET_VALID: self = .notYetValid
        case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT: self = .selfSigned
        case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT,
            X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
            self = .unknownAuthority
        default: self = .badCertificate(reason: String(cString: X509_verify_cert_error_string(Int(code))))
        }
    }

    /// For people.
    package var description: String {
        switch self {
        case .wrongName: "the server's certificate is for another name"
        case .expired: "the server's certificate has expired"
        case .notYetValid: "the server's certificate is not valid yet"
        case .selfSigned: "the server has signed its certificate itself"
        case .unknownAuthority: "no known authority has signed the server's certificate"
        case .badCertificate(let reason): "the server's certificate: \(reason)"
        case .handshake(let error): "\(error)"
        case .cutOff: "the connection ended within the TLS handshake"
        }
    }
}
