import LibP2P
import NIOCore
import TestKit
import Testing

@testable import LibP2PProtocols

/// The courses of both sides, byte for byte.
@Suite struct PerfSessionTests {
    @Test(
        arguments: [
            (0, [0, 0, 0, 0, 0, 0, 0, 0]), (1000, [0, 0, 0, 0, 0, 0, 3, 0xe8]), (1 << 63, [0x80, 0, 0, 0, 0, 0, 0, 0]),
            (.max, [255, 255, 255, 255, 255, 255, 255, 255]),
        ] as [(UInt64, [UInt8])])
    func theNumberComesFirst(wanted: UInt64, bytes: [UInt8]) throws {
        #expect(Array(PerfClientSession(wanted: wanted).request.readableBytesView) == bytes)
        let input = bytes + [1, 2, 3]
        for first in 0...input.count {
            for second in first...input.count {
                var session = PerfServerSession()
                for piece in [input[..<first], input[first..<second], input[second...]] {
                    session.receive(ByteBuffer(bytes: piece))
                }
                #expect(try session.inputEnded() == wanted && session.uploaded == 3)
            }
        }
        for count in 0..<8 {
            var session = PerfServerSession()
            session.receive(ByteBuffer(bytes: bytes.prefix(count)))
            #expect(throws: PerfError.requestCutOff(bytes: count)) { try session.inputEnded() }
        }
    }

    @Test func theAnswerHasItsTimeAndItsLength() throws {
        var session = PerfClientSession(wanted: 10)
        #expect(throws: PerfError.answeredTooEarly) { try session.received(bytes: 1) }
        #expect(throws: PerfError.answeredTooEarly) { try session.inputEnded() }
        session.uploadEnded()
        try session.received(bytes: 4)
        #expect(throws: PerfError.answeredTooLittle(bytes: 4, wanted: 10)) { try session.inputEnded() }
        try session.received(bytes: 6)
        try session.inputEnded()
        #expect(throws: PerfError.answeredTooMuch(wanted: 10)) { try session.received(bytes: 1) }
        #expect(session.downloaded == 10)
    }
}

