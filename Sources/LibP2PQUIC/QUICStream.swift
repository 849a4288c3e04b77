internal import CNgtcp2
internal import DequeModule
internal import LibP2PCore
internal import NIOCore

/// One stream of a ``QUICSession``: the face that those above hold, and the bytes on their way. What happens to them is the session's.
///
/// Used on its event loop only, which is what makes it sendable.
final class QUICStream: LibP2PCore.Stream, @unchecked Sendable {
    let eventLoop: any EventLoop
    /// The number on the wire.
    let number: Int64
    let role: Role
    weak var connection: (any Connection)?
    var protocolID: ProtocolID?
    var receiver: (any ByteStreamReceiver)? {
        didSet {
            // Whoever comes late is told of the end all the same, though not while still setting up.
            guard self.receiver != nil, self.ending != nil, !self.isOver else { return }
            self.eventLoop.execute { self.session.deliver(self) }
        }
    }

    private let session: QUICSession
    private var closeReason: (any Error)?

    // The session's notes. Input:
    var input = Deque<ByteBuffer>()
    var inputBytes = 0
    var isReading = false
    var hasInputEnded = false
    var wasToldInputEnd = false
    var isNoted = false

    // Output: what is unacknowledged and what is not yet sent, in one queue.
    var output = SendQueue()
    /// On the session's list of those with something to send.
    var isQueued = false
    /// The remote's window is full.
    var isFlowBlocked = false
    /// The remote wants no more.
    var isOutputStopped = false
    /// What its owner last learnt of its writability.
    var wasWritable = true
    /// On the session's list of those whose writability may change.
    var isWatched = false

    // The end:
    /// The reason, once there is nothing left to come from the network.
    var ending: Ending?
    /// The library has forgotten it.
    var isForgotten = false
    /// Its owner has been told, or has ended it: every further call is ignored.
    private(set) var isOver = false

    /// How a stream ends.
    enum Ending {
        /// Both directions are done, and everything has been acknowledged.
        case orderly
        /// All input is still worth reading: only our direction was refused.
        case refused(StreamResetError)
        /// At once.
        case reset(any Error)
    }

    init(_ number: Int64, role: Role, session: QUICSession) {
        self.number = number
        self.role = role
        self.eventLoop = session.eventLoop
        self.session = session
    }

    var id: UInt64 { UInt64(bitPattern: self.number) }

    var isWritable: Bool {
        guard !self.isOver else { return false }
        let isWritable = self.session.isWritable(self)
        if !isWritable {
            self.wasWritable = false
            self.session.watchWritability(of: self)
        }
        return isWritable
    }

    func write(_ bytes: ByteBuffer) {
        guard !self.isOver, !self.isOutputStopped else { return }
        self.output.append(bytes)
        if !self.session.isWritable(self) { self.session.watchWritability(of: self) }
    }

    func flush() {
        guard !self.isOver else { return }
        self.output.flush()
        self.session.enqueue(self)
        self.session.settle()
    }

    func setReading(_ wanted: Bool) {
        guard !self.isOver, wanted != self.isReading else { return }
        self.isReading = wanted
        guard wanted, !self.input.isEmpty || self.hasInputEnded || self.ending != nil else { return }
        // From a later tick: the caller may still be in the middle of its own change of state.
        self.eventLoop.execute { self.session.deliver(self) }
    }

    func closeWrite() {
        guard !self.isOver else { return }
        self.output.end()
        self.session.enqueue(self)
        self.session.settle()
    }

    func close(_ error: (any Error)?) {
        guard !self.isOver else { return }
        guard let error else { return self.session.closeOrderly(self) }
        self.closeReason = error
        self.session.reset(self, (error as? StreamResetError)?.code ?? .unspecified)
    }

    func reset(_ code: StreamErrorCode) {
        guard !self.isOver else { return }
        self.session.reset(self, code)
    }

    // MARK: For the session

    /// Tells the receiver that the stream is gone.
    func end(_ error: (any Error)?) {
        guard !self.isOver else { return }
        self.isOver = true
        let receiver = self.receiver
        self.receiver = nil
        receiver?.closed(self.closeReason ?? error)
    }
}

/// A stream's bytes from the first that is not acknowledged to the last that was written. They stay where they are in memory, as the
/// library points at them until the remote has them.
struct SendQueue {
    private var chunks = Deque<ByteBuffer>()
    /// Bytes of the first chunk that are acknowledged already.
    private var acknowledgedOfFirst = 0
    /// The chunk that is sent next, and how far it has been.
    private var nextIndex = 0
    private var nextOffset = 0
    /// Bytes that were never sent.
    private(set) var unsentBytes = 0
    /// How many of these may be sent.
    private(set) var flushedBytes = 0
    /// Nothing comes behind them.
    private(set) var isEnding = false
    /// The remote has been told so.
    var hasSentEnd = false

    /// Whether there is something to put on the wire.
    var isSendable: Bool { self.flushedBytes > 0 || (self.isEnding && !self.hasSentEnd) }

    mutating func append(_ bytes: ByteBuffer) {
        guard bytes.readableBytes > 0, !self.isEnding else { return }
        self.chunks.append(bytes)
        self.unsentBytes += bytes.readableBytes
    }

    mutating func flush() { self.flushedBytes = self.unsentBytes }

    mutating func end() {
        self.isEnding = true
        self.flush()
    }

    /// Fills in where the next bytes to send lie.
    /// - Returns: How many vectors were filled, and whether they reach the stream's end.
    func next(_ vectors: UnsafeMutableBufferPointer<ngtcp2_vec>) -> (count: Int, reachesEnd: Bool) {
        var (index, offset, left, count) = (self.nextIndex, self.nextOffset, self.flushedBytes, 0)
        while left > 0, count < vectors.count, index < self.chunks.count {
            let length = self.chunks[index].withUnsafeReadableBytes { bytes in
                let length = min(bytes.count - offset, left)
                // The chunk outlives the call: see the type's own remark.
                vectors[count] = ngtcp2_vec(
                    base: bytes.baseAddress.map {
                        UnsafeMutableRawPointer(mutating: $0 + offset).assumingMemoryBound(to: UInt8.self)
                    }, len: length)
                return length
            }
            left -= length
            offset = 0
            index += 1
            count += 1
        }
        return (count, self.isEnding && left == 0)
    }

    /// `count` bytes have been sent for the first time.
    mutating func sent(_ count: Int) {
        self.unsentBytes -= count
        self.flushedBytes -= count
        var left = count
        while left > 0, self.nextIndex < self.chunks.count {
            let rest = self.chunks[self.nextIndex].readableBytes - self.nextOffset
            if left < rest {
                self.nextOffset += left
                return
            }
            left -= rest
            self.nextIndex += 1
            self.nextOffset = 0
        }
    }

    /// The remote has `count` more bytes.
    mutating func acknowledged(_ count: Int) {
        self.acknowledgedOfFirst += count
        while let first = self.chunks.first, self.nextIndex > 0, first.readableBytes <= self.acknowledgedOfFirst {
            self.acknowledgedOfFirst -= first.readableBytes
            self.chunks.removeFirst()
            self.nextIndex -= 1
        }
    }

    /// Nothing more will be sent of what was not.
    mutating func dropUnsent() {
        self.unsentBytes = 0
        self.flushedBytes = 0
        self.isEnding = true
        self.hasSentEnd = true
    }
}
