import COpenSSL
import Crypto
import X509

@testable import LibP2PConnection

/// A TLS endpoint that is not libp2p's: OpenSSL with settings of the test's choice.
final class RawTLS {
    struct Settings {
        var maximumVersion: Int32 = TLS1_3_VERSION
        var cipherSuites = "TLS_AES_128_GCM_SHA256"
        /// What it shows; nothing when `nil`.
        var certificate: PeerCertificate?
        /// How many times the certificate follows itself.
        var extraCopies = 0
        /// What a client offers above TLS.
        var protocols: [String] = []
        /// What a server chooses, offered or not.
        var chosen: String?
    }

    struct Failed: Error {}

    private let context: OpaquePointer
    private let ssl: OpaquePointer
    private let (input, output): (OpaquePointer, OpaquePointer)
    /// Lives as long as OpenSSL points to it.
    private let chosen: UnsafeMutablePointer<UInt8>
    private let chosenCount: Int

    init(_ settings: Settings, isServer: Bool) throws {
        guard let context = SSL_CTX_new(TLS_method()), let input = BIO_new(BIO_s_mem()),
            let output = BIO_new(BIO_s_mem())
        else { throw Failed() }
        self.context = context
        let chosen = Array((settings.chosen ?? "").utf8)
        // Its length, then itself.
        self.chosenCount = chosen.count + 1
        self.chosen = .allocate(capacity: self.chosenCount)
        self.chosen.initialize(repeating: UInt8(chosen.count), count: self.chosenCount)
        for (index, byte) in chosen.enumerated() { self.chosen[index + 1] = byte }
        SSL_CTX_ctrl(context, SSL_CTRL_SET_MAX_PROTO_VERSION, Int(settings.maximumVersion), nil)
        SSL_CTX_set_ciphersuites(context, settings.cipherSuites)
        if let own = settings.certificate {
            SSL_CTX_use_certificate_ASN1(context, Int32(own.certificate.count), own.certificate)
            SSL_CTX_use_PrivateKey_ASN1(EVP_PKEY_EC, context, own.privateKey, own.privateKey.count)
            for _ in 0..<settings.extraCopies {
                var cursor: UnsafePointer<UInt8>?
                own.certificate.withUnsafeBufferPointer { bytes in
                    cursor = bytes.baseAddress
                    guard let copy = d2i_X509(nil, &cursor, bytes.count) else { return }
                    SSL_CTX_ctrl(context, SSL_CTRL_CHAIN_CERT, 0, UnsafeMutableRawPointer(copy))
                }
            }
        }
        if settings.chosen != nil {
            SSL_CTX_set_alpn_select_cb(
                context,
                { _, out, count, _, _, chosen in
                    guard let chosen = chosen?.assumingMemoryBound(to: UInt8.self) else { return SSL_TLSEXT_ERR_NOACK }
                    out?.pointee = UnsafePointer(chosen + 1)
                    count?.pointee = chosen[0]
                    return SSL_TLSEXT_ERR_OK
                }, self.chosen)
        }
        guard let ssl = SSL_new(context) else { throw Failed() }
        self.ssl = ssl
        (self.input, self.output) = (input, output)
        SSL_set_bio(ssl, input, output)
        if isServer {
            SSL_set_accept_state(ssl)
        } else {
            SSL_set_connect_state(ssl)
            let offer = settings.protocols.flatMap { [UInt8($0.utf8.count)] + Array($0.utf8) }
            if !offer.isEmpty { SSL_set_alpn_protos(ssl, offer, UInt32(offer.count)) }
        }
    }

    deinit {
        SSL_free(self.ssl)
        SSL_CTX_free(self.context)
        self.chosen.deallocate()
    }

    /// Carries bytes between the two until both are silent.
    func shakeHands(with side: inout TLSSide) {
        while true {
            ERR_clear_error()
            SSL_do_handshake(self.ssl)
            let (out, back) = (self.takeOutput(), side.takeFlight())
            if out.isEmpty, back.isEmpty { break }
            side.receive(out)
            BIO_write(self.input, back, Int32(back.count))
        }
        ERR_clear_error()
    }

    private func takeOutput() -> [UInt8] {
        var all: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = Int(BIO_read(self.output, &piece, Int32(piece.count)))
            guard count > 0 else { return all }
            all += piece.prefix(count)
        }
    }
}

/// A key on P-256 in the two forms that certificates and OpenSSL want.
struct P256Key {
    private let key = P256.Signing.PrivateKey()

    var certificateKey: Certificate.PrivateKey { Certificate.PrivateKey(self.key) }
    var der: [UInt8] { Array(self.key.derRepresentation) }
}
