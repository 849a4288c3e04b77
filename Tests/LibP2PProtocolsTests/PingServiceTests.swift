import LibP2P
import NIOCore
import TestKit
import Testing

@testable import LibP2PProtocols

@Suite(.timeLimit(.minutes(1))) struct PingServiceTests {
    let network = TestNetwork()

    static let payload = (0..<32).map { UInt8($0) }

    /// A ping stream of which the test plays the dialer.
    func stream(_ hosts: ConnectedHosts) async throws -> (any LibP2PCore.Stream, RecordingReceiver) {
        let stream = try await hosts.outbound.openStream([PingService.protocolID]).get()
        return (stream, try await stream.record())
    }

    static func send(_ bytes: [UInt8], on stream: any LibP2PCore.Stream) async throws {
        try await stream.onLoop {
            $0.write(ByteBuffer(bytes: bytes))
            $0.flush()
        }
    }

    // MARK: Asking

    @Test func pingsBothWays() async throws {
        let hosts = try await self.network.pair()
        // The clock stands still.
        #expect(try await hosts.dialer.ping.ping(hosts.outbound, count: 3) == Array(repeating: .zero, count: 3))
        #expect(try await hosts.listener.ping.ping(hosts.inbound) == [.zero])
        await hosts.shutDown()
    }

    @Test func measuresTheTime() async throws {
        let hosts = try await self.network.pair()
        let pings = Journal<any LibP2PCore.Stream>()
        hosts.listener.accept(PingService.protocolID) { stream in
            stream.receiver = RecordingReceiver()
            pings.write(stream)
        }
        let ping = Task { try await hosts.dialer.ping.ping(hosts.outbound) }
        let stream = try #require(await pings.wait(forCount: 1).first)
        let receiver = try await stream.record()
        let payload = await receiver.bytes(atLeast: 32)
        await self.network.advance(by: .milliseconds(40))
        try await Self.send(payload, on: stream)
        #expect(try await ping.value == [.milliseconds(40)])
        await hosts.shutDown()
    }

    @Test func aWrongEchoIsAnError() async throws {
        let hosts = try await self.network.pair()
        hosts.listener.accept(PingService.protocolID) { stream in
            stream.receiver = RecordingReceiver()
            stream.write(ByteBuffer(bytes: Self.payload))
            stream.flush()
        }
        await #expect(throws: PingError.wrongEcho) { try await hosts.dialer.ping.ping(hosts.outbound) }
        await hosts.shutDown()
    }

    @Test func aSilentRemoteTimesOut() async throws {
        let hosts = try await self.network.pair()
        let pings = Journal<RecordingReceiver>()
        hosts.listener.accept(PingService.protocolID) { stream in
            let receiver = RecordingReceiver()
            stream.receiver = receiver
            stream.setReading(true)
            pings.write(receiver)
        }
        let ping = Task { try await hosts.dialer.ping.ping(hosts.outbound) }
        _ = await pings.first { $0 }.bytes(atLeast: 32)
        await self.network.advance(by: PingService.timeout)
        await #expect(throws: StreamReadError.timedOut) { try await ping.value }
        await hosts.shutDown()
    }

    @Test func aRemoteThatDoesNotSpeakItIsAnError() async throws {
        let hosts = try await self.network.pair()
        hosts.listener.swarm.registry.remove(PingService.protocolID)
        await #expect(throws: NegotiationError.unsupported([PingService.protocolID])) {
            try await hosts.dialer.ping.ping(hosts.outbound)
        }
        await hosts.shutDown()
    }

    // MARK: Answering

    @Test(arguments: [1, 5, 31, 32, 33, 100]) func echoesWholePingsHoweverTheyArrive(size: Int) async throws {
        let hosts = try await self.network.pair()
        let (stream, receiver) = try await self.stream(hosts)
        let sent = Self.payload + Self.payload.reversed() + Self.payload
        for start in stride(from: 0, to: sent.count, by: size) {
            try await Self.send(Array(sent[start..<min(start + size, sent.count)]), on: stream)
        }
        #expect(await receiver.bytes(atLeast: sent.count) == sent)
        // Part of one is no ping yet.
        try await Self.send([1, 2, 3], on: stream)
        await self.network.settle()
        #expect(receiver.bytes.count == sent.count)
        try await Self.send(Array(repeating: 9, count: 29), on: stream)
        #expect(
            await receiver.bytes(atLeast: sent.count + 32).suffix(32) == [1, 2, 3] + Array(repeating: 9, count: 29))
        await hosts.shutDown()
    }

    @Test(arguments: [0, 1, 31]) func theEndIsOrderlyBetweenPingsOnly(rest: Int) async throws {
        let hosts = try await self.network.pair()
        let (stream, receiver) = try await self.stream(hosts)
        try await Self.send(Self.payload + Self.payload.prefix(rest), on: stream)
        _ = await receiver.bytes(atLeast: 32)
        try await stream.onLoop { $0.closeWrite() }
        let error = await receiver.closed()
        if rest == 0 {
            #expect(error == nil)
        } else {
            #expect(error as? StreamResetError == StreamResetError(code: .protocolViolation, byRemote: true))
        }
        await hosts.shutDown()
    }

    @Test func onePeerHasTwoStreams() async throws {
        let hosts = try await self.network.pair()
        var streams: [(any LibP2PCore.Stream, RecordingReceiver)] = []
        for _ in 0..<PingService.maximumStreamsPerPeer {
            streams.append(try await self.stream(hosts))
            try await Self.send(Self.payload, on: streams[streams.count - 1].0)
            _ = await streams[streams.count - 1].1.bytes(atLeast: 32)
        }
        let surplus = try await self.stream(hosts).1
        #expect(
            await surplus.closed() as? StreamResetError
                == StreamResetError(code: .resourceLimitExceeded, byRemote: true))
        // Another peer has its own.
        let other = try await self.network.host()
        let connection = try await other.connect(to: hosts.listener.peerID, at: hosts.listener.addresses)
        #expect(try await other.ping.ping(connection).count == 1)
        // A place that is left is free.
        try await streams[0].0.onLoop { $0.reset(.unspecified) }
        #expect(try await hosts.dialer.ping.ping(hosts.outbound).count == 1)
        await other.shutDown()
        await hosts.shutDown()
    }

    @Test func anIdleStreamIsClosed() async throws {
        let hosts = try await self.network.pair()
        let (stream, receiver) = try await self.stream(hosts)
        for count in 1...3 {
            try await Self.send(Self.payload, on: stream)
            _ = await receiver.bytes(atLeast: 32 * count)
            await self.network.advance(by: .seconds(59))
        }
        #expect(!receiver.calls.entries.contains { if case .closed = $0 { true } else { false } })
        await self.network.advance(by: .seconds(1))
        #expect(
            await receiver.closed() as? StreamResetError == StreamResetError(code: .garbageCollected, byRemote: true))
        await hosts.shutDown()
    }

    /// A remote that pings and pings but never reads is not read from either, and is given up.
    @Test func aRemoteThatNeverReadsIsPushedBack() async throws {
        let hosts = try await self.network.pair()
        let stream = try await hosts.outbound.openStream([PingService.protocolID]).get()
        let receiver = RecordingReceiver()
        try await stream.onLoop { $0.receiver = receiver }
        // The first ping takes the negotiation with it; from then on nothing is read.
        var written = 0
        let burst = [UInt8](repeating: 5, count: 64 * 1024)
        while try await stream.onLoop({ $0.isWritable }) {
            try await Self.send(burst, on: stream)
            written += burst.count
            await self.network.settle()
            try #require(written <= 64 << 20, "nothing pushes back")
        }
        await self.network.advance(by: .seconds(60))
        try await stream.onLoop { $0.setReading(true) }
        #expect(await receiver.closed() is StreamResetError)
        #expect(receiver.bytes.count < written)
        // Its place is free again.
        for _ in 0..<3 { #expect(try await hosts.dialer.ping.ping(hosts.outbound).count == 1) }
        await hosts.shutDown()
    }
}
