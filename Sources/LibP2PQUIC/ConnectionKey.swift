internal import CNgtcp2
internal import Crypto
internal import PeerIdentity

/// A connection ID, at most 20 bytes, as a key to look up by.
struct ConnectionKey: Hashable {
    private var words: (UInt64, UInt64, UInt32) = (0, 0, 0)
    private var length: UInt8

    /// `nil` for what is too long.
    init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count <= Int(NGTCP2_MAX_CIDLEN) else { return nil }
        self.length = UInt8(bytes.count)
        withUnsafeMutableBytes(of: &self.words) { $0.copyMemory(from: bytes) }
    }

    init(_ id: ngtcp2_cid) {
        self.length = UInt8(truncatingIfNeeded: min(id.datalen, Int(NGTCP2_MAX_CIDLEN)))
        let length = Int(self.length)
        withUnsafeMutableBytes(of: &self.words) { words in
            withUnsafeBytes(of: id.data) { words.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[..<length])) }
        }
    }

    static func == (a: ConnectionKey, b: ConnectionKey) -> Bool { a.words == b.words && a.length == b.length }

    func hash(into hasher: inout Hasher) {
        hasher.combine(self.words.0)
        hasher.combine(self.words.1)
        hasher.combine(self.words.2)
        hasher.combine(self.length)
    }
}

/// Keys that outlive a restart: they come from our identity, so that peers of a former life learn at once that it is over, and a token
/// given out before is still good.
struct StatelessSecrets: Sendable {
    private let reset: [UInt8]
    let token: [UInt8]

    init(identity: PrivateKey) {
        self.reset = Self.derive("warren quic stateless reset", from: identity)
        self.token = Self.derive("warren quic retry token", from: identity)
    }

    private static func derive(_ purpose: String, from identity: PrivateKey) -> [UInt8] {
        let key = HKDF<SHA256>.deriveKey(
            inputKeyMaterial: SymmetricKey(data: identity.encoded), info: Array(purpose.utf8), outputByteCount: 32)
        return key.withUnsafeBytes { Array($0) }
    }

    /// What proves to a peer that its connection with this ID is gone. RFC 9000 § 10.3.
    func writeResetToken(for id: ngtcp2_cid, into token: UnsafeMutableRawBufferPointer) {
        var id = id
        guard token.count >= Int(NGTCP2_STATELESS_RESET_TOKENLEN) else { return }
        _ = self.reset.withUnsafeBufferPointer { key in
            ngtcp2_crypto_generate_stateless_reset_token(
                token.baseAddress?.assumingMemoryBound(to: UInt8.self), key.baseAddress, key.count, &id)
        }
    }
}
