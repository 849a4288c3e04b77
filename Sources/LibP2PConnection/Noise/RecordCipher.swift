import COpenSSL
import Crypto

/// Seals records with ChaCha20-Poly1305 under one key and a counted nonce: 32 zero bits, then the record's number, little-endian.
///
/// One OpenSSL context holds the key schedule; a record only sets the nonce, and allocates nothing.
struct RecordSealer: ~Copyable {
    private let context: OpaquePointer
    /// The number of the next record.
    private(set) var nextRecord: UInt64

    /// - Parameters:
    ///   - key: 32 bytes.
    ///   - firstRecord: 0, except for tests.
    init(key: SymmetricKey, firstRecord: UInt64 = 0) throws(NoiseError) {
        self.context = try RecordCipher.makeContext(key: key, sealing: true)
        self.nextRecord = firstRecord
    }

    deinit {
        EVP_CIPHER_CTX_free(self.context)
    }

    /// Encrypts `count` bytes in place and writes the tag behind them.
    ///
    /// - Parameter record: `count` bytes of plaintext, with room for ``RecordCipher/tagBytes`` more.
    mutating func seal(_ record: UnsafeMutablePointer<UInt8>, count: Int) throws(NoiseError) {
        guard self.nextRecord < .max else { throw .nonceExhausted }
        let length = Int32(truncatingIfNeeded: count)
        var written: Int32 = 0
        let context = self.context
        guard RecordCipher.withNonce(self.nextRecord, { EVP_EncryptInit_ex(context, nil, nil, nil, $0) }) == 1,
            count == 0 || EVP_EncryptUpdate(context, record, &written, record, length) == 1,
            EVP_EncryptFinal_ex(context, record + count, &written) == 1,
            EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, Int32(RecordCipher.tagBytes), record + count) == 1
        else { throw RecordCipher.failure() }
        self.nextRecord += 1
    }
}

/// Opens what a ``RecordSealer`` with the same key has sealed, in the same order.
struct RecordOpener: ~Copyable {
    private let context: OpaquePointer
    /// The number of the next record.
    private(set) var nextRecord: UInt64

    /// - Parameters:
    ///   - key: 32 bytes.
    ///   - firstRecord: 0, except for tests.
    init(key: SymmetricKey, firstRecord: UInt64 = 0) throws(NoiseError) {
        self.context = try RecordCipher.makeContext(key: key, sealing: false)
        self.nextRecord = firstRecord
    }

    deinit {
        EVP_CIPHER_CTX_free(self.context)
    }

    /// Decrypts a record out of place. After an error, what is at `plaintext` must not be used, nor the opener.
    ///
    /// - Parameters:
    ///   - record: Ciphertext, then the tag: `count` bytes, at least ``RecordCipher/tagBytes``.
    ///   - plaintext: Room for `count` less the tag. It does not overlap `record`.
    mutating func open(
        _ record: UnsafePointer<UInt8>, count: Int, into plaintext: UnsafeMutablePointer<UInt8>
    ) throws(NoiseError) {
        guard count >= RecordCipher.tagBytes else { throw .recordTooShort(bytes: count) }
        guard self.nextRecord < .max else { throw .nonceExhausted }
        let length = count - RecordCipher.tagBytes
        let tag = UnsafeMutablePointer(mutating: record + length)
        var written: Int32 = 0
        let context = self.context
        guard RecordCipher.withNonce(self.nextRecord, { EVP_DecryptInit_ex(context, nil, nil, nil, $0) }) == 1,
            EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, Int32(RecordCipher.tagBytes), tag) == 1,
            length == 0
                || EVP_DecryptUpdate(context, plaintext, &written, record, Int32(truncatingIfNeeded: length)) == 1
        else { throw RecordCipher.failure() }
        guard EVP_DecryptFinal_ex(context, plaintext + length, &written) == 1 else {
            ERR_clear_error()
            throw .recordNotAuthentic(number: self.nextRecord)
        }
        self.nextRecord += 1
    }
}

/// What both directions of a record cipher have in common.
enum RecordCipher {
    /// What sealing adds to a record.
    static let tagBytes = 16
    static let keyBytes = 32

    /// Lends the 12-byte nonce of a record.
    @inline(__always)
    static func withNonce(_ record: UInt64, _ body: (UnsafePointer<UInt8>) -> Int32) -> Int32 {
        let low = UInt32(truncatingIfNeeded: record).littleEndian
        let high = UInt32(truncatingIfNeeded: record >> 32).littleEndian
        return withUnsafePointer(to: (UInt32(0), low, high)) { nonce in
            nonce.withMemoryRebound(to: UInt8.self, capacity: 12) { body($0) }
        }
    }

    static func makeContext(key: SymmetricKey, sealing: Bool) throws(NoiseError) -> OpaquePointer {
        guard key.bitCount == self.keyBytes * 8, let context = EVP_CIPHER_CTX_new() else { throw .cipherFailed }
        let isReady = key.withUnsafeBytes { bytes in
            let key = bytes.assumingMemoryBound(to: UInt8.self).baseAddress
            return EVP_CipherInit_ex(context, EVP_chacha20_poly1305(), nil, key, nil, sealing ? 1 : 0) == 1
        }
        guard isReady else {
            EVP_CIPHER_CTX_free(context)
            throw self.failure()
        }
        return context
    }

    /// Leaves nothing in the thread's error queue for its next user to stumble over.
    static func failure() -> NoiseError {
        ERR_clear_error()
        return .cipherFailed
    }
}
