package import LibP2PCore
package import NIOCore

/// A stream secured by records: plain bytes in, protected records out, and the other way round.
///
/// Out: ``write(_:)`` only queues. ``flush()``
///  1. has all that is queued packed and sealed, in order, into as few records as will hold it;
///  2. hands the outgoing buffers to the stream beneath, and flushes that once.
///
/// In: all records that a chunk of input completes are opened into one buffer, which the receiver gets in one call. A record that
/// is not complete yet is carried over.
///
/// Outgoing and plaintext buffers take turns (``BufferRing``), so steady traffic allocates nothing; after
/// ``idleTime`` without any, the stream holds no buffer at all.
///
/// A record that is not authentic ends the stream, and everything with it: nothing after it can be trusted.
package final class RecordStream<Protection: RecordProtection & ~Copyable>: SealedByteStream, ByteStreamReceiver,
    @unchecked Sendable
{
    // Not `Sendable` by the compiler's rules: all state belongs to `eventLoop`.

    /// Unflushed bytes above which the stream is not writable.
    package static var writableBound: Int { 262_144 }
    /// How long buffers are kept without traffic, at least; at most twice as long.
    package static var idleTime: TimeAmount { .seconds(5) }

    private enum Phase {
        case open
        /// We end it: the stream beneath is about to be closed, or is.
        case failed(any Error)
        /// Gone, and nobody was there to be told.
        case ended((any Error)?)
        case closed
    }

    package let eventLoop: any EventLoop
    /// The encrypted side.
    package let base: any ByteStream

    private var phase = Phase.open
    private var owner: (any ByteStreamReceiver)?
    private var protection: Protection

    // Out.
    private var queued: [ByteBuffer] = []
    private var queuedBytes = 0
    /// The batch that is being sealed, kept for its storage.
    private var sealing: [ByteBuffer] = []
    private var isSealing = false
    private var writeHasEnded = false
    /// Whether it is us who end both directions.
    private var isClosing = false
    private var outgoing = BufferRing(count: 4)

    // In.
    private var plaintext = BufferRing(count: 2)
    private var wantsReading = false
    /// Ciphertext that arrived while nobody wanted input.
    private var held = ByteBuffer()
    /// Ends that came behind `held`.
    private var inputHasEnded = false
    private var hasClosed = false
    /// Whether the remote has said, in the protocol's words, that nothing more comes.
    private var inputIsOver = false

    private var hadTraffic = false
    private var idleTimer: Scheduled<Void>?

    /// Plaintext bytes encrypted with the sending keys. Bounds the lifetime of a connection.
    package private(set) var bytesSealed: UInt64 = 0
    /// Plaintext bytes decrypted with the receiving keys.
    package private(set) var bytesOpened: UInt64 = 0

    /// - Parameters:
    ///   - base: The stream beneath. Whoever makes this stream installs it there as the receiver, with reading off.
    ///   - earlyInput: What the handshake has read beyond its own messages.
    init(_ base: any ByteStream, protection: consuming Protection, earlyInput: ByteBuffer = ByteBuffer()) {
        self.base = base
        self.eventLoop = base.eventLoop
        self.protection = protection
        self.held = earlyInput
    }

    // MARK: ByteStream

    package var receiver: (any ByteStreamReceiver)? {
        get { self.owner }
        set {
            switch self.phase {
            case .open, .failed:
                self.owner = newValue
            case .ended(let error):
                // Later: the caller may not be ready for the end while it sets its receiver.
                self.owner = newValue
                self.eventLoop.execute { self.end(error) }
            case .closed:
                break
            }
        }
    }

    package var isWritable: Bool { self.queuedBytes < Self.writableBound && self.base.isWritable }

    package func write(_ bytes: ByteBuffer) {
        guard case .open = self.phase, !self.writeHasEnded, bytes.readableBytes > 0 else { return }
        self.queuedBytes += bytes.readableBytes
        self.queued.append(bytes)
    }

    package func flush() {
        // The stream beneath may call back while it is written to, and the owner may flush again: records stay in order
        // because only the outermost call seals.
        guard case .open = self.phase, !self.queued.isEmpty, !self.isSealing else { return }
        let wasFull = self.queuedBytes >= Self.writableBound
        self.isSealing = true
        defer { self.isSealing = false }
        while !self.queued.isEmpty {
            swap(&self.queued, &self.sealing)
            self.bytesSealed += UInt64(self.queuedBytes)
            self.queuedBytes = 0
            do {
                try self.sealBatch()
            } catch {
                self.sealing.removeAll()
                self.fail(error)
                return
            }
            self.sealing.removeAll(keepingCapacity: true)
        }
        self.base.flush()
        if wasFull, self.base.isWritable { self.owner?.writabilityChanged() }
    }

    package func setReading(_ wanted: Bool) {
        self.wantsReading = wanted
        guard wanted else { return self.base.setReading(false) }
        if self.releaseHeldInput() { self.base.setReading(true) }
    }

    package func closeWrite() {
        guard case .open = self.phase, !self.writeHasEnded else { return }
        self.flush()
        guard case .open = self.phase else { return }
        self.writeHasEnded = true
        self.sendFarewell()
        self.base.closeWrite()
    }

    package func close(_ error: (any Error)?) {
        self.queued.removeAll()
        self.queuedBytes = 0
        self.held = ByteBuffer()
        self.inputHasEnded = false
        if self.hasClosed { return self.end(error) }
        self.isClosing = true
        if case .open = self.phase, error == nil, !self.writeHasEnded, !self.isSealing {
            self.writeHasEnded = true
            self.sendFarewell()
        }
        self.base.close(error)
    }

    // MARK: Out

    private func sealBatch() throws {
        self.noteTraffic()
        self.protection.startSealing(self.sealing)
        while let buffer = try self.protection.sealNext(&self.outgoing) { self.base.write(buffer) }
    }

    /// Tells the remote that nothing more comes.
    private func sendFarewell() {
        guard let message = self.protection.endOutput() else { return }
        self.base.write(message)
        self.base.flush()
    }

    private func sendMessages() {
        guard let messages = self.protection.takeMessages() else { return }
        self.base.write(messages)
        self.base.flush()
    }

    // MARK: ByteStreamReceiver

    package func received(_ bytes: ByteBuffer) {
        guard case .open = self.phase, !self.inputIsOver else { return }
        guard self.wantsReading, self.owner != nil, self.held.readableBytes == 0 else {
            self.held.writeImmutableBuffer(bytes)
            return
        }
        self.open(bytes)
    }

    package func receiveComplete() {
        guard case .open = self.phase, self.wantsReading else { return }
        self.owner?.receiveComplete()
    }

    package func writabilityChanged() {
        guard case .open = self.phase else { return }
        self.owner?.writabilityChanged()
    }

    package func inputEnded() {
        guard case .open = self.phase, !self.inputIsOver else { return }
        if self.held.readableBytes > 0 {
            self.inputHasEnded = true
        } else if let failure = self.protection.endInput() {
            self.fail(failure)
        } else {
            self.owner?.inputEnded()
        }
    }

    package func closed(_ error: (any Error)?) {
        switch self.phase {
        case .open where error == nil && self.held.readableBytes > 0:
            // An orderly end comes after all input.
            self.hasClosed = true
        case .open:
            self.end(error ?? (self.inputIsOver || self.isClosing ? nil : self.protection.endInput()))
        case .failed(let failure):
            self.end(failure)
        case .ended, .closed:
            break
        }
    }

    // MARK: In

    /// Opens the records that `bytes` complete, and delivers what was in them.
    private func open(_ bytes: ByteBuffer) {
        self.noteTraffic()
        let opened = self.protection.open(bytes, &self.plaintext)
        self.sendMessages()
        if opened.plaintext.readableBytes > 0, case .open = self.phase {
            self.bytesOpened += UInt64(opened.plaintext.readableBytes)
            self.owner?.received(opened.plaintext)
        }
        guard let end = opened.end, case .open = self.phase else { return }
        switch end {
        case .failed(let error):
            self.fail(error)
        case .orderly:
            self.inputIsOver = true
            self.owner?.inputEnded()
        }
    }

    /// Delivers what was held back as long as it is wanted; true when nothing is left and more may come.
    private func releaseHeldInput() -> Bool {
        guard case .open = self.phase, self.owner != nil else { return false }
        if self.held.readableBytes > 0 {
            let bytes = self.held
            self.held = ByteBuffer()
            self.open(bytes)
            self.receiveComplete()
        }
        guard case .open = self.phase, self.wantsReading, self.held.readableBytes == 0 else { return false }
        if self.inputHasEnded {
            self.inputHasEnded = false
            self.inputEnded()
        }
        if self.hasClosed {
            self.hasClosed = false
            self.closed(nil)
            return false
        }
        guard case .open = self.phase else { return false }
        return self.wantsReading
    }

    private func fail(_ error: any Error) {
        self.phase = .failed(error)
        self.queued.removeAll()
        self.queuedBytes = 0
        self.held = ByteBuffer()
        self.base.close(error)
    }

    private func end(_ error: (any Error)?) {
        let owner = self.owner.take()
        self.phase = owner == nil ? .ended(error) : .closed
        self.queued.removeAll()
        self.queuedBytes = 0
        self.held = ByteBuffer()
        self.idleTimer?.cancel()
        self.idleTimer = nil
        self.shrink()
        owner?.closed(error)
    }

    // MARK: Memory

    private func noteTraffic() {
        self.hadTraffic = true
        if self.idleTimer == nil { self.startIdleTimer() }
    }

    private func startIdleTimer() {
        self.idleTimer = self.eventLoop.scheduleTask(in: Self.idleTime) { [weak self] in self?.idleTimerFired() }
    }

    private func idleTimerFired() {
        self.idleTimer = nil
        if self.hadTraffic {
            self.hadTraffic = false
            self.startIdleTimer()
        } else {
            self.shrink()
        }
    }

    private func shrink() {
        self.outgoing.shrink()
        self.plaintext.shrink()
        self.protection.shrink()
        if !self.isSealing { self.sealing = [] }
        if self.queued.isEmpty { self.queued = [] }
    }

    /// Whether large buffers are held at the moment.
    var holdsBuffers: Bool { !self.outgoing.isEmpty || !self.plaintext.isEmpty }
}
