internal import COpenSSL
internal import CSodium
public import Multiformats

/// The secret that all nodes of a private network share. Who does not have it cannot say a word to them.
///
/// It protects no more than who may speak: nothing beneath the security protocol is authenticated by it, and every member has it. Who a
/// peer is, the security protocol above proves as ever.
///
/// Spec: `pnet/Private-Networks-PSK-V1.md`.
public struct PreSharedKey: Hashable, Sendable {
    /// Bytes of a key.
    public static let byteCount = 32

    let bytes: [UInt8]

    /// Takes the key itself.
    /// - Throws: ``PreSharedKeyError/wrongLength(line:found:expected:)`` for other than 32 bytes, with line 0.
    public init(bytes: some Collection<UInt8>) throws(PreSharedKeyError) {
        guard bytes.count == Self.byteCount else {
            throw .wrongLength(line: 0, found: bytes.count, expected: Self.byteCount)
        }
        self.bytes = Array(bytes)
    }

    /// Makes a key of a network that does not exist yet.
    /// - Throws: ``PrivateNetworkError/cipherFailed`` when the system gives no random numbers.
    public static func generate() throws(PrivateNetworkError) -> PreSharedKey {
        PreSharedKey(unchecked: try Sodium.randomBytes(Self.byteCount))
    }

    private init(unchecked bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// 32 hexadecimal digits that tell keys apart without giving them away, the same as Kubo's: it names the network in logs and in mDNS.
    ///
    /// The first 16 bytes of SHAKE128 over the first block of Salsa20's key stream with the nonce `finprint`.
    /// - Throws: ``PrivateNetworkError/cipherFailed``.
    public func fingerprint() throws(PrivateNetworkError) -> String {
        guard Sodium.isReady else { throw .cipherFailed }
        var block = [UInt8](repeating: 0, count: XSalsa20.blockBytes)
        guard crypto_stream_salsa20(&block, UInt64(block.count), Array("finprint".utf8), self.bytes) == 0,
            let context = EVP_MD_CTX_new()
        else { throw .cipherFailed }
        defer { EVP_MD_CTX_free(context) }
        var digest = [UInt8](repeating: 0, count: 16)
        guard EVP_DigestInit_ex(context, EVP_shake128(), nil) == 1,
            EVP_DigestUpdate(context, block, block.count) == 1,
            EVP_DigestFinalXOF(context, &digest, digest.count) == 1
        else { throw .cipherFailed }
        return Multibase.base16.encodeWithoutPrefix(digest)
    }
}

/// A key is never printed.
extension PreSharedKey: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    /// The fingerprint, marked as what it is.
    public var description: String { "pre-shared key \((try? self.fingerprint()) ?? "?")" }
    /// The same.
    public var debugDescription: String { self.description }
    /// Nothing.
    public var customMirror: Mirror { Mirror(self, children: [], displayStyle: .struct) }
}

/// What is wrong between this node and a private network.
public enum PrivateNetworkError: Error, Hashable, Sendable, CustomStringConvertible {
    /// What the remote sends makes no sense with our key: it has another, or none.
    case keyMismatch
    /// The connection ended before the remote had sent anything by which to tell whether it has our key. Whoever has another key ends
    /// connections like that.
    case keyUnproven(reason: String)
    /// No pre-shared key can protect connections to this address, so it is neither listened on nor dialled.
    case unprotectedTransport(Multiaddr)
    /// `LIBP2P_FORCE_PNET` asks for a private network, and there is no key.
    case keyRequired
    /// The cipher is not available on this system, or gave up.
    case cipherFailed

    /// For people.
    public var description: String {
        switch self {
        case .keyMismatch: "the remote does not have our pre-shared key"
        case .keyUnproven(let reason): "the remote did not show that it has our pre-shared key: \(reason)"
        case .unprotectedTransport(let address): "no pre-shared key can protect \(address)"
        case .keyRequired: "LIBP2P_FORCE_PNET is set, and there is no pre-shared key"
        case .cipherFailed: "the private network's cipher is not available"
        }
    }
}
