import LibP2PCore
import Multiformats
import NIOCore
import PeerIdentity
import TestKit
import Testing

@testable import LibP2PQUIC

@Suite(.timeLimit(.minutes(15))) struct QUICStreamTests {
    @Test func carriesBytesBothWays() async throws {
        let pair = try await QUICPair()
        let (near, far) = try await pair.openStream()
        #expect(near.stream.protocolID == "/test")
        #expect(far.stream.protocolID == "/test")
        #expect([near.stream.role, far.stream.role] == [.dialer, .listener])
        try await near.send(pattern(1000))
        #expect(await far.receiver.bytes(atLeast: 1000) == pattern(1000))
        try await far.send(pattern(70_000, seed: 2))
        #expect(await near.receiver.bytes(atLeast: 70_000) == pattern(70_000, seed: 2))
        #expect(try await pair.outbound.onLoop { $0.streamCount } == 1)
        try await pair.close()
    }

    @Test func directionsEndSeparately() async throws {
        let pair = try await QUICPair()
        let (near, far) = try await pair.openStream()
        try await near.send([1, 2, 3])
        try await near.closeWrite()
        await far.receiver.inputEnd()
        #expect(far.receiver.bytes == [1, 2, 3])
        // The other direction lives on.
        try await far.send(pattern(100_000))
        #expect(await near.receiver.bytes(atLeast: 100_000) == pattern(100_000))
        try await far.closeWrite()
        #expect(await near.receiver.closed() == nil)
        #expect(await far.receiver.closed() == nil)
        for side in [near, far] {
            let ends = side.receiver.events.entries.filter { if case .inputEnd = $0 { true } else { false } }
            #expect(ends.count == 1)
            guard case .closed = side.receiver.events.entries.last else {
                Issue.record("something came after the end"); return
            }
        }
        try await pair.close()
    }

    @Test(arguments: [StreamErrorCode.unspecified, .rateLimited, .gated]) func resetsEndBothDirections(
        code: StreamErrorCode
    )
        async throws
    {
        let pair = try await QUICPair()
        for isNear in [true, false] {
            let (near, far) = try await pair.openStream()
            let (who, other) = isNear ? (near, far) : (far, near)
            try await who.stream.onLoop { $0.reset(code) }
            #expect(await who.receiver.closed() as? StreamResetError == StreamResetError(code: code, byRemote: false))
            #expect(await other.receiver.closed() as? StreamResetError == StreamResetError(code: code, byRemote: true))
        }
        try await pair.close()
    }

    @Test func aStreamThatIsClosedTakesNoMore() async throws {
        let pair = try await QUICPair()
        let (near, far) = try await pair.openStream()
        // Nothing is left unsent: the remote sees an orderly end.
        try await near.send([1])
        await far.receiver.bytes(atLeast: 1)
        try await near.stream.onLoop { $0.close(nil) }
        #expect(await near.receiver.closed() == nil)
        await far.receiver.inputEnd()
        try await far.closeWrite()
        _ = await far.receiver.closed()
        try await near.send([2])
        #expect(far.receiver.bytes == [1])
        try await pair.close()
    }

    @Test func protocolsAreNegotiated() async throws {
        let pair = try await QUICPair(accepting: ["/b"])
        let second = try await pair.outbound.openStream(["/a", "/b"]).get()
        #expect(second.protocolID == "/b")
        await #expect(throws: NegotiationError.unsupported(["/a", "/c"])) {
            try await pair.outbound.openStream(["/a", "/c"]).get()
        }
        // Optimistically: the refusal comes as the stream's end.
        let receiver = try await pair.outbound.openStream(["/a"]).get().read()
        #expect(await receiver.closed() as? NegotiationError == .unsupported(["/a"]))
        await #expect(throws: NegotiationError.noProtocolsProposed) { try await pair.outbound.openStream([]).get() }
        try await pair.close()
    }

    @Test func theListenerOpensStreams() async throws {
        let pair = try await QUICPair()
        let acceptor = Acceptor(["/back"])
        try await pair.outbound.onLoop { $0.delegate = acceptor }
        let stream = try await pair.inbound.openStream(["/back"]).get()
        let receiver = try await stream.read()
        let far = try #require(await acceptor.streams.wait(forCount: 1).first)
        try await far.send([7])
        #expect(await receiver.bytes(atLeast: 1) == [7])
        try await pair.close()
    }

    @Test func streamsWaitForSomebodyToTakeThem() async throws {
        let (a, b) = (try QUICNode(), try QUICNode())
        let listener = try await b.listen()
        let outbound = try await a.dial(listener.address, expecting: b.peerID)
        let stream = try await outbound.openStream(["/test"]).get()
        let receiver = try await stream.read()
        try await Side(stream, receiver).send([1, 2, 3])
        let inbound = try await b.connection()
        // The packet is there: a round trip beneath the streams proves it.
        _ = try await outbound.probe().get()
        let acceptor = Acceptor(["/test"])
        try await inbound.onLoop { $0.delegate = acceptor }
        let far = try #require(await acceptor.streams.wait(forCount: 1).first)
        #expect(await far.receiver.bytes(atLeast: 3) == [1, 2, 3])
        outbound.close(.none)
        try await listener.close().get()
    }

    @Test func aHundredStreamsAtOnce() async throws {
        let pair = try await QUICPair()
        pair.acceptor.take = { stream in
            stream.receiver = Echo(stream)
            stream.setReading(true)
        }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for index in 0..<100 {
                group.addTask {
                    let stream = try await pair.outbound.openStream(["/test"]).get()
                    let side = Side(stream, try await stream.read())
                    let bytes = pattern(20_000 + index, seed: UInt64(index) + 1)
                    try await side.send(bytes)
                    try await side.closeWrite()
                    #expect(await side.receiver.closed() == nil)
                    #expect(side.receiver.bytes == bytes)
                }
            }
            try await group.waitForAll()
        }
        #expect(try await pair.outbound.onLoop { $0.streamCount } == 0)
        try await pair.close()
    }

    @Test func theRemoteLimitsStreams() async throws {
        let pair = try await QUICPair(listener: { $0.maximumInboundStreams = 2 })
        let first = try await pair.openStream()
        _ = try await pair.openStream()
        await #expect(throws: MuxerError.tooManyStreams) { try await pair.outbound.openStream(["/test"]).get() }
        try await first.near.stream.onLoop { $0.reset(.unspecified) }
        _ = await first.far.receiver.closed()
        // One has gone; the remote says so with its next packets.
        while true {
            do {
                _ = try await pair.outbound.openStream(["/test"]).get()
                break
            } catch MuxerError.tooManyStreams {
                _ = try await pair.outbound.probe().get()
            }
        }
        try await pair.close()
    }

    // MARK: Much data

    /// Takes bytes in little portions, each when the test's loop comes round.
    private final class SlowReader: ByteStreamReceiver, @unchecked Sendable {
        let done = Journal<[UInt8]>()
        private let stream: any LibP2PCore.Stream
        private var bytes: [UInt8] = []
        private var isPaused = false

        init(_ stream: any LibP2PCore.Stream) { self.stream = stream }

        func received(_ bytes: ByteBuffer) {
            #expect(!self.isPaused, "pushed back in vain")
            self.bytes.append(contentsOf: bytes.readableBytesView)
            self.isPaused = true
            self.stream.setReading(false)
            self.stream.eventLoop.scheduleTask(in: .microseconds(500)) {
                self.isPaused = false
                self.stream.setReading(true)
            }
        }
        func receiveComplete() {}
        func writabilityChanged() {}
        func inputEnded() { self.done.write(self.bytes) }
        func closed(_ error: (any Error)?) {}
    }

    /// Writes as much as the stream takes.
    private final class Pump: ByteStreamReceiver, @unchecked Sendable {
        let mostQueued = Journal<Int>()
        private let stream: any LibP2PCore.Stream
        private let bytes: [UInt8]
        private var next = 0
        let input = Journal<[UInt8]>()

        init(_ stream: any LibP2PCore.Stream, _ bytes: [UInt8]) {
            self.stream = stream
            self.bytes = bytes
        }

        func start() {
            while self.next < self.bytes.count, self.stream.isWritable {
                let end = min(self.next + 16_000, self.bytes.count)
                self.stream.write(ByteBuffer(bytes: self.bytes[self.next..<end]))
                self.stream.flush()
                self.next = end
            }
            if self.next == self.bytes.count {
                self.next += 1
                self.stream.closeWrite()
            }
        }
        func received(_ bytes: ByteBuffer) { self.input.write(Array(bytes.readableBytesView)) }
        func receiveComplete() {}
        func writabilityChanged() { self.start() }
        func inputEnded() {}
        func closed(_ error: (any Error)?) {}
    }

    @Test(arguments: [(QUICOptions.CongestionControl.cubic, 2), (.bbr, 10), (.bbr2, 2)])
    func muchGoesBothWaysToSlowReaders(congestion: QUICOptions.CongestionControl, megabytes: Int) async throws {
        let pair = try await QUICPair(
            dialer: { $0.congestion = congestion }, listener: { $0.congestion = congestion })
        let bytes = pattern(megabytes << 20)
        let accepted = Journal<SlowReader>()
        pair.acceptor.take = { stream in
            let reader = SlowReader(stream)
            stream.receiver = reader
            stream.setReading(true)
            accepted.write(reader)
        }
        let out = try await pair.outbound.openStream(["/test"]).get()
        let pump = Pump(out, bytes)
        try await out.onLoop {
            $0.receiver = pump
            pump.start()
        }
        let reader = try #require(await accepted.wait(forCount: 1).first)
        // Compared outside of the macro, which would show both.
        let isSame = await reader.done.wait(forCount: 1).first == bytes
        #expect(isSame)

        let acceptor = Acceptor(["/back"])
        let back = Journal<SlowReader>()
        acceptor.take = { stream in
            let reader = SlowReader(stream)
            stream.receiver = reader
            stream.setReading(true)
            back.write(reader)
        }
        try await pair.outbound.onLoop { $0.delegate = acceptor }
        let inStream = try await pair.inbound.openStream(["/back"]).get()
        let second = Pump(inStream, bytes)
        try await inStream.onLoop {
            $0.receiver = second
            second.start()
        }
        let reader2 = try #require(await back.wait(forCount: 1).first)
        // Compared outside of the macro, which would show both.
        let isSameBack = await reader2.done.wait(forCount: 1).first == bytes
        #expect(isSameBack)
        try await pair.close()
    }

    /// What nobody reads stays with the sender, and what others send is not held up.
    @Test func whoDoesNotReadPushesBack() async throws {
        let pair = try await QUICPair(
            listener: {
                $0.streamWindow = QUICOptions.Window(initial: 64 << 10, maximum: 64 << 10)
                $0.connectionWindow = QUICOptions.Window(initial: 256 << 10, maximum: 256 << 10)
            })
        let held = Journal<any LibP2PCore.Stream>()
        pair.acceptor.take = { stream in
            stream.receiver = Receiver()
            held.write(stream)
        }
        let stuck = try await pair.outbound.openStream(["/test"]).get()
        _ = try await stuck.read()
        try await stuck.onLoop {
            $0.write(ByteBuffer(bytes: pattern(1 << 20)))
            $0.flush()
        }
        await held.wait(forCount: 1)
        #expect(try await stuck.onLoop { $0.isWritable } == false)
        pair.acceptor.take = nil
        let (near, far) = try await pair.openStream()
        try await near.send(pattern(100_000))
        #expect(await far.receiver.bytes(atLeast: 100_000) == pattern(100_000))
        #expect(try await stuck.onLoop { $0.isWritable } == false)
        // Reading begins, and all of it comes.
        let stream = try #require(held.entries.first)
        let receiver = Receiver()
        try await stream.onLoop {
            $0.receiver = receiver
            $0.setReading(true)
        }
        #expect(await receiver.bytes(atLeast: 1 << 20) == pattern(1 << 20))
        try await pair.close()
    }
}
