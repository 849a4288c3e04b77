import Crypto
import LibP2PCore
import NIOCore
import PeerIdentity

/// libp2p's Noise handshake: framed messages, proof of identity, early choice of the muxer.
///
/// Pure: bytes in, ``Action`` out. Call ``start()`` once, then ``receive(_:)`` for all input until it answers with `finished` or
/// `fail`; after that the machine is of no more use.
///
/// Spec: `noise/README.md`.
struct NoiseHandshake {
    /// What the driver does next.
    enum Action: Equatable {
        /// More input is needed.
        case wait
        /// Write these bytes, then wait for input.
        case send(ByteBuffer)
        /// Done. `reply`, if any, is to be written first; `leftover` is the beginning of the transport phase.
        case finished(NoiseSession, reply: ByteBuffer?, leftover: ByteBuffer)
        /// The stream is of no more use.
        case fail(NoiseError)
    }

    /// The longest handshake message accepted, in bytes. The framing allows 65,535; with the longest RSA key and signature
    /// and both extensions a message stays far below this.
    static let maximumMessageBytes = 16_384

    /// Who takes part, and what is expected of the remote.
    struct Configuration {
        var role: Role
        /// Our identity; it vouches for the static key.
        var identity: PeerIdentity.PrivateKey
        /// Who must be at the far end; `nil` when any peer may be.
        var expected: PeerID?
        /// Our muxers in order of preference; empty when they are negotiated later.
        var muxers: [ProtocolID] = []
        /// Empty over TCP and WebSocket.
        var prologue: [UInt8] = []
    }

    private let configuration: Configuration
    private let staticKey: NoiseXX.PrivateKey
    private var noise: NoiseXX
    private var received = ByteBuffer()
    private var isOver = false

    /// A machine with static and ephemeral keys of its own. They are parameters for the sake of test vectors.
    init(
        _ configuration: Configuration, staticKey: NoiseXX.PrivateKey = .init(),
        ephemeralKey: NoiseXX.PrivateKey = .init()
    ) {
        self.configuration = configuration
        self.staticKey = staticKey
        self.noise = NoiseXX(
            isInitiator: configuration.role == .dialer, prologue: configuration.prologue, staticKey: staticKey,
            ephemeralKey: ephemeralKey)
    }

    /// Begins: the initiator speaks first, with an empty payload.
    mutating func start() -> Action {
        guard self.configuration.role == .dialer else { return .wait }
        do {
            return .send(try Self.frame(self.noise.writeMessage(payload: [])))
        } catch {
            return self.fail(error)
        }
    }

    /// Consumes bytes from the remote.
    mutating func receive(_ bytes: ByteBuffer) -> Action {
        guard !self.isOver else { return .fail(.handshakeOutOfTurn) }
        self.received.writeImmutableBuffer(bytes)
        do {
            var out: ByteBuffer?
            while let message = try self.nextMessage() {
                let payload = try self.noise.readMessage(message)
                var remote: Remote?
                // The first message's payload is not authenticated, and means nothing.
                if let staticKey = self.noise.remoteStaticKey {
                    remote = try self.admit(payload, staticKey: Array(staticKey.rawRepresentation))
                }
                if self.noise.isOurTurn {
                    let reply = try Self.frame(self.noise.writeMessage(payload: self.ownPayload()))
                    out.setOrWriteImmutableBuffer(reply)
                }
                if let remote, self.noise.isFinished {
                    let session = NoiseSession(
                        remotePeer: remote.peer, remoteKey: remote.key, muxer: remote.muxer,
                        keys: try self.noise.split(),
                        handshakeHash: self.noise.handshakeHash)
                    self.isOver = true
                    return .finished(session, reply: out, leftover: self.received)
                }
            }
            return out.map { .send($0) } ?? .wait
        } catch {
            return self.fail(error)
        }
    }

    /// The input has ended before the handshake; returns what that means.
    mutating func inputEnded() -> NoiseError {
        self.isOver = true
        return .handshakeCutOff
    }

    /// The next whole message; `nil` when more bytes are needed.
    private mutating func nextMessage() throws(NoiseError) -> [UInt8]? {
        guard let length = self.received.getInteger(at: self.received.readerIndex, as: UInt16.self) else { return nil }
        guard length <= Self.maximumMessageBytes else { throw .handshakeMessageTooLong(bytes: Int(length)) }
        guard let message = self.received.getBytes(at: self.received.readerIndex + 2, length: Int(length)) else {
            return nil
        }
        self.received.moveReaderIndex(forwardBy: 2 + Int(length))
        return message
    }

    private func ownPayload() throws(NoiseError) -> [UInt8] {
        try NoisePayload(
            identity: self.configuration.identity, staticKey: Array(self.staticKey.publicKey.rawRepresentation),
            muxers: self.configuration.muxers
        ).encode()
    }

    /// What the remote's payload has proven and settled.
    private typealias Remote = (peer: PeerID, key: PeerIdentity.PublicKey, muxer: ProtocolID?)

    private func admit(_ payload: [UInt8], staticKey: [UInt8]) throws(NoiseError) -> Remote {
        let theirs = try NoisePayload(encoded: payload, vouchingFor: staticKey)
        let peer = PeerID(theirs.identityKey)
        if let expected = self.configuration.expected, expected != peer {
            throw .unexpectedPeer(expected: expected, found: peer)
        }
        let muxer = try NoisePayload.muxer(
            ours: self.configuration.muxers, theirs: theirs.muxers, isInitiator: self.configuration.role == .dialer)
        return (peer, theirs.identityKey, muxer)
    }

    private mutating func fail(_ error: NoiseError) -> Action {
        self.isOver = true
        self.received = ByteBuffer()
        return .fail(error)
    }

    private static func frame(_ message: [UInt8]) throws(NoiseError) -> ByteBuffer {
        guard message.count <= Self.maximumMessageBytes else { throw .payloadTooLong(bytes: message.count) }
        var out = ByteBuffer()
        out.writeInteger(UInt16(message.count))
        out.writeBytes(message)
        return out
    }
}

/// The outcome of a Noise handshake.
struct NoiseSession: Equatable {
    /// Who is at the far end, proven.
    let remotePeer: PeerID
    /// The key that the peer ID is made of.
    let remoteKey: PublicKey
    /// The muxer that both lists settled; `nil` when it is negotiated later.
    let muxer: ProtocolID?
    /// The keys of the transport phase.
    let keys: NoiseTransportKeys
    /// Binds something above to this very session. Equal on both sides.
    let handshakeHash: [UInt8]
}
