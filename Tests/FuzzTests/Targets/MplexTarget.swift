import LibP2PCore
import NIOCore

@testable import LibP2PConnection

extension FuzzTarget {
    /// A session between a remote that sends anything and an owner that does anything, in any order. Its counts stay true, it keeps no
    /// more than its buffers, and what it writes are whole messages.
    static let mplex = FuzzTarget(
        name: "mplex", maximumBytes: 2048,
        seeds: {
            typealias Step = MplexExercise.Step
            let open: [UInt8] = [Step.frame.rawValue, 0, 1, 3]
            let data: [UInt8] = [Step.frame.rawValue, 2, 1, 200]
            let read: [UInt8] = [Step.reading.rawValue, 1, 1]
            let end: [UInt8] = [Step.frame.rawValue, 4, 1, 0]
            let reset: [UInt8] = [Step.frame.rawValue, 6, 1, 0]
            let own: [UInt8] = [
                Step.open.rawValue, Step.write.rawValue, 0x81, 0xff, 0xff, Step.flush.rawValue, 0x81,
                Step.pull.rawValue, 4,
                Step.frame.rawValue, 1, 1, 7, Step.pull.rawValue, 9, Step.closeWrite.rawValue, 0x81,
            ]
            let slow = open + data + data + data + [Step.tick.rawValue, 0xff, 0xff] + read
            let raw: [UInt8] = [Step.raw.rawValue, 5, 8, 0, 0x8a, 1, 0]
            let conversations: [[UInt8]] = [
                open + data + read + data + end, own, open + read + data + reset, slow, own + [Step.end.rawValue, 1],
                open + own + [Step.end.rawValue, 2], raw + raw,
            ]
            return conversations.flatMap { steps in [[0] + steps, [2] + steps, [5] + steps] }
        },
        run: { input in
            var choices = Choices(input)
            var exercise = MplexExercise(settings: choices.byte())
            while !choices.isEmpty { try exercise.step(&choices) }
            try exercise.finish()
        })
}

/// Drives a session and knows what must be true of it.
private struct MplexExercise {
    typealias StreamID = MplexSession.StreamID

    enum Step: UInt8, CaseIterable {
        case frame, raw, open, write, flush, closeWrite, close, reset, reading, negotiated, tick, pull, drain, end
    }

    private static let zeros = ByteBuffer(repeating: 0, count: 300_000)

    private var session: MplexSession
    private let acceptsStreams: Bool
    private let drainsAlways: Bool
    private var now = NIODeadline.uptimeNanoseconds(1_000_000_000)
    /// The streams whose owner has been told of them, and not of their end.
    private var live: Set<StreamID> = []
    private var endedInputs: Set<StreamID> = []
    private var isOver = false
    /// What was written, as far as it is no whole message.
    private var written = ByteBuffer()
    private var missingBodyBytes = 0

    init(settings: UInt8) {
        var configuration = MplexConfiguration()
        configuration.maximumInboundStreams = 6
        configuration.acceptBacklog = 4
        configuration.maximumOutboundStreams = 5
        configuration.streamBufferBytes = 300
        configuration.totalBufferBytes = 700
        self.session = MplexSession(role: settings & 1 == 0 ? .dialer : .listener, configuration: configuration)
        self.acceptsStreams = settings & 2 == 0
        self.drainsAlways = settings & 4 == 0
    }

    mutating func step(_ choices: inout Choices) throws {
        let steps = Step.allCases
        switch steps[Int(choices.byte()) % steps.count] {
        case .frame: self.receiveFrame(&choices)
        case .raw: self.session.receive(ByteBuffer(bytes: choices.bytes(atMost: Int(choices.byte()))))
        case .open:
            if let id = try? self.session.openStream() { try hold(self.live.insert(id).inserted) }
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
        try hold(self.session.nextDeadline == nil && !self.session.hasActions && !self.session.wantsInput)
    }

    /// A message whose header is more or less right, with as many bytes behind it as it says, up to a limit.
    private mutating func receiveFrame(_ choices: inout Choices) {
        let flag = choices.byte() % 8
        let number = UInt64(choices.byte() % 16)
        let length = choices.byte()
        var frame = ByteBuffer()
        frame.writeInteger(UInt8(number << 3) | flag)
        frame.writeBytes(length < 0x80 ? [length] : [length, 2])
        let count = length < 0x80 ? Int(length) : Int(length & 0x7f) | 2 << 7
        if let body = Self.zeros.getSlice(at: 0, length: count) { frame.writeImmutableBuffer(body) }
        self.session.receive(frame)
    }

    private static func streamID(_ choices: inout Choices) -> StreamID {
        let byte = choices.byte()
        return StreamID(number: UInt64(byte % 16), isOurs: byte & 0x80 != 0)
    }

    private mutating func drain() throws {
        while let action = self.session.nextAction(now: self.now) {
            try hold(!self.isOver, "\(action) after the end")
            switch action {
            case .accept(let id):
                try hold(self.live.insert(id).inserted && !id.isOurs)
                self.endedInputs.remove(id)
                if !self.acceptsStreams, id.number % 2 == 0 {
                    self.session.reset(id, StreamErrorCode(rawValue: 1))
                }
            case .deliver(let id, let bytes):
                try hold(self.live.contains(id) && !self.endedInputs.contains(id) && bytes.readableBytes > 0)
            case .endInput(let id):
                // What led to this may be the stream's last action.
                try hold(self.endedInputs.insert(id).inserted)
            case .sendabilityChanged(let id): try hold(self.live.contains(id))
            case .closeStream(let id, _): try hold(self.live.remove(id) != nil)
            case .end: self.isOver = true
            }
        }
    }

    private mutating func pull(atMost count: Int) throws {
        for _ in 0..<count {
            guard var bytes = self.session.nextWrite() else {
                // After a failure nothing more is owed.
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
            guard self.missingBodyBytes == 0, let frame = try self.written.readMplexFrame() else { break }
            try hold(frame.length <= MplexFrame.maximumSentBodyBytes)
            try hold((frame.kind == .message) == (frame.length > 0))
            self.missingBodyBytes = frame.length
        }
        self.written.discardReadBytes()
    }

    private func checkCounts() throws {
        let session = self.session
        try hold(session.control.readableBytes <= MplexSession.maximumControlBytes + MplexFrame.maximumHeaderBytes)
        guard !session.isEnded else { return }
        let inbound = session.streams.filter { !$0.key.isOurs }
        try holdEqual(session.inboundCount, inbound.count)
        try hold(inbound.count <= session.configuration.maximumInboundStreams)
        try hold(session.streams.count - inbound.count <= session.configuration.maximumOutboundStreams)
        let unnegotiated = session.streams.values.filter { !$0.isNegotiated }.count
        try holdEqual(session.unnegotiatedCount, unnegotiated)
        try hold(unnegotiated <= session.configuration.acceptBacklog)
        try hold(session.orphans.count <= MplexSession.maximumOrphans)
        try hold(session.bufferedBytes <= session.configuration.totalBufferBytes)
        var buffered = 0
        for stream in session.streams.values {
            try holdEqual(stream.sendQueue.reduce(0) { $0 + $1.readableBytes }, stream.queuedBytes)
            try hold((0...stream.queuedBytes).contains(stream.flushedBytes))
            try holdEqual(stream.receiveQueue.reduce(0) { $0 + $1.readableBytes }, stream.bufferedBytes)
            try hold(stream.bufferedBytes <= session.configuration.streamBufferBytes)
            buffered += stream.bufferedBytes
        }
        try holdEqual(session.bufferedBytes, buffered)
    }
}
