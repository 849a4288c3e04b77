import DequeModule
import LibP2PCore
import NIOCore

extension MplexSession {
    /// All that is known about one stream.
    struct StreamState {
        /// One direction's course.
        enum Direction {
            case open
            /// Its end is known, but not yet sent or delivered.
            case ending
            case ended
        }

        /// Whether the remote has been told of the stream, or opened it itself.
        var isAnnounced: Bool
        /// Whether its owner has settled its protocol.
        var isNegotiated: Bool

        // Sending.
        var output = Direction.open
        var sendQueue = Deque<ByteBuffer>()
        var queuedBytes = 0
        /// How many of `queuedBytes` may go out.
        var flushedBytes = 0
        /// Whether the next flush, or an earlier one, is to announce the stream even without a byte.
        var announcesItself = false
        var isInSendOrder = false
        var wasSendable = true

        // Receiving.
        var input = Direction.open
        var isReading = false
        var receiveQueue = Deque<ByteBuffer>()
        var bufferedBytes = 0
        var isDeliveryPending = false
    }

    /// Streams that were closed here while the remote may still send on them, and that are remembered.
    static let maximumOrphans = 64

    var streamCount: Int { self.streams.count }

    // MARK: Commands

    /// Opens a stream; the remote learns of it with the first flush.
    mutating func openStream() throws(MuxerError) -> StreamID {
        guard !self.isEnded else { throw .sessionClosed }
        guard self.streams.count - self.inboundCount < self.configuration.maximumOutboundStreams else {
            throw .tooManyStreams
        }
        guard self.nextNumber <= MplexFrame.maximumNumber else { throw .streamIDsExhausted }
        let id = StreamID(number: self.nextNumber, isOurs: true)
        self.nextNumber += 2
        self.streams[id] = StreamState(isAnnounced: false, isNegotiated: true)
        return id
    }

    /// The stream's protocol is settled: it no longer counts towards the accept backlog.
    mutating func negotiated(_ id: StreamID) {
        guard self.streams[id]?.isNegotiated == false else { return }
        self.streams[id]?.isNegotiated = true
        self.unnegotiatedCount -= 1
    }

    /// Queues bytes of a stream, which the session owns from now on. Ignored once its direction is ending.
    mutating func write(_ bytes: ByteBuffer, to id: StreamID) {
        guard bytes.readableBytes > 0, self.streams[id]?.output == .open else { return }
        self.streams[id]?.sendQueue.append(bytes)
        self.streams[id]?.queuedBytes += bytes.readableBytes
        self.noteSendability(id)
    }

    /// Lets go out what is queued, and announces a new stream even if nothing is.
    mutating func flush(_ id: StreamID) {
        guard let stream = self.streams[id] else { return }
        self.streams[id]?.flushedBytes = stream.queuedBytes
        self.streams[id]?.announcesItself = true
        self.schedule(id)
    }

    /// Whether the stream takes more bytes as far as its own queue is concerned.
    func isSendable(_ id: StreamID) -> Bool {
        guard let stream = self.streams[id] else { return false }
        return stream.output == .open && stream.queuedBytes < self.configuration.sendQueueBytes
    }

    /// Whether the stream's input is wanted. What is kept is delivered by the next actions.
    mutating func setReading(_ isWanted: Bool, on id: StreamID) {
        guard let stream = self.streams[id], stream.isReading != isWanted else { return }
        self.streams[id]?.isReading = isWanted
        if isWanted, !stream.receiveQueue.isEmpty || stream.input == .ending { self.scheduleDelivery(id) }
    }

    /// Ends our direction after what is queued, which counts as flushed.
    mutating func closeWrite(_ id: StreamID) {
        guard self.streams[id]?.output == .open else { return }
        self.streams[id]?.output = .ending
        self.flush(id)
        self.noteSendability(id)
    }

    /// Gives the stream up. Where nothing is queued the remote sees the end of our direction, otherwise a reset; what it still
    /// sends is thrown away, and once, if need be, answered with a reset.
    mutating func close(_ id: StreamID) {
        guard let stream = self.streams[id] else { return }
        guard stream.queuedBytes == 0 else { return self.reset(id, .unspecified) }
        if stream.isAnnounced {
            if stream.output != .ended {
                self.answer(MplexFrame(.close, number: id.number, isFromOpener: id.isOurs))
            }
            if stream.input == .open { self.rememberOrphan(id) }
        }
        self.forget(id, nil)
    }

