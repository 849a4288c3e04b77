import COpenSSL
import FoundationEssentials
import LibP2PCore
import PeerIdentity

/// What all TLS connections of one identity have in common: certificate, versions, ciphers, what to do with the remote's certificate.
///
/// Only TLS 1.3, both sides with a certificate, no tickets and no resumption: every connection proves who is there.
///
/// Spec: `tls/tls.md`; RFC 8446.
final class TLSContext: @unchecked Sendable {
    // Not `Sendable` by the compiler's rules: OpenSSL shares a context between threads as long as nobody changes it, and nobody does.

    /// The longest list of certificates that is read, in bytes: one of ours, and what frames it.
    static let maximumChainBytes = PeerCertificate.maximumBytes + 1024

    /// The first suite is the cheaper one here. A server gives way to a client that puts ChaCha20 first, as one without
    /// instructions for AES does.
    static func cipherSuites(isAESFast: Bool) -> String {
        let (aes, chacha) = ("TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256")
        return (isAESFast ? [aes, chacha] : [chacha, aes]).joined(separator: ":") + ":TLS_AES_256_GCM_SHA384"
    }

    let pointer: OpaquePointer
    /// The time that certificates are measured with.
    let now: @Sendable () -> Date

    init(
        certificate: PeerCertificate, cipherSuites: String = TLSContext.cipherSuites(isAESFast: HardwareAES.isFast),
        now: @escaping @Sendable () -> Date = { Date() }
    ) throws(TLSError) {
        ERR_clear_error()
        guard let context = SSL_CTX_new(TLS_method()) else { throw OpenSSLErrors.engineFailure() }
        self.pointer = context
        self.now = now
        let version = Int(TLS1_3_VERSION)
        SSL_CTX_set_options(context, copenssl_tls_options())
        guard SSL_CTX_ctrl(context, SSL_CTRL_SET_MIN_PROTO_VERSION, version, nil) == 1,
            SSL_CTX_ctrl(context, SSL_CTRL_SET_MAX_PROTO_VERSION, version, nil) == 1,
            SSL_CTX_set_ciphersuites(context, cipherSuites) == 1,
            SSL_CTX_set_num_tickets(context, 0) == 1,
            SSL_CTX_use_certificate_ASN1(context, Int32(certificate.certificate.count), certificate.certificate) == 1,
            SSL_CTX_use_PrivateKey_ASN1(EVP_PKEY_EC, context, certificate.privateKey, certificate.privateKey.count)
                == 1,
            SSL_CTX_check_private_key(context) == 1
        else { throw OpenSSLErrors.engineFailure() }
        // The chain is what it is: nothing is searched for the rest of it.
        SSL_CTX_ctrl(context, SSL_CTRL_MODE, Int(SSL_MODE_NO_AUTO_CHAIN), nil)
        SSL_CTX_ctrl(context, SSL_CTRL_SET_SESS_CACHE_MODE, Int(SSL_SESS_CACHE_OFF), nil)
        SSL_CTX_ctrl(context, SSL_CTRL_SET_MAX_CERT_LIST, Self.maximumChainBytes, nil)
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nil)
        SSL_CTX_set_cert_verify_callback(
            context,
            { store, _ in
                guard let store,
                    let ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()),
                    let session = TLSSession.of(OpaquePointer(ssl))
                else { return 0 }
                guard let refusal = session.admit(TLSContext.chain(X509_STORE_CTX_get0_untrusted(store))) else {
                    return 1
                }
                X509_STORE_CTX_set_error(store, refusal)
                return 0
            }, nil)
        SSL_CTX_set_alpn_select_cb(
            context,
            { ssl, chosen, chosenCount, offered, offeredCount, _ in
                guard let ssl, let offered, let session = TLSSession.of(ssl) else { return SSL_TLSEXT_ERR_ALERT_FATAL }
                let offers = UnsafeBufferPointer(start: offered, count: Int(offeredCount))
                guard let place = session.chooseProtocol(among: offers) else { return SSL_TLSEXT_ERR_ALERT_FATAL }
                // What is chosen lies in the client's list, and is copied from there.
                chosen?.pointee = offered + place.lowerBound
                chosenCount?.pointee = UInt8(truncatingIfNeeded: place.count)
                return SSL_TLSEXT_ERR_OK
            }, nil)
    }

    deinit { SSL_CTX_free(self.pointer) }

    /// The certificates that the remote has sent; not many fit into ``maximumChainBytes``.
    private static func chain(_ stack: OpaquePointer?) -> [[UInt8]] {
        guard let stack else { return [] }
        return (0..<max(OPENSSL_sk_num(stack), 0)).map { index in
            guard let certificate = OPENSSL_sk_value(stack, index) else { return [] }
            var bytes: UnsafeMutablePointer<UInt8>?
            let count = i2d_X509(OpaquePointer(certificate), &bytes)
            guard count > 0, let bytes else { return [] }
            defer { CRYPTO_free(bytes, #file, #line) }
            return Array(UnsafeBufferPointer(start: bytes, count: Int(count)))
        }
    }
}

/// OpenSSL's errors of this thread, in our words. Reading them takes them away.
enum OpenSSLErrors {
    static func engineFailure() -> TLSError {
        defer { ERR_clear_error() }
        return .engineFailed(reason: self.reason(ERR_peek_error()))
    }

    /// What a failed operation on a connection means.
    static func connectionFailure(ours protocols: [ProtocolID]) -> TLSError {
        defer { ERR_clear_error() }
        let code = ERR_peek_error()
        guard ERR_GET_LIB(code) == ERR_LIB_SSL else { return .malformed(reason: self.reason(code)) }
        let reason = ERR_GET_REASON(code)
        switch reason {
        case SSL_R_UNSUPPORTED_PROTOCOL, SSL_R_VERSION_TOO_LOW, SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
            return .wrongVersion
        case SSL_R_NO_SHARED_CIPHER, SSL_R_NO_SUITABLE_KEY_SHARE, SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM,
            SSL_R_NO_SUITABLE_GROUPS, SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS:
            return .noCommonParameters
        case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
            return .badCertificate(.wrongChainLength(0))
        case SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC:
            return .recordNotAuthentic
        case SSL_AD_REASON_OFFSET + SSL_AD_NO_APPLICATION_PROTOCOL:
            return .noCommonProtocol(ours: protocols)
        case SSL_AD_REASON_OFFSET...SSL_AD_REASON_OFFSET + 255:
            return .refused(alert: UInt8(truncatingIfNeeded: reason - SSL_AD_REASON_OFFSET))
        default:
            return .malformed(reason: self.reason(code))
        }
    }

    /// The oldest error, in the library's words.
    static func takeReason() -> String {
        defer { ERR_clear_error() }
        return self.reason(ERR_peek_error())
    }

    private static func reason(_ code: UInt) -> String {
        ERR_reason_error_string(code).map { String(cString: $0) } ?? "unknown"
    }
}
