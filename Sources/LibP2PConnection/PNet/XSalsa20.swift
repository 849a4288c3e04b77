import CSodium

/// The key stream of XSalsa20 under one key and nonce, and how far it is used up.
///
/// libsodium goes on from whole blocks only: what is left of a block that was begun is kept here.
struct XSalsa20 {
    static let nonceBytes = 24
    static let blockBytes = 64

    private let key: [UInt8]
    private let nonce: [UInt8]
    /// The number of the block behind `begun`.
    private var nextBlock: UInt64 = 0
    /// The key stream's last block that was begun.
    private var begun = [UInt8](repeating: 0, count: XSalsa20.blockBytes)
    /// How many bytes of `begun` are used up.
    private var used = XSalsa20.blockBytes

    /// - Parameters:
    ///   - nonce: 24 bytes.
    ///   - firstBlock: 0, except for tests.
    init(key: PreSharedKey, nonce: [UInt8], firstBlock: UInt64 = 0) throws(PrivateNetworkError) {
        guard Sodium.isReady, nonce.count == Self.nonceBytes, key.bytes.count == PreSharedKey.byteCount else {
            throw .cipherFailed
        }
        self.key = key.bytes
        self.nonce = nonce
        self.nextBlock = firstBlock
    }

    /// Encrypts or decrypts the next `count` bytes, in place or to a place that does not overlap.
    mutating func apply(_ source: UnsafePointer<UInt8>, into destination: UnsafeMutablePointer<UInt8>, count: Int) {
        let first = min(count, Self.blockBytes - self.used)
        for index in 0..<first { destination[index] = source[index] ^ self.begun[self.used + index] }
        self.used += first
        let rest = count - first
        guard rest > 0 else { return }
        crypto_stream_xsalsa20_xor_ic(
            destination + first, source + first, UInt64(rest), self.nonce, self.nextBlock, self.key)
        self.nextBlock &+= UInt64(rest / Self.blockBytes)
        let tail = rest % Self.blockBytes
        guard tail > 0 else { return }
        for index in self.begun.indices { self.begun[index] = 0 }
        self.begun.withUnsafeMutableBufferPointer { block in
            guard let start = block.baseAddress else { return }
            crypto_stream_xsalsa20_xor_ic(
                start, start, UInt64(Self.blockBytes), self.nonce, self.nextBlock, self.key)
        }
        self.nextBlock &+= 1
        self.used = tail
    }
}

/// The library as a whole.
enum Sodium {
    /// Whether it can be used. It chooses the fastest code for this processor when it is asked first.
    static let isReady = sodium_init() >= 0

    static func randomBytes(_ count: Int) throws(PrivateNetworkError) -> [UInt8] {
        guard Self.isReady else { throw .cipherFailed }
        var bytes = [UInt8](repeating: 0, count: count)
        randombytes_buf(&bytes, bytes.count)
        return bytes
    }
}
