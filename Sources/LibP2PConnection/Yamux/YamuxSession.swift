import DequeModule
import LibP2PCore
import NIOCore

/// One side of a Yamux session: frames to and from streams, with their windows, their ends and the session's own signs of life.
///
/// Pure: it holds no byte stream, clock, timer or logger. The caller feeds it bytes (``receive(_:now:)``), commands
/// (``openStream(now:)``, ``write(_:to:)``, …) and the time (``tick(now:)``), and pulls out of it what to do:
/// - ``nextAction()`` until it gives `nil`: what to tell those above. Between two actions any command may be given.
/// - ``nextWrite(now:)`` while the stream beneath is writable: what to send, control frames first, then one frame of each stream
///   in turn. Writing may lead to further actions.
///
/// Bodies are slices both ways: neither what arrives nor what is sent is copied, except small pieces that must be kept because
/// their stream does not read.
///
/// A command for a stream that is not open is ignored, because the remote may have ended it a moment ago.
///
/// Spec: hashicorp/yamux `spec.md`; libp2p/specs `yamux/README.md`.
struct YamuxSession {
    /// What the caller must do next.
    enum Action: Equatable {
        /// The remote opened a stream: ``accept(_:)`` or ``reset(_:_:)`` it.
        case accept(UInt32)
        /// Hand these bytes to the stream's receiver.
        case deliver(UInt32, ByteBuffer)
        /// The remote's direction is over, and all its bytes have been delivered.
        case endInput(UInt32)
        /// ``isSendable(_:)`` of the stream has changed.
        case sendabilityChanged(UInt32)
        /// The stream is forgotten: both directions are done, or it was reset.
        case closeStream(UInt32, StreamResetError?)
        /// A ping was answered.
        case completePing(UInt32, TimeAmount)
        /// A ping was not answered in time.
        case failPing(UInt32, YamuxError)
        /// The session is over. Everything that ``nextWrite(now:)`` still gives goes out, then the stream beneath is closed.
        case end(Ending)
    }

    /// How a session ended.
    enum Ending: Equatable {
        /// One side said goodbye with this code.
        case goAway(ConnectionErrorCode, byRemote: Bool)
        /// Something is wrong.
        case failure(YamuxError)
        /// The byte stream beneath is gone.
        case lost
    }

    /// Answers and resets that may wait for the stream beneath to become writable, in bytes.
    static let maximumControlBytes = 64 * 1024

    /// Answers to pings that may wait likewise; those to further ones are not given. The same as go-yamux.
    static let maximumQueuedPingAnswers = 32

    let configuration: YamuxConfiguration
    let role: Role

    // Input: unread bytes, and where in a frame they are.
    var input = ByteBuffer()
    var laterInput = Deque<ByteBuffer>()
    var splitHeader = ByteBuffer()
    var body: Body?

    // Streams. See YamuxSession+Streams.swift.
    var streams: [UInt32: StreamState] = [:]
    var nextStreamID: UInt32
    var inboundCount = 0
    var unnegotiatedCount = 0
    var unacknowledgedCount = 0
    var orphans = Deque<UInt32>()
    var pendingDeliveries = Deque<UInt32>()

    // Windows and the order of sending. See YamuxSession+FlowControl.swift.
    var pendingGrants: [UInt32] = []
    var grownBytes = 0
    var sendOrder = Deque<UInt32>()

    // Signs of life. See YamuxSession+Liveness.swift.
    var pings: [Ping] = []
    var pingAnswers: [UInt32] = []
    var nextPing: UInt32 = 0
    var lastHeard: NIODeadline
    var lastMeasured: NIODeadline
    var hasHeardData = false
    var roundTripTime: TimeAmount?

    // Output.
    var actions = Deque<Action>()
    var control = ByteBuffer()
    var outbox = Deque<ByteBuffer>()
    private(set) var isEnded = false
    private(set) var isRemoteLeaving = false

    /// The rest of a data frame's body that is still to come.
    struct Body {
        /// Whose it is; 0 when it is to be thrown away, as it is if its stream goes meanwhile.
        var streamID: UInt32
        var remaining: Int
        /// Whether the frame carried a FIN, which counts after the body.
        var endsInput: Bool
    }

