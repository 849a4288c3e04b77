internal import LibP2PCore
internal import NIOCore

/// Runs an ``OpeningMachine`` on a stream.
final class OpeningDriver<Machine: OpeningMachine>: ByteStreamReceiver, @unchecked Sendable {
    // Not `Sendable` by the compiler's rules: all state belongs to the stream's loop.

    /// What the machine found, and early input for those who come next.
    typealias Result = (outcome: Machine.Outcome, leftover: ByteBuffer)

    private let stream: any ByteStream
    private var machine: Machine
    private var promise: EventLoopPromise<Result>?
    private var timer: Scheduled<Void>?
    private var failure: (any Error)?

    /// Runs `machine` on `stream`'s loop. On success nobody receives the stream any more, and reading is off; on failure it is
    /// closed. Not done in time, it fails with ``TransportError/timedOut``.
    static func run(_ machine: Machine, on stream: any ByteStream, timeout: TimeAmount) -> EventLoopFuture<Result> {
        OpeningDriver(machine, stream).run(timeout)
    }

    private init(_ machine: Machine, _ stream: any ByteStream) {
        self.machine = machine
        self.stream = stream
    }

    private func run(_ timeout: TimeAmount) -> EventLoopFuture<Result> {
        let promise = self.stream.eventLoop.makePromise(of: Result.self)
        self.promise = promise
        // The timer holds this object, as streams need not hold their receivers.
        self.timer = self.stream.eventLoop.scheduleTask(in: timeout) { self.fail(TransportError.timedOut) }
        self.stream.receiver = self
        if let bytes = self.machine.start() {
            self.stream.write(bytes)
            self.stream.flush()
        }
        if self.promise != nil { self.stream.setReading(true) }
        return promise.futureResult
    }

    private func fail(_ error: any Error) {
        guard let promise = self.promise.take() else { return }
        self.timer?.cancel()
        self.timer = nil
        self.stream.close(error)
        promise.fail(error)
    }

    private func send(_ bytes: ByteBuffer?) {
        guard let bytes else { return }
        self.stream.write(bytes)
        self.stream.flush()
    }

    // MARK: ByteStreamReceiver

    func received(_ bytes: ByteBuffer) {
        guard self.promise != nil else { return }
        switch self.machine.receive(bytes) {
        case .wait:
            break
        case .send(let bytes):
            self.send(bytes)
        case .fail(let error, let reply):
            self.send(reply)
            self.fail(error)
        case .done(let outcome, let reply, let leftover):
            let promise = self.promise.take()
            self.timer?.cancel()
            self.timer = nil
            self.stream.setReading(false)
            self.stream.receiver = nil
            self.send(reply)
            promise?.succeed((outcome, leftover))
        }
    }

    func receiveComplete() {}

    func writabilityChanged() {}

    func inputEnded() { self.fail(self.machine.cutOff()) }

    func closed(_ error: (any Error)?) { self.fail(error ?? self.machine.cutOff()) }
}
