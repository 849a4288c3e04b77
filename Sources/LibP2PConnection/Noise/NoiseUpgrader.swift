package import LibP2PCore
package import NIOCore
package import PeerIdentity

/// Secures connections with Noise: `/noise`.
///
/// Each handshake uses a fresh static key, which our identity key vouches for. There is no time-out here: whoever starts the
/// handshake closes the stream when it takes too long, and the future fails.
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
        return NoiseHandshakeDriver(stream, handshake: handshake).run()
    }
}

/// Moves the bytes of a ``NoiseHandshake``; decides nothing.
private final class NoiseHandshakeDriver: ByteStreamReceiver, @unchecked Sendable {
    // Not `Sendable` by the compiler's rules: all state belongs to the stream's event loop.

    private enum Phase {
        case running
        case failed(NoiseError)
        case secured(NoiseStream)
        case closed
    }

    private let stream: any ByteStream
    private let promise: EventLoopPromise<SecuredStream>
    private var handshake: NoiseHandshake
    private var phase = Phase.running
    /// The stream may hold its receiver weakly.
    private var selfWhileRunning: NoiseHandshakeDriver?

    init(_ stream: any ByteStream, handshake: NoiseHandshake) {
        self.stream = stream
        self.handshake = handshake
        self.promise = stream.eventLoop.makePromise()
    }

    func run() -> EventLoopFuture<SecuredStream> {
        self.selfWhileRunning = self
        self.stream.receiver = self
        self.perform(self.handshake.start())
        if case .running = self.phase { self.stream.setReading(true) }
        return self.promise.futureResult
    }

    private func perform(_ action: NoiseHandshake.Action) {
        switch action {
        case .wait:
            break
        case .send(let bytes):
            self.stream.write(bytes)
            self.stream.flush()
        case .finished(let session, let reply, let leftover):
            if let reply {
                self.stream.write(reply)
                self.stream.flush()
            }
            self.finish(session, leftover: leftover)
        case .fail(let error):
            self.fail(error)
        }
    }

    private func finish(_ session: NoiseSession, leftover: ByteBuffer) {
        do {
            let secured = try NoiseStream(self.stream, keys: session.keys, earlyInput: leftover)
            self.phase = .secured(secured)
            self.selfWhileRunning = nil
            self.stream.setReading(false)
            self.stream.receiver = secured
            self.promise.succeed(
                SecuredStream(stream: secured, remotePeer: session.remotePeer, muxer: session.muxer))
        } catch {
            self.fail(error)
        }
    }

    private func fail(_ error: NoiseError) {
        self.phase = .failed(error)
        self.selfWhileRunning = nil
        self.stream.close(error)
        self.promise.fail(error)
    }

    func received(_ bytes: ByteBuffer) {
        switch self.phase {
        case .running: self.perform(self.handshake.receive(bytes))
        // A stream may look up its receiver once per burst, so the rest of a burst still comes here.
        case .secured(let secured): secured.received(bytes)
        case .failed, .closed: break
        }
    }

    func receiveComplete() {
        if case .secured(let secured) = self.phase { secured.receiveComplete() }
    }

    func writabilityChanged() {
        if case .secured(let secured) = self.phase { secured.writabilityChanged() }
    }

    func inputEnded() {
        switch self.phase {
        case .running: self.fail(self.handshake.inputEnded())
        case .secured(let secured): secured.inputEnded()
        case .failed, .closed: break
        }
    }

    func closed(_ error: (any Error)?) {
        switch self.phase {
        case .running:
            self.phase = .closed
            self.selfWhileRunning = nil
            self.promise.fail(error ?? NoiseError.handshakeCutOff)
        case .secured(let secured): secured.closed(error)
        case .failed, .closed: break
        }
    }
}
