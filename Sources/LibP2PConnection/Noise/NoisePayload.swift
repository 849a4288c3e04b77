import FoundationEssentials
import LibP2PCore
import PeerIdentity
import SwiftProtobuf

/// What both sides prove and offer within the handshake: who they are, and which muxers they speak.
///
/// Spec: `noise/README.md` § libp2p Data in Handshake Messages.
struct NoisePayload: Equatable {
    private static let signaturePrefix = Array("noise-libp2p-static-key:".utf8)

    /// Who the sender is.
    let identityKey: PublicKey
    /// The identity key's signature over the sender's static Noise key.
    let signature: [UInt8]
    /// The sender's muxers in order of preference. Empty when it negotiates them later.
    let muxers: [ProtocolID]

    /// Our own payload, which vouches for `staticKey`.
    init(identity: PrivateKey, staticKey: [UInt8], muxers: [ProtocolID]) throws(NoiseError) {
        self.identityKey = identity.publicKey
        self.muxers = muxers
        do {
            self.signature = try identity.sign(Self.signaturePrefix + staticKey)
        } catch {
            throw .signingFailed(error)
        }
    }

    /// Reads the remote's payload and checks that it vouches for `staticKey`.
    init(encoded: [UInt8], vouchingFor staticKey: [UInt8]) throws(NoiseError) {
        guard let wire = try? WireNoiseHandshakePayload(serializedBytes: encoded), wire.hasIdentityKey,
            wire.hasIdentitySig
        else { throw .malformedPayload }
        do {
            self.identityKey = try PublicKey(encoded: Array(wire.identityKey))
        } catch {
            throw .invalidIdentityKey(error)
        }
        self.signature = Array(wire.identitySig)
        self.muxers = wire.extensions.streamMuxers.map { ProtocolID(rawValue: $0) }
        guard self.identityKey.isValidSignature(self.signature, for: Self.signaturePrefix + staticKey) else {
            throw .invalidSignature
        }
    }

    /// The bytes that go into the handshake message.
    func encode() throws(NoiseError) -> [UInt8] {
        var wire = WireNoiseHandshakePayload()
        wire.identityKey = .init(self.identityKey.encoded)
        wire.identitySig = .init(self.signature)
        if !self.muxers.isEmpty { wire.extensions.streamMuxers = self.muxers.map(\.rawValue) }
        // Nothing in this message is required, so encoding has no reason to fail.
        guard let bytes: [UInt8] = try? wire.serializedBytes() else { throw .malformedPayload }
        return bytes
    }

    /// The muxer that both lists settle: the first of the initiator's that the responder has too.
    ///
    /// - Returns: `nil` when either list is empty, and the muxer is negotiated later.
    /// - Throws: ``NoiseError/noCommonMuxer(ours:theirs:)``.
    static func muxer(ours: [ProtocolID], theirs: [ProtocolID], isInitiator: Bool) throws(NoiseError) -> ProtocolID? {
        guard !ours.isEmpty, !theirs.isEmpty else { return nil }
        let (proposed, spoken) = isInitiator ? (ours, theirs) : (theirs, ours)
        guard let muxer = proposed.first(where: { spoken.contains($0) }) else {
            throw .noCommonMuxer(ours: ours, theirs: Array(theirs.prefix(8)))
        }
        return muxer
    }
}
