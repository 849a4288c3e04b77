import LibP2PCore
import NIOCore

@testable import LibP2PConnection

extension FuzzTarget {
    /// A session between a remote that sends anything and an owner that does anything, in any order. Its counts stay true, it holds no
    /// more than its windows, and what it writes are whole frames.
    static let yamux = FuzzTarget(
        name: "yamux", maximumBytes: 2048,
        seeds: {
            typealias Step = YamuxExercise.Step
            let open: [UInt8] = [Step.frame.rawValue, 1, 0, 1, 2, 0, 0]
            let data: [UInt8] = [Step.frame.rawValue, 0, 0, 0, 2, 1, 0x20, 0]
            let read: [UInt8] = [Step.reading.rawValue, 2, 1]
            let fin: [UInt8] = [Step.frame.rawValue, 1, 0, 4, 2, 0, 0]
            let reset: [UInt8] = [Step.frame.rawValue, 1, 0, 8, 2, 0, 3]
            let pingPong: [UInt8] = [Step.frame.rawValue, 2, 0, 1, 0, 0, 9, Step.ping.rawValue, Step.pull.rawValue, 9]
            let own: [UInt8] = [
                Step.open.rawValue, Step.write.rawValue, 1, 0xff, 0xff, Step.flush.rawValue, 1, Step.pull.rawValue, 4,
                Step.frame.rawValue, 1, 0, 2, 1, 1, 0xff, 0xff, Step.pull.rawValue, 9, Step.closeWrite.rawValue, 1,
            ]
            let goAway: [UInt8] = [Step.frame.rawValue, 3, 0, 0, 0, 0, 0]
            let closing: [UInt8] = [Step.close.rawValue, 1] + pingPong + [Step.tick.rawValue, 0xff, 0xff]
            let conversations: [[UInt8]] = [
                open + data + read + data + fin, own + pingPong, open + read + data + reset + goAway, own + closing,
                open + own + goAway + [Step.end.rawValue, 1], open + data + data + data,
            ]
            return conversations.flatMap { steps in [[0] + steps, [2] + steps, [5] + steps] }
        },
        run: { input in
            var choices = Choices(input)
            var exercise = YamuxExercise(settings: choices.byte())
            while !choices.isEmpty { try exercise.step(&choices) }
            try exercise.finish()
        })
}

/// Drives a session and knows what must be true of it.
private struct YamuxExercise {
    enum Step: UInt8, CaseIterable {
        case frame, raw, open, write, flush, closeWrite, close, reset, reading, negotiated, ping, tick, pull, drain, end
    }

    private static let zeros = ByteBuffer(repeating: 0, count: 300_000)

    private var session: YamuxSession
    private let acceptsStreams: Bool
    private let drainsAlways: Bool
    private var now = NIODeadline.uptimeNanoseconds(1_000_000_000)
    /// The streams whose owner has been told of them, and not of their end.
    private var live: Set<UInt32> = []
    private var endedInputs: Set<UInt32> = []
    private var isOver = false
    /// What was written, as far as it is no whole frame.
    private var written = ByteBuffer()
    private var missingBodyBytes = 0

    init(settings: UInt8) {
        var configuration = YamuxConfiguration()
        configuration.maximumInboundStreams = 6
        configuration.acceptBacklog = 4
        configuration.maximumOutboundStreams = 5
        configuration.windowGrowthBytes = 1 << 20
        self.session = YamuxSession(
            role: settings & 1 == 0 ? .dialer : .listener, configuration: configuration, now: self.now)
        self.acceptsStreams = settings & 2 == 0
        self.drainsAlways = settings & 4 == 0
    }

    mutating func step(_ choices: inout Choices) throws {
        let steps = Step.allCases
        switch steps[Int(choices.byte()) % steps.count] {
        case .frame: self.receiveFrame(&choices)
        case .raw: self.session.receive(ByteBuffer(bytes: choices.bytes(atMost: Int(choices.byte()))), now: self.now)
        case .open:
            if let id = try? self.session.openStream(now: self.now) { self.live.insert(id) }
        case .write:
            let id = Self.streamID(&choices)
            if let bytes = Self.zeros.getSlice(at: 0, length: Int(choices.uint16())) {
                self.session.write(bytes, to: id)
            }
        case .flush: self.session.flush(Self.streamID(&choices))
        case .closeWrite: self.session.closeWrite(Self.streamID(&choices))
        case .close: self.session.close(Self.streamID(&choices))
        case .reset: self.session.reset(Self.streamID(&choices), StreamErrorCode(rawValue: 7))
        case .reading:
            let id = Self.streamID(&choices)
            self.session.setReading(choices.byte() % 4 != 0, on: id)
        case .negotiated: self.session.negotiated(Self.streamID(&choices))
        case .ping: _ = try? self.session.ping(now: self.now)
        case .tick:
            self.now = self.now + .milliseconds(Int64(choices.uint16()))
            self.session.tick(now: self.now)
        case .pull: try self.pull(atMost: Int(choices.byte()))
        case .drain: try self.drain()
        case .end:
            switch choices.byte() {
            case 1: self.session.close(.none)
            case 2: self.session.inputEnded()
            case 3: self.session.lost()
            default: break
            }
        }
        if self.drainsAlways { try self.drain() }
        try self.checkCounts()
    }

