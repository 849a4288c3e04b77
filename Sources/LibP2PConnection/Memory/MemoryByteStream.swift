package import LibP2PCore
package import NIOCore

/// One end of a pipe within the process. What one end writes and flushes the other receives from a later tick of its own loop.
///
/// Bounded: an end is not writable while more than `capacity` bytes of its are written but not yet delivered. It can cut what it
/// delivers into pieces, and it can be ``cut(_:)`` as a network cuts a connection. The ends may live on different loops.
package final class MemoryByteStream: ByteStream, @unchecked Sendable {
    /// How an end cuts what it delivers.
    package enum Pieces: Sendable {
        /// As it was written.
        case whole
        /// Pieces of at most so many bytes.
        case atMost(Int)
        /// The lengths of the pieces in turn; lengths below 1 count as 1. When the list is over it begins anew.
        case lengths([Int])
    }

    private enum Message: Sendable {
        case bytes([ByteBuffer])
        case consumed(Int)
        case end
        case close((any Error)?)
    }

    /// Makes both ends, on the same loop or on two.
    package static func pair(
        on loop: any EventLoop, _ otherLoop: (any EventLoop)? = nil, capacity: Int = 64 * 1024, pieces: Pieces = .whole
    ) -> (MemoryByteStream, MemoryByteStream) {
        let a = MemoryByteStream(loop, capacity: capacity, pieces: pieces)
        let b = MemoryByteStream(otherLoop ?? loop, capacity: capacity, pieces: pieces)
        a.peer = b
        b.peer = a
        return (a, b)
    }

    package let eventLoop: any EventLoop
    package var receiver: (any ByteStreamReceiver)? {
        didSet { if self.receiver != nil, self.isClosed { self.eventLoop.execute { self.tellClosed() } } }
    }
    /// How this end cuts what it delivers from now on.
    package var pieces: Pieces
    /// While true nothing arrives at this end, as on a network that has stalled.
    package var isStalled = false { didSet { self.scheduleDelivery() } }
    /// Bytes this end has written in all.
    package private(set) var bytesWritten = 0
    /// Calls of ``flush()`` that had something to send.
    package private(set) var flushCount = 0
    /// Why this end was closed from this side, if it was.
    package private(set) var closeReason: (any Error)?
    /// Whether this end is gone.
    package private(set) var isClosed = false

    private let capacity: Int
    /// Both ends hold each other until they are closed, as a socket outlives those who only listen to it.
    private var peer: MemoryByteStream?

    private var unflushed: [ByteBuffer] = []
    private var undelivered = 0
    private var wasWritable = true
    private var hasEndedOutput = false

    private var inbox = CircularBuffer<ByteBuffer>()
    private var hasEndedInput = false
    private var hasToldEnd = false
    private var isReading = false
    private var isDeliveryScheduled = false
    private var nextLength = 0
    /// How it ended, until somebody was told.
    private var untoldEnd: (any Error)??

    private init(_ eventLoop: any EventLoop, capacity: Int, pieces: Pieces) {
        self.eventLoop = eventLoop
        self.capacity = capacity
        self.pieces = pieces
    }

    package var isWritable: Bool { !self.isClosed && !self.hasEndedOutput && self.undelivered <= self.capacity }

    package func write(_ bytes: ByteBuffer) {
        guard !self.isClosed, !self.hasEndedOutput, bytes.readableBytes > 0 else { return }
        self.unflushed.append(bytes)
        self.undelivered += bytes.readableBytes
        self.bytesWritten += bytes.readableBytes
        self.noteWritability()
    }

    package func flush() {
        guard !self.unflushed.isEmpty else { return }
        self.flushCount += 1
        let bytes = self.unflushed
        self.unflushed = []
        self.send(.bytes(bytes))
    }

    package func setReading(_ wanted: Bool) {
        self.isReading = wanted
        self.scheduleDelivery()
    }

    package func closeWrite() {
        guard !self.isClosed, !self.hasEndedOutput else { return }
        self.flush()
        self.hasEndedOutput = true
        self.send(.end)
        self.closeIfDone()
    }

    package func close(_ error: (any Error)?) {
        guard !self.isClosed else { return }
        self.closeReason = error
        self.send(.close(nil))
        self.finish(error)
    }

    /// Ends both sides with `error`, as a broken network does; what is on its way is lost.
    package func cut(_ error: any Error) {
        guard !self.isClosed else { return }
        self.send(.close(error))
        self.finish(error)
    }

    // MARK: Messages

    private func send(_ message: Message) {
        guard let peer = self.peer else { return }
        peer.eventLoop.execute { peer.receive(message) }
    }

    private func receive(_ message: Message) {
        guard !self.isClosed else { return }
        switch message {
        case .bytes(let bytes):
            self.inbox.append(contentsOf: bytes)
            self.scheduleDelivery()
        case .consumed(let count):
            self.undelivered -= count
            self.noteWritability()
        case .end:
            self.hasEndedInput = true
            self.scheduleDelivery()
        case .close(let error):
            self.finish(error ?? (self.hasEndedInput ? nil : MemoryByteStreamClosed()))
        }
    }

    private func noteWritability() {
        let isWritable = self.isWritable
        guard isWritable != self.wasWritable else { return }
        self.wasWritable = isWritable
        self.receiver?.writabilityChanged()
    }

    private func scheduleDelivery() {
        guard !self.isDeliveryScheduled, self.isReading, !self.isStalled, !self.isClosed else { return }
        guard !self.inbox.isEmpty || (self.hasEndedInput && !self.hasToldEnd) else { return }
        self.isDeliveryScheduled = true
        self.eventLoop.execute { self.deliver() }
    }

    private func deliver() {
        self.isDeliveryScheduled = false
        var delivered = 0
        while self.isReading, !self.isStalled, !self.isClosed, let piece = self.nextPiece() {
            delivered += piece.readableBytes
            self.receiver?.received(piece)
        }
        if delivered > 0 {
            self.send(.consumed(delivered))
            if !self.isClosed { self.receiver?.receiveComplete() }
        }
        guard self.inbox.isEmpty, self.hasEndedInput, !self.hasToldEnd, self.isReading, !self.isStalled, !self.isClosed
        else { return }
        self.hasToldEnd = true
        self.receiver?.inputEnded()
        self.closeIfDone()
    }

    private func nextPiece() -> ByteBuffer? {
        guard var first = self.inbox.popFirst() else { return nil }
        let length: Int
        switch self.pieces {
        case .whole: return first
        case .atMost(let bytes): length = max(1, bytes)
        case .lengths(let lengths):
            length = lengths.isEmpty ? first.readableBytes : max(1, lengths[self.nextLength % lengths.count])
            self.nextLength += 1
        }
        guard first.readableBytes > length, let piece = first.readSlice(length: length) else { return first }
        self.inbox.prepend(first)
        return piece
    }

    private func closeIfDone() {
        guard self.hasEndedOutput, self.hasToldEnd else { return }
        self.finish(nil)
    }

    private func finish(_ error: (any Error)?) {
        guard !self.isClosed else { return }
        self.isClosed = true
        self.peer = nil
        self.inbox.removeAll()
        self.unflushed.removeAll()
        self.untoldEnd = .some(error)
        self.tellClosed()
    }

    private func tellClosed() {
        guard let receiver = self.receiver, let end = self.untoldEnd else { return }
        self.untoldEnd = nil
        self.receiver = nil
        receiver.closed(end)
    }
}

/// The far end of a ``MemoryByteStream`` was closed without having ended its output before.
package struct MemoryByteStreamClosed: Error, Hashable {
    /// Makes the error.
    package init() {}
}
