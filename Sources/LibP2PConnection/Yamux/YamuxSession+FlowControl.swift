import DequeModule
import LibP2PCore
import NIOCore

extension YamuxSession {
    // MARK: Sending

    /// Queues bytes of a stream, which the session owns from now on. Ignored once its direction is ending.
    mutating func write(_ bytes: ByteBuffer, to id: UInt32) {
        guard bytes.readableBytes > 0, let index = self.streams.index(forKey: id) else { return }
        self.streams.values[index].enqueue(bytes)
        self.noteSendability(at: index, id)
    }

    /// Lets go out what is queued, and announces a new stream even if nothing is.
    mutating func flush(_ id: UInt32) {
        guard let index = self.streams.index(forKey: id) else { return }
        self.streams.values[index].flush()
        self.schedule(at: index, id)
    }

    /// Whether the stream takes more bytes as far as its window and its own queue are concerned.
    func isSendable(_ id: UInt32) -> Bool {
        self.streams[id]?.isSendable(queueBytes: self.configuration.sendQueueBytes) ?? false
    }

    mutating func enlargeSendWindow(of id: UInt32, by increment: UInt32) throws(YamuxError) {
        guard increment > 0, let index = self.streams.index(forKey: id) else { return }
        try self.streams.values[index].enlargeSendWindow(id, by: increment)
        self.schedule(at: index, id)
        self.noteSendability(at: index, id)
    }

    mutating func noteSendability(_ id: UInt32) {
        guard let index = self.streams.index(forKey: id) else { return }
        self.noteSendability(at: index, id)
    }

    private mutating func noteSendability(at index: Streams.Index, _ id: UInt32) {
        if self.streams.values[index].noteSendability(queueBytes: self.configuration.sendQueueBytes) {
            self.actions.append(.sendabilityChanged(id))
        }
    }

    /// Puts a stream with something to send at the end of the line.
    private mutating func schedule(at index: Streams.Index, _ id: UInt32) {
        if self.streams.values[index].joinSendOrder() { self.sendOrder.append(id) }
    }

    /// Puts the next stream's frame into the outbox, except its header, which is returned.
    mutating func nextStreamFrame() -> ByteBuffer? {
        while let id = self.sendOrder.popFirst() {
            guard let index = self.streams.index(forKey: id) else { continue }
            guard let frame = self.streams.values[index].takeFrame(id, into: &self.outbox) else { continue }
            self.schedule(at: index, id)
            self.noteSendability(at: index, id)
            if frame.flags.contains(.fin) { self.forgetIfDone(id) }
            var header = ByteBufferAllocator().buffer(capacity: YamuxFrame.headerBytes)
            header.writeYamuxFrame(frame)
            return header
        }
        return nil
    }

    // MARK: Receiving

    /// Books a frame's body against the stream's window before its bytes arrive.
    mutating func reserveReceiveWindow(of id: UInt32, bytes: UInt32) throws(YamuxError) {
        guard let index = self.streams.index(forKey: id) else { return }
        if try !self.streams.values[index].reserve(id, bytes: bytes) { self.reset(id, .protocolViolation) }
    }

    /// Writes the window updates that are due, one for each stream, however often it came over the half.
    mutating func writeGrants(now: NIODeadline) {
        guard !self.pendingGrants.isEmpty else { return }
        for id in self.pendingGrants {
            guard let index = self.streams.index(forKey: id) else { continue }
            self.streams.values[index].isGrantPending = false
            guard self.streams.values[index].input == .open else { continue }
            let growth = self.growth(of: self.streams.values[index], now: now)
            self.grownBytes += Int(growth)
            let granted = self.streams.values[index].grant(growth: growth, now: now)
            self.control.writeYamuxFrame(YamuxFrame(.windowUpdate, streamID: id, length: granted))
        }
        self.pendingGrants.removeAll(keepingCapacity: true)
    }

    /// How much a stream's window grows: it doubles while half of it is used up in less than four round trips.
    private func growth(of stream: StreamState, now: NIODeadline) -> UInt32 {
        guard let measured = self.roundTripTime else { return 0 }
        let roundTrip = max(measured, self.configuration.minimumTuningRoundTripTime)
        guard now - stream.lastGrant < roundTrip * 4 else { return 0 }
        let window = Int(stream.receiveWindow)
        let limit = min(max(self.configuration.maximumReceiveWindowBytes, window), 1 << 30)
        let budget = max(self.configuration.windowGrowthBytes, self.grownBytes) - self.grownBytes
        return UInt32(min(window, limit - window, budget))
    }

    typealias Streams = [UInt32: StreamState]
}

// MARK: - One stream's books

// Each of these is one call that works in place: reading a part of a stream through the table copies all of it.

extension YamuxSession.StreamState {
    func isSendable(queueBytes: Int) -> Bool {
        self.output == .open && self.sendWindow > 0 && self.queuedBytes < queueBytes
    }

    /// Whether ``isSendable(queueBytes:)`` is no longer what it was at the last call.
    mutating func noteSendability(queueBytes: Int) -> Bool {
        let isSendable = self.isSendable(queueBytes: queueBytes)
        defer { self.wasSendable = isSendable }
        return isSendable != self.wasSendable
    }

