internal import LibP2PCore
internal import NIOCore

/// The server's side of one stream: reads until the client ends its direction, then sends what it wanted. Holds no more than the stream's
/// own queues, however much that is.
final class PerfServer: ByteStreamReceiver, @unchecked Sendable {
    // Not `Sendable` by the compiler's rules: all state belongs to the stream's event loop.

    private let stream: any Stream
    private let onEnd: @Sendable () -> Void
    private var session = PerfServerSession()
    private var source: PerfSource?
    private var watchdog: Scheduled<Void>?
    private var limit: Scheduled<Void>?
    private var isOver = false

    init(_ stream: any Stream, onEnd: @escaping @Sendable () -> Void) {
        self.stream = stream
        self.onEnd = onEnd
    }

    func start() {
        let stream = self.stream
        self.limit = stream.eventLoop.scheduleTask(in: PerfService.maximumTime) { stream.reset(.resourceLimitExceeded) }
        self.watch(self.progress)
        stream.receiver = self
        stream.setReading(true)
    }

    private var progress: UInt64 { self.session.uploaded &+ (self.source?.sent ?? 0) }

    /// Gives up a stream on which nothing moves.
    private func watch(_ before: UInt64) {
        self.watchdog = self.stream.eventLoop.scheduleTask(in: PerfService.stallTime) {
            guard self.progress != before else { return self.stream.reset(.garbageCollected) }
            self.watch(self.progress)
        }
    }

    func received(_ bytes: ByteBuffer) { self.session.receive(bytes) }

    func receiveComplete() {}

    func writabilityChanged() { self.source?.pump() }

    func inputEnded() {
        guard self.source == nil else { return }
        do {
            let stream = self.stream
            let source = PerfSource(stream, count: try self.session.inputEnded()) { stream.closeWrite() }
            self.source = source
            source.pump()
        } catch {
            self.stream.reset(.protocolViolation)
        }
    }

    func closed(_ error: (any Error)?) {
        guard !self.isOver else { return }
        self.isOver = true
        self.watchdog?.cancel()
        self.limit?.cancel()
        self.source?.abandon()
        self.onEnd()
    }
}
