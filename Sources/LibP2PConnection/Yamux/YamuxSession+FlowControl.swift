import DequeModule
import LibP2PCore
import NIOCore

extension YamuxSession {
    // MARK: Sending

    /// Queues bytes of a stream, which the session owns from now on. Ignored once its direction is ending.
    mutating func write(_ bytes: ByteBuffer, to id: UInt32) {
        guard bytes.readableBytes > 0, let index = self.streams.index(forKey: id),
            self.streams.values[index].output == .open
        else { return }
        self.streams.values[index].sendQueue.append(bytes)
        self.streams.values[index].queuedBytes += bytes.readableBytes
        self.noteSendability(at: index, id)
    }

    /// Lets go out what is queued, and announces a new stream even if nothing is.
    mutating func flush(_ id: UInt32) {
        guard let index = self.streams.index(forKey: id) else { return }
        self.streams.values[index].flushedBytes = self.streams.values[index].queuedBytes
        self.streams.values[index].announcesItself = true
        self.schedule(at: index, id)
    }

    /// Whether the stream takes more bytes as far as its window and its own queue are concerned.
    func isSendable(_ id: UInt32) -> Bool {
        self.streams[id]?.isSendable(queueBytes: self.configuration.sendQueueBytes) ?? false
    }

    mutating func enlargeSendWindow(of id: UInt32, by increment: UInt32) throws(YamuxError) {
        guard increment > 0, let index = self.streams.index(forKey: id) else { return }
        let window = self.streams.values[index].sendWindow
        let (enlarged, overflow) = window.addingReportingOverflow(increment)
        guard !overflow else { throw .sendWindowOverflow(streamID: id, window: window, increment: increment) }
        self.streams.values[index].sendWindow = enlarged
        self.schedule(at: index, id)
        self.noteSendability(at: index, id)
    }

    mutating func noteSendability(_ id: UInt32) {
        guard let index = self.streams.index(forKey: id) else { return }
        self.noteSendability(at: index, id)
    }

    private mutating func noteSendability(at index: Streams.Index, _ id: UInt32) {
        let isSendable = self.streams.values[index].isSendable(queueBytes: self.configuration.sendQueueBytes)
        guard isSendable != self.streams.values[index].wasSendable else { return }
        self.streams.values[index].wasSendable = isSendable
        self.actions.append(.sendabilityChanged(id))
    }

    /// Puts a stream with something to send at the end of the line.
    private mutating func schedule(at index: Streams.Index, _ id: UInt32) {
        guard self.streams.values[index].hasFrame, !self.streams.values[index].isInSendOrder else { return }
        self.streams.values[index].isInSendOrder = true
        self.sendOrder.append(id)
    }

    /// Puts the next stream's frame into the outbox, except its header, which is returned.
    mutating func nextStreamFrame() -> ByteBuffer? {
        while let id = self.sendOrder.popFirst() {
            guard let index = self.streams.index(forKey: id) else { continue }
            self.streams.values[index].isInSendOrder = false
            guard self.streams.values[index].hasFrame else { continue }
            let frame = self.streams.values[index].takeFrame(id, into: &self.outbox)
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
        guard self.streams.values[index].input == .open else {
            self.reset(id, .protocolViolation)
            return
        }
        let credit = self.streams.values[index].receiveCredit
        guard bytes <= credit else {
            throw .receiveWindowExceeded(streamID: id, bytes: bytes, window: credit)
        }
        self.streams.values[index].receiveCredit = credit - bytes
    }

    /// Counts delivered bytes; from half a window on the remote is to be granted more.
    mutating func consume(_ bytes: UInt32, at index: Streams.Index, _ id: UInt32) {
        self.streams.values[index].consumedBytes += bytes
        guard
            self.streams.values[index].consumedBytes >= self.streams.values[index].receiveWindow / 2,
            !self.streams.values[index].isGrantPending
        else { return }
        self.streams.values[index].isGrantPending = true
        self.pendingGrants.append(id)
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

extension YamuxSession.StreamState {
    func isSendable(queueBytes: Int) -> Bool {
        self.output == .open && self.sendWindow > 0 && self.queuedBytes < queueBytes
    }

    /// Whether a frame could go out now.
    var hasFrame: Bool {
        if self.flushedBytes > 0, self.sendWindow > 0 { return true }
        if self.announcesItself, !self.isAnnounced { return true }
        return self.output == .ending && self.queuedBytes == 0
    }

    /// Makes one frame out of what is flushed, as far as the window and the longest body allow. Its body is appended to `outbox`.
    mutating func takeFrame(_ id: UInt32, into outbox: inout Deque<ByteBuffer>) -> YamuxFrame {
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
