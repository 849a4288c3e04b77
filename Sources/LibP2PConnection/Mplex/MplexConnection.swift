import LibP2PCore
import NIOCore

/// Runs an ``MplexSession`` over a byte stream: carries bytes, actions and the time between the session, the stream beneath and the
/// streams above, and decides nothing.
///
/// Everything happens on the stream's event loop, which is what makes it sendable. Those above may call back at any point: what
/// they ask for is done when the callback has returned, and what goes out is sent once for each burst of input.
final class MplexConnection: MuxerSession, ByteStreamReceiver, @unchecked Sendable {
    weak var delegate: (any MuxerSessionDelegate)?

    let eventLoop: any EventLoop
    private let beneath: any ByteStream
    private var session: MplexSession
    private var streams: [MplexSession.StreamID: MplexStream] = [:]

    // Where in a turn we are.
    private var hasStarted = false
    private var isInBurst = false
    private var isSettling = false
    private var needsSettling = false

    // Whom to tell at the end of a turn.
    private var receiving: [MplexStream] = []
    private var sendabilityChanged: [MplexStream] = []
    private var wasBeneathWritable = true
    private var isReadingBeneath = false

    private var timer: Scheduled<Void>?
    private var timerDeadline: NIODeadline?
    private var beneathError: (any Error)?
    private var isBeneathClosed = false

    init(_ beneath: any ByteStream, role: Role, configuration: MplexConfiguration) {
        self.beneath = beneath
        self.eventLoop = beneath.eventLoop
        self.session = MplexSession(role: role, configuration: configuration)
    }

    // MARK: MuxerSession

    var streamCount: Int { self.session.streamCount }

    var roundTripTime: TimeAmount? { nil }

    func start() {
        guard !self.session.isEnded, !self.hasStarted else { return }
        self.hasStarted = true
        self.beneath.receiver = self
        self.settle()
    }

    func openStream() throws -> any MuxedStream {
        let id = try self.session.openStream()
        let stream = self.makeStream(id)
        self.streams[id] = stream
        return stream
    }

    func ping() -> EventLoopFuture<TimeAmount> { self.eventLoop.makeFailedFuture(MplexError.noPings) }

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

    private func makeStream(_ id: MplexSession.StreamID) -> MplexStream {
        MplexStream(id, isOfDialer: id.isOurs == (self.session.role == .dialer), session: self)
    }

    // MARK: ByteStreamReceiver, from beneath

