import LibP2PCore
import NIOCore
import NIOEmbedded

/// Two byte streams back to back. Nothing moves before ``run(chunks:)``, so a test decides where input is cut.
final class Pipe {
    let loop = EmbeddedEventLoop()
    let dialer: PipeEnd
    let listener: PipeEnd

    init() {
        self.dialer = PipeEnd(loop: self.loop, role: .dialer)
        self.listener = PipeEnd(loop: self.loop, role: .listener)
        self.dialer.peer = self.listener
        self.listener.peer = self.dialer
    }

    /// Moves what was flushed, in chunks of at most `chunk()` bytes, until nothing moves any more.
    func run(chunks chunk: () -> Int = { .max }) {
        self.loop.run()
        while self.dialer.deliver(chunk) || self.listener.deliver(chunk) { self.loop.run() }
    }
}

/// The far end died without a word.
struct BrokenPipe: Error, Equatable {}

final class PipeEnd: LibP2PCore.Stream, @unchecked Sendable {
    let eventLoop: any EventLoop
    let role: Role
    let id: UInt64 = 7
    var protocolID: ProtocolID?
    let connection: (any Connection)? = nil
    fileprivate(set) weak var peer: PipeEnd?

    /// Weakly, which the contract allows: whoever runs on a stream has to stay alive by itself.
    weak var receiver: (any ByteStreamReceiver)?
    var isWritable = true

    private(set) var isReading = false
    private(set) var written: [ByteBuffer] = []
    private(set) var resetCode: StreamErrorCode?
    private(set) var flushes = 0
    private(set) var isClosed = false
    private var inbox = ByteBuffer()
    private var inputIsEnding = false
    private var closing: (any Error)??

    init(loop: EmbeddedEventLoop, role: Role) {
        self.eventLoop = loop
        self.role = role
    }

    func write(_ bytes: ByteBuffer) {
        if !self.isClosed { self.written.append(bytes) }
    }

    func flush() {
        self.flushes += 1
        for bytes in self.written { self.peer?.inbox.writeImmutableBuffer(bytes) }
        self.written = []
    }

    /// As if the far end had sent `bytes`.
    func inject(_ bytes: [UInt8]) { self.inbox.writeBytes(bytes) }

    /// What the far end has sent and nobody has read, as bytes, which are taken away.
    func takeInbox() -> [UInt8] {
        defer { self.inbox.clear() }
        return Array(self.inbox.readableBytesView)
    }

    func setReading(_ wanted: Bool) { self.isReading = wanted }

    func closeWrite() {
        self.flush()
        self.peer?.inputIsEnding = true
    }

    func close(_ error: (any Error)?) {
        if error == nil { self.flush() }
        self.end(ours: error, theirs: error == nil ? nil : BrokenPipe())
    }

    func reset(_ code: StreamErrorCode) {
        self.resetCode = code
        self.end(
            ours: StreamResetError(code: code, byRemote: false), theirs: StreamResetError(code: code, byRemote: true))
    }

    private func end(ours: (any Error)?, theirs: (any Error)?) {
        guard !self.isClosed else { return }
        self.isClosed = true
        self.peer?.closing = .some(theirs)
        self.receiver?.closed(ours)
    }

    fileprivate func deliver(_ chunk: () -> Int) -> Bool {
        guard !self.isClosed else { return false }
        if case .some(.some(let error)) = self.closing {
            self.isClosed = true
            self.receiver?.closed(error)
            return true
        }
        var delivered = false
        while self.isReading, self.inbox.readableBytes > 0, !self.isClosed,
            let bytes = self.inbox.readSlice(length: min(max(chunk(), 1), self.inbox.readableBytes))
        {
            delivered = true
            self.receiver?.received(bytes)
        }
        if delivered { self.receiver?.receiveComplete() }
        guard self.isReading, self.inbox.readableBytes == 0, !self.isClosed else { return delivered }
        if self.inputIsEnding {
            self.inputIsEnding = false
            delivered = true
            self.receiver?.inputEnded()
        }
        if case .some(.none) = self.closing, !self.isClosed {
            self.isClosed = true
            self.receiver?.closed(nil)
            return true
        }
        return delivered
    }
}

/// Notes what it is told.
final class Recorder: ByteStreamReceiver, @unchecked Sendable {
    private(set) var input: [UInt8] = []
    private(set) var calls = 0
    private(set) var bursts = 0
    private(set) var writabilityChanges = 0
    private(set) var hasInputEnded = false
    private(set) var end: (any Error)??
    var onInput: (() -> Void)?

    func received(_ bytes: ByteBuffer) {
        self.calls += 1
        self.input += bytes.readableBytesView
        self.onInput?()
    }

    func receiveComplete() { self.bursts += 1 }
    func writabilityChanged() { self.writabilityChanges += 1 }
    func inputEnded() { self.hasInputEnded = true }
    func closed(_ error: (any Error)?) {
        precondition(self.end == nil, "closed twice")
        self.end = .some(error)
    }

    /// Whether the stream has ended without an error.
    var hasEndedOrderly: Bool { if case .some(.none) = self.end { true } else { false } }
    /// Whether the stream has ended with this error.
    func hasEnded<E: Error & Equatable>(with error: E) -> Bool {
        if case .some(.some(let end)) = self.end { end as? E == error } else { false }
    }
}

/// The result of a future that is complete already.
func outcome<Value: Sendable>(_ future: EventLoopFuture<Value>) -> Result<Value, any Error>? {
    nonisolated(unsafe) var result: Result<Value, any Error>?
    future.whenComplete { result = $0 }
    return result
}

extension Result {
    /// The error, if it is one of this type.
    func failed<E: Error>(as type: E.Type = E.self) -> E? {
        if case .failure(let error) = self { error as? E } else { nil }
    }
}
