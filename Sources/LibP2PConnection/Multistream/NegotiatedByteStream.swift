package import LibP2PCore
package import NIOCore

/// A byte stream on which multistream-select runs, or ran, first.
///
/// The negotiation's messages are hidden, and input that arrived behind them is delivered as if it were the first. As soon as
/// that is done, the owner's receiver is installed on the stream beneath, and input no longer passes through here.
///
/// Made by ``StreamNegotiator``. An optimistic one is handed out before the listener has answered: it takes writes at once,
/// delivers nothing before the answer is verified, and ends with the ``NegotiationError`` when there is no agreement.
package class NegotiatedByteStream: ByteStream, ByteStreamReceiver, @unchecked Sendable {
    // Not `Sendable` by the compiler's rules: all state belongs to `eventLoop`.

    enum Phase {
        case dialing(MultistreamDialer)
        case listening(MultistreamListener, accepts: (ProtocolID) -> Bool)
        /// Agreed, and early input waits for a receiver that wants it.
        case holding
        /// Agreed, and the receiver is installed beneath.
        case transparent
        /// No agreement; the stream beneath is about to close.
        case failed(NegotiationError)
        /// Gone, and nobody was there to be told.
        case ended((any Error)?)
        case closed
    }

    package let base: any ByteStream
    package let eventLoop: any EventLoop

    private var phase: Phase
    /// The owner's receiver, until it is installed beneath.
    private var waitingReceiver: (any ByteStreamReceiver)?
    private var wantsReading = false
    /// What arrived behind the negotiation's last message.
    private var leftover = ByteBuffer()
    /// The ends that came while `leftover` was not yet delivered.
    private var inputHasEnded = false
    private var hasClosed = false
    /// Between `received` and `receiveComplete` of the stream beneath.
    private var isInBurst = false
    /// An optimistic header is queued beneath, and nothing has been flushed since.
    private var headerIsUnsent = false
    private let timeout: TimeAmount
    private var timer: Scheduled<Void>?
    private var agreement: EventLoopPromise<Void>?
    /// The stream beneath may hold its receiver weakly.
    private var selfWhileNegotiating: NegotiatedByteStream?

    /// What was agreed on. `nil` until then.
    package private(set) var agreedProtocol: ProtocolID?

    init(_ base: any ByteStream, phase: Phase, timeout: TimeAmount) {
        self.base = base
        self.eventLoop = base.eventLoop
        self.phase = phase
        self.timeout = timeout
    }

    /// Kills the stream beneath; its protocol is not the one wanted.
    func abandon(_ error: NegotiationError) {
        self.base.close(error)
    }

    /// Tells whoever cares what was agreed on.
    func agreed(on protocolID: ProtocolID) {
        self.agreedProtocol = protocolID
    }

    // MARK: Negotiation

    /// Starts to negotiate; completes when the protocol is settled.
    func negotiate() -> EventLoopFuture<Void> {
        let promise = self.eventLoop.makePromise(of: Void.self)
        self.agreement = promise
        self.base.receiver = self
        switch self.phase {
        case .dialing(var machine):
            let action = machine.start()
            self.phase = .dialing(machine)
            self.expectAnswer()
            self.perform(action)
        case .listening(let machine, _):
            self.base.write(machine.start())
            self.base.flush()
            self.expectAnswer()
        case .holding, .transparent, .failed, .ended, .closed:
            break
        }
        return promise.futureResult
    }

    /// Queues the header and the only proposal; they go out with the first flush.
    func queueOptimisticHeader() throws(NegotiationError) {
        guard case .dialing(var machine) = self.phase else { return }
        self.base.receiver = self
        let action = machine.start()
        self.phase = .dialing(machine)
        switch action {
        case .send(let bytes):
            self.base.write(bytes)
            self.headerIsUnsent = true
        case .fail(let error):
            self.fail(error)
            throw error
        case .wait, .negotiated:
            break
        }
    }

    /// Takes in the remote's answer, for no longer than the time-out.
    private func expectAnswer() {
        self.selfWhileNegotiating = self
        self.timer = self.eventLoop.scheduleTask(in: self.timeout) { self.fail(.timedOut) }
        self.base.setReading(true)
    }

    /// Whatever is flushed first carries the header, and from then on an answer can come.
    private func headerIsOut() {
        guard self.headerIsUnsent else { return }
        self.headerIsUnsent = false
        self.expectAnswer()
    }

    private func perform(_ action: NegotiationAction) {
        switch action {
        case .wait:
            break
        case .send(let bytes):
            self.base.write(bytes)
            self.base.flush()
        case .negotiated(let protocolID, let reply, let leftover):
            if let reply {
                self.base.write(reply)
                self.base.flush()
            }
            self.phase = .holding
            self.leftover = leftover
            self.agreed(on: protocolID)
            self.base.setReading(false)
            self.settle(.success(()))
            self.handOver()
        case .fail(let error):
            self.fail(error)
        }
    }

    private func fail(_ error: NegotiationError) {
        self.phase = .failed(error)
        self.abandon(error)
        self.settle(.failure(error))
    }

    private func settle(_ result: Result<Void, any Error>) {
        self.timer?.cancel()
        self.timer = nil
        self.selfWhileNegotiating = nil
        self.agreement.take()?.completeWith(result)
    }

    /// Delivers what was held back to a receiver that wants it, then installs that beneath.
    private func handOver() {
        guard case .holding = self.phase, let receiver = self.waitingReceiver else { return }
        guard self.leftover.readableBytes > 0 || self.inputHasEnded || self.hasClosed else {
            self.phase = .transparent
            self.waitingReceiver = nil
            self.base.receiver = receiver
            self.base.setReading(self.wantsReading)
            return
        }
        guard self.wantsReading else { return }
        if self.leftover.readableBytes > 0 {
            let bytes = self.leftover
            self.leftover = ByteBuffer()
            receiver.received(bytes)
            if !self.isInBurst { self.waitingReceiver?.receiveComplete() }
        } else if self.inputHasEnded {
            self.inputHasEnded = false
            receiver.inputEnded()
        } else {
            self.end(nil)
        }
        // The receiver may have pushed back, stepped down, or closed the stream meanwhile.
        self.handOver()
    }

    // MARK: ByteStream

    package var receiver: (any ByteStreamReceiver)? {
        get {
            if case .transparent = self.phase { self.base.receiver } else { self.waitingReceiver }
        }
        set {
            switch self.phase {
            case .transparent:
                self.base.receiver = newValue
            case .closed:
                break
            case .dialing, .listening, .holding, .failed:
                self.waitingReceiver = newValue
                self.handOver()
            case .ended(let error):
                // Later: the caller may not be ready for the end while it sets its receiver.
                self.waitingReceiver = newValue
                self.eventLoop.execute { self.end(error) }
            }
        }
    }

    package var isWritable: Bool { self.base.isWritable }

    package func write(_ bytes: ByteBuffer) {
        self.base.write(bytes)
    }

    package func flush() {
        self.base.flush()
        self.headerIsOut()
    }

    package func setReading(_ wanted: Bool) {
        self.wantsReading = wanted
        switch self.phase {
        case .transparent:
            self.base.setReading(wanted)
        case .holding:
            self.handOver()
        case .dialing where wanted && self.headerIsUnsent:
            // Who only listens gets no answer before the header is out. It waits for the end of this tick, in case
            // something is written yet that can go with it.
            self.eventLoop.execute {
                if self.headerIsUnsent { self.flush() }
            }
        case .dialing, .listening, .failed, .ended, .closed:
            break
        }
    }

    package func closeWrite() {
        self.base.closeWrite()
        self.headerIsOut()
    }

    package func close(_ error: (any Error)?) {
        self.giveUp()
        self.base.close(error)
    }

    /// The owner gives up the stream, which is no failure of the negotiation, and wants nothing that is held back.
    func giveUp() {
        switch self.phase {
        case .dialing, .listening:
            self.phase = .holding
            self.headerIsUnsent = false
            self.settle(.failure(NegotiationError.streamEnded))
        case .holding where self.hasClosed:
            self.end(nil)
        case .holding, .transparent, .failed, .ended, .closed:
            break
        }
        self.leftover = ByteBuffer()
        self.inputHasEnded = false
    }

    // MARK: ByteStreamReceiver

    // A stream may look up its receiver once per burst, so events still come here after the hand-over.
    private var successor: (any ByteStreamReceiver)? {
        guard case .transparent = self.phase, let receiver = self.base.receiver, receiver !== self else { return nil }
        return receiver
    }

    package func received(_ bytes: ByteBuffer) {
        self.isInBurst = true
        switch self.phase {
        case .dialing(var machine):
            let action = machine.receive(bytes)
            self.phase = .dialing(machine)
            self.perform(action)
        case .listening(var machine, let accepts):
            let action = machine.receive(bytes, accepts: accepts)
            self.phase = .listening(machine, accepts: accepts)
            self.perform(action)
        case .holding:
            self.leftover.writeImmutableBuffer(bytes)
            self.handOver()
        case .transparent:
            self.successor?.received(bytes)
        case .failed, .ended, .closed:
            break
        }
    }

    package func receiveComplete() {
        self.isInBurst = false
        self.successor?.receiveComplete()
    }

    package func writabilityChanged() {
        if case .transparent = self.phase {
            self.successor?.writabilityChanged()
        } else {
            self.waitingReceiver?.writabilityChanged()
        }
    }

    package func inputEnded() {
        switch self.phase {
        case .dialing(var machine):
            self.fail(machine.inputEnded())
        case .listening(var machine, _):
            self.fail(machine.inputEnded())
        case .holding:
            self.inputHasEnded = true
            self.handOver()
        case .transparent:
            self.successor?.inputEnded()
        case .failed, .ended, .closed:
            break
        }
    }

    package func closed(_ error: (any Error)?) {
        switch self.phase {
        case .dialing(let machine):
            self.end(self.refusal(error, of: machine.proposals) ?? error ?? NegotiationError.streamEnded)
        case .listening:
            self.end(error ?? NegotiationError.streamEnded)
        case .failed(let failure):
            self.end(failure)
        case .holding where error == nil && (self.leftover.readableBytes > 0 || self.inputHasEnded):
            // An orderly end comes after all input.
            self.hasClosed = true
        case .holding:
            self.end(error)
        case .transparent:
            let successor = self.successor
            self.phase = .closed
            successor?.closed(error)
        case .ended, .closed:
            break
        }
    }

    /// A listener may reset the stream instead of answering `na`.
    private func refusal(_ error: (any Error)?, of proposals: [ProtocolID]) -> NegotiationError? {
        guard let reset = error as? StreamResetError, reset.byRemote, reset.code == .protocolNegotiationFailed else {
            return nil
        }
        return .unsupported(proposals)
    }

    private func end(_ error: (any Error)?) {
        let receiver = self.waitingReceiver.take()
        self.phase = receiver == nil ? .ended(error) : .closed
        self.leftover = ByteBuffer()
        self.inputHasEnded = false
        self.settle(.failure(error ?? NegotiationError.streamEnded))
        receiver?.closed(error)
    }
}

/// A muxer's stream on which multistream-select runs, or ran, first.
package final class NegotiatedStream: NegotiatedByteStream, LibP2PCore.Stream, @unchecked Sendable {
    private let muxed: any LibP2PCore.Stream

    init(_ muxed: any LibP2PCore.Stream, phase: Phase, timeout: TimeAmount) {
        self.muxed = muxed
        super.init(muxed, phase: phase, timeout: timeout)
    }

    package var id: UInt64 { self.muxed.id }

    package var role: Role { self.muxed.role }

    package var protocolID: ProtocolID? {
        get { self.muxed.protocolID }
        set { self.muxed.protocolID = newValue }
    }

    package var connection: (any Connection)? { self.muxed.connection }

    package func reset(_ code: StreamErrorCode) {
        self.giveUp()
        self.muxed.reset(code)
    }

    override func abandon(_ error: NegotiationError) {
        self.muxed.reset(.protocolNegotiationFailed)
    }

    override func agreed(on protocolID: ProtocolID) {
        super.agreed(on: protocolID)
        self.muxed.protocolID = protocolID
    }
}
