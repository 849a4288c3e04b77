import DequeModule
import LibP2PCore
import NIOCore

extension YamuxSession {
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
        /// Whether the side that did not open it has acknowledged it.
        var isAcknowledged: Bool
        /// Whether its owner has settled its protocol.
        var isNegotiated: Bool

        // Sending.
        var output = Direction.open
        var sendWindow = YamuxFrame.initialWindowBytes
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
        /// The size of the receive window: what the remote may still send, plus what is kept here, plus what was consumed.
        var receiveWindow = YamuxFrame.initialWindowBytes
        /// What the remote may still send.
        var receiveCredit = YamuxFrame.initialWindowBytes
        /// Delivered since the last window update.
        var consumedBytes: UInt32 = 0
        var lastGrant: NIODeadline
        var isGrantPending = false
        var isDeliveryPending = false
    }

    /// Streams of ours that may await their acknowledgement. Spec: libp2p/specs `yamux/README.md` § ACK backlog.
    static let maximumUnacknowledgedStreams = 256

    /// Streams that were closed here while the remote may still send on them, and that are remembered.
    static let maximumOrphans = 64

    var streamCount: Int { self.streams.count }

    // MARK: Commands

    /// Opens a stream; the remote learns of it with the first flush.
    mutating func openStream(now: NIODeadline) throws(MuxerError) -> UInt32 {
        guard !self.isEnded, !self.isRemoteLeaving else { throw .sessionClosed }
        guard self.unacknowledgedCount < Self.maximumUnacknowledgedStreams else { throw .tooManyUnacknowledgedStreams }
        guard self.streams.count - self.inboundCount < self.configuration.maximumOutboundStreams else {
            throw .tooManyStreams
        }
        let id = self.nextStreamID
        let (following, overflow) = id.addingReportingOverflow(2)
        guard !overflow else { throw .streamIDsExhausted }
        self.nextStreamID = following
        self.unacknowledgedCount += 1
        self.streams[id] = StreamState(isAnnounced: false, isAcknowledged: false, isNegotiated: true, lastGrant: now)
        return id
    }

    /// Takes a stream that the remote opened.
    mutating func accept(_ id: UInt32) {
        guard let stream = self.streams[id], !stream.isAcknowledged, self.isInbound(id) else { return }
        self.streams[id]?.isAcknowledged = true
        self.answer(YamuxFrame(.windowUpdate, .ack, streamID: id))
    }

    /// The stream's protocol is settled: it no longer counts towards the accept backlog.
    mutating func negotiated(_ id: UInt32) {
        guard self.streams[id]?.isNegotiated == false else { return }
        self.streams[id]?.isNegotiated = true
        self.unnegotiatedCount -= 1
    }

    /// Whether the stream's input is wanted. What is kept is delivered by the next actions.
    mutating func setReading(_ isWanted: Bool, on id: UInt32) {
        guard let stream = self.streams[id], stream.isReading != isWanted else { return }
        self.streams[id]?.isReading = isWanted
        if isWanted, !stream.receiveQueue.isEmpty || stream.input == .ending { self.scheduleDelivery(id) }
    }

    /// Ends our direction after what is queued, which counts as flushed.
    mutating func closeWrite(_ id: UInt32) {
        guard self.streams[id]?.output == .open else { return }
        self.streams[id]?.output = .ending
        self.flush(id)
        self.noteSendability(id)
    }

    /// Gives the stream up. Where nothing is queued the remote sees the end of our direction, otherwise a reset; what it still
    /// sends is thrown away, and once, if need be, answered with a reset.
    mutating func close(_ id: UInt32) {
        guard let stream = self.streams[id] else { return }
        guard stream.queuedBytes == 0 else {
            self.reset(id, .unspecified)
            return
        }
        if stream.isAnnounced {
            if stream.output != .ended { self.answer(YamuxFrame(.windowUpdate, .fin, streamID: id)) }
            if stream.input == .open { self.rememberOrphan(id) }
        }
        self.forget(id, nil)
    }

    /// Kills the stream; the remote is told `code`.
    mutating func reset(_ id: UInt32, _ code: StreamErrorCode) {
        guard let stream = self.streams[id] else { return }
        if stream.isAnnounced {
            self.answer(YamuxFrame(.windowUpdate, .rst, streamID: id, length: code.rawValue))
        }
        self.forget(id, StreamResetError(code: code, byRemote: false))
    }

    // MARK: What the remote did

    func isInbound(_ id: UInt32) -> Bool {
        id != 0 && (id & 1 == 0) == (self.role == .dialer)
    }

    mutating func remoteOpened(_ id: UInt32, isReset: Bool) throws(YamuxError) {
        guard self.isInbound(id) else { throw .wrongStreamParity(streamID: id) }
        guard self.streams[id] == nil else { throw .duplicateStream(streamID: id) }
        guard !isReset else { return }
        self.orphans.removeAll { $0 == id }
        guard
            self.inboundCount < self.configuration.maximumInboundStreams,
            self.unnegotiatedCount < self.configuration.acceptBacklog
        else {
            self.answer(
                YamuxFrame(
                    .windowUpdate, .rst, streamID: id, length: StreamErrorCode.resourceLimitExceeded.rawValue))
            return
        }
        self.inboundCount += 1
        self.unnegotiatedCount += 1
        self.streams[id] = StreamState(
            isAnnounced: true, isAcknowledged: false, isNegotiated: false, lastGrant: self.lastHeard)
        self.actions.append(.accept(id))
    }

    mutating func acknowledged(_ id: UInt32) {
        guard !self.isInbound(id), self.streams[id]?.isAcknowledged == false else { return }
        self.streams[id]?.isAcknowledged = true
        self.unacknowledgedCount -= 1
    }

    mutating func remoteReset(_ id: UInt32, _ code: StreamErrorCode) {
        if self.streams[id]?.isAnnounced == true {
            self.forget(id, StreamResetError(code: code, byRemote: true))
        } else {
            self.orphans.removeAll { $0 == id }
        }
    }

    /// The remote's direction is over, and all bodies before have been taken.
    mutating func remoteEnded(_ id: UInt32) {
        guard let stream = self.streams[id], stream.isAnnounced else {
            self.orphans.removeAll { $0 == id }
            return
        }
        guard stream.input == .open else { return }
        self.streams[id]?.input = .ending
        if stream.isReading { self.scheduleDelivery(id) }
    }

    /// A frame, neither SYN nor RST, for a stream that is not open: its body is thrown away. Only a remote that still sends on a
    /// stream which we closed, but did not reset, is told; it might otherwise wait for a window for ever.
    mutating func handleUnknownStream(_ frame: YamuxFrame) {
        guard let index = self.orphans.firstIndex(of: frame.streamID) else { return }
        if frame.kind == .data, frame.length > 0 {
            self.orphans.remove(at: index)
            self.answer(YamuxFrame(.windowUpdate, .rst, streamID: frame.streamID))
        } else if frame.flags.contains(.fin) {
            self.orphans.remove(at: index)
        }
    }

    /// Bytes of a stream: on to its receiver, or kept where it does not read.
    mutating func inputArrived(_ piece: ByteBuffer, for id: UInt32) -> Action? {
        guard let index = self.streams.index(forKey: id) else { return nil }
        guard case .deliver(let needsGrant) = self.streams.values[index].take(piece) else { return nil }
        if needsGrant { self.pendingGrants.append(id) }
        return .deliver(id, piece)
    }

    // MARK: Delivery

    private mutating func scheduleDelivery(_ id: UInt32) {
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
            case .piece(let piece, let needsGrant):
                if needsGrant { self.pendingGrants.append(id) }
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

    // MARK: The end of a stream

    /// Forgets a stream both of whose directions are done.
    mutating func forgetIfDone(_ id: UInt32) {
        guard let stream = self.streams[id], stream.output == .ended, stream.input == .ended else { return }
        self.forget(id, nil)
    }

    /// The one way out of the table.
    private mutating func forget(_ id: UInt32, _ error: StreamResetError?) {
        guard let stream = self.streams.removeValue(forKey: id) else { return }
        if self.isInbound(id) {
            self.inboundCount -= 1
            if !stream.isNegotiated { self.unnegotiatedCount -= 1 }
        } else if !stream.isAcknowledged {
            self.unacknowledgedCount -= 1
        }
        self.grownBytes -= Int(stream.receiveWindow - YamuxFrame.initialWindowBytes)
        self.actions.append(.closeStream(id, error))
        if self.isRemoteLeaving, self.streams.isEmpty {
            let untold = self.actions
            self.end(.goAway(.none, byRemote: true), farewell: YamuxFrame.GoAway.normal)
            self.actions = untold + self.actions
        }
    }

    private mutating func rememberOrphan(_ id: UInt32) {
        if self.orphans.count >= Self.maximumOrphans, let oldest = self.orphans.popFirst() {
            self.answer(YamuxFrame(.windowUpdate, .rst, streamID: oldest))
        }
        self.orphans.append(id)
    }
}

extension YamuxSession.StreamState {
    /// What a stream that waits for delivery has to give.
    enum Delivery {
        case piece(ByteBuffer, needsGrant: Bool)
        case end
        case nothing
    }

    /// The next piece that was kept, or the end of the input; with anything but a piece the stream no longer waits.
    mutating func nextDelivery() -> Delivery {
        if self.isReading, let piece = self.receiveQueue.popFirst() {
            return .piece(piece, needsGrant: self.consume(UInt32(piece.readableBytes)))
        }
        self.isDeliveryPending = false
        guard self.isReading, self.input == .ending else { return .nothing }
        self.input = .ended
        return .end
    }
}
