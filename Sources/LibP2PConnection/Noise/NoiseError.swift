package import LibP2PCore
package import PeerIdentity

/// Why a Noise handshake or a connection secured by one ended.
package enum NoiseError: Error, Hashable, Sendable {
    /// A handshake message is longer than ``NoiseHandshake/maximumMessageBytes``.
    case handshakeMessageTooLong(bytes: Int)
    /// A handshake message, counted from 1, ends before its fixed parts do.
    case handshakeMessageTooShort(message: Int, bytes: Int)
    /// A handshake message, counted from 1, fails authentication: damaged, replayed, or another prologue.
    case handshakeMessageNotAuthentic(message: Int)
    /// The remote's key of this kind is a point of low order, with which every secret would be zero.
    case weakRemoteKey(message: Int)
    /// A handshake function was called out of turn.
    case handshakeOutOfTurn
    /// Our own payload does not fit into a message.
    case payloadTooLong(bytes: Int)
    /// The payload is not the protobuf message it should be, or lacks the identity key or the signature.
    case malformedPayload
    /// The identity key in the payload is none.
    case invalidIdentityKey(KeyError)
    /// The signature over the remote's static key was not made with its identity key.
    case invalidSignature
    /// Our own identity key cannot sign.
    case signingFailed(KeyError)
    /// Another peer than the one dialled is there.
    case unexpectedPeer(expected: PeerID, found: PeerID)
    /// Both sides announced muxers, and none is on both lists. Of the remote's list at most the first eight are kept.
    case noCommonMuxer(ours: [ProtocolID], theirs: [ProtocolID])
    /// The stream ended before the handshake did.
    case handshakeCutOff
    /// A record is too short to hold its tag.
    case recordTooShort(bytes: Int)
    /// A record, counted from 0 in its direction, fails authentication: damaged, replayed, or out of order.
    case recordNotAuthentic(number: UInt64)
    /// The stream ended within a record.
    case recordCutOff
    /// Every nonce of this direction has been used.
    case nonceExhausted
    /// The cipher is not available on this system, or gave up.
    case cipherFailed
}
