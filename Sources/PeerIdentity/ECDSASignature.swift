import COpenSSL

/// An ECDSA signature on secp256k1, parsed by OpenSSL, so that its `s` can be looked at and lowered.
///
/// `(r, s)` and `(r, order - s)` are both valid; BIP 62 allows only the one whose `s` is at most half the order.
final class ECDSASignature {
    /// DER, minimal.
    let der: [UInt8]
    /// Whether `s` is at most half the order.
    let hasLowS: Bool

    private let signature: OpaquePointer

    /// `nil` unless `bytes` are one DER signature and nothing else.
    convenience init?(der bytes: [UInt8]) {
        let signature = bytes.withUnsafeBufferPointer { buffer -> OpaquePointer? in
            var cursor = buffer.baseAddress
            return d2i_ECDSA_SIG(nil, &cursor, buffer.count)
        }
        guard let signature else { return nil }
        self.init(owning: signature)
        guard self.der == bytes else { return nil }
    }

    private init?(owning signature: OpaquePointer) {
        var s = [UInt8](repeating: 0, count: 32)
        var output: UnsafeMutablePointer<UInt8>?
        let length = Int(i2d_ECDSA_SIG(signature, &output))
        defer { CRYPTO_free(output, #file, #line) }
        guard let output, length > 0, BN_bn2binpad(ECDSA_SIG_get0_s(signature), &s, 32) == 32 else {
            ECDSA_SIG_free(signature)
            return nil
        }
        self.signature = signature
        self.der = Array(UnsafeBufferPointer(start: output, count: length))
        self.hasLowS = !Self.halfOrder.lexicographicallyPrecedes(s)
    }

    deinit { ECDSA_SIG_free(self.signature) }

    /// The same signature with the lower `s`; `nil` when memory runs out.
    func withLowS() -> ECDSASignature? {
        if self.hasLowS { return self }
        guard let order = BN_bin2bn(Self.order, Int32(Self.order.count), nil) else { return nil }
        defer { BN_free(order) }
        let r = BN_dup(ECDSA_SIG_get0_r(self.signature))
        let s = BN_new()
        let lowered = ECDSA_SIG_new()
        guard let r, let s, let lowered, BN_sub(s, order, ECDSA_SIG_get0_s(self.signature)) == 1,
            ECDSA_SIG_set0(lowered, r, s) == 1  // which takes both numbers
        else {
            BN_free(r)
            BN_free(s)
            ECDSA_SIG_free(lowered)
            return nil
        }
        return ECDSASignature(owning: lowered)
    }

    /// The order of secp256k1. Spec: SEC 2 § 2.4.1.
    private static let order: [UInt8] =
        [UInt8](repeating: 0xff, count: 15) + [
            0xfe, 0xba, 0xae, 0xdc, 0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41,
        ]

    /// Half the order, rounded down.
    private static let halfOrder: [UInt8] =
        [0x7f] + [UInt8](repeating: 0xff, count: 15) + [
            0x5d, 0x57, 0x6e, 0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
        ]
}
