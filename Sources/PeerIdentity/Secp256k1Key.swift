import COpenSSL

/// A key on the curve secp256k1, held by OpenSSL.
///
/// The key is never changed after it was made, and OpenSSL allows any number of threads to use one at the same time.
final class Secp256k1Key: @unchecked Sendable {
    /// The public key: 33 bytes, SEC 1 compressed.
    let compressedPoint: [UInt8]
    /// The private key, **secret**: 32 bytes, big-endian. Empty when only the public key is known.
    let scalar: [UInt8]

    private let key: OpaquePointer

    /// A public key. `nil` unless `bytes` are 33, in compressed form, and a point of the curve.
    convenience init?(compressedPoint bytes: [UInt8]) {
        guard bytes.count == 33, bytes[0] == 2 || bytes[0] == 3 else { return nil }
        self.init(compressedPoint: bytes, scalar: [])
    }

    /// A key pair. `nil` unless `bytes` are 32 and a number in 1..<order.
    convenience init?(scalar bytes: [UInt8]) {
        guard bytes.count == 32, let point = Self.multiplyGenerator(by: bytes) else { return nil }
        self.init(compressedPoint: point, scalar: bytes)
    }

    private init?(compressedPoint: [UInt8], scalar: [UInt8]) {
        guard let key = Self.makeKey(compressedPoint: compressedPoint, scalar: scalar) else {
            ERR_clear_error()
            return nil
        }
        self.compressedPoint = compressedPoint
        self.scalar = scalar
        self.key = key
    }

    deinit { EVP_PKEY_free(self.key) }

    /// A new random key pair; `nil` when OpenSSL fails.
    static func generate() -> Secp256k1Key? {
        guard let context = EVP_PKEY_CTX_new_from_name(nil, "EC", nil) else { return nil }
        defer { EVP_PKEY_CTX_free(context) }
        var key: OpaquePointer?
        var scalar: OpaquePointer?
        defer {
            EVP_PKEY_free(key)
            BN_clear_free(scalar)
        }
        guard EVP_PKEY_keygen_init(context) == 1, EVP_PKEY_CTX_set_group_name(context, self.curve.cString) == 1,
            EVP_PKEY_generate(context, &key) == 1,
            EVP_PKEY_get_bn_param(key, ParameterName.privateKey.cString, &scalar) == 1
        else {
            ERR_clear_error()
            return nil
        }
        var bytes = [UInt8](repeating: 0, count: 32)
        guard BN_bn2binpad(scalar, &bytes, 32) == 32 else { return nil }
        return Secp256k1Key(scalar: bytes)
    }

    /// Signs the SHA-256 of `message`: DER, with the lower of the two possible `s`. `nil` when OpenSSL fails.
    func sign(_ message: [UInt8]) -> [UInt8]? {
        defer { ERR_clear_error() }
        guard !self.scalar.isEmpty, let context = EVP_MD_CTX_new() else { return nil }
        defer { EVP_MD_CTX_free(context) }
        var der = [UInt8](repeating: 0, count: 80)
        var length = der.count
        guard EVP_DigestSignInit(context, nil, EVP_sha256(), nil, self.key) == 1,
            EVP_DigestSign(context, &der, &length, message, message.count) == 1, length <= der.count,
            let signature = ECDSASignature(der: Array(der[..<length]))
        else { return nil }
        return signature.withLowS()?.der
    }

    /// Whether `der` is a strict DER signature with low `s` over the SHA-256 of `message`.
    func isValidSignature(_ der: [UInt8], for message: [UInt8]) -> Bool {
        defer { ERR_clear_error() }
        // Longest: SEQUENCE header, two INTEGERs of a header and 33 bytes each.
        guard der.count <= 72, let signature = ECDSASignature(der: der), signature.hasLowS, signature.der == der,
            let context = EVP_MD_CTX_new()
        else { return false }
        defer { EVP_MD_CTX_free(context) }
        return EVP_DigestVerifyInit(context, nil, EVP_sha256(), nil, self.key) == 1
            && EVP_DigestVerify(context, der, der.count, message, message.count) == 1
    }