    init(role: Role, configuration: YamuxConfiguration, now: NIODeadline) {
        self.role = role
        self.configuration = configuration
        self.nextStreamID = role == .dialer ? 1 : 2
        self.lastHeard = now
        self.lastMeasured = now
    }

    /// Takes bytes from the stream beneath.
    mutating func receive(_ bytes: ByteBuffer, now: NIODeadline) {
        guard !self.isEnded, bytes.readableBytes > 0 else { return }
        self.lastHeard = now
        if self.input.readableBytes == 0, self.laterInput.isEmpty {
            self.input = bytes
        } else {
            self.laterInput.append(bytes)
        }
    }

    /// What to tell those above next; `nil` when everything at hand is dealt with.
    mutating func nextAction() -> Action? {
        while true {
            if let action = self.actions.popFirst() { return action }
            if let action = self.nextDelivery() { return action }
            guard !self.isEnded, self.hasInput() else { return nil }
            if let body = self.body {
                if let action = self.takeBody(body) { return action }
            } else {
                do throws(YamuxError) {
                    if let frame = try self.takeHeader() { try self.handle(frame) }
                } catch {
                    self.fail(error)
                }
            }
        }
    }

    /// Whether ``nextAction()`` has something at hand that does not depend on input.
    var hasActions: Bool { !self.actions.isEmpty || !self.pendingDeliveries.isEmpty }

    /// Ends the session from this side.
    mutating func close(_ code: ConnectionErrorCode) {
        self.end(.goAway(code, byRemote: false), farewell: code.rawValue)
    }

    /// The stream beneath will give no more bytes, or is gone altogether.
    mutating func inputEnded() {
        guard !self.isEnded else { return }
        if self.isRemoteLeaving {
            self.end(.goAway(.none, byRemote: true), farewell: nil)
        } else {
            self.end(.failure(.endedWithoutGoAway), farewell: nil)
        }
    }

    /// The stream beneath failed.
    mutating func lost() {
        self.end(.lost, farewell: nil)
    }

    /// Ends the session because of `error`, which the remote is told about.
    mutating func fail(_ error: YamuxError) {
        self.end(.failure(error), farewell: YamuxFrame.GoAway.protocolError)
    }

    /// The one way into the final state: everything is dropped, except that a frame begun is completed where a goodbye follows.
    mutating func end(_ ending: Ending, farewell: UInt32?) {
        guard !self.isEnded else { return }
        self.isEnded = true
        self.input = ByteBuffer()
        self.laterInput = []
        self.body = nil
        self.streams = [:]
        self.orphans = []
        self.pendingDeliveries = []
        self.pendingGrants = []
        self.sendOrder = []
        self.pings = []
        self.pingAnswers = []
        self.control = ByteBuffer()
        if let farewell {
            self.control.writeYamuxFrame(YamuxFrame(.goAway, length: farewell))
        } else {
            self.outbox = []
        }
        self.actions = [.end(ending)]
    }

    /// Adds an answer or a reset to what goes out next. The stream beneath gives up on a remote that does not read them.
    mutating func answer(_ frame: YamuxFrame) {
        guard !self.isEnded else { return }
        if self.control.readableBytes == 0 { self.control.reserveCapacity(8 * YamuxFrame.headerBytes) }
        self.control.writeYamuxFrame(frame)
        if self.control.readableBytes > Self.maximumControlBytes {
            self.fail(.answersNotRead(bytes: self.control.readableBytes))
        }
    }
}

// MARK: - Input

extension YamuxSession {
    private mutating func hasInput() -> Bool {
        while self.input.readableBytes == 0 {
            guard let next = self.laterInput.popFirst() else {
                // Lets go of the last buffer, which its owner may want to reuse.
                self.input = ByteBuffer()
                return false
            }
            self.input = next
        }
        return true
    }

