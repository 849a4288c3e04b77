internal import LibP2PCore
internal import NIOCore

/// A WebSocket as a stream of bytes: plain bytes in, binary frames out, and the other way round.
///
/// Out: ``write(_:)`` only queues. ``flush()`` sends all that is queued as one frame, or as few as will hold it. A listener puts a
/// header in front of the owner's buffers; a dialer gathers them behind the header, masked on the way.
///
/// In: a dialer passes the frames' payloads on as they lie in the input; a listener unmasks all that a chunk of input holds into one
/// buffer. Pings are answered at the end of a burst, only the newest where several came (RFC 6455 § 5.5.3), and when the stream
/// beneath has room: pings that nobody waits for use up no memory.
///
/// The end: a WebSocket has no half that lives on. The remote's close frame is the end of its direction, and answered when the owner
/// has been told; so it ends ours, after what is queued. ``closeWrite()`` sends a close frame first.
/// The socket is closed by then or after ``closeGrace``.
///
/// Spec: RFC 6455 § 5 to § 7.
final class WebSocketStream: ByteStream, ByteStreamReceiver, @unchecked Sendable {
    // Not `Sendable` by the compiler's rules: all state belongs to `eventLoop`.

    /// Unflushed bytes above which the stream is not writable.
    static let writableBound = 262_144
    /// The longest frame sent, in bytes. Some peers refuse messages beyond 1 MiB.
    static let maximumSentFrameBytes = 262_144
    /// How long the remote's close frame, and its end, are waited for.
    static let closeGrace = TimeAmount.milliseconds(100)
    /// How long buffers are kept without traffic, at least; at most twice as long.
    static let idleTime = TimeAmount.seconds(5)

    private enum Phase {
        case open
        /// We have said all we had to, and wait for the remote to do the same.
        case closing((any Error)?)
        /// Gone, and nobody was there to be told.
        case ended((any Error)?)
        case closed
    }

    let eventLoop: any EventLoop
    /// What carries the frames.
    let base: any ByteStream

    private let role: Role
    private var phase = Phase.open
    private var owner: (any ByteStreamReceiver)?

    // Out.
    private var queued: [ByteBuffer] = []
    private var queuedBytes = 0
    private var isSending = false
    private var hasSentClose = false
    private var outgoing = BufferRing(count: 4)
    private var randomness = SystemRandomNumberGenerator()
    /// The newest ping that is not answered yet.
    private var unansweredPing: ByteBuffer?

    // In.
    private var reader: WebSocketReader
    private var plaintext = BufferRing(count: 2)
    private var wantsReading = false
    private var isReadingFrames = false
    /// Frames that arrived while nobody wanted input.
    private var held: ByteBuffer
    /// Ends that came behind `held`.
    private var inputHasEnded = false
    private var hasClosed = false
    private var hasToldInputEnd = false

    private var graceTimer: Scheduled<Void>?
    private var hadTraffic = false
    private var idleTimer: Scheduled<Void>?

    /// Takes over `base` as its receiver. Event loop only.
    ///
    /// - Parameters:
    ///   - base: What the opening handshake ran on, with reading off.
    ///   - earlyInput: What the opening handshake has read beyond its own words.
    init(_ base: any ByteStream, role: Role, earlyInput: ByteBuffer = ByteBuffer()) {
        self.base = base
        self.eventLoop = base.eventLoop
        self.role = role
        self.reader = WebSocketReader(remote: role.opposite)
        self.held = earlyInput
        base.receiver = self
    }

    // MARK: ByteStream

