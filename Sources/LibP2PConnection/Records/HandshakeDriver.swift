import LibP2PCore
import NIOCore
import PeerIdentity

/// A handshake that ends in a secured stream. Bytes in, ``HandshakeStep`` out; ``HandshakeDriver`` moves them.
protocol SecurityHandshake {
    /// Begins. Once, before anything else.
    mutating func start() -> HandshakeStep
    /// Consumes bytes from the remote, until it answers with `finished` or `fail`.
    mutating func receive(_ bytes: ByteBuffer) -> HandshakeStep
    /// The input has ended before the handshake; returns what that means.
    mutating func inputEnded() -> any Error
}

/// What the driver of a handshake does next.
enum HandshakeStep {
    /// Write `bytes`, if any, then wait for input.
    case proceed(ByteBuffer?)
    /// Write `reply`, if any; then `secure` makes the secured stream of the plain one.
    case finished(
        peer: PeerID, muxer: ProtocolID?, reply: ByteBuffer?,
        secure: (any ByteStream) throws -> any ByteStream & ByteStreamReceiver)
    /// The stream is of no more use. `alert`, if any, is written before it is closed.
    case fail(any Error, alert: ByteBuffer? = nil)
}

/// Moves the bytes of a handshake; decides nothing.
final class HandshakeDriver<Handshake: SecurityHandshake>: ByteStreamReceiver, @unchecked Sendable {
    // Not `Sendable` by the compiler's rules: all state belongs to the stream's event loop.

    private enum Phase {
        case running
        case secured(any ByteStreamReceiver)
        case over
    }

    private let stream: any ByteStream
    private let promise: EventLoopPromise<SecuredStream>
    private var handshake: Handshake
    private var phase = Phase.running
    /// The stream may hold its receiver weakly.
    private var selfWhileRunning: HandshakeDriver?

    init(_ stream: any ByteStream, handshake: Handshake) {
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

    private func perform(_ step: HandshakeStep) {
        switch step {
        case .proceed(let bytes):
            self.send(bytes)
        case .finished(let peer, let muxer, let reply, let secure):
            self.send(reply)
            // The write may have ended the stream.
            guard case .running = self.phase else { return }
            do {
                let secured = try secure(self.stream)
                self.phase = .secured(secured)
                self.selfWhileRunning = nil
                self.stream.setReading(false)
                self.stream.receiver = secured
                self.promise.succeed(SecuredStream(stream: secured, remotePeer: peer, muxer: muxer))
            } catch {
                self.fail(error)
            }
        case .fail(let error, let alert):
            self.send(alert)
            self.fail(error)
        }
    }

    private func send(_ bytes: ByteBuffer?) {
        guard let bytes else { return }
        self.stream.write(bytes)
        self.stream.flush()
    }

    private func fail(_ error: any Error) {
        guard case .running = self.phase else { return }
        self.phase = .over
        self.selfWhileRunning = nil
        self.stream.close(error)
        self.promise.fail(error)
    }

    func received(_ bytes: ByteBuffer) {
        switch self.phase {
        case .running: self.perform(self.handshake.receive(bytes))
        // A stream may look up its receiver once per burst, so the rest of a burst still comes here.
        case .secured(let secured): secured.received(bytes)
        case .over: break
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
        case .over: break
        }
    }

    func closed(_ error: (any Error)?) {
        switch self.phase {
        case .running:
            self.phase = .over
            self.selfWhileRunning = nil
            let meaning = self.handshake.inputEnded()
            self.promise.fail(error ?? meaning)
        case .secured(let secured): secured.closed(error)
        case .over: break
        }
    }
}
