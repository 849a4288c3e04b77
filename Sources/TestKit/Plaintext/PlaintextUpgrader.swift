package import LibP2PCore
package import NIOCore
package import PeerIdentity

/// Plaintext 2.0, `/plaintext/2.0.0`: the peers believe each other, and everybody can read and change what they say. For tests with other
/// implementations, and nowhere else: the daemon does not have it.
///
/// Spec: `plaintext/README.md`.
package struct PlaintextUpgrader: SecurityUpgrader {
    package let protocolID: ProtocolID = "/plaintext/2.0.0"

    private let key: PublicKey

    /// - Parameter key: Who we say we are.
    package init(key: PublicKey) {
        self.key = key
    }

    package func secure(
        _ stream: any ByteStream, role: Role, expecting expected: PeerID?, muxers: [ProtocolID]
    ) -> EventLoopFuture<SecuredStream> {
        PlaintextStream(stream, PlaintextExchange(key: self.key, expecting: expected)).run()
    }
}

/// Runs the exchange, and is transparent then.
private final class PlaintextStream: ByteStream, ByteStreamReceiver, @unchecked Sendable {
    // Not `Sendable` by the compiler's rules: all state belongs to `eventLoop`.

    private enum Phase {
        case exchanging
        case open
        case failed(PlaintextError)
        /// Gone, and nobody was there to be told.
        case ended((any Error)?)
        case closed
    }

    let eventLoop: any EventLoop
    private let base: any ByteStream
    private var exchange: PlaintextExchange
    private var phase = Phase.exchanging
    private var owner: (any ByteStreamReceiver)?
    private var wantsReading = false
    /// What has come behind the exchange while nobody wanted it, and the ends behind that.
    private var held = ByteBuffer()
    private var inputHasEnded = false
    private let promise: EventLoopPromise<SecuredStream>
    /// The stream beneath may hold its receiver weakly.
    private var selfWhileExchanging: PlaintextStream?

    init(_ base: any ByteStream, _ exchange: PlaintextExchange) {
        self.base = base
        self.eventLoop = base.eventLoop
        self.exchange = exchange
        self.promise = base.eventLoop.makePromise()
    }

    func run() -> EventLoopFuture<SecuredStream> {
        self.selfWhileExchanging = self
        self.base.receiver = self
        do {
            self.base.write(try self.exchange.start())
            self.base.flush()
            self.base.setReading(true)
        } catch {
            self.fail(.malformedMessage)
        }
        return self.promise.futureResult
    }

    private func fail(_ error: PlaintextError) {
        self.phase = .failed(error)
        self.selfWhileExchanging = nil
        self.base.close(error)
        self.promise.fail(error)
    }

    // MARK: ByteStream

    var receiver: (any ByteStreamReceiver)? {
        get { self.owner }
        set {
            self.owner = newValue
            if case .ended(let error) = self.phase { self.eventLoop.execute { self.end(error) } }
        }
    }

    var isWritable: Bool { self.base.isWritable }

    func write(_ bytes: ByteBuffer) { self.base.write(bytes) }

    func flush() { self.base.flush() }

    func setReading(_ wanted: Bool) {
        self.wantsReading = wanted
        guard wanted else { return self.base.setReading(false) }
        // From a later tick: the caller may still be in the middle of its own change of state.
        self.eventLoop.execute { self.release() }
    }

    func closeWrite() { self.base.closeWrite() }

    func close(_ error: (any Error)?) { self.base.close(error) }

    private func release() {
        guard self.wantsReading, case .open = self.phase, let owner = self.owner else { return }
        if self.held.readableBytes > 0 {
            let bytes = self.held
            self.held = ByteBuffer()
            owner.received(bytes)
            owner.receiveComplete()
            return self.release()
        }
        if self.inputHasEnded {
            self.inputHasEnded = false
            owner.inputEnded()
        }
        if self.wantsReading { self.base.setReading(true) }
    }

    // MARK: ByteStreamReceiver

    func received(_ bytes: ByteBuffer) {
        switch self.phase {
        case .exchanging:
            switch self.exchange.receive(bytes) {
            case .wait: break
            case .fail(let error): self.fail(error)
            case .finished(let peer, let leftover):
                self.phase = .open
                self.selfWhileExchanging = nil
                self.held = leftover
                self.base.setReading(false)
                self.promise.succeed(SecuredStream(stream: self, remotePeer: peer, muxer: nil))
            }
        case .open:
            if self.wantsReading, self.held.readableBytes == 0, let owner = self.owner {
                owner.received(bytes)
            } else {
                self.held.writeImmutableBuffer(bytes)
            }
        case .failed, .ended, .closed: break
        }
    }

    func receiveComplete() {
        if case .open = self.phase { self.owner?.receiveComplete() }
    }

    func writabilityChanged() {
        if case .open = self.phase { self.owner?.writabilityChanged() }
    }

    func inputEnded() {
        switch self.phase {
        case .exchanging: self.fail(.cutOff)
        case .open where self.held.readableBytes > 0 || self.owner == nil: self.inputHasEnded = true
        case .open: self.owner?.inputEnded()
        case .failed, .ended, .closed: break
        }
    }

    func closed(_ error: (any Error)?) {
        switch self.phase {
        case .exchanging:
            self.phase = .closed
            self.selfWhileExchanging = nil
            self.promise.fail(error ?? PlaintextError.cutOff)
        case .open: self.end(error)
        case .failed, .ended, .closed: break
        }
    }

    private func end(_ error: (any Error)?) {
        let owner = self.owner.take()
        self.phase = owner == nil ? .ended(error) : .closed
        owner?.closed(error)
    }
}