    /// Kills the stream. The remote is not told `code`: mplex has no room for it.
    mutating func reset(_ id: StreamID, _ code: StreamErrorCode) {
        guard let stream = self.streams[id] else { return }
        if stream.isAnnounced { self.answerReset(id) }
        self.forget(id, StreamResetError(code: code, byRemote: false))
    }

    // MARK: What the remote did

    mutating func remoteOpened(_ id: StreamID) throws(MplexError) {
        guard self.streams[id] == nil else { throw .duplicateStream(number: id.number) }
        self.orphans.removeAll { $0 == id }
        guard
            self.inboundCount < self.configuration.maximumInboundStreams,
            self.unnegotiatedCount < self.configuration.acceptBacklog
        else { return self.answerReset(id) }
        self.inboundCount += 1
        self.unnegotiatedCount += 1
        self.streams[id] = StreamState(isAnnounced: true, isNegotiated: false)
        self.actions.append(.accept(id))
    }

    /// Whether data for this stream is to be taken. Only a remote that still sends on a stream which we closed, but did not reset, is
    /// told that nobody listens.
    mutating func mayReceive(_ id: StreamID) -> Bool {
        guard let stream = self.streams[id], stream.isAnnounced else {
            if let index = self.orphans.firstIndex(of: id) {
                self.orphans.remove(at: index)
                self.answerReset(id)
            }
            return false
        }
        guard stream.input == .open else {
            self.reset(id, .protocolViolation)
            return false
        }
        return true
    }

    /// The remote's direction is over, and all messages before have been taken.
    mutating func remoteEnded(_ id: StreamID) {
        guard let stream = self.streams[id], stream.isAnnounced else {
            self.orphans.removeAll { $0 == id }
            return
        }
        guard stream.input == .open else { return }
        self.streams[id]?.input = .ending
        if stream.isReading { self.scheduleDelivery(id) }
    }

    mutating func remoteReset(_ id: StreamID) {
        if self.streams[id]?.isAnnounced == true {
            self.forget(id, StreamResetError(code: .unspecified, byRemote: true))
        } else {
            self.orphans.removeAll { $0 == id }
        }
    }

    // MARK: Buffers

    /// How many bytes may be kept for a stream that does not read.
    func room(for stream: StreamState) -> Int {
        min(
            self.configuration.streamBufferBytes - stream.bufferedBytes,
            self.configuration.totalBufferBytes - self.bufferedBytes)
    }

    /// Keeps data of a stream that does not read. A small piece of a large buffer is copied, so that a remote which sends single bytes
    /// cannot make each of them hold a whole buffer.
    mutating func keep(_ piece: ByteBuffer, for id: StreamID) {
        guard let index = self.streams.index(forKey: id) else { return }
        self.bufferedBytes += piece.readableBytes
        self.streams.values[index].keep(piece)
    }

    /// Whose fault it is that no more data can be taken: the stream that the data is for when it has used up its share, otherwise the
    /// one that holds most of what all share.
    func slowestReader() -> StreamID? {
        if let id = self.body?.streamID, let stream = self.streams[id],
            stream.bufferedBytes >= self.configuration.streamBufferBytes
        {
            return id
        }
        return self.streams.filter { $0.value.bufferedBytes > 0 }.max { a, b in
            (a.value.bufferedBytes, a.key.number) < (b.value.bufferedBytes, b.key.number)
        }?.key ?? self.body?.streamID
    }

    private mutating func scheduleDelivery(_ id: StreamID) {
        guard self.streams[id]?.isDeliveryPending == false else { return }
        self.streams[id]?.isDeliveryPending = true
        self.pendingDeliveries.append(id)
    }

    /// What was kept while its stream did not read, or the end of a stream's input.
    mutating func nextDelivery() -> Action? {
        while let id = self.pendingDeliveries.first {
            guard let index = self.streams.index(forKey: id) else {
                self.pendingDeliveries.removeFirst()
                continue
            }
            switch self.streams.values[index].nextDelivery() {
            case .piece(let piece):
                self.bufferedBytes -= piece.readableBytes
                return .deliver(id, piece)
            case .end:
                self.pendingDeliveries.removeFirst()
                self.forgetIfDone(id)
                return .endInput(id)
            case .nothing:
                self.pendingDeliveries.removeFirst()
            }
        }
        return nil
    }

    // MARK: Sending

