import COpenSSL
import Crypto

/// Seals records with ChaCha20-Poly1305 under one key and a counted nonce: 32 zero bits, then the record's number, little-endian.
///
/// One OpenSSL context holds the key schedule; a record only sets the nonce, and allocates nothing. A record is made of any number
/// of pieces: ``begin()``, then ``update(_:into:count:)`` for each, then ``finish(tag:)``.
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

    /// Starts the next record.
    mutating func begin() throws(NoiseError) {
        try RecordCipher.begin(self.context, record: self.nextRecord)
        self.nextRecord += 1
    }

    /// Encrypts a piece of the record, in place or to a place that does not overlap. Pieces of whole blocks
    /// (``RecordCipher/blockBytes``) are the fastest, up to the last one.
    func update(
        _ plaintext: UnsafePointer<UInt8>, into ciphertext: UnsafeMutablePointer<UInt8>, count: Int
    ) throws(NoiseError) {
        try RecordCipher.update(self.context, plaintext, into: ciphertext, count: count)
    }

    /// Ends the record; its tag goes where there is room for ``RecordCipher/tagBytes``.
    func finish(tag: UnsafeMutablePointer<UInt8>) throws(NoiseError) {
        var written: Int32 = 0
        guard EVP_CipherFinal_ex(self.context, tag, &written) == 1,
            EVP_CIPHER_CTX_ctrl(self.context, EVP_CTRL_AEAD_GET_TAG, Int32(RecordCipher.tagBytes), tag) == 1
        else { throw RecordCipher.failure() }
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

    /// Decrypts a record that lies in two places. After an error, what is at `plaintext` must not be used, nor the opener.
    ///
    /// - Parameters:
    ///   - head: The beginning of ciphertext and tag; may be empty.
    ///   - tail: The rest. Both together have at least ``RecordCipher/tagBytes`` bytes.
    ///   - plaintext: Room for both less the tag. It overlaps neither.
    /// - Returns: How much plaintext there is.
    mutating func open(
        _ head: UnsafeBufferPointer<UInt8>, _ tail: UnsafeBufferPointer<UInt8>,
        into plaintext: UnsafeMutablePointer<UInt8>
    ) throws(NoiseError) -> Int {
        let count = head.count + tail.count
        guard count >= RecordCipher.tagBytes else { throw .recordTooShort(bytes: count) }
        try RecordCipher.begin(self.context, record: self.nextRecord)
        let length = count - RecordCipher.tagBytes
        // A block that lies in both places is put together where its plaintext goes, so that the rest is whole blocks.
        let headLength = min(head.count, length)
        let seam = headLength / RecordCipher.blockBytes * RecordCipher.blockBytes
        let fromTail = min(RecordCipher.bytesToBlock(headLength), length - headLength)
        if let start = head.baseAddress {
            try RecordCipher.update(self.context, start, into: plaintext, count: seam)
            (plaintext + seam).update(from: start + seam, count: headLength - seam)
        }
        if let start = tail.baseAddress {
            (plaintext + headLength).update(from: start, count: fromTail)
        }
        try RecordCipher.update(
            self.context, plaintext + seam, into: plaintext + seam, count: headLength - seam + fromTail)
        if let start = tail.baseAddress {
            let done = headLength + fromTail
            try RecordCipher.update(
                self.context, start + fromTail, into: plaintext + done, count: length - done)
        }
        var tag: (UInt64, UInt64) = (0, 0)
        let isAuthentic = withUnsafeMutableBytes(of: &tag) { tag in
            for index in 0..<RecordCipher.tagBytes {
                let position = length + index
                tag[index] = position < head.count ? head[position] : tail[position - head.count]
            }
            var written: Int32 = 0
            return EVP_CIPHER_CTX_ctrl(
                self.context, EVP_CTRL_AEAD_SET_TAG, Int32(RecordCipher.tagBytes), tag.baseAddress) == 1
                && EVP_CipherFinal_ex(self.context, plaintext + length, &written) == 1
        }
        guard isAuthentic else {
            ERR_clear_error()
            throw .recordNotAuthentic(number: self.nextRecord)
        }
        self.nextRecord += 1
        return length
    }
}

/// What both directions of a record cipher have in common.
enum RecordCipher {
    /// What sealing adds to a record.
    static let tagBytes = 16
    static let keyBytes = 32
    /// What ChaCha20 makes at once.
    static let blockBytes = 64

    /// The library runs the cipher over a whole piece and then the authenticator; a piece of this size is still in the
    /// nearest cache the second time.
    private static let pieceBytes = 8192

    /// How many bytes behind `count` the next block begins.
    static func bytesToBlock(_ count: Int) -> Int { (self.blockBytes - count % self.blockBytes) % self.blockBytes }

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

    /// Sets the nonce; key and direction stay.
    static func begin(_ context: OpaquePointer, record: UInt64) throws(NoiseError) {
        // The last nonce is reserved.
        guard record < .max else { throw .nonceExhausted }
        let low = UInt32(truncatingIfNeeded: record).littleEndian
        let high = UInt32(truncatingIfNeeded: record >> 32).littleEndian
        let isSet = withUnsafePointer(to: (UInt32(0), low, high)) { nonce in
            nonce.withMemoryRebound(to: UInt8.self, capacity: 12) { nonce in
                EVP_CipherInit_ex(context, nil, nil, nil, nonce, -1) == 1
            }
        }
        guard isSet else { throw self.failure() }
    }

    static func update(
        _ context: OpaquePointer, _ source: UnsafePointer<UInt8>, into target: UnsafeMutablePointer<UInt8>, count: Int
    ) throws(NoiseError) {
        var done = 0
        var written: Int32 = 0
        while done < count {
            let piece = min(self.pieceBytes, count - done)
            guard EVP_CipherUpdate(context, target + done, &written, source + done, Int32(piece)) == 1 else {
                throw self.failure()
            }
            done += piece
        }
    }

    /// Leaves nothing in the thread's error queue for its next user to stumble over.
    static func failure() -> NoiseError {
        ERR_clear_error()
        return .cipherFailed
    }
}
