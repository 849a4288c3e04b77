import DequeModule
import LibP2PCore
import NIOCore

/// One mplex session, without any I/O.
///
/// It knows no byte stream, clock, timer or logger. The caller feeds it bytes (``receive(_:)``), commands (``openStream()``,
/// ``write(_:to:)``, …) and the time (``tick(now:)``), and pulls out of it what to do:
/// - ``nextAction(now:)`` until it gives `nil`: what to tell those above. Between two actions any command may be given.
/// - ``nextWrite()`` while the stream beneath is writable: what to send, resets first, then one message of each stream in turn.
///   Writing may lead to further actions.
/// - ``wantsInput``: whether the stream beneath is to be read from. While it is not, ``nextDeadline`` says until when.
///
/// Data is slices both ways: neither what arrives nor what is sent is copied, except small pieces that must be kept because their
/// stream does not read.
///
/// A command for a stream that is not open is ignored, because the remote may have ended it a moment ago.
///
/// Spec: `mplex/README.md`.
struct MplexSession {
    /// What the caller must do next.
    enum Action: Equatable {
        /// The remote opened a stream: keep it, or ``reset(_:_:)`` it.
        case accept(StreamID)
        /// Hand these bytes to the stream's receiver.
        case deliver(StreamID, ByteBuffer)
        /// The remote's direction is over, and all its bytes have been delivered.
        case endInput(StreamID)
        /// ``isSendable(_:)`` of the stream has changed.
        case sendabilityChanged(StreamID)
        /// The stream is forgotten: both directions are done, or it was reset.
        case closeStream(StreamID, StreamResetError?)
        /// The session is over. Everything that ``nextWrite()`` still gives goes out, then the stream beneath is closed.
        case end(Ending)
    }

    /// How a session ended.
    enum Ending: Equatable {
        /// One side closed the connection. mplex carries no code: the remote's is always ``ConnectionErrorCode/none``.
        case closed(ConnectionErrorCode, byRemote: Bool)
        /// Something is wrong.
        case failure(MplexError)
        /// The byte stream beneath is gone.
        case lost
    }

    /// Both sides number their streams, and may use the same numbers.
    struct StreamID: Hashable {
        var number: UInt64
        /// Whether this side has opened it.
        var isOurs: Bool
    }

    /// Resets that may wait for the stream beneath to become writable, in bytes.
    static let maximumControlBytes = 64 * 1024

    let configuration: MplexConfiguration
    let role: Role

    // Input: unread bytes, and where in a message they are.
    private var input = ByteBuffer()
    private var laterInput = Deque<ByteBuffer>()
    private var splitHeader = ByteBuffer()
    private(set) var body: Body?
    private var hasInputEnded = false
    /// Since when input waits for a slow reader, and until when.
    private(set) var nextDeadline: NIODeadline?

    // Streams. See MplexSession+Streams.swift.
    var streams: [StreamID: StreamState] = [:]
    var nextNumber: UInt64
    var inboundCount = 0
    var unnegotiatedCount = 0
    var bufferedBytes = 0
    var orphans = Deque<StreamID>()
    var pendingDeliveries = Deque<StreamID>()
    var sendOrder = Deque<StreamID>()

    // Output.
    var actions = Deque<Action>()
    private(set) var control = ByteBuffer()
    var outbox = Deque<ByteBuffer>()
    private(set) var isEnded = false

    /// The rest of a message's data that is still to come.
    struct Body {
        /// Whose it is; `nil` when it is to be thrown away, as it is if its stream goes meanwhile.
        var streamID: StreamID?
        var remaining: Int
    }

    init(role: Role, configuration: MplexConfiguration) {
        self.role = role
        self.configuration = configuration
        self.nextNumber = role == .dialer ? 1 : 2
    }

    /// Takes bytes from the stream beneath.
    mutating func receive(_ bytes: ByteBuffer) {
        guard !self.isEnded, !self.hasInputEnded, bytes.readableBytes > 0 else { return }
        if self.input.readableBytes == 0, self.laterInput.isEmpty {
            self.input = bytes
        } else {
            self.laterInput.append(bytes)
        }
    }

    /// What to tell those above next; `nil` when everything at hand is dealt with, or waits for a slow reader.
    mutating func nextAction(now: NIODeadline) -> Action? {
        while true {
            if let action = self.actions.popFirst() { return action }
            if let action = self.nextDelivery() { return action }
            guard !self.isEnded else { return nil }
            guard self.hasInput() else {
                guard self.hasInputEnded else { return nil }
                self.endOfInput()
                continue
            }
            if let body = self.body {
                switch self.takeBody(body) {
                case .deliver(let id, let piece):
                    self.nextDeadline = nil
                    return .deliver(id, piece)
                case .taken:
                    self.nextDeadline = nil
                case .noRoom:
                    if self.nextDeadline == nil { self.nextDeadline = now + self.configuration.slowReaderTime }
                    return nil
                }
            } else {
                do throws(MplexError) {
                    if let frame = try self.takeHeader() { try self.handle(frame) }
                } catch {
                    self.fail(error)
                }
            }
        }
    }

