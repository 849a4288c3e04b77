internal import LibP2PCore
internal import NIOCore

/// The client's side of one stream, which measures one direction.
final class PerfClient: ByteStreamReceiver, @unchecked Sendable {
    // Not `Sendable` by the compiler's rules: all state belongs to the stream's event loop.

    private let stream: any Stream
    private let direction: PerfDirection
    private let amount: PerfAmount
    private let report: @Sendable (PerfProgress) -> Void
    private let promise: EventLoopPromise<PerfTransfer>

    private var session: PerfClientSession
    private var source: PerfSource?
    private var startedAt = NIODeadline.uptimeNanoseconds(0)
    private var timers: [Scheduled<Void>] = []
    private var reporter: Scheduled<Void>?
    private var lastProgress: UInt64 = 0
    private var quietSince = NIODeadline.uptimeNanoseconds(0)
    private var isOver = false

    init(
        _ stream: any Stream, _ direction: PerfDirection, _ amount: PerfAmount,
        report: @escaping @Sendable (PerfProgress) -> Void
    ) {
        self.stream = stream
        self.direction = direction
        self.amount = amount
        self.report = report
        self.promise = stream.eventLoop.makePromise()
        let wanted: UInt64 =
            switch (direction, amount) {
            case (.upload, _): 0
            case (.download, .bytes(let count)): count
            case (.download, .time): .max
            }
        self.session = PerfClientSession(wanted: wanted)
    }

    var result: EventLoopFuture<PerfTransfer> { self.promise.futureResult }

    func start() {
        guard !self.isOver else { return }
        let loop = self.stream.eventLoop
        self.startedAt = loop.now
        self.quietSince = loop.now
        self.stream.receiver = self
        self.stream.setReading(true)
        self.stream.write(self.session.request)
        self.scheduleReport()
        if case .time(let limit) = self.amount {
            self.timers.append(loop.scheduleTask(in: limit) { self.timeIsUp() })
        }
        let upload: UInt64 =
            switch (self.direction, self.amount) {
            case (.download, _): 0
            case (.upload, .bytes(let count)): count
            case (.upload, .time): .max
            }
        let source = PerfSource(self.stream, count: upload) { [weak self] in self?.uploadEnded() }
        self.source = source
        source.pump()
    }

    /// Ends the measurement without a result.
    func cancel() {
        self.finish(.failure(CancellationError()))
    }

    private var bytes: UInt64 {
        self.direction == .upload ? self.source?.sent ?? 0 : self.session.downloaded
    }

    private var elapsed: TimeAmount { self.stream.eventLoop.now - self.startedAt }

    private func uploadEnded() {
        self.session.uploadEnded()
        self.stream.closeWrite()
    }

    private func timeIsUp() {
        switch self.direction {
        case .upload: self.source?.stop()
        case .download: self.finish(.success(PerfTransfer(bytes: self.bytes, time: self.elapsed)))
        }
    }

    // MARK: Every second

    private func scheduleReport() {
        self.reporter = self.stream.eventLoop.scheduleTask(in: PerfService.reportInterval) { self.tick() }
    }

    private func tick() {
        guard !self.isOver else { return }
        let now = self.stream.eventLoop.now
        if self.bytes != self.lastProgress {
            self.lastProgress = self.bytes
            self.quietSince = now
        } else if now - self.quietSince >= PerfService.stallTime {
            return self.finish(.failure(PerfError.stalled(PerfService.stallTime)))
        }
        self.report(
            PerfProgress(direction: self.direction, total: PerfTransfer(bytes: self.bytes, time: self.elapsed)))
        self.scheduleReport()
    }

    // MARK: ByteStreamReceiver

    func received(_ bytes: ByteBuffer) {
        guard !self.isOver else { return }
        do {
            try self.session.received(bytes: bytes.readableBytes)
        } catch {
            self.finish(.failure(error))
        }
    }

    func receiveComplete() {}

    func writabilityChanged() { self.source?.pump() }

    func inputEnded() {
        guard !self.isOver else { return }
        do {
            try self.session.inputEnded()
            self.finish(.success(PerfTransfer(bytes: self.bytes, time: self.elapsed)))
        } catch {
            self.finish(.failure(error))
        }
    }

    func closed(_ error: (any Error)?) {
        self.finish(.failure(error ?? PerfError.answeredTooLittle(bytes: self.bytes, wanted: self.session.wanted)))
    }

    private func finish(_ result: Result<PerfTransfer, any Error>) {
        guard !self.isOver else { return }
        self.isOver = true
        for timer in self.timers { timer.cancel() }
        self.reporter?.cancel()
        self.source?.abandon()
        self.promise.completeWith(result)
        // Where both directions have ended there is nothing left to reset.
        self.stream.reset(.unspecified)
    }
}
