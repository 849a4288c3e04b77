import DequeModule
import LibP2PCore
import NIOCore

/// Runs a ``YamuxSession`` over a byte stream: carries bytes, actions and the time between the session, the stream beneath and the
/// streams above, and decides nothing.
///
/// Everything happens on the stream's event loop, which is what makes it sendable. Those above may call back at any point: what
/// they ask for is done when the callback has returned, and what goes out is sent once for each burst of input.
final class YamuxConnection: MuxerSession, ByteStreamReceiver, @unchecked Sendable {
    weak var delegate: (any MuxerSessionDelegate)?

    let eventLoop: any EventLoop
    private let beneath: any ByteStream
    private var session: YamuxSession
    private var streams: [UInt32: YamuxStream] = [:]
    private var pings: [UInt32: EventLoopPromise<TimeAmount>] = [:]

    // Where in a turn we are.
    private var isInBurst = false
    private var isSettling = false
    private var needsSettling = false

    // Whom to tell at the end of a turn.
    private var receiving: [YamuxStream] = []
    private var sendabilityChanged: [YamuxStream] = []
    private var blocked: [YamuxStream] = []
    private var sawBeneathBlocked = false
    private var wasBeneathWritable = true

    private var timer: Scheduled<Void>?
    private var timerDeadline = NIODeadline.distantFuture
    private var beneathError: (any Error)?
    private var isBeneathClosed = false

    init(_ beneath: any ByteStream, role: Role, configuration: YamuxConfiguration) {
        self.beneath = beneath
        self.eventLoop = beneath.eventLoop
        self.session = YamuxSession(role: role, configuration: configuration, now: beneath.eventLoop.now)
    }

    deinit {
        for promise in self.pings.values { promise.fail(MuxerError.sessionClosed) }
    }

    // MARK: MuxerSession

    var streamCount: Int { self.session.streamCount }

    var roundTripTime: TimeAmount? { self.session.roundTripTime }

    func start() {
        guard !self.session.isEnded else { return }
        self.beneath.receiver = self
        _ = try? self.session.ping(now: self.eventLoop.now)
        self.settle()
        self.beneath.setReading(true)
    }

    func openStream() throws -> any MuxedStream {
        let id = try self.session.openStream(now: self.eventLoop.now)
        let stream = YamuxStream(id, role: .dialer, session: self)
        self.streams[id] = stream
        return stream
    }

    func ping() -> EventLoopFuture<TimeAmount> {
        let promise = self.eventLoop.makePromise(of: TimeAmount.self)
        guard !self.session.isEnded else {
            promise.fail(MuxerError.sessionClosed)
            return promise.futureResult
        }
        do throws(YamuxError) {
            self.pings[try self.session.ping(now: self.eventLoop.now)] = promise
            self.settle()
        } catch {
            promise.fail(error)
        }
        return promise.futureResult
    }

    func close(_ code: ConnectionErrorCode) {
        self.session.close(code)
        self.settle()
    }

    func abort() {
        guard !self.isBeneathClosed else { return }
        self.beneathError = TransportError.aborted
        self.session.lost()
        self.settle()
    }

    // MARK: ByteStreamReceiver, from beneath

    func received(_ bytes: ByteBuffer) {
        guard !self.session.isEnded else { return }
        self.isInBurst = true
        self.session.receive(bytes, now: self.eventLoop.now)
        self.settle()
    }

    func receiveComplete() {
        self.isInBurst = false
        self.settle()
    }

    func writabilityChanged() {
        self.settle()
    }

    func inputEnded() {
        self.isInBurst = false
        if self.session.isEnded {
            self.beneath.close(nil)
        } else {
            self.session.inputEnded()
            self.settle()
        }
    }

    func closed(_ error: (any Error)?) {
        self.isInBurst = false
        self.isBeneathClosed = true
        self.timer?.cancel()
        self.timer = nil
        self.beneathError = error
        if error == nil {
            self.session.inputEnded()
        } else {
            self.session.lost()
        }
        self.settle()
    }

    // MARK: One turn

    /// Does all there is to do: tells those above, then writes, then tells who may write again. A call from within only makes it
    /// go round once more; during a burst of input, writing waits for the burst's end.
    private func settle() {
        self.needsSettling = true
        guard !self.isSettling else { return }
        self.isSettling = true
        while self.needsSettling {
            self.needsSettling = false
            while let action = self.session.nextAction() { self.perform(action) }
            guard !self.isInBurst else { break }
            self.completeReceiving()
            self.pump()
            self.tellWritability()
            if self.session.hasActions { self.needsSettling = true }
        }
        self.isSettling = false
        if !self.isInBurst { self.armTimer() }
    }

    private func perform(_ action: YamuxSession.Action) {
        switch action {
        case .accept(let id):
            let stream = YamuxStream(id, role: .listener, session: self)
            self.streams[id] = stream
            self.delegate?.session(self, accepted: stream)
            if stream.receiver == nil {
                self.session.reset(id, .unspecified)
            } else {
                self.session.accept(id)
            }
        case .deliver(let id, let bytes):
            guard let stream = self.streams[id] else { return }
            if !stream.isReceiving {
                stream.isReceiving = true
                self.receiving.append(stream)
            }
            stream.receiver?.received(bytes)
        case .endInput(let id):
            guard let stream = self.streams[id] else { return }
            stream.completeReceiving()
            stream.receiver?.inputEnded()
        case .sendabilityChanged(let id):
            guard let stream = self.streams[id] else { return }
            self.sendabilityChanged.append(stream)
        case .closeStream(let id, let error):
            self.streams.removeValue(forKey: id)?.end(error)
        case .completePing(let token, let time):
            self.pings.removeValue(forKey: token)?.succeed(time)
        case .failPing(let token, let error):
            self.pings.removeValue(forKey: token)?.fail(error)
        case .end(let ending):
            self.end(ending)
        }
    }