    /// The next header; `nil` when its rest has not arrived.
    private mutating func takeHeader() throws(YamuxError) -> YamuxFrame? {
        if self.splitHeader.readableBytes == 0, let frame = try self.input.readYamuxFrame() { return frame }
        let missing = YamuxFrame.headerBytes - self.splitHeader.readableBytes
        let taken = min(missing, self.input.readableBytes)
        if var part = self.input.readSlice(length: taken) { self.splitHeader.writeBuffer(&part) }
        guard let frame = try self.splitHeader.readYamuxFrame() else { return nil }
        self.splitHeader = ByteBuffer()
        return frame
    }

    private mutating func handle(_ frame: YamuxFrame) throws(YamuxError) {
        switch frame.kind {
        case .data, .windowUpdate:
            try self.handleStreamFrame(frame)
        case .ping:
            if frame.flags.contains(.syn) {
                if self.pingAnswers.count < Self.maximumQueuedPingAnswers { self.pingAnswers.append(frame.length) }
            } else if frame.flags.contains(.ack) {
                self.pingAnswered(frame.length)
            }
        case .goAway:
            self.isRemoteLeaving = true
            if frame.length != YamuxFrame.GoAway.normal || self.streams.isEmpty {
                self.end(.goAway(ConnectionErrorCode(rawValue: frame.length), byRemote: true), farewell: nil)
            }
        }
    }

    private mutating func handleStreamFrame(_ frame: YamuxFrame) throws(YamuxError) {
        let id = frame.streamID
        let bodyBytes = frame.kind == .data ? frame.length : 0
        guard bodyBytes <= YamuxFrame.maximumReceivedBodyBytes else {
            throw .bodyTooLarge(streamID: id, bytes: bodyBytes)
        }
        // Set first: whatever becomes of the stream, its bytes must be taken off the wire.
        if bodyBytes > 0 { self.body = Body(streamID: 0, remaining: Int(bodyBytes), endsInput: false) }
        if frame.flags.contains(.syn) { try self.remoteOpened(id, isReset: frame.flags.contains(.rst)) }
        if frame.flags.contains(.rst) {
            // The reason rides in the length of a window update. Spec: libp2p/specs PR 622.
            self.remoteReset(id, StreamErrorCode(rawValue: frame.kind == .windowUpdate ? frame.length : 0))
            return
        }
        guard self.streams[id]?.isAnnounced == true else {
            self.handleUnknownStream(frame)
            return
        }
        if frame.flags.contains(.ack) { self.acknowledged(id) }
        if frame.kind == .windowUpdate {
            try self.enlargeSendWindow(of: id, by: frame.length)
        } else if bodyBytes > 0 {
            try self.reserveReceiveWindow(of: id, bytes: bodyBytes)
            self.body = Body(
                streamID: id, remaining: Int(bodyBytes), endsInput: frame.flags.contains(.fin))
            self.hasHeardData = true
        }
        if frame.flags.contains(.fin), bodyBytes == 0 { self.remoteEnded(id) }
    }

    /// Takes as much of a body as has arrived.
    private mutating func takeBody(_ body: Body) -> Action? {
        let taken = min(body.remaining, self.input.readableBytes)
        guard taken > 0, let piece = self.input.readSlice(length: taken) else { return nil }
        let isLast = taken == body.remaining
        if isLast {
            self.body = nil
        } else {
            self.body?.remaining = body.remaining - taken
        }
        let action = self.inputArrived(piece, for: body.streamID)
        if isLast, body.endsInput { self.remoteEnded(body.streamID) }
        return action
    }
}

// MARK: - Output

extension YamuxSession {
    /// The next bytes for the stream beneath; `nil` when there are none, or none may be sent.
    ///
    /// A frame's header and body may come in several pieces: they belong together, in this order.
    mutating func nextWrite(now: NIODeadline) -> ByteBuffer? {
        if let piece = self.outbox.popFirst() { return piece }
        if !self.isEnded {
            self.writePings(now: now)
            self.writeGrants(now: now)
        }
        if self.control.readableBytes > 0 {
            let frames = self.control
            self.control = ByteBuffer()
            return frames
        }
        return self.nextStreamFrame()
    }
}
