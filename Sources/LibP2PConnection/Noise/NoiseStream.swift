package import LibP2PCore
package import NIOCore

/// The transport phase of Noise: plain bytes in, encrypted records out, and the other way round.
///
/// Out: ``write(_:)`` only queues. ``flush()``
///  1. packs all that is queued, in order, into as few records as will hold it (``NoiseRecordPacker``);
///  2. encrypts straight into outgoing buffers that have room for each record's length and tag, after gathering what is small;
///  3. hands the outgoing buffers to the stream beneath, and flushes that once.
///
/// In: all records that a chunk of input completes are opened into one buffer, which the receiver gets in one call. A record that
/// is not complete yet is carried over.
///
/// Outgoing and plaintext buffers take turns (``BufferRing``), so steady traffic allocates nothing; after
/// ``idleTime`` without any, the stream holds no buffer at all.
///
/// A record that is not authentic ends the stream, and everything with it: nothing after it can be trusted.
///
/// Spec: `noise/README.md` § Wire Format; Noise protocol framework § 3.
package final class NoiseStream: SealedByteStream, ByteStreamReceiver, @unchecked Sendable {
    // Not `Sendable` by the compiler's rules: all state belongs to `eventLoop`.

    /// Unflushed bytes above which the stream is not writable.
    package static let writableBound = 262_144
    /// How long buffers are kept without traffic, at least; at most twice as long.
    package static let idleTime = TimeAmount.seconds(5)

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

    // Out.
    private var sealer: RecordSealer
    private var queued: [ByteBuffer] = []
    private var queuedBytes = 0
    /// The batch that is being sealed, kept for its storage.
    private var sealing: [ByteBuffer] = []
    private var isSealing = false
    private var writeHasEnded = false
    private var outgoing = BufferRing(count: 4)

    // In.
    private var records: NoiseRecordReader
    private var plaintext = BufferRing(count: 2)
    private var wantsReading = false
    /// Ciphertext that arrived while nobody wanted input.
    private var held = ByteBuffer()
    /// Ends that came behind `held`.
    private var inputHasEnded = false
    private var hasClosed = false

    private var hadTraffic = false
    private var idleTimer: Scheduled<Void>?

    /// Plaintext bytes encrypted with the sending key. Bounds the lifetime of a connection.
    package private(set) var bytesSealed: UInt64 = 0
    /// Plaintext bytes decrypted with the receiving key.
    package private(set) var bytesOpened: UInt64 = 0

    /// - Parameters:
    ///   - base: The stream beneath. Whoever makes this stream installs it there as the receiver, with reading off.
    ///   - earlyInput: What the handshake has read beyond its own messages.
    init(
        _ base: any ByteStream, keys: NoiseTransportKeys, earlyInput: ByteBuffer = ByteBuffer(), firstRecord: UInt64 = 0
    ) throws(NoiseError) {
        self.base = base
        self.eventLoop = base.eventLoop
        self.sealer = try RecordSealer(key: keys.sending, firstRecord: firstRecord)
        self.records = NoiseRecordReader(opener: try RecordOpener(key: keys.receiving, firstRecord: firstRecord))
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
        self.writeHasEnded = true
        self.base.closeWrite()
    }

    package func close(_ error: (any Error)?) {
        self.queued.removeAll()
        self.queuedBytes = 0
        self.held = ByteBuffer()
        self.inputHasEnded = false
        if self.hasClosed { return self.end(error) }
        self.base.close(error)
    }

    // MARK: Out

    private func sealBatch() throws(NoiseError) {
        self.noteTraffic()
        var packer = NoiseRecordPacker(self.sealing)
        while !packer.isEmpty {
            let capacity = packer.nextBufferCapacity
            let buffer = try self.outgoing.fill(minimumCapacity: capacity) { (buffer) throws(NoiseError) in
                self.bytesSealed += UInt64(try packer.fill(&buffer, capacity: capacity, sealer: &self.sealer))
            }
            self.base.write(buffer)
        }
    }

    // MARK: ByteStreamReceiver

    package func received(_ bytes: ByteBuffer) {
        guard case .open = self.phase else { return }
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
        guard case .open = self.phase else { return }
        if self.held.readableBytes > 0 {
            self.inputHasEnded = true
        } else if self.records.isWithinRecord {
            self.fail(NoiseError.recordCutOff)
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
            self.end(error ?? (self.records.isWithinRecord ? NoiseError.recordCutOff : nil))
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
        var failure: NoiseError?
        if let capacity = self.records.plaintextCapacity(with: bytes) {
            do {
                let plaintext = try self.plaintext.fill(minimumCapacity: capacity) { (buffer) throws(NoiseError) in
                    failure = self.records.read(bytes, into: &buffer)
                }
                if plaintext.readableBytes > 0 {
                    self.bytesOpened += UInt64(plaintext.readableBytes)
                    self.owner?.received(plaintext)
                }
            } catch {
                failure = error
            }
        } else {
            self.records.carry(bytes)
        }
        if let failure, case .open = self.phase { self.fail(failure) }
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

    private func fail(_ error: NoiseError) {
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
        self.records.shrink()
        if !self.isSealing { self.sealing = [] }
        if self.queued.isEmpty { self.queued = [] }
    }

    /// Whether large buffers are held at the moment.
    var holdsBuffers: Bool { !self.outgoing.isEmpty || !self.plaintext.isEmpty }
}
