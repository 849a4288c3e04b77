import LibP2PCore
import Multiformats
import NIOCore
import PeerIdentity
import TestKit
import Testing

@testable import LibP2PQUIC

@Suite(.timeLimit(.minutes(15))) struct QUICConnectionTests {
    @Test(arguments: [ConnectionErrorCode.none, .supplanted, .gated, .shutdown])
    func bothSidesLearnWhy(code: ConnectionErrorCode) async throws {
        for isDialer in [true, false] {
            let pair = try await QUICPair()
            let (near, far) = try await pair.openStream()
            let (who, other) = isDialer ? (pair.outbound, pair.inbound) : (pair.inbound, pair.outbound)
            let (whose, others) = isDialer ? (near, far) : (far, near)
            who.close(code)
            let own = ConnectionClosedError(code: code, byRemote: false)
            let remote = ConnectionClosedError(code: code, byRemote: true)
            #expect(await who.ending() as? ConnectionClosedError == (code == .none ? nil : own))
            #expect(await other.ending() as? ConnectionClosedError == (code == .none ? nil : remote))
            #expect(await whose.receiver.closed() as? ConnectionClosedError == own)
            #expect(await others.receiver.closed() as? ConnectionClosedError == remote)
            await #expect(throws: MuxerError.sessionClosed) { try await who.openStream(["/test"]).get() }
            try await pair.listening.close().get()
        }
    }

    @Test func aConnectionThatNobodyHoldsIsClosed() async throws {
        let (a, b) = (try QUICNode(), try QUICNode())
        let listener = try await b.listen()
        _ = try await a.dial(listener.address, expecting: b.peerID)
        let inbound = try await b.connection()
        let reason = ConnectionClosedError(code: .garbageCollected, byRemote: true)
        #expect(await inbound.ending() as? ConnectionClosedError == reason)
        try await listener.close().get()
    }

    @Test func signsOfLife() async throws {
        let pair = try await QUICPair()
        for _ in 0..<5 {
            #expect(try await pair.outbound.probe().get() > .zero)
            #expect(try await pair.inbound.probe().get() > .zero)
        }
        // While much is on its way as well.
        let (near, far) = try await pair.openStream()
        try await near.send(pattern(1 << 20))
        #expect(try await pair.outbound.probe().get() > .zero)
        await far.receiver.bytes(atLeast: 1 << 20)
        pair.outbound.close(.none)
        await #expect(throws: (any Error).self) { try await pair.outbound.probe().get() }
        try await pair.close()
    }

    @Test func whoIsNotHeardIsGone() async throws {
        let forwarder = Forwarder()
        let pair = try await QUICPair(
            through: forwarder, dialer: { $0.idleTimeout = .seconds(5) },
            listener: { $0.idleTimeout = .seconds(5) })
        forwarder.treat { _, _ in [] }
        #expect(await pair.outbound.ending() as? QUICError == .idle)
        #expect(await pair.inbound.ending() as? QUICError == .idle)
        try await forwarder.stop()
        try await pair.close()
    }

    @Test func quietConnectionsLiveOn() async throws {
        let forwarder = Forwarder()
        let pair = try await QUICPair(
            through: forwarder,
            dialer: {
                $0.idleTimeout = .seconds(60)
                $0.keepalive = .milliseconds(20)
            })
        // Nobody asks for anything, and yet packets go on and on.
        let before = forwarder.seen.entries.count
        await forwarder.seen.wait(forCount: before + 40)
        try await forwarder.stop()
        try await pair.close()
    }

    @Test func keysAreRenewed() async throws {
        let pair = try await QUICPair()
        let (near, far) = try await pair.openStream()
        var sent: [UInt8] = []
        var renewed = 0
        for round in 0..<20 where renewed < 3 {
            let bytes = pattern(50_000, seed: UInt64(round) + 1)
            sent += bytes
            try await near.send(bytes)
            #expect(await far.receiver.bytes(atLeast: sent.count) == sent)
            for _ in 0..<3 { _ = try await pair.outbound.probe().get() }
            if try await pair.outbound.onLoop({ $0.updateKeys() }) { renewed += 1 }
        }
        #expect(renewed == 3)
        _ = try await pair.inbound.probe().get()
        try await pair.close()
    }

    // MARK: Paths

    @Test func theRemoteMoves() async throws {
        let forwarder = Forwarder()
        let pair = try await QUICPair(through: forwarder)
        let (near, far) = try await pair.openStream()
        var sent: [UInt8] = []
        for round in 0..<4 {
            let bytes = pattern(200_000, seed: UInt64(round) + 1)
            sent += bytes
            try await near.send(bytes)
            #expect(await far.receiver.bytes(atLeast: sent.count) == sent)
            try await far.send([UInt8(round)])
            await near.receiver.bytes(atLeast: round + 1)
            try await forwarder.rebind()
        }
        _ = try await pair.outbound.probe().get()
        try await pair.close()
        try await forwarder.stop()
    }

    @Test func weMove() async throws {
        let pair = try await QUICPair()
        let (near, far) = try await pair.openStream()
        try await near.send([1])
        await far.receiver.bytes(atLeast: 1)
        _ = try await pair.outbound.probe().get()
        let other = try #require(IPAddress("127.0.0.2"))
        var hasMoved = false
        while !hasMoved {
            // Not before the remote has sent the connection IDs for it.
            hasMoved = try await pair.outbound.onLoop { $0.migrate(to: other) }
            _ = try await pair.outbound.probe().get()
        }
        try await near.send(pattern(300_000))
        #expect(await far.receiver.bytes(atLeast: 300_001).count == 300_001)
        try await far.send(pattern(300_000))
        #expect(await near.receiver.bytes(atLeast: 300_000) == pattern(300_000))
        #expect(try await pair.inbound.onLoop { $0.currentRemoteIP } == other)
        // Back to where the system would send from.
        while try await pair.outbound.onLoop({ !$0.migrate() }) { _ = try await pair.outbound.probe().get() }
        _ = try await pair.outbound.probe().get()
        #expect(try await pair.outbound.onLoop { $0.migrate() } == false)
        try await near.send([2])
        await far.receiver.bytes(atLeast: 300_002)
        try await pair.close()
    }

    @Test func aBadPathIsSurvived() async throws {
        let forwarder = Forwarder()
        let pair = try await QUICPair(through: forwarder)
        let counter = Counter()
        // Doubled, cut, bent, swapped for rubbish, lost now and then: only whole packets of the peer's count, and each once.
        forwarder.treat { _, bytes in
            var bent = bytes
            let index = counter.next()
            bent[index % bent.count] ^= UInt8(truncatingIfNeeded: index | 1)
            switch index % 10 {
            case 0: return [bytes, bytes]
            case 1: return [Array(bytes.prefix(bytes.count / 2)), bytes]
            case 2: return [bent, bytes]
            case 3: return [pattern(bytes.count, seed: UInt64(index)), bytes, bytes]
            case 4 where index % 50 == 4: return []
            default: return [bytes]
            }
        }
        let (near, far) = try await pair.openStream()
        let bytes = pattern(2 << 20)
        try await near.send(bytes)
        #expect(await far.receiver.bytes(atLeast: bytes.count) == bytes)
        try await far.send(bytes)
        #expect(await near.receiver.bytes(atLeast: bytes.count) == bytes)
        try await pair.close()
        try await forwarder.stop()
    }
}

extension QUICConnection {
    func migrate(to ip: IPAddress) -> Bool {
        self.session.migrate(to: UDPAddress(ip, port: self.session.socket.bound.port))
    }
    var currentRemoteIP: IPAddress? { self.session.currentPath?.remote.ip }
}