@Suite(.timeLimit(.minutes(1))) struct PerfServiceTests {
    let network = TestNetwork()

    func pair() async throws -> ConnectedHosts {
        let hosts = try await self.network.pair()
        hosts.listener.perf.register(with: hosts.listener.swarm.registry) { _ in true }
        return hosts
    }

    /// Moves the clock until the task has ended.
    func finish<Value: Sendable>(_ task: Task<Value, any Error>, by step: TimeAmount) async throws -> Value {
        let done = Journal<Void>()
        let watcher = Task {
            _ = await task.result
            done.write(())
        }
        while done.entries.isEmpty {
            await self.network.advance(by: step)
            await Task.yield()
        }
        await watcher.value
        return try await task.value
    }

    // MARK: Both ways

    @Test(arguments: PerfDirection.allCases, [0, 1, 65_536, 65_537, 5_000_000] as [UInt64])
    func bytesGoThrough(direction: PerfDirection, bytes: UInt64) async throws {
        let hosts = try await self.pair()
        // More often than there are places: each is free again.
        for _ in 0...PerfService.maximumStreamsPerPeer {
            let total = try await hosts.dialer.perf.measure(direction, of: hosts.outbound, .bytes(bytes))
            #expect(total.bytes == bytes)
            // The clock stands still.
            #expect(total.time == .zero && total.bitsPerSecond == 0)
            await self.network.settle()
        }
        await hosts.shutDown()
    }

    /// The far end does what the test says: on a clock that stands still any amount would go through in no time.
    @Test func anUploadOfSoMuchTime() async throws {
        let reports = Journal<PerfProgress>()
        let (hosts, server, task) = try await self.measure(.upload, .time(.milliseconds(3500)), reports) { _ in }
        let stream = try #require(await server.wait(forCount: 1).first)
        for _ in 0..<7 {
            await self.network.settle()
            await self.network.advance(by: .milliseconds(500))
        }
        #expect(reports.entries.map(\.total.time) == [.seconds(1), .seconds(2), .seconds(3)])
        #expect(reports.entries.allSatisfy { $0.direction == .upload && $0.total.bytes > 0 })
        // What is under way still goes through.
        let receiver = try await stream.record()
        _ = await receiver.calls.first { call -> Bool? in if case .inputEnd = call { true } else { nil } }
        try await stream.onLoop { $0.closeWrite() }
        let total = try await task.value
        #expect(total.time == .milliseconds(3500))
        #expect(Int(total.bytes) + PerfServerSession.headerBytes == receiver.bytes.count)
        #expect(total.bitsPerSecond == Double(total.bytes) * 8 / 3.5)
        await hosts.shutDown()
    }

    @Test func aDownloadOfSoMuchTime() async throws {
        let reports = Journal<PerfProgress>()
        let (hosts, server, task) = try await self.measure(.download, .time(.milliseconds(2500)), reports) { _ in }
        let stream = try #require(await server.wait(forCount: 1).first)
        let receiver = try await stream.record()
        #expect(await receiver.bytes(atLeast: 8) == [UInt8](repeating: 255, count: 8))
        for _ in 0..<5 {
            try await stream.onLoop {
                $0.write(ByteBuffer(repeating: 0, count: 100))
                $0.flush()
            }
            await self.network.settle()
            await self.network.advance(by: .milliseconds(500))
        }
        #expect(try await task.value == PerfTransfer(bytes: 500, time: .milliseconds(2500)))
        #expect(
            reports.entries == [
                PerfProgress(direction: .download, total: PerfTransfer(bytes: 200, time: .seconds(1))),
                PerfProgress(direction: .download, total: PerfTransfer(bytes: 400, time: .seconds(2))),
            ])
        #expect(await receiver.closed() is StreamResetError)
        await hosts.shutDown()
    }

    @Test(arguments: ["/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0"]) func overTCP(address: String) async throws {
        var hosts: [Host] = []
        for _ in 0..<2 {
            var configuration = HostConfiguration(key: try PrivateKey.generate())
            configuration.listen = [try Multiaddr(address)]
            configuration.perf = { _ in true }
            let host = Host(configuration)
            try await host.start()
            hosts.append(host)
        }
        let connection = try await hosts[0].connect(to: hosts[1].peerID, at: hosts[1].addresses)
        for direction in PerfDirection.allCases {
            let total = try await hosts[0].perf.measure(direction, of: connection, .bytes(20_000_000))
            #expect(total.bytes == 20_000_000 && total.time > .zero)
            let timed = try await hosts[0].perf.measure(direction, of: connection, .time(.seconds(1)))
            #expect(timed.bytes > 0 && timed.time >= .seconds(1))
        }
        for host in hosts { await host.shutDown() }
    }

    // MARK: Who may

    @Test func itIsOffUnlessConfigured() async throws {
        let hosts = try await self.network.pair()
        await #expect(throws: NegotiationError.unsupported([PerfService.protocolID])) {
            try await hosts.dialer.perf.measure(.upload, of: hosts.outbound, .bytes(1))
        }
        await hosts.shutDown()
    }

    @Test func onlyWhoIsAdmittedMay() async throws {
        let (member, stranger) = (try await self.network.host(), try await self.network.host())
        let host = try await self.network.host { $0.perf = { $0 == member.peerID } }
        for peer in [member, stranger] {
            let connection = try await peer.connect(to: host.peerID, at: host.addresses)
            let task = Task { try await peer.perf.measure(.download, of: connection, .bytes(10)) }
            if peer.peerID == member.peerID {
                #expect(try await task.value.bytes == 10)
            } else {
                await #expect(throws: NegotiationError.unsupported([PerfService.protocolID])) { try await task.value }
            }
        }
        for host in [member, stranger, host] { await host.shutDown() }
    }

    @Test func onePeerHasTwoStreams() async throws {
        let hosts = try await self.pair()
        var streams: [RecordingReceiver] = []
        for _ in 0...PerfService.maximumStreamsPerPeer {
            let stream = try await hosts.outbound.openStream([PerfService.protocolID]).get()
            streams.append(try await stream.record())
            await self.network.settle()
        }
        #expect(
            await streams[2].closed() as? StreamResetError
                == StreamResetError(code: .resourceLimitExceeded, byRemote: true))
        await hosts.shutDown()
    }

    // MARK: Hostile clients

    /// Whatever is asked for, the server sends no more than is read, and keeps nothing.
    @Test(arguments: [1 << 63, .max, 1 << 40] as [UInt64]) func hostileSizesCostNothing(wanted: UInt64) async throws {
        let hosts = try await self.pair()
        let stream = try await hosts.outbound.openStream([PerfService.protocolID]).get()
        let reader = ReluctantReader(stream)
        try await stream.onLoop {
            $0.receiver = reader
            $0.setReading(true)
            $0.write(ByteBuffer(integer: wanted))
            $0.closeWrite()
        }
        await reader.bites.wait(forCount: 1)
        await self.network.settle()
        #expect(reader.bites.entries.count < 100)
        // Nobody reads: the server gives up.
        await self.network.advance(by: PerfService.stallTime)
        await self.network.advance(by: PerfService.stallTime)
        #expect(
            await reader.ends.wait(forCount: 1).first as? StreamResetError
                == StreamResetError(code: .garbageCollected, byRemote: true))
        await hosts.shutDown()
    }

    /// Wants no more after the first bytes.
    final class ReluctantReader: ByteStreamReceiver, Sendable {
        let bites = Journal<Int>()
        let ends = Journal<any Error>()
        private let stream: any LibP2PCore.Stream

        init(_ stream: any LibP2PCore.Stream) {
            self.stream = stream
        }

        func received(_ bytes: ByteBuffer) {
            self.bites.write(bytes.readableBytes)
            self.stream.setReading(false)
        }

        func receiveComplete() {}
        func writabilityChanged() {}
        func inputEnded() {}
        func closed(_ error: (any Error)?) { if let error { self.ends.write(error) } }
    }

    @Test func theDownloadWaitsForTheEndOfTheUpload() async throws {
        let hosts = try await self.pair()
        let stream = try await hosts.outbound.openStream([PerfService.protocolID]).get()
        let receiver = try await stream.record()
        try await stream.onLoop {
            $0.write(ByteBuffer(integer: UInt64(5)))
            $0.write(ByteBuffer(bytes: [1, 2, 3]))
            $0.flush()
        }
        await self.network.settle()
        #expect(receiver.bytes.isEmpty)
        try await stream.onLoop { $0.closeWrite() }
        #expect(await receiver.bytes(atLeast: 5).count == 5)
        #expect(await receiver.closed() == nil)
        await hosts.shutDown()
    }

    @Test(arguments: [0, 1, 7]) func halfARequestIsAViolation(bytes: Int) async throws {
        let hosts = try await self.pair()
        let stream = try await hosts.outbound.openStream([PerfService.protocolID]).get()
        let receiver = try await stream.record()
        try await stream.onLoop {
            $0.write(ByteBuffer(repeating: 0, count: bytes))
            $0.closeWrite()
        }
        #expect(
            await receiver.closed() as? StreamResetError
                == StreamResetError(code: .protocolViolation, byRemote: true))
        await hosts.shutDown()
    }

    @Test func aClientThatFallsSilentIsGivenUp() async throws {
        let hosts = try await self.pair()
        let stream = try await hosts.outbound.openStream([PerfService.protocolID]).get()
        let receiver = try await stream.record()
        try await stream.onLoop {
            $0.write(ByteBuffer(integer: UInt64(5)))
            $0.flush()
        }
        await self.network.settle()
        await self.network.advance(by: PerfService.stallTime)
        #expect(
            await receiver.closed() as? StreamResetError == StreamResetError(code: .garbageCollected, byRemote: true))
        await hosts.shutDown()
    }

    // MARK: Hostile servers

    /// Measures against a server of which the test plays all, from `answer` on.
    func measure(
        _ direction: PerfDirection, _ amount: PerfAmount, _ reports: Journal<PerfProgress> = Journal(),
        _ answer: @escaping @Sendable (any LibP2PCore.Stream) -> Void
    ) async throws -> (ConnectedHosts, Journal<any LibP2PCore.Stream>, Task<PerfTransfer, any Error>) {
        let hosts = try await self.network.pair()
        let streams = Journal<any LibP2PCore.Stream>()
        hosts.listener.accept(PerfService.protocolID) { stream in
            stream.receiver = RecordingReceiver()
            answer(stream)
            streams.write(stream)
        }
        let task = Task {
            try await hosts.dialer.perf.measure(direction, of: hosts.outbound, amount) { reports.write($0) }
        }
        return (hosts, streams, task)
    }

    @Test func whoSendsTooMuchOrTooLittleIsNamed() async throws {
        for (count, error) in [
            (9, PerfError.answeredTooLittle(bytes: 9, wanted: 10)), (11, .answeredTooMuch(wanted: 10)),
            (0, .answeredTooLittle(bytes: 0, wanted: 10)),
        ] {
            let (hosts, _, task) = try await self.measure(.download, .bytes(10)) {
                $0.write(ByteBuffer(repeating: 1, count: count))
                $0.closeWrite()
            }
            await #expect(throws: error) { try await task.value }
            await hosts.shutDown()
        }
    }

    @Test func whoAnswersDuringTheUploadIsNamed() async throws {
        let (hosts, _, task) = try await self.measure(.upload, .time(.hours(1))) {
            $0.write(ByteBuffer(repeating: 1, count: 1))
            $0.flush()
        }
        await #expect(throws: PerfError.answeredTooEarly) { try await task.value }
        await hosts.shutDown()
    }

    @Test(arguments: PerfDirection.allCases) func aServerThatFallsSilentIsGivenUp(direction: PerfDirection) async throws
    {
        let (hosts, _, task) = try await self.measure(direction, .bytes(1_000_000)) { _ in }
        await #expect(throws: PerfError.stalled(.seconds(30))) { try await self.finish(task, by: .seconds(1)) }
        await hosts.shutDown()
    }

    @Test func aResetIsToldAsItIs() async throws {
        let (hosts, _, task) = try await self.measure(.upload, .bytes(10)) { $0.reset(.rateLimited) }
        await #expect(throws: StreamResetError(code: .rateLimited, byRemote: true)) { try await task.value }
        await hosts.shutDown()
    }

    @Test func cancellingEndsTheStream() async throws {
        let (hosts, server, task) = try await self.measure(.download, .time(.hours(1))) { _ in }
        let receiver = try await #require(await server.wait(forCount: 1).first).record()
        _ = await receiver.bytes(atLeast: 8)
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
        #expect(await receiver.closed() is StreamResetError)
        await hosts.shutDown()
    }
}
