package import LibP2PCore
package import NIOCore
package import PeerIdentity

/// Secures connections with Noise: `/noise`.
///
/// Each handshake uses a fresh static key, which our identity key vouches for. There is no time-out here: whoever starts the
/// handshake closes the stream when it takes too long, and the future fails.
///
/// Fails with ``NoiseError``, or ``TransportError/peerMismatch(expected:found:)`` when somebody else is there.
///
/// Spec: `noise/README.md`.
package struct NoiseUpgrader: SecurityUpgrader {
    package let protocolID: ProtocolID = "/noise"

    private let identity: PrivateKey
    private let prologue: [UInt8]

    /// - Parameters:
    ///   - identity: Who we are.
    ///   - prologue: What both sides know already and want to be sure of. Empty over TCP and WebSocket.
    package init(identity: PrivateKey, prologue: [UInt8] = []) {
        self.identity = identity
        self.prologue = prologue
    }

    package func secure(
        _ stream: any ByteStream, role: Role, expecting expected: PeerID?, muxers: [ProtocolID]
    ) -> EventLoopFuture<SecuredStream> {
        let handshake = NoiseHandshake(
            NoiseHandshake.Configuration(
                role: role, identity: self.identity, expected: expected, muxers: muxers, prologue: self.prologue))
        return HandshakeDriver(stream, handshake: DrivenNoise(handshake: handshake)).run()
    }
}

/// A ``NoiseHandshake`` in the words of its driver.
private struct DrivenNoise: SecurityHandshake {
    var handshake: NoiseHandshake

    mutating func start() -> HandshakeStep { Self.step(self.handshake.start()) }

    mutating func receive(_ bytes: ByteBuffer) -> HandshakeStep { Self.step(self.handshake.receive(bytes)) }

    mutating func inputEnded() -> any Error { self.handshake.inputEnded() }

    private static func step(_ action: NoiseHandshake.Action) -> HandshakeStep {
        switch action {
        case .wait:
            .proceed(nil)
        case .send(let bytes):
            .proceed(bytes)
        case .finished(let session, let reply, let leftover):
            .finished(peer: session.remotePeer, muxer: session.muxer, reply: reply) { base in
                try NoiseStream(base, keys: session.keys, earlyInput: leftover)
            }
        case .fail(.unexpectedPeer(let expected, let found)):
            // The one failure that those above must understand, whatever the security protocol.
            .fail(TransportError.peerMismatch(expected: expected, found: found))
        case .fail(let error):
            .fail(error)
        }
    }
}