    mutating func enqueue(_ bytes: ByteBuffer) {
        guard self.output == .open else { return }
        self.sendQueue.append(bytes)
        self.queuedBytes += bytes.readableBytes
    }

    mutating func flush() {
        self.flushedBytes = self.queuedBytes
        self.announcesItself = true
    }

    mutating func enlargeSendWindow(_ id: UInt32, by increment: UInt32) throws(YamuxError) {
        let (enlarged, overflow) = self.sendWindow.addingReportingOverflow(increment)
        guard !overflow else {
            throw .sendWindowOverflow(streamID: id, window: self.sendWindow, increment: increment)
        }
        self.sendWindow = enlarged
    }

    /// Whether a frame could go out now.
    var hasFrame: Bool {
        if self.flushedBytes > 0, self.sendWindow > 0 { return true }
        if self.announcesItself, !self.isAnnounced { return true }
        return self.output == .ending && self.queuedBytes == 0
    }

    /// Whether the stream is to be put at the end of the line: it has a frame, and is not in line yet.
    mutating func joinSendOrder() -> Bool {
        guard self.hasFrame, !self.isInSendOrder else { return false }
        self.isInSendOrder = true
        return true
    }

    /// Makes one frame out of what is flushed, as far as the window and the longest body allow. Its body is appended to `outbox`.
    /// The stream is no longer in line then. `nil` when there is nothing to send after all.
    mutating func takeFrame(_ id: UInt32, into outbox: inout Deque<ByteBuffer>) -> YamuxFrame? {
        self.isInSendOrder = false
        guard self.hasFrame else { return nil }
        let bytes = min(self.flushedBytes, YamuxFrame.maximumSentBodyBytes, Int(self.sendWindow))
        var flags: YamuxFrame.Flags = []
        if !self.isAnnounced {
            self.isAnnounced = true
            flags.insert(.syn)
        }
        var missing = bytes
        while missing > 0, var piece = self.sendQueue.popFirst() {
            if piece.readableBytes > missing, let part = piece.readSlice(length: missing) {
                outbox.append(part)
                self.sendQueue.prepend(piece)
                missing = 0
            } else {
                missing -= piece.readableBytes
                outbox.append(piece)
            }
        }
        self.queuedBytes -= bytes
        self.flushedBytes -= bytes
        self.sendWindow -= UInt32(bytes)
        if self.output == .ending, self.queuedBytes == 0 {
            self.output = .ended
            flags.insert(.fin)
        }
        // Marks without bytes ride on a window update of 0, as with go-yamux.
        return YamuxFrame(bytes > 0 ? .data : .windowUpdate, flags, streamID: id, length: UInt32(bytes))
    }

    /// Books a body against the window. False when the remote has ended its direction before.
    mutating func reserve(_ id: UInt32, bytes: UInt32) throws(YamuxError) -> Bool {
        guard self.input == .open else { return false }
        guard bytes <= self.receiveCredit else {
            throw .receiveWindowExceeded(streamID: id, bytes: bytes, window: self.receiveCredit)
        }
        self.receiveCredit -= bytes
        return true
    }

    /// What becomes of a piece of input.
    enum Intake {
        /// It goes to the receiver; from half a window on the remote is to be granted more.
        case deliver(needsGrant: Bool)
        /// It is kept.
        case keep
    }

    mutating func take(_ piece: ByteBuffer) -> Intake {
        if self.isReading, self.receiveQueue.isEmpty {
            return .deliver(needsGrant: self.consume(UInt32(piece.readableBytes)))
        }
        self.keep(piece)
        return .keep
    }

    /// Keeps a piece of input. A small piece of a large buffer is copied, so that a remote which sends single bytes cannot make
    /// each of them hold a whole buffer.
    mutating func keep(_ piece: ByteBuffer) {
        let isWorthHolding = piece.readableBytes >= max(1024, piece.storageCapacity / 4)
        guard !isWorthHolding else {
            self.receiveQueue.append(piece)
            return
        }
        if let last = self.receiveQueue.indices.last, self.receiveQueue[last].readableBytes < 16 * 1024 {
            self.receiveQueue[last].writeImmutableBuffer(piece)
        } else {
            var copy = ByteBuffer()
            copy.writeImmutableBuffer(piece)
            self.receiveQueue.append(copy)
        }
    }

    /// Counts delivered bytes. True when that makes a grant due.
    mutating func consume(_ bytes: UInt32) -> Bool {
        self.consumedBytes += bytes
        guard self.consumedBytes >= self.receiveWindow / 2, !self.isGrantPending else { return false }
        self.isGrantPending = true
        return true
    }

    /// Gives the remote back what was consumed, and `growth` on top.
    mutating func grant(growth: UInt32, now: NIODeadline) -> UInt32 {
        let granted = self.consumedBytes + growth
        self.receiveWindow += growth
        self.receiveCredit += granted
        self.consumedBytes = 0
        self.lastGrant = now
        return granted
    }
}