    /// `scalar · G`, compressed; `nil` when the scalar is 0 or not below the order.
    private static func multiplyGenerator(by scalar: [UInt8]) -> [UInt8]? {
        defer { ERR_clear_error() }
        guard let group = EC_GROUP_new_by_curve_name(NID_secp256k1) else { return nil }
        defer { EC_GROUP_free(group) }
        let number = BN_secure_new()
        let context = BN_CTX_secure_new()
        let point = EC_POINT_new(group)
        defer {
            BN_clear_free(number)
            BN_CTX_free(context)
            EC_POINT_clear_free(point)
        }
        guard let number, let context, let point, BN_bin2bn(scalar, Int32(scalar.count), number) != nil,
            BN_is_zero(number) == 0, BN_cmp(number, EC_GROUP_get0_order(group)) < 0
        else { return nil }
        BN_set_flags(number, BN_FLG_CONSTTIME)
        var bytes = [UInt8](repeating: 0, count: 33)
        guard EC_POINT_mul(group, point, number, nil, nil, context) == 1,
            EC_POINT_point2oct(group, point, POINT_CONVERSION_COMPRESSED, &bytes, 33, context) == 33
        else { return nil }
        return bytes
    }

    /// OpenSSL checks that the point lies on the curve.
    private static func makeKey(compressedPoint: [UInt8], scalar: [UInt8]) -> OpaquePointer? {
        guard let builder = OSSL_PARAM_BLD_new() else { return nil }
        defer { OSSL_PARAM_BLD_free(builder) }
        // The builder keeps pointers to what it is given until it has built.
        let number = scalar.isEmpty ? nil : BN_secure_new()
        defer { BN_clear_free(number) }
        let parameters = compressedPoint.withUnsafeBytes { point -> UnsafeMutablePointer<OSSL_PARAM>? in
            guard
                OSSL_PARAM_BLD_push_utf8_string(builder, ParameterName.group.cString, self.curve.cString, 0) == 1,
                OSSL_PARAM_BLD_push_octet_string(
                    builder, ParameterName.publicKey.cString, point.baseAddress, point.count) == 1
            else { return nil }
            if !scalar.isEmpty {
                guard let number, BN_bin2bn(scalar, Int32(scalar.count), number) != nil,
                    OSSL_PARAM_BLD_push_BN_pad(builder, ParameterName.privateKey.cString, number, 32) == 1
                else { return nil }
            }
            return OSSL_PARAM_BLD_to_param(builder)
        }
        guard let parameters else { return nil }
        defer { OSSL_PARAM_free(parameters) }
        guard let context = EVP_PKEY_CTX_new_from_name(nil, "EC", nil) else { return nil }
        defer { EVP_PKEY_CTX_free(context) }
        // EVP_PKEY_PUBLIC_KEY and EVP_PKEY_KEYPAIR, whose macros Swift cannot read.
        var selection =
            OSSL_KEYMGMT_SELECT_DOMAIN_PARAMETERS | OSSL_KEYMGMT_SELECT_OTHER_PARAMETERS
            | OSSL_KEYMGMT_SELECT_PUBLIC_KEY
        if !scalar.isEmpty { selection |= OSSL_KEYMGMT_SELECT_PRIVATE_KEY }
        var key: OpaquePointer?
        guard EVP_PKEY_fromdata_init(context) == 1, EVP_PKEY_fromdata(context, &key, selection, parameters) == 1
        else { return nil }
        return key
    }

    private static let curve: StaticString = "secp256k1"
}

/// `OSSL_PKEY_PARAM_GROUP_NAME` and others as strings that live for ever: a parameter builder keeps pointers to them.
private enum ParameterName {
    static let group: StaticString = "group"
    static let publicKey: StaticString = "pub"
    static let privateKey: StaticString = "priv"
}

extension StaticString {
    /// The string as C wants it: UTF-8 that ends in a zero byte.
    fileprivate var cString: UnsafePointer<CChar> {
        UnsafeRawPointer(self.utf8Start).assumingMemoryBound(to: CChar.self)
    }
}