    private func completeReceiving() {
        guard !self.receiving.isEmpty else { return }
        let receiving = self.receiving
        self.receiving = []
        for stream in receiving { stream.completeReceiving() }
    }

    private func pump() {
        guard !self.session.isEnded else { return }
        let now = self.eventLoop.now
        var hasWritten = false
        while self.beneath.isWritable, let bytes = self.session.nextWrite(now: now) {
            self.beneath.write(bytes)
            hasWritten = true
        }
        if hasWritten { self.beneath.flush() }
    }

    private func armTimer() {
        guard let deadline = self.session.nextDeadline, deadline < self.timerDeadline else { return }
        self.timer?.cancel()
        self.timerDeadline = deadline
        self.timer = self.eventLoop.scheduleTask(deadline: deadline) { [weak self] in
            self?.timerFired()
        }
    }

    private func timerFired() {
        self.timerDeadline = .distantFuture
        self.session.tick(now: self.eventLoop.now)
        self.settle()
    }

    // MARK: The end

    private func end(_ ending: YamuxSession.Ending) {
        let sessionError: (any Error)?
        let streamError: any Error
        switch ending {
        case .goAway(let code, let byRemote):
            streamError = ConnectionClosedError(code: code, byRemote: byRemote)
            sessionError = code == .none ? nil : streamError
        case .failure(let error):
            streamError = error
            sessionError = error
        case .lost:
            streamError = self.beneathError ?? YamuxError.endedWithoutGoAway
            sessionError = streamError
        }
        self.timer?.cancel()
        self.timer = nil
        self.leave(sessionError)

        let streams = self.streams.values
        self.streams = [:]
        self.receiving = []
        self.blocked = []
        self.sendabilityChanged = []
        for stream in streams { stream.end(streamError) }
        let pings = self.pings.values
        self.pings = [:]
        for promise in pings { promise.fail(streamError) }
        let delegate = self.delegate
        self.delegate = nil
        delegate?.session(self, closed: sessionError)
    }

    /// Ends the stream beneath: at once, or, where there is a goodbye to carry, when the remote has ended it too or took too long.
    private func leave(_ error: (any Error)?) {
        guard !self.isBeneathClosed else { return }
        let now = self.eventLoop.now
        var saysGoodbye = false
        while let bytes = self.session.nextWrite(now: now) {
            self.beneath.write(bytes)
            saysGoodbye = true
        }
        guard saysGoodbye else {
            self.beneath.close(error)
            return
        }
        self.beneath.flush()
        self.beneath.closeWrite()
        // Holds this object, which the stream beneath may not, until the end.
        self.timer = self.eventLoop.scheduleTask(in: self.session.configuration.lingerTime) {
            self.beneath.close(error)
        }
    }
}

// MARK: - What streams ask for

extension YamuxConnection {
    func write(_ bytes: ByteBuffer, to id: UInt32) {
        self.session.write(bytes, to: id)
    }

    func flush(_ id: UInt32) {
        self.session.flush(id)
        self.settle()
    }

    func setReading(_ isWanted: Bool, on id: UInt32) {
        self.session.setReading(isWanted, on: id)
        if isWanted { self.settle() }
    }

    func closeWrite(_ id: UInt32) {
        self.session.closeWrite(id)
        self.settle()
    }

    func closeStream(_ id: UInt32) {
        self.session.close(id)
        self.settle()
    }

    func resetStream(_ id: UInt32, _ code: StreamErrorCode) {
        self.session.reset(id, code)
        self.settle()
    }

    func negotiated(_ id: UInt32) {
        self.session.negotiated(id)
    }
}

// MARK: - Writability

extension YamuxConnection {
    /// Whether `stream` may be written to. Who has seen that it may not is told when it may again.
    func isWritable(_ stream: YamuxStream) -> Bool {
        let isBeneathWritable = self.beneath.isWritable
        if !isBeneathWritable { self.sawBeneathBlocked = true }
        let isWritable = isBeneathWritable && self.session.isSendable(stream.number)
        if !isWritable { self.block(stream) }
        return isWritable
    }

    private func block(_ stream: YamuxStream) {
        stream.wasWritable = false
        guard !stream.isBlocked else { return }
        stream.isBlocked = true
        self.blocked.append(stream)
    }

    /// Tells streams whose writability has changed. When the stream beneath stops taking bytes only those with something to
    /// send learn of it at once, the others when they ask: idle streams cost nothing.
    private func tellWritability() {
        let changed = self.sendabilityChanged
        self.sendabilityChanged.removeAll(keepingCapacity: true)
        for stream in changed { self.tellWritability(of: stream) }

        let isBeneathWritable = self.beneath.isWritable
        if isBeneathWritable, self.sawBeneathBlocked || !self.wasBeneathWritable {
            self.wasBeneathWritable = true
            self.sawBeneathBlocked = false
            let blocked = self.blocked
            self.blocked = []
            for stream in blocked { stream.isBlocked = false }
            for stream in blocked {
                self.tellWritability(of: stream)
                if !stream.wasWritable, stream.isOpen { self.block(stream) }
            }
        } else if !isBeneathWritable, self.wasBeneathWritable {
            self.wasBeneathWritable = false
            for id in self.session.sendOrder {
                if let stream = self.streams[id] { self.tellWritability(of: stream) }
            }
        }
    }

    private func tellWritability(of stream: YamuxStream) {
        let wasWritable = stream.wasWritable
        guard stream.isOpen, self.isWritable(stream) != wasWritable else { return }
        stream.wasWritable = !wasWritable
        stream.receiver?.writabilityChanged()
    }
}
