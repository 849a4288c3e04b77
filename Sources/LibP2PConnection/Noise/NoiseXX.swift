import Crypto

/// The handshake `Noise_XX_25519_ChaChaPoly_SHA256`, as the Noise protocol framework defines it: no framing, no libp2p payload.
///
///     -> e
///     <- e, ee, s, es
///     -> s, se
///
/// Pure: call ``writeMessage(payload:)`` and ``readMessage(_:)`` in turn, the initiator writing first; after three messages
/// ``split()`` gives the transport keys. After an error the value is of no more use.
///
/// Spec: `noiseprotocol.org`, revision 34, §§ 5 and 7.5.
struct NoiseXX {
    typealias PrivateKey = Curve25519.KeyAgreement.PrivateKey
    typealias PublicKey = Curve25519.KeyAgreement.PublicKey

    private enum Token {
        case e, ee, s, es, se
    }

    private static let pattern: [[Token]] = [[.e], [.e, .ee, .s, .es], [.s, .se]]
    private static let keyBytes = 32

    private let isInitiator: Bool
    private let staticKey: PrivateKey
    private let ephemeralKey: PrivateKey
    /// The remote's static key. Set by the message that carries it; whose it is, only the payload can tell.
    private(set) var remoteStaticKey: PublicKey?
    private var remoteEphemeralKey: PublicKey?
    private var symmetric: NoiseSymmetricState
    private var messages = 0

    /// - Parameters:
    ///   - prologue: What both sides know already and want to be sure of. Empty over TCP and WebSocket.
    ///   - ephemeralKey: Fresh, except for test vectors.
    init(isInitiator: Bool, prologue: [UInt8], staticKey: PrivateKey, ephemeralKey: PrivateKey) {
        self.isInitiator = isInitiator
        self.staticKey = staticKey
        self.ephemeralKey = ephemeralKey
        self.symmetric = NoiseSymmetricState(protocolName: "Noise_XX_25519_ChaChaPoly_SHA256", prologue: prologue)
    }

    /// Binds a session to its handshake. Equal on both sides after the last message.
    var handshakeHash: [UInt8] { self.symmetric.hash }

    /// Whether all three messages are done.
    var isFinished: Bool { self.messages == Self.pattern.count }

    /// The number of the message that is next, counted from 1.
    var nextMessage: Int { self.messages + 1 }

    /// Whether it is our turn.
    var isOurTurn: Bool { !self.isFinished && self.messages.isMultiple(of: 2) == self.isInitiator }

    /// Makes the next message, with `payload` as well protected as the pattern can at this point.
    mutating func writeMessage(payload: [UInt8]) throws(NoiseError) -> [UInt8] {
        guard self.isOurTurn else { throw .handshakeOutOfTurn }
        var message: [UInt8] = []
        for token in Self.pattern[self.messages] {
            switch token {
            case .e:
                let key = Array(self.ephemeralKey.publicKey.rawRepresentation)
                message += key
                self.symmetric.mixHash(key)
            case .s:
                message += try self.symmetric.encryptAndHash(Array(self.staticKey.publicKey.rawRepresentation))
            case .ee, .es, .se:
                try self.mixSharedSecret(token)
            }
        }
        message += try self.symmetric.encryptAndHash(payload)
        self.messages += 1
        return message
    }

    /// Takes in the remote's next message and returns its payload.
    mutating func readMessage(_ message: [UInt8]) throws(NoiseError) -> [UInt8] {
        guard !self.isFinished, !self.isOurTurn else { throw .handshakeOutOfTurn }
        let number = self.nextMessage
        var rest = message[...]
        for token in Self.pattern[self.messages] {
            switch token {
            case .e:
                let key = try Self.take(Self.keyBytes, from: &rest, of: message, number: number)
                self.remoteEphemeralKey = try Self.publicKey(key, number: number)
                self.symmetric.mixHash(key)
            case .s:
                let size = Self.keyBytes + NoiseSymmetricState.tagBytes
                let sealed = try Self.take(size, from: &rest, of: message, number: number)
                let key = try self.symmetric.decryptAndHash(sealed, message: number)
                self.remoteStaticKey = try Self.publicKey(key, number: number)
            case .ee, .es, .se:
                try self.mixSharedSecret(token)
            }
        }
        if self.symmetric.hasKey, rest.count < NoiseSymmetricState.tagBytes {
            throw .handshakeMessageTooShort(message: number, bytes: message.count)
        }
        let payload = try self.symmetric.decryptAndHash(Array(rest), message: number)
        self.messages += 1
        return payload
    }

    /// The keys of the transport phase. Only after the last message.
    func split() throws(NoiseError) -> NoiseTransportKeys {
        guard self.isFinished else { throw .handshakeOutOfTurn }
        let (first, second) = self.symmetric.split()
        return self.isInitiator
            ? NoiseTransportKeys(sending: first, receiving: second)
            : NoiseTransportKeys(sending: second, receiving: first)
    }