    /// Ends the session, whatever its state is.
    mutating func finish() throws {
        try self.drain()
        try self.pull(atMost: .max)
        try self.drain()
        self.session.close(.none)
        try self.drain()
        try hold(self.isOver)
        try self.pull(atMost: .max)
        try self.drain()
        try hold(self.session.nextDeadline == nil && !self.session.hasActions)
    }

    /// A frame whose header is more or less right, with as many bytes behind it as it says, up to a limit.
    private mutating func receiveFrame(_ choices: inout Choices) {
        let type = choices.byte() % 5
        let flags = choices.uint16()
        let id = Self.streamID(&choices)
        let length: UInt32
        switch choices.byte() % 3 {
        case 0: length = UInt32(choices.byte())
        case 1: length = UInt32(choices.uint16())
        default: length = choices.uint32()
        }
        var frame = ByteBuffer()
        frame.writeMultipleIntegers(UInt8(0), type, flags, id, length)
        if type == 0, let body = Self.zeros.getSlice(at: 0, length: min(Int(length), 300_000)) {
            frame.writeImmutableBuffer(body)
        }
        self.session.receive(frame, now: self.now)
    }

    private static func streamID(_ choices: inout Choices) -> UInt32 {
        let byte = choices.byte()
        return byte < 0xf0 ? UInt32(byte % 16) : choices.uint32()
    }

    private mutating func drain() throws {
        while let action = self.session.nextAction() {
            try hold(!self.isOver, "\(action) after the end")
            switch action {
            case .accept(let id):
                try hold(self.live.insert(id).inserted && id & 1 == (self.session.role == .dialer ? 0 : 1))
                self.endedInputs.remove(id)
                if self.acceptsStreams || id % 8 < 4 {
                    self.session.accept(id)
                } else {
                    self.session.reset(id, StreamErrorCode(rawValue: 1))
                }
            case .deliver(let id, let bytes):
                try hold(self.live.contains(id) && !self.endedInputs.contains(id) && bytes.readableBytes > 0)
            case .endInput(let id):
                // What led to this may be the stream's last action.
                try hold(self.endedInputs.insert(id).inserted)
            case .sendabilityChanged(let id): try hold(self.live.contains(id))
            case .closeStream(let id, _): try hold(self.live.remove(id) != nil)
            case .completePing, .failPing: break
            case .end: self.isOver = true
            }
        }
    }

    private mutating func pull(atMost count: Int) throws {
        for _ in 0..<count {
            guard var bytes = self.session.nextWrite(now: self.now) else {
                // Without a farewell nothing more is owed.
                try hold(self.session.isEnded || self.written.readableBytes + self.missingBodyBytes == 0)
                return
            }
            try hold(bytes.readableBytes > 0)
            self.written.writeBuffer(&bytes)
            try self.readWritten()
        }
    }

    private mutating func readWritten() throws {
        while self.written.readableBytes > 0 {
            let body = min(self.missingBodyBytes, self.written.readableBytes)
            self.written.moveReaderIndex(forwardBy: body)
            self.missingBodyBytes -= body
            guard self.missingBodyBytes == 0, let frame = try self.written.readYamuxFrame() else { break }
            if frame.kind == .data {
                try hold(frame.streamID != 0 && frame.length > 0)
                try hold(frame.length <= UInt32(YamuxFrame.maximumSentBodyBytes))
                self.missingBodyBytes = Int(frame.length)
            }
        }
        self.written.discardReadBytes()
    }

    private func checkCounts() throws {
        let session = self.session
        // One answer may come on top, which ends the session.
        try hold(session.control.readableBytes <= YamuxSession.maximumControlBytes + YamuxFrame.headerBytes)
        guard !session.isEnded else { return }
        let inbound = session.streams.filter { session.isInbound($0.key) }
        try holdEqual(session.inboundCount, inbound.count)
        try hold(inbound.count <= session.configuration.maximumInboundStreams)
        try hold(session.streams.count - inbound.count <= session.configuration.maximumOutboundStreams)
        let unnegotiated = session.streams.values.filter { !$0.isNegotiated }.count
        try holdEqual(session.unnegotiatedCount, unnegotiated)
        try hold(unnegotiated <= session.configuration.acceptBacklog)
        let unacknowledged = session.streams.filter { !session.isInbound($0.key) && !$0.value.isAcknowledged }.count
        try holdEqual(session.unacknowledgedCount, unacknowledged)
        try hold(session.orphans.count <= YamuxSession.maximumOrphans)
        try hold(session.pings.count <= YamuxSession.maximumPings)
        try hold(session.pingAnswers.count <= YamuxSession.maximumQueuedPingAnswers)

        var grown = 0
        for (id, stream) in session.streams {
            grown += Int(stream.receiveWindow - YamuxFrame.initialWindowBytes)
            try holdEqual(stream.sendQueue.reduce(0) { $0 + $1.readableBytes }, stream.queuedBytes)
            try hold((0...stream.queuedBytes).contains(stream.flushedBytes))
            let kept = stream.receiveQueue.reduce(0) { $0 + $1.readableBytes }
            let coming = stream.isAnnounced && session.body?.streamID == id ? session.body?.remaining ?? 0 : 0
            try holdEqual(
                kept + coming + Int(stream.receiveCredit) + Int(stream.consumedBytes), Int(stream.receiveWindow))
        }
        try holdEqual(session.grownBytes, grown)
        try hold(grown <= session.configuration.windowGrowthBytes)
    }
}
