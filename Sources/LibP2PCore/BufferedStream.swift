public import NIOCore

/// Reads and writes a ``ByteStream`` with `async` calls: whole messages, exact byte counts. For the control plane; packets do not
/// come this way.
///
/// It pulls: bytes are read from the stream only while a read waits, so the remote is pushed back in the meantime.
/// One read at a time. A read that fails, or whose task is cancelled, has consumed nothing; the stream lives on until somebody closes it.
public final class BufferedStream: ByteStreamReceiver, @unchecked Sendable {
    // Everything below is owned by the stream's event loop.
    private let stream: any ByteStream
    private var buffer = ByteBuffer()
    private var waiting: Read?
    private var ended = false
    private var failure: (any Error)?

    private enum Wanted {
        case exactly(Int)
        case message(limit: Int)
        case toEnd(limit: Int)
    }

    /// One call of a read function. Event loop only.
    private final class Read: @unchecked Sendable {
        let wanted: Wanted
        let promise: EventLoopPromise<ByteBuffer>
        var isCancelled = false

        init(_ wanted: Wanted, _ promise: EventLoopPromise<ByteBuffer>) {
            self.wanted = wanted
            self.promise = promise
        }
    }

    /// Takes over `stream` as its receiver. Event loop only.
    public init(_ stream: any ByteStream) {
        self.stream = stream
        stream.receiver = self
    }

    /// Reads exactly `count` bytes.
    /// - Throws: ``StreamReadError``, `CancellationError`, or why the stream closed.
    public func read(exactly count: Int) async throws -> ByteBuffer {
        try await self.read(.exactly(count))
    }

    /// Reads one message behind an unsigned varint of its length, which is at most `limit` bytes.
    /// - Throws: ``StreamReadError``, `CancellationError`, or why the stream closed.
    public func readMessage(atMost limit: Int) async throws -> ByteBuffer {
        try await self.read(.message(limit: limit))
    }

    /// Reads all that is left until the remote ends its direction, at most `limit` bytes.
    /// - Throws: ``StreamReadError``, `CancellationError`, or why the stream closed.
    public func readToEnd(atMost limit: Int) async throws -> ByteBuffer {
        try await self.read(.toEnd(limit: limit))
    }

    /// Writes and flushes.
    public func write(_ bytes: ByteBuffer) {
        self.onLoop {
            $0.write(bytes)
            $0.flush()
        }
    }

    /// Writes `message` behind an unsigned varint of its length.
    public func writeMessage(_ message: some Collection<UInt8>) {
        var bytes = ByteBuffer()
        bytes.writeLengthPrefixed(message)
        self.write(bytes)
    }

    /// Ends our direction.
    public func closeWrite() { self.onLoop { $0.closeWrite() } }

    /// Ends both directions.
    public func close(_ error: (any Error)? = nil) { self.onLoop { $0.close(error) } }

    /// Fails the stream with ``StreamReadError/timedOut`` unless `body` is done in time.
    public func within<Value: Sendable>(
        _ limit: TimeAmount, _ body: @Sendable (BufferedStream) async throws -> Value
    ) async throws -> Value {
        let timer = self.stream.eventLoop.scheduleTask(in: limit) { self.stream.close(StreamReadError.timedOut) }
        defer { timer.cancel() }
        return try await body(self)
    }

    // MARK: ByteStreamReceiver

    /// Input, kept until a read takes it.
    public func received(_ bytes: ByteBuffer) {
        var bytes = bytes
        if self.buffer.readableBytes == 0 { self.buffer = bytes } else { self.buffer.writeBuffer(&bytes) }
        self.satisfy()
    }

    /// Nothing: a read does not wait for the end of a burst.
    public func receiveComplete() {}

    /// Nothing: what is written here is small.
    public func writabilityChanged() {}

    /// Completes a read to the end, fails every other.
    public func inputEnded() {
        self.ended = true
        self.satisfy()
    }

    /// Fails the read that waits.
    public func closed(_ error: (any Error)?) {
        self.ended = true
        self.failure = error
        self.satisfy()
    }

    // MARK: Details

    private func onLoop(_ body: @escaping @Sendable (any ByteStream) -> Void) {
        let stream = self.stream
        if stream.eventLoop.inEventLoop { body(stream) } else { stream.eventLoop.execute { body(stream) } }
    }

    private func read(_ wanted: Wanted) async throws -> ByteBuffer {
        let read = Read(wanted, self.stream.eventLoop.makePromise())
        return try await withTaskCancellationHandler {
            self.onLoop { _ in self.start(read) }
            return try await read.promise.futureResult.get()
        } onCancel: {
            self.onLoop { _ in self.cancel(read) }
        }
    }

    private func start(_ read: Read) {
        guard !read.isCancelled else { return }
        guard self.waiting == nil else { return read.promise.fail(StreamReadError.anotherReadIsWaiting) }
        self.waiting = read
        self.satisfy()
    }

    /// May come before ``start(_:)``: a task can be cancelled before it reads.
    private func cancel(_ read: Read) {
        read.isCancelled = true
        if self.waiting === read {
            self.waiting = nil
            self.stream.setReading(false)
        }
        read.promise.fail(CancellationError())
    }

    private func satisfy() {
        guard let read = self.waiting else { return self.stream.setReading(false) }
        let result: Result<ByteBuffer, any Error>
        do {
            if let bytes = try self.take(read.wanted) {
                result = .success(bytes)
            } else if self.ended {
                result = .failure(self.failure ?? StreamReadError.ended(afterBytes: self.buffer.readableBytes))
            } else {
                return self.stream.setReading(true)
            }
        } catch {
            result = .failure(error)
        }
        self.waiting = nil
        self.stream.setReading(false)
        read.promise.completeWith(result)
    }

    private func take(_ wanted: Wanted) throws -> ByteBuffer? {
        switch wanted {
        case .exactly(let count):
            return self.buffer.readSlice(length: count)
        case .message(let limit):
            return try self.buffer.readLengthPrefixed(atMost: limit)
        case .toEnd(let limit):
            guard self.buffer.readableBytes <= limit else { throw StreamReadError.tooLong(limit: limit) }
            guard self.ended else { return nil }
            if let failure = self.failure { throw failure }
            defer { self.buffer = ByteBuffer() }
            return self.buffer
        }
    }
}

/// Why a read did not complete.
public enum StreamReadError: Error, Hashable, Sendable {
    /// The remote announced or sent more than allowed.
    case tooLong(limit: Int)
    /// The length before a message is not an unsigned varint.
    case malformedLength
    /// The stream ended in the middle.
    case ended(afterBytes: Int)
    /// It took too long.
    case timedOut
    /// A second read was started before the first ended.
    case anotherReadIsWaiting
}