    private mutating func mixSharedSecret(_ token: Token) throws(NoiseError) {
        let ours: PrivateKey
        let theirs: PublicKey?
        switch (token, self.isInitiator) {
        case (.es, true), (.se, false): (ours, theirs) = (self.ephemeralKey, self.remoteStaticKey)
        case (.es, false), (.se, true): (ours, theirs) = (self.staticKey, self.remoteEphemeralKey)
        default: (ours, theirs) = (self.ephemeralKey, self.remoteEphemeralKey)
        }
        guard let theirs else { throw .handshakeOutOfTurn }
        // The library refuses a secret of zeros; the specification asks for it, so this does not rely on the library alone.
        guard let secret = try? ours.sharedSecretFromKeyAgreement(with: theirs) else {
            throw .weakRemoteKey(message: self.nextMessage)
        }
        let bytes = secret.withUnsafeBytes { Array($0) }
        guard bytes.contains(where: { $0 != 0 }) else { throw .weakRemoteKey(message: self.nextMessage) }
        self.symmetric.mixKey(bytes)
    }

    private static func take(
        _ count: Int, from rest: inout ArraySlice<UInt8>, of message: [UInt8], number: Int
    ) throws(NoiseError) -> [UInt8] {
        guard rest.count >= count else { throw .handshakeMessageTooShort(message: number, bytes: message.count) }
        defer { rest = rest.dropFirst(count) }
        return Array(rest.prefix(count))
    }

    private static func publicKey(_ bytes: [UInt8], number: Int) throws(NoiseError) -> PublicKey {
        guard let key = try? PublicKey(rawRepresentation: bytes) else { throw .weakRemoteKey(message: number) }
        return key
    }
}

/// One key for each direction.
struct NoiseTransportKeys: Equatable {
    let sending: SymmetricKey
    let receiving: SymmetricKey
}

/// The chaining key, the hash of all that was said, and the current key of a Noise handshake.
///
/// Spec: Noise protocol framework, revision 34, § 5.2.
struct NoiseSymmetricState {
    /// What encryption adds.
    static let tagBytes = 16

    private(set) var hash: [UInt8]
    private var chainingKey: [UInt8]
    private var key: SymmetricKey?
    private var nonce: UInt64 = 0

    init(protocolName: String, prologue: [UInt8]) {
        var name = Array(protocolName.utf8)
        if name.count <= SHA256.byteCount {
            name += [UInt8](repeating: 0, count: SHA256.byteCount - name.count)
        } else {
            name = Array(SHA256.hash(data: name))
        }
        self.hash = name
        self.chainingKey = name
        self.mixHash(prologue)
    }

    /// Whether a secret has been mixed in: from then on everything is encrypted.
    var hasKey: Bool { self.key != nil }

    mutating func mixHash(_ data: [UInt8]) {
        var hasher = SHA256()
        hasher.update(data: self.hash)
        hasher.update(data: data)
        self.hash = Array(hasher.finalize())
    }

    mutating func mixKey(_ secret: [UInt8]) {
        let (chainingKey, key) = self.expand(secret)
        self.chainingKey = chainingKey.withUnsafeBytes { Array($0) }
        self.key = key
        self.nonce = 0
    }

    mutating func encryptAndHash(_ plaintext: [UInt8]) throws(NoiseError) -> [UInt8] {
        var out = plaintext
        if let key = self.key {
            guard
                let box = try? ChaChaPoly.seal(
                    plaintext, using: key, nonce: ChaChaPoly.Nonce(data: self.nextNonce()), authenticating: self.hash)
            else { throw .cipherFailed }
            out = Array(box.ciphertext) + Array(box.tag)
        }
        self.mixHash(out)
        return out
    }

    mutating func decryptAndHash(_ ciphertext: [UInt8], message: Int) throws(NoiseError) -> [UInt8] {
        var out = ciphertext
        if let key = self.key {
            guard
                let box = try? ChaChaPoly.SealedBox(
                    nonce: ChaChaPoly.Nonce(data: self.nextNonce()), ciphertext: ciphertext.dropLast(Self.tagBytes),
                    tag: ciphertext.suffix(Self.tagBytes)),
                let plaintext = try? ChaChaPoly.open(box, using: key, authenticating: self.hash)
            else { throw .handshakeMessageNotAuthentic(message: message) }
            out = Array(plaintext)
        }
        self.mixHash(ciphertext)
        return out
    }

    /// The initiator's key, then the responder's.
    func split() -> (SymmetricKey, SymmetricKey) { self.expand([]) }

    /// Noise's HKDF with two outputs is RFC 5869 with the chaining key as salt and no info.
    private func expand(_ secret: [UInt8]) -> (SymmetricKey, SymmetricKey) {
        let output = HKDF<SHA256>.deriveKey(
            inputKeyMaterial: SymmetricKey(data: secret), salt: self.chainingKey, outputByteCount: 64)
        return output.withUnsafeBytes { bytes in
            (SymmetricKey(data: bytes.prefix(32)), SymmetricKey(data: bytes.suffix(32)))
        }
    }

    /// 32 zero bits, then the counter, little-endian. A handshake uses each key a few times only, so it cannot run out.
    private mutating func nextNonce() -> [UInt8] {
        defer { self.nonce &+= 1 }
        return [0, 0, 0, 0] + withUnsafeBytes(of: self.nonce.littleEndian) { Array($0) }
    }
}
