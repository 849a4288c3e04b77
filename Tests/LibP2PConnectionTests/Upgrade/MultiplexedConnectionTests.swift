import LibP2PCore
import Multiformats
import NIOCore
import NIOEmbedded
import PeerIdentity
import TestKit
import Testing

@testable import LibP2PConnection

@Suite(.timeLimit(.minutes(1))) struct MultiplexedConnectionTests {
    /// Both ends of a connection, each with somebody to take its streams.
    struct Pair {
        let loop = NIOAsyncTestingEventLoop()
        let pipe: (MemoryByteStream, MemoryByteStream)
        let dialer: any Connection
        let listener: any Connection
        let dialerStreams: Acceptor
        let listenerStreams: Acceptor

        init(dialer: Acceptor = Acceptor("/echo"), listener: Acceptor = Acceptor("/echo"), start: Bool = true)
            async throws
        {
            let loop = self.loop
            let pipe = MemoryByteStream.pair(on: loop)
            self.pipe = pipe
            (self.dialerStreams, self.listenerStreams) = (dialer, listener)
            let address = Multiaddr(components: [.memory(1)])
            let upgrades = try [(pipe.0, Role.dialer), (pipe.1, .listener)].map { stream, role in
                let upgrader = ConnectionUpgrader(
                    securities: [NoiseUpgrader(identity: try PrivateKey.generate())], muxers: [YamuxMuxer()])
                return loop.flatSubmit {
                    upgrader.upgrade(
                        stream,
                        as: .init(
                            role: role, expectedPeer: nil, localAddress: address, remoteAddress: address,
                            transport: "memory"))
                }
            }
            let connections = [try await upgrades[0].get(), try await upgrades[1].get()]
            (self.dialer, self.listener) = (connections[0], connections[1])
            guard start else { return }
            try await self.loop.submit {
                connections[0].delegate = dialer
                connections[1].delegate = listener
            }.get()
        }

        func end(_ connection: any Connection) async -> Result<Void, any Error> {
            await connection.closeFuture.result()
        }
    }

    @Test(arguments: [1, 2]) func streamsOpenInBothDirections(proposals: Int) async throws {
        let pair = try await Pair()
        let names: [ProtocolID] = proposals == 1 ? ["/echo"] : ["/nobody", "/echo"]
        for (from, to) in [(pair.dialer, pair.listenerStreams), (pair.listener, pair.dialerStreams)] {
            let stream = try await from.openStream(names).get()
            let receiver = try await stream.onLoop { stream -> RecordingReceiver in
                let receiver = RecordingReceiver()
                stream.receiver = receiver
                stream.setReading(true)
                stream.write(ByteBuffer(bytes: [1, 2, 3]))
                stream.flush()
                return receiver
            }
            let inbound = try #require(await to.streams.wait(forCount: 1).first)
            #expect(stream.protocolID == "/echo" && inbound.protocolID == "/echo")
            #expect(stream.role == .dialer && inbound.role == .listener && stream.id == inbound.id)
            #expect(stream.connection?.id == from.id)
            let far = try await inbound.record()
            #expect(await far.bytes(atLeast: 3) == [1, 2, 3])
            try await inbound.onLoop {
                $0.write(ByteBuffer(bytes: [4]))
                $0.flush()
                $0.closeWrite()
            }
            #expect(await receiver.bytes(atLeast: 1) == [4])
            #expect(try await pair.loop.submit { from.streamCount }.get() == 1)
            try await stream.onLoop { $0.closeWrite() }
            #expect(await receiver.closed() == nil)
            #expect(try await pair.loop.submit { from.streamCount }.get() == 0)
        }
        pair.dialer.close(.none)
        for connection in [pair.dialer, pair.listener] { #expect(await pair.end(connection).error == nil) }
    }

    @Test func anUnknownProtocolEndsTheStreamOnly() async throws {
        let pair = try await Pair()
        // Several: the future tells. One: the stream is there at once, and ends.
        await #expect(throws: NegotiationError.unsupported(["/a", "/b"])) {
            try await pair.dialer.openStream(["/a", "/b"]).get()
        }
        let stream = try await pair.dialer.openStream(["/a"]).get()
        let receiver = try await stream.record()
        #expect(await receiver.closed() as? NegotiationError == .unsupported(["/a"]))
        await #expect(throws: NegotiationError.noProtocolsProposed) { try await pair.dialer.openStream([]).get() }
        #expect(pair.listenerStreams.streams.entries.isEmpty)
        _ = try await pair.dialer.probe().get()
        pair.dialer.close(.none)
    }

    @Test func aSilentNegotiationTimesOut() async throws {
        let pair = try await Pair()
        // The dialer hears nothing more, its listener hears a stream that says nothing.
        try await pair.pipe.0.onLoop { $0.isStalled = true }
        let asked = pair.dialer.openStream(["/echo", "/other"])
        let optimistic = try await pair.dialer.openStream(["/echo"]).get()
        let receiver = try await optimistic.record()
        await pair.loop.advanceTime(by: .seconds(15))
        await #expect(throws: NegotiationError.timedOut) { try await asked.get() }
        #expect(await receiver.closed() as? NegotiationError == .timedOut)
    }

    @Test func aStreamThatProposesNothingIsReset() async throws {
        let pipe = MemoryByteStream.pair(on: NIOAsyncTestingEventLoop())
        let loop = try #require(pipe.0.eventLoop as? NIOAsyncTestingEventLoop)
        // The far end is a bare muxer: it opens a stream and is silent.
        let session = try await loop.submit { () -> any MuxerSession in
            let session = YamuxMuxer().multiplex(pipe.1, role: .dialer)
            session.start()
            return session
        }.get()
        let connection = try await loop.submit { () -> MultiplexedConnection in
            let address = Multiaddr(components: [.memory(1)])
            return MultiplexedConnection(
                session: YamuxMuxer().multiplex(pipe.0, role: .listener), eventLoop: loop, sealed: nil,
                remotePeer: PeerID(try PrivateKey.generate().publicKey),
                request: .init(
                    role: .listener, expectedPeer: nil, localAddress: address, remoteAddress: address,
                    transport: "memory"),
                details: ConnectionDetails(transport: "memory", security: "/none", muxer: "/yamux/1.0.0"))
        }.get()
        let acceptor = Acceptor("/echo")
        try await loop.submit { connection.delegate = acceptor }.get()
        let receiver = try await loop.submit { () -> RecordingReceiver in
            let stream = try session.openStream()
            let receiver = RecordingReceiver()
            stream.receiver = receiver
            stream.setReading(true)
            stream.flush()
            return receiver
        }.get()
        await loop.run()
        #expect(try await loop.submit { connection.streamCount }.get() == 1)
        await loop.advanceTime(by: .seconds(15))
        let reset = await receiver.closed() as? StreamResetError
        #expect(reset == StreamResetError(code: .protocolNegotiationFailed, byRemote: true))
        #expect(try await loop.submit { connection.streamCount }.get() == 0)
        #expect(acceptor.streams.entries.isEmpty)
        connection.close(.none)
        _ = session
    }

    // MARK: The end

    @Test(arguments: [ConnectionErrorCode.none, .shutdown]) func aCloseIsToldOnBothSides(code: ConnectionErrorCode)
        async throws
    {
        let pair = try await Pair()
        let stream = try await pair.dialer.openStream(["/echo"]).get()
        let receiver = try await stream.record()
        let inbound = try #require(await pair.listenerStreams.streams.wait(forCount: 1).first)
        let far = try await inbound.record()
        pair.listener.close(code)
        let results = [await pair.end(pair.dialer), await pair.end(pair.listener)]
        if code == .none {
            for result in results { #expect(result.error == nil) }
        } else {
            #expect(results[1].error as? ConnectionClosedError == ConnectionClosedError(code: code, byRemote: false))
            #expect((results[0].error as? ConnectionClosedError)?.byRemote == true)
        }
        #expect(await receiver.closed() is ConnectionClosedError)
        #expect(await far.closed() is ConnectionClosedError)
        await #expect(throws: MuxerError.sessionClosed) { try await pair.dialer.openStream(["/echo"]).get() }
        await #expect(throws: MuxerError.sessionClosed) { try await pair.listener.probe().get() }
        pair.listener.close(.none)
        _ = await pair.end(pair.listener)
    }

    struct Cut: Error, Equatable {}

    @Test func aBrokenPipeEndsBoth() async throws {
        let pair = try await Pair()
        try await pair.pipe.0.onLoop { $0.cut(Cut()) }
        for connection in [pair.dialer, pair.listener] { #expect(await pair.end(connection).error as? Cut == Cut()) }
    }

    @Test func probesMeasureTheRoundTrip() async throws {
        let pair = try await Pair()
        _ = try await pair.dialer.probe().get()
        #expect(try await pair.loop.submit { pair.dialer.roundTripTime }.get() != nil)
        pair.dialer.close(.none)
    }

    @Test func oneThatNobodyHoldsClosesItself() async throws {
        var pair: Pair? = try await Pair(start: false)
        let loop = try #require(pair?.loop)
        let far = try #require(pair?.pipe.1)
        pair = nil
        // The goodbye is given the time it may take.
        await loop.advanceTime(by: .seconds(5))
        #expect(try await far.onLoop { $0.isClosed })
    }
}