    func received(_ bytes: ByteBuffer) {
        guard !self.session.isEnded else { return }
        self.isInBurst = true
        self.session.receive(bytes)
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
        // Whatever waits for a slow reader, there is nothing more to wait for.
        self.session.lost()
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
            while let action = self.session.nextAction(now: self.eventLoop.now) { self.perform(action) }
            guard !self.isInBurst else { break }
            self.completeReceiving()
            self.pump()
            self.tellWritability()
            if self.session.hasActions { self.needsSettling = true }
        }
        self.isSettling = false
        self.pushBack()
        self.armTimer()
    }

    private func perform(_ action: MplexSession.Action) {
        switch action {
        case .accept(let id):
            let stream = self.makeStream(id)
            self.streams[id] = stream
            self.delegate?.session(self, accepted: stream)
            if stream.receiver == nil { self.session.reset(id, .unspecified) }
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
        var hasWritten = false
        while self.beneath.isWritable, let bytes = self.session.nextWrite() {
            self.beneath.write(bytes)
            hasWritten = true
        }
        if hasWritten { self.beneath.flush() }
    }

    /// Reads from beneath unless a slow reader is in the way. After the end reading goes on, to see the remote's.
    private func pushBack() {
        guard self.hasStarted, !self.isBeneathClosed else { return }
        let wantsInput = self.session.wantsInput || self.session.isEnded
        guard wantsInput != self.isReadingBeneath else { return }
        self.isReadingBeneath = wantsInput
        self.beneath.setReading(wantsInput)
    }

    private func armTimer() {
        guard !self.session.isEnded, self.timerDeadline != self.session.nextDeadline else { return }
        self.timer?.cancel()
        self.timer = nil
        self.timerDeadline = self.session.nextDeadline
        guard let deadline = self.timerDeadline else { return }
        self.timer = self.eventLoop.scheduleTask(deadline: deadline) { [weak self] in self?.timerFired() }
    }

    private func timerFired() {
        self.timerDeadline = nil
        self.session.tick(now: self.eventLoop.now)
        self.settle()
    }

    // MARK: The end

    private func end(_ ending: MplexSession.Ending) {
        let sessionError: (any Error)?
        let streamError: any Error
        var isOrderly = false
        switch ending {
        case .closed(let code, let byRemote):
            streamError = ConnectionClosedError(code: code, byRemote: byRemote)
            sessionError = code == .none ? nil : streamError
            isOrderly = true
        case .failure(let error):
            streamError = error
            sessionError = error
        case .lost:
            streamError = self.beneathError ?? MplexError.connectionLost
            sessionError = streamError
        }
        self.timer?.cancel()
        self.timer = nil
        self.leave(sessionError, isOrderly: isOrderly)

        let streams = self.streams.values
        self.streams = [:]
        self.receiving = []
        self.sendabilityChanged = []
        for stream in streams { stream.end(streamError) }
        let delegate = self.delegate
        self.delegate = nil
        delegate?.session(self, closed: sessionError)
    }

    /// Ends the stream beneath: at once, or, after an orderly end, when the remote has ended it too or took too long.
    private func leave(_ error: (any Error)?, isOrderly: Bool) {
        guard !self.isBeneathClosed else { return }
        guard isOrderly, self.hasStarted else {
            self.beneath.close(error)
            return
        }
        while let bytes = self.session.nextWrite() { self.beneath.write(bytes) }
        self.beneath.flush()
        self.beneath.closeWrite()
        guard !self.isBeneathClosed else { return }
        // Holds this object, which the stream beneath may not, until the end.
        self.timer = self.eventLoop.scheduleTask(in: self.session.configuration.lingerTime) {
            self.beneath.close(error)
        }
    }
}

// MARK: - What streams ask for

extension MplexConnection {
    func write(_ bytes: ByteBuffer, to id: MplexSession.StreamID) {
        self.session.write(bytes, to: id)
    }

    func flush(_ id: MplexSession.StreamID) {
        self.session.flush(id)
        self.settle()
    }

    func setReading(_ isWanted: Bool, on id: MplexSession.StreamID) {
        self.session.setReading(isWanted, on: id)
        if isWanted { self.settle() }
    }

    func closeWrite(_ id: MplexSession.StreamID) {
        self.session.closeWrite(id)
        self.settle()
    }

    func closeStream(_ id: MplexSession.StreamID) {
        self.session.close(id)
        self.settle()
    }

    func resetStream(_ id: MplexSession.StreamID, _ code: StreamErrorCode) {
        self.session.reset(id, code)
        self.settle()
    }

    func negotiated(_ id: MplexSession.StreamID) {
        self.session.negotiated(id)
    }

    // MARK: Writability

    /// Whether `stream` may be written to. Who has seen that it may not is told when it may again.
    func isWritable(_ stream: MplexStream) -> Bool {
        let isBeneathWritable = self.beneath.isWritable
        if !isBeneathWritable { self.wasBeneathWritable = false }
        let isWritable = isBeneathWritable && self.session.isSendable(stream.streamID)
        if !isWritable { stream.wasWritable = false }
        return isWritable
    }

    /// Tells streams whose writability has changed.
    private func tellWritability() {
        let changed = self.sendabilityChanged
        self.sendabilityChanged.removeAll(keepingCapacity: true)
        for stream in changed { self.tellWritability(of: stream) }

        let isBeneathWritable = self.beneath.isWritable
        guard isBeneathWritable != self.wasBeneathWritable else { return }
        self.wasBeneathWritable = isBeneathWritable
        for stream in Array(self.streams.values) { self.tellWritability(of: stream) }
    }

    private func tellWritability(of stream: MplexStream) {
        let wasWritable = stream.wasWritable
        guard stream.isOpen, self.isWritable(stream) != wasWritable else { return }
        stream.wasWritable = !wasWritable
        stream.receiver?.writabilityChanged()
    }
}