    var receiver: (any ByteStreamReceiver)? {
        get { self.owner }
        set {
            switch self.phase {
            case .open, .closing:
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

    var isWritable: Bool {
        guard case .open = self.phase, !self.hasSentClose else { return false }
        return self.queuedBytes < Self.writableBound && self.base.isWritable
    }

    func write(_ bytes: ByteBuffer) {
        guard case .open = self.phase, !self.hasSentClose, bytes.readableBytes > 0 else { return }
        self.queuedBytes += bytes.readableBytes
        self.queued.append(bytes)
    }

    func flush() {
        // The stream beneath may call back while it is written to, and the owner may flush again: only the outermost call sends.
        guard case .open = self.phase, !self.queued.isEmpty, !self.isSending else { return }
        let wasFull = self.queuedBytes >= Self.writableBound
        self.isSending = true
        defer { self.isSending = false }
        while !self.queued.isEmpty { self.sendFrame() }
        self.base.flush()
        if wasFull, self.isWritable { self.owner?.writabilityChanged() }
    }

    func setReading(_ wanted: Bool) {
        self.wantsReading = wanted
        guard case .open = self.phase else { return }
        guard wanted else { return self.base.setReading(false) }
        if self.releaseHeldInput() { self.base.setReading(true) }
    }

    func closeWrite() {
        guard case .open = self.phase, !self.hasSentClose else { return }
        self.flush()
        self.sendClose(.normal)
        if self.hasToldInputEnd { self.linger(nil) }
    }

    func close(_ error: (any Error)?) {
        self.dropQueues()
        guard !self.hasClosed else { return self.end(error) }
        switch self.phase {
        case .open:
            if !self.hasSentClose { self.sendClose(.normal) }
            if error == nil { self.linger(nil) } else { self.abort(error) }
        case .closing(let reason):
            if error != nil { self.abort(reason ?? error) }
        case .ended, .closed:
            break
        }
    }

    // MARK: Out

    /// Sends what is queued, up to the longest frame.
    private func sendFrame() {
        self.noteTraffic()
        var length = 0
        var count = 0
        for bytes in self.queued {
            guard length + bytes.readableBytes <= Self.maximumSentFrameBytes else { break }
            length += bytes.readableBytes
            count += 1
        }
        var payload: [ByteBuffer] = []
        if count == self.queued.count {
            swap(&payload, &self.queued)
        } else if count > 0 {
            payload = Array(self.queued[..<count])
            self.queued.removeFirst(count)
        } else if let part = self.queued[0].readSlice(length: Self.maximumSentFrameBytes) {
            length = Self.maximumSentFrameBytes
            payload = [part]
        }
        self.queuedBytes -= length
        var header = WebSocketFrameHeader(opcode: .binary, length: length)
        switch self.role {
        case .listener:
            self.base.write(
                self.outgoing.fill(minimumCapacity: WebSocketFrameHeader.maximumBytes) {
                    $0.writeWebSocketHeader(header)
                })
            for bytes in payload { self.base.write(bytes) }
        case .dialer:
            var mask = self.makeMask()
            header.mask = mask
            self.base.write(
                self.outgoing.fill(minimumCapacity: WebSocketFrameHeader.maximumBytes + length) { frame in
                    frame.writeWebSocketHeader(header)
                    for bytes in payload {
                        frame.writeBuffer(bytes, mask: mask)
                        mask = mask.advanced(by: bytes.readableBytes)
                    }
                })
        }
        // The array is used again.
        payload.removeAll(keepingCapacity: true)
        if self.queued.isEmpty { swap(&payload, &self.queued) }
    }

    private func sendControl(_ opcode: WebSocketFrameHeader.Opcode, _ payload: ByteBuffer) {
        let mask = self.role == .dialer ? self.makeMask() : nil
        var frame = ByteBuffer()
        frame.writeWebSocketHeader(
            WebSocketFrameHeader(opcode: opcode, mask: mask, length: payload.readableBytes))
        frame.writeBuffer(payload, mask: mask ?? WebSocketMask(key: 0))
        self.base.write(frame)
        self.base.flush()
    }

    private func sendClose(_ close: WebSocketClose) {
        guard !self.hasSentClose else { return }
        self.hasSentClose = true
        self.unansweredPing = nil
        self.sendControl(.close, close.payload)
    }

    private func answerPing() {
        guard case .open = self.phase, !self.hasSentClose, self.base.isWritable, let ping = self.unansweredPing.take()
        else { return }
        self.sendControl(.pong, ping)
    }

    private func makeMask() -> WebSocketMask { WebSocketMask(key: self.randomness.next()) }

    // MARK: ByteStreamReceiver

    func received(_ bytes: ByteBuffer) {
        switch self.phase {
        case .open:
            if self.held.readableBytes == 0 { self.held = bytes } else { self.held.writeImmutableBuffer(bytes) }
            self.readFrames()
        case .closing:
            self.readLastFrames(bytes)
        case .ended, .closed:
            break
        }
    }

    func receiveComplete() {
        self.answerPing()
        guard case .open = self.phase, self.wantsReading else { return }
        self.owner?.receiveComplete()
    }

    func writabilityChanged() {
        self.answerPing()
        guard case .open = self.phase else { return }
        self.owner?.writabilityChanged()
    }

    func inputEnded() {
        switch self.phase {
        case .open where self.held.readableBytes > 0:
            self.inputHasEnded = true
        case .open where self.reader.isWithinFrame:
            self.fail(.frameCutOff)
        case .open:
            self.remoteHasEnded(WebSocketClose(code: nil))
        case .closing(let reason):
            self.abort(reason)
        case .ended, .closed:
            break
        }
    }

    func closed(_ error: (any Error)?) {
        switch self.phase {
        case .open where error == nil && self.held.readableBytes > 0:
            // An orderly end comes after all input.
            self.hasClosed = true
        case .open:
            self.end(error ?? (self.reader.isWithinFrame ? WebSocketError.frameCutOff : nil))
        case .closing(let reason):
            self.end(reason)
        case .ended, .closed:
            break
        }
    }

    // MARK: In

    /// Delivers what is in `held`, as long as it is wanted.
    private func readFrames() {
        guard !self.isReadingFrames else { return }
        self.isReadingFrames = true
        defer { self.isReadingFrames = false }
        while case .open = self.phase, self.wantsReading, self.owner != nil, self.held.readableBytes > 0 {
            self.noteTraffic()
            var input = self.held
            self.held = ByteBuffer()
            do {
                let close = try self.role == .listener ? self.unmaskFrames(&input) : self.passFrames(&input)
                if let close {
                    self.remoteHasEnded(close)
                } else if case .open = self.phase, input.readableBytes > 0 {
                    // More may have come in the meantime.
                    input.writeImmutableBuffer(self.held)
                    self.held = input
                }
            } catch {
                self.fail(error)
            }
        }
    }

    /// Delivers the payload of all frames in `input` at once, unmasked.
    private func unmaskFrames(_ input: inout ByteBuffer) throws(WebSocketError) -> WebSocketClose? {
        var close: WebSocketClose?
        var failure: WebSocketError?
        let bytes = self.plaintext.fill(minimumCapacity: input.readableBytes) { buffer in
            do throws(WebSocketError) {
                while let event = try self.reader.next(&input) {
                    switch event {
                    case .data(let bytes, let mask): buffer.writeBuffer(bytes, mask: mask ?? WebSocketMask(key: 0))
                    case .ping(let payload): self.unansweredPing = payload
                    case .close(let end): close = end
                    }
                }
            } catch {
                failure = error
            }
        }
        if bytes.readableBytes > 0 { self.owner?.received(bytes) }
        if let failure { throw failure }
        return close
    }

    /// Delivers the payload of the frames in `input`, as long as it is wanted.
    private func passFrames(_ input: inout ByteBuffer) throws(WebSocketError) -> WebSocketClose? {
        while case .open = self.phase, self.wantsReading, let event = try self.reader.next(&input) {
            switch event {
            case .data(let bytes, _): self.owner?.received(bytes)
            case .ping(let payload): self.unansweredPing = payload
            case .close(let close): return close
            }
        }
        return nil
    }

    /// Looks for the remote's close frame, or any reason to wait no longer for it.
    private func readLastFrames(_ bytes: ByteBuffer) {
        guard case .closing(let reason) = self.phase else { return }
        var input = bytes
        do throws(WebSocketError) {
            while let event = try self.reader.next(&input) {
                if case .close = event { return self.abort(reason) }
            }
        } catch {
            self.abort(reason)
        }
    }

    /// Delivers what was held back as long as it is wanted; true when nothing is left and more may come.
    private func releaseHeldInput() -> Bool {
        guard case .open = self.phase, self.owner != nil else { return false }
        // Called by the owner from within a delivery: that goes on by itself.
        guard !self.isReadingFrames else { return true }
        if self.held.readableBytes > 0 {
            self.readFrames()
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

    // MARK: The end

    /// The remote sends nothing more.
    private func remoteHasEnded(_ close: WebSocketClose) {
        guard case .open = self.phase, !self.hasToldInputEnd else { return }
        if !close.isOrderly, let code = close.code {
            return self.fail(.closedByRemote(code: code, reason: close.reason))
        }
        self.hasToldInputEnd = true
        self.owner?.inputEnded()
        guard case .open = self.phase else { return }
        self.flush()
        self.sendClose(WebSocketClose(code: close.code ?? 1000))
        self.linger(nil)
    }

    /// Waits for the remote to end the connection, as the dialer of a WebSocket should, or to answer our close frame.
    private func linger(_ reason: (any Error)?) {
        guard case .open = self.phase else { return }
        guard !self.hasClosed, !self.inputHasEnded else { return self.abort(reason) }
        self.phase = .closing(reason)
        self.dropQueues()
        if self.hasToldInputEnd, self.role == .listener { self.base.closeWrite() }
        self.graceTimer = self.eventLoop.scheduleTask(in: Self.closeGrace) { self.abort(reason) }
        self.base.setReading(true)
    }

    private func fail(_ error: WebSocketError) {
        guard case .open = self.phase else { return }
        self.sendClose(WebSocketClose(code: error.closeCode))
        self.abort(error)
    }

    private func abort(_ error: (any Error)?) {
        guard !self.hasClosed else { return self.end(error) }
        self.phase = .closing(error)
        self.dropQueues()
        self.graceTimer?.cancel()
        self.graceTimer = nil
        self.base.close(error)
    }

    private func dropQueues() {
        self.queued.removeAll()
        self.queuedBytes = 0
        self.held = ByteBuffer()
        self.inputHasEnded = false
        self.unansweredPing = nil
    }

    private func end(_ error: (any Error)?) {
        let owner = self.owner.take()
        self.phase = owner == nil ? .ended(error) : .closed
        self.hasClosed = false
        self.dropQueues()
        self.graceTimer?.cancel()
        self.graceTimer = nil
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
        if self.queued.isEmpty { self.queued = [] }
    }

    /// Whether large buffers are held at the moment.
    var holdsBuffers: Bool { !self.outgoing.isEmpty || !self.plaintext.isEmpty }
}
