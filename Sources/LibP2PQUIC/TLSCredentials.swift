internal import CNgtcp2
internal import PeerIdentity

/// Our certificate and how the remote's is judged, as the TLS library takes them. Shared by all connections of a transport.
final class TLSCredentials: @unchecked Sendable {
    /// Judges the certificates that the remote has shown, first the one it has proven to own the key of.
    typealias Verifier = @Sendable (_ chain: [[UInt8]]) throws -> PeerID

    let verify: Verifier
    private let credentials: gnutls_certificate_credentials_t
    private let priorities: gnutls_priority_t

    /// TLS 1.3 alone, ciphers that QUIC has.
    private static let priorityText =
        "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:"
        + "-GROUP-ALL:+GROUP-X25519:+GROUP-SECP256R1:+GROUP-SECP384R1:%DISABLE_TLS13_COMPAT_MODE"

    /// - Parameters:
    ///   - certificate: DER.
    ///   - key: Its private key, PKCS#8 DER.
    init(certificate: [UInt8], key: [UInt8], verify: @escaping Verifier) throws(QUICError) {
        var credentials: gnutls_certificate_credentials_t?
        try Self.check(gnutls_certificate_allocate_credentials(&credentials))
        guard let credentials else { throw .credentials(reason: "none allocated") }
        var priorities: gnutls_priority_t?
        do throws(QUICError) {
            try Self.check(
                Self.withDatum(certificate) { certificate in
                    Self.withDatum(key) { key in
                        gnutls_certificate_set_x509_key_mem2(
                            credentials, certificate, key, GNUTLS_X509_FMT_DER, nil, GNUTLS_PKCS_PLAIN.rawValue)
                    }
                })
            try Self.check(gnutls_priority_init(&priorities, Self.priorityText, nil))
        } catch {
            gnutls_certificate_free_credentials(credentials)
            throw error
        }
        guard let priorities else {
            gnutls_certificate_free_credentials(credentials)
            throw .credentials(reason: "no priorities")
        }
        self.credentials = credentials
        self.priorities = priorities
        self.verify = verify
    }

    deinit {
        gnutls_priority_deinit(self.priorities)
        gnutls_certificate_free_credentials(self.credentials)
    }

    /// Prepares a handshake. The caller frees the session; `reference` must live as long.
    func makeSession(
        isServer: Bool, reference: UnsafeMutablePointer<ngtcp2_crypto_conn_ref>
    ) throws(QUICError) -> gnutls_session_t {
        var made: gnutls_session_t?
        try Self.check(gnutls_init(&made, cngtcp2_tls_flags(isServer)))
        guard let session = made else { throw .credentials(reason: "no session") }
        do throws(QUICError) {
            try Self.check(gnutls_priority_set(session, self.priorities))
            try Self.check(
                gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, UnsafeMutableRawPointer(self.credentials)))
            try Self.check(
                Self.withDatum(Array("libp2p".utf8)) {
                    gnutls_alpn_set_protocols(session, $0, 1, GNUTLS_ALPN_MANDATORY.rawValue)
                })
            let configured =
                isServer
                ? ngtcp2_crypto_gnutls_configure_server_session(session)
                : ngtcp2_crypto_gnutls_configure_client_session(session)
            guard configured == 0 else { throw .credentials(reason: "the QUIC extension was refused") }
        } catch {
            gnutls_deinit(session)
            throw error
        }
        if isServer { gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE) }
        gnutls_session_set_verify_function(session) { Callbacks.verify($0) }
        gnutls_session_set_ptr(session, reference)
        return session
    }

    /// The certificates that the remote has shown, DER.
    static func remoteChain(of session: gnutls_session_t) -> [[UInt8]] {
        var count: UInt32 = 0
        guard let chain = gnutls_certificate_get_peers(session, &count) else { return [] }
        // One is allowed; what comes behind it only has to be seen to be there.
        return (0..<Int(min(count, 2))).map {
            [UInt8](UnsafeBufferPointer(start: chain[$0].data, count: Int(chain[$0].size)))
        }
    }

    /// Whether both sides agreed to speak libp2p.
    static func hasAgreedProtocol(_ session: gnutls_session_t) -> Bool {
        var name = gnutls_datum_t()
        guard gnutls_alpn_get_selected_protocol(session, &name) == 0 else { return false }
        return UnsafeBufferPointer(start: name.data, count: Int(name.size)).elementsEqual("libp2p".utf8)
    }

    private static func check(_ result: Int32) throws(QUICError) {
        guard result < 0 else { return }
        throw .credentials(reason: gnutls_strerror(result).map { String(cString: $0) } ?? "error \(result)")
    }

    private static func withDatum(
        _ bytes: [UInt8], _ body: (UnsafePointer<gnutls_datum_t>) -> Int32
    ) -> Int32 {
        var bytes = bytes
        return bytes.withUnsafeMutableBufferPointer { buffer in
            var datum = gnutls_datum_t(data: buffer.baseAddress, size: UInt32(buffer.count))
            return body(&datum)
        }
    }
}