    /// Whether ``nextAction(now:)`` has something at hand that does not depend on input.
    var hasActions: Bool { !self.actions.isEmpty || !self.pendingDeliveries.isEmpty }

    /// Whether the stream beneath is to be read from: not while a slow reader holds up the connection.
    var wantsInput: Bool { !self.isEnded && self.nextDeadline == nil }

    /// Lets time pass: a reader that was too slow loses its stream.
    mutating func tick(now: NIODeadline) {
        guard let deadline = self.nextDeadline, now >= deadline else { return }
        self.nextDeadline = nil
        if let offender = self.slowestReader() { self.reset(offender, .resourceLimitExceeded) }
    }

    /// Ends the session from this side. What was flushed before and is already on its way still goes out.
    mutating func close(_ code: ConnectionErrorCode) {
        self.end(.closed(code, byRemote: false))
    }

    /// The stream beneath will give no more bytes. The session ends when those at hand are dealt with.
    mutating func inputEnded() {
        self.hasInputEnded = true
    }

    /// The stream beneath failed.
    mutating func lost() {
        self.end(.lost)
    }

    /// Adds a reset to what goes out next. The stream beneath gives up on a remote that does not read them.
    mutating func answer(_ frame: MplexFrame) {
        guard !self.isEnded else { return }
        self.control.writeMplexFrame(frame)
        if self.control.readableBytes > Self.maximumControlBytes {
            self.fail(.answersNotRead(bytes: self.control.readableBytes))
        }
    }

    /// The next bytes for the stream beneath; `nil` when there are none.
    ///
    /// A message's header and data may come in several pieces: they belong together, in this order.
    mutating func nextWrite() -> ByteBuffer? {
        if let piece = self.outbox.popFirst() { return piece }
        if self.control.readableBytes > 0 {
            let frames = self.control
            self.control = ByteBuffer()
            return frames
        }
        return self.nextStreamFrame()
    }

    // MARK: The end

    private mutating func fail(_ error: MplexError) {
        self.end(.failure(error))
    }

    private mutating func endOfInput() {
        if self.body == nil, self.splitHeader.readableBytes == 0 {
            self.end(.closed(.none, byRemote: true))
        } else {
            self.fail(.cutOff)
        }
    }

    /// The one way into the final state: everything is dropped, except that a message begun is completed after an orderly end.
    private mutating func end(_ ending: Ending) {
        guard !self.isEnded else { return }
        self.isEnded = true
        self.input = ByteBuffer()
        self.laterInput = []
        self.body = nil
        self.nextDeadline = nil
        self.streams = [:]
        self.bufferedBytes = 0
        self.orphans = []
        self.pendingDeliveries = []
        self.sendOrder = []
        guard case .closed = ending else {
            self.control = ByteBuffer()
            self.outbox = []
            self.actions = [.end(ending)]
            return
        }
        self.actions = [.end(ending)]
    }
}

// MARK: - Input

extension MplexSession {
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
    private mutating func takeHeader() throws(MplexError) -> MplexFrame? {
        if self.splitHeader.readableBytes == 0, let frame = try self.input.readMplexFrame() { return frame }
        // Byte by byte, because what follows a header is not part of it. It cannot be longer than two varints.
        while let byte: UInt8 = self.input.readInteger() {
            self.splitHeader.writeInteger(byte)
            guard let frame = try self.splitHeader.readMplexFrame() else { continue }
            self.splitHeader = ByteBuffer()
            return frame
        }
        return nil
    }

    private mutating func handle(_ frame: MplexFrame) throws(MplexError) {
        // Set first: whatever becomes of the stream, its data must be taken off the wire.
        if frame.length > 0 { self.body = Body(streamID: nil, remaining: frame.length) }
        let id = StreamID(number: frame.number, isOurs: !frame.isFromOpener)
        switch frame.kind {
        case .newStream:
            try self.remoteOpened(id)
        case .message:
            guard frame.length > 0 else { return }
            if self.mayReceive(id) { self.body?.streamID = id }
        case .close:
            self.remoteEnded(id)
        case .reset:
            self.remoteReset(id)
        }
    }

    /// What became of the data at hand.
    private enum Intake {
        case deliver(StreamID, ByteBuffer)
        /// Kept, or thrown away.
        case taken
        /// Its stream does not read, and no more may be kept.
        case noRoom
    }

    /// Takes as much of a message's data as has arrived and may be taken.
    private mutating func takeBody(_ body: Body) -> Intake {
        var count = min(body.remaining, self.input.readableBytes)
        var keeper: StreamID?
        var reader: StreamID?
        if let id = body.streamID, let stream = self.streams[id] {
            if stream.isReading, stream.receiveQueue.isEmpty {
                reader = id
            } else {
                keeper = id
                count = min(count, self.room(for: stream))
            }
        }
        guard count > 0, let piece = self.input.readSlice(length: count) else { return .noRoom }
        if count == body.remaining {
            self.body = nil
        } else {
            self.body?.remaining = body.remaining - count
        }
        if let reader { return .deliver(reader, piece) }
        if let keeper { self.keep(piece, for: keeper) }
        return .taken
    }
}