    private mutating func noteSendability(_ id: StreamID) {
        let isSendable = self.isSendable(id)
        guard let stream = self.streams[id], stream.wasSendable != isSendable else { return }
        self.streams[id]?.wasSendable = isSendable
        self.actions.append(.sendabilityChanged(id))
    }

    /// Puts a stream with something to send at the end of the line.
    private mutating func schedule(_ id: StreamID) {
        guard let stream = self.streams[id], stream.hasFrame, !stream.isInSendOrder else { return }
        self.streams[id]?.isInSendOrder = true
        self.sendOrder.append(id)
    }

    /// Puts the next stream's message into the outbox, except its header, which is returned.
    mutating func nextStreamFrame() -> ByteBuffer? {
        while let id = self.sendOrder.popFirst() {
            guard let index = self.streams.index(forKey: id) else { continue }
            let header = self.streams.values[index].takeFrame(id, into: &self.outbox)
            self.schedule(id)
            self.noteSendability(id)
            self.forgetIfDone(id)
            if let header { return header }
        }
        return nil
    }

    // MARK: The end of a stream

    /// Forgets a stream both of whose directions are done.
    private mutating func forgetIfDone(_ id: StreamID) {
        guard let stream = self.streams[id], stream.output == .ended, stream.input == .ended else { return }
        self.forget(id, nil)
    }

    /// The one way out of the table.
    private mutating func forget(_ id: StreamID, _ error: StreamResetError?) {
        guard let stream = self.streams.removeValue(forKey: id) else { return }
        if !id.isOurs {
            self.inboundCount -= 1
            if !stream.isNegotiated { self.unnegotiatedCount -= 1 }
        }
        self.bufferedBytes -= stream.bufferedBytes
        self.actions.append(.closeStream(id, error))
    }

    private mutating func answerReset(_ id: StreamID) {
        self.answer(MplexFrame(.reset, number: id.number, isFromOpener: id.isOurs))
    }

    private mutating func rememberOrphan(_ id: StreamID) {
        if self.orphans.count >= Self.maximumOrphans, let oldest = self.orphans.popFirst() { self.answerReset(oldest) }
        self.orphans.append(id)
    }
}

// MARK: - One stream's books

extension MplexSession.StreamState {
    mutating func keep(_ piece: ByteBuffer) {
        self.bufferedBytes += piece.readableBytes
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

    /// What a stream that waits for delivery has to give.
    enum Delivery {
        case piece(ByteBuffer)
        case end
        case nothing
    }

    /// The next piece that was kept, or the end of the input; with anything but a piece the stream no longer waits.
    mutating func nextDelivery() -> Delivery {
        if self.isReading, let piece = self.receiveQueue.popFirst() {
            self.bufferedBytes -= piece.readableBytes
            return .piece(piece)
        }
        self.isDeliveryPending = false
        guard self.isReading, self.input == .ending else { return .nothing }
        self.input = .ended
        return .end
    }

    /// Whether a message could go out now.
    var hasFrame: Bool {
        if self.flushedBytes > 0 { return true }
        if self.announcesItself, !self.isAnnounced { return true }
        return self.output == .ending && self.queuedBytes == 0
    }

    /// The header of one message made of what is flushed, as far as the longest data allows, or of the end of our direction; before it
    /// that of a new stream, where the remote does not know the stream yet. The data is appended to `outbox`. The stream is no longer in
    /// line then. `nil` when there is nothing to send after all.
    mutating func takeFrame(_ id: MplexSession.StreamID, into outbox: inout Deque<ByteBuffer>) -> ByteBuffer? {
        self.isInSendOrder = false
        guard self.hasFrame else { return nil }
        var header = ByteBuffer()
        if !self.isAnnounced {
            self.isAnnounced = true
            header.writeMplexFrame(MplexFrame(.newStream, number: id.number, isFromOpener: true))
        }
        let bytes = min(self.flushedBytes, MplexFrame.maximumSentBodyBytes)
        if bytes > 0 {
            header.writeMplexFrame(
                MplexFrame(.message, number: id.number, isFromOpener: id.isOurs, length: bytes))
            self.take(bytes, into: &outbox)
        } else if self.output == .ending {
            self.output = .ended
            header.writeMplexFrame(MplexFrame(.close, number: id.number, isFromOpener: id.isOurs))
        }
        return header
    }

    private mutating func take(_ bytes: Int, into outbox: inout Deque<ByteBuffer>) {
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
    }
}
