import COpenSSL

/// The signature of a certificate by its own key.
enum SelfSignature {
    /// The least strength of key and signature, in bits: that of RSA with 2048 bits, and of SHA-256 with a margin.
    static let minimumSecurityBits = 112
    /// The largest key that is worth the time.
    static let maximumKeyBits = 8192

    /// Checks it with OpenSSL, which knows every algorithm that TLS 1.3 allows in certificates.
    ///
    /// - Parameter der: The certificate, well-formed, and its key of a supported kind.
    static func verify(_ der: [UInt8]) throws(PeerCertificateError) {
        // Nothing is left in the thread's error queue for its next user to stumble over.
        defer { ERR_clear_error() }
        let parsed = der.withUnsafeBufferPointer { bytes -> OpaquePointer? in
            var cursor = bytes.baseAddress
            return d2i_X509(nil, &cursor, bytes.count)
        }
        guard let parsed else { throw .malformed }
        defer { X509_free(parsed) }
        guard let key = X509_get0_pubkey(parsed) else { throw .unsupportedKey }
        var strength: Int32 = 0
        var flags: UInt32 = 0
        guard X509_get_signature_info(parsed, nil, nil, &strength, &flags) == 1 else { throw .invalidSelfSignature }
        let bits = Int(EVP_PKEY_get_bits(key))
        let security = min(Int(strength), Int(EVP_PKEY_get_security_bits(key)))
        guard security >= Self.minimumSecurityBits, bits <= Self.maximumKeyBits else {
            throw .keyOutOfRange(bits: bits, securityBits: security)
        }
        guard X509_verify(parsed, key) == 1 else { throw .invalidSelfSignature }
    }
}
