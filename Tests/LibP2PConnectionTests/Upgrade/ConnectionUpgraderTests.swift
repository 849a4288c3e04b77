import LibP2PCore
import Multiformats
import NIOCore
import NIOEmbedded
import PeerIdentity
import TestKit
import Testing

@testable import LibP2PConnection

@Suite(.timeLimit(.minutes(1))) struct ConnectionUpgraderTests {
    /// Two ends of a pipe on a clock of the test's.
    let loop = NIOAsyncTestingEventLoop()
    let near: MemoryByteStream
    let far: MemoryByteStream
    let keys: [PrivateKey]

    init() throws {
        (self.near, self.far) = MemoryByteStream.pair(on: self.loop)
        self.keys = [try PrivateKey.generate(), try PrivateKey.generate()]
    }

    struct NamedMuxer: MuxerUpgrader {
        let protocolID: ProtocolID

        func multiplex(_ stream: any ByteStream, role: Role) -> any MuxerSession {
            YamuxMuxer().multiplex(stream, role: role)
        }
    }

    /// Noise that says nothing of muxers, so that they are negotiated afterwards.
    struct LateNoise: SecurityUpgrader {
        let noise: NoiseUpgrader
        var protocolID: ProtocolID { self.noise.protocolID }

        func secure(_ stream: any ByteStream, role: Role, expecting expected: PeerID?, muxers: [ProtocolID])
            -> EventLoopFuture<SecuredStream>
        {
            self.noise.secure(stream, role: role, expecting: expected, muxers: [])
        }
    }

    func upgrade(
        _ role: Role, securities: [ProtocolID] = ["/noise"], muxers: [ProtocolID] = ["/yamux/1.0.0"],
        late: Bool = false,
        expecting expected: PeerID? = nil
    ) -> EventLoopFuture<any Connection> {
        let noise = NoiseUpgrader(identity: self.keys[role == .dialer ? 0 : 1])
        let upgrader = ConnectionUpgrader(
            securities: securities.map { name -> any SecurityUpgrader in
                if name != "/noise" {
                    OtherSecurity(protocolID: name)
                } else if late {
                    LateNoise(noise: noise)
                } else {
                    noise
                }
            }, muxers: muxers.map { NamedMuxer(protocolID: $0) })
        let stream = role == .dialer ? self.near : self.far
        let address = Multiaddr(components: [.memory(1)])
        return self.loop.flatSubmit {
            upgrader.upgrade(
                stream,
                as: .init(
                    role: role, expectedPeer: expected, localAddress: address, remoteAddress: address,
                    transport: "memory", congestion: "bbr", timeout: .seconds(10)))
        }
    }

    func isClosed() async throws -> [Bool] {
        await self.loop.run()
        return [try await self.near.onLoop { $0.isClosed }, try await self.far.onLoop { $0.isClosed }]
    }

    // MARK: Agreement

    struct Row: Sendable, CustomStringConvertible {
        var dialer: ([ProtocolID], [ProtocolID])
        var listener: ([ProtocolID], [ProtocolID])
        var late = false
        var muxer: ProtocolID
        var description: String { "\(self.dialer) \(self.listener) \(self.late)" }
    }

    static let agreements = [
        Row(dialer: (["/noise"], ["/yamux/1.0.0"]), listener: (["/noise"], ["/yamux/1.0.0"]), muxer: "/yamux/1.0.0"),
        Row(dialer: (["/noise"], ["/a", "/b"]), listener: (["/noise"], ["/b", "/a"]), muxer: "/a"),
        Row(dialer: (["/noise"], ["/a", "/b"]), listener: (["/noise"], ["/b", "/a"]), late: true, muxer: "/a"),
        Row(dialer: (["/noise"], ["/a", "/b"]), listener: (["/noise"], ["/b"]), late: true, muxer: "/b"),
        Row(dialer: (["/x", "/noise"], ["/a"]), listener: (["/noise"], ["/a"]), muxer: "/a"),
        Row(dialer: (["/noise"], ["/a"]), listener: (["/x", "/noise"], ["/a"]), muxer: "/a"),
        Row(dialer: (["/x", "/noise"], ["/a"]), listener: (["/noise", "/y"], ["/a"]), late: true, muxer: "/a"),
    ]

    @Test(arguments: agreements) func agrees(row: Row) async throws {
        let inbound = self.upgrade(.listener, securities: row.listener.0, muxers: row.listener.1, late: row.late)
        let outbound = self.upgrade(.dialer, securities: row.dialer.0, muxers: row.dialer.1, late: row.late)
        let (a, b) = (try await outbound.get(), try await inbound.get())
        #expect(a.remotePeer == PeerID(self.keys[1].publicKey) && b.remotePeer == PeerID(self.keys[0].publicKey))
        #expect(a.details == b.details)
        #expect(
            a.details
                == ConnectionDetails(
                    transport: "memory", security: "/noise", muxer: row.muxer, hasEarlyMuxer: !row.late,
                    congestion: "bbr"))
        // The time-out is over with the upgrade.
        await self.loop.advanceTime(by: .seconds(20))
        #expect(try await self.isClosed() == [false, false])
        for connection in [a, b] { connection.close(.none) }
    }

    // MARK: No agreement

    @Test func noSecurityInCommon() async throws {
        let inbound = self.upgrade(.listener, securities: ["/x", "/y"])
        let outbound = self.upgrade(.dialer, securities: ["/noise", "/z"])
        await #expect(throws: NegotiationError.unsupported(["/noise", "/z"])) { try await outbound.get() }
        await #expect(throws: (any Error).self) { try await inbound.get() }
        #expect(try await self.isClosed() == [true, true])
    }

    @Test func theOnlySecurityIsRefused() async throws {
        let inbound = self.upgrade(.listener, securities: ["/x"])
        let outbound = self.upgrade(.dialer)
        // The handshake's first message comes right behind the proposal, and is no proposal: the listener may be gone before its refusal
        // is read.
        await #expect(throws: (any Error).self) { try await outbound.get() }
        await #expect(throws: (any Error).self) { try await inbound.get() }
        #expect(try await self.isClosed() == [true, true])
    }

    @Test(arguments: [true, false]) func noMuxerInCommon(late: Bool) async throws {
        let inbound = self.upgrade(.listener, muxers: ["/a"], late: late)
        let outbound = self.upgrade(.dialer, muxers: ["/b"], late: late)
        for outcome in [await outbound.result(), await inbound.result()] { #expect(outcome.error != nil) }
        if late {
            #expect(await outbound.result().error as? NegotiationError == .unsupported(["/b"]))
        }
        #expect(try await self.isClosed() == [true, true])
    }

    @Test func aWrongPeerIsNamed() async throws {
        let expected = PeerID(self.keys[0].publicKey)
        let inbound = self.upgrade(.listener)
        let outbound = self.upgrade(.dialer, expecting: expected)
        await #expect(
            throws: TransportError.peerMismatch(expected: expected, found: PeerID(self.keys[1].publicKey))
        ) { try await outbound.get() }
        await #expect(throws: (any Error).self) { try await inbound.get() }
        #expect(try await self.isClosed() == [true, true])
    }

    // MARK: Time

    /// The remote falls silent after so many bytes: in the negotiation, in the handshake, in the negotiation of the muxer.
    @Test(arguments: [0, 1, 20, 27, 28, 60, 200, 250], [Role.dialer, .listener])
    func aSilentRemoteTimesOut(bytes: Int, role: Role) async throws {
        // What the remote sends is cut in single bytes, and stops.
        let (me, remote) = role == .dialer ? (self.near, self.far) : (self.far, self.near)
        let valve = Valve(limit: bytes)
        try await me.onLoop { $0.pieces = .atMost(1) }
        let (theirs, plug) = MemoryByteStream.pair(on: self.loop)
        _ = remote
        try await self.loop.submit { valve.join(remote, plug) }.get()
        let mine = self.upgrade(role, late: true)
        let key = self.keys[role == .dialer ? 1 : 0]
        let other = self.loop.flatSubmit {
            ConnectionUpgrader(
                securities: [LateNoise(noise: NoiseUpgrader(identity: key))],
                muxers: [NamedMuxer(protocolID: "/yamux/1.0.0")]
            ).upgrade(
                theirs,
                as: .init(
                    role: role.opposite, expectedPeer: nil, localAddress: Multiaddr(components: [.memory(1)]),
                    remoteAddress: Multiaddr(components: [.memory(1)]), transport: "memory", timeout: .hours(1)))
        }
        await self.loop.run()
        await self.loop.advanceTime(by: .milliseconds(9999))
        #expect(try await me.onLoop { $0.isClosed } == false)
        await self.loop.advanceTime(by: .milliseconds(1))
        await #expect(throws: TransportError.timedOut) { try await mine.get() }
        #expect(try await self.isClosed() == [true, true])
        try await theirs.onLoop { $0.close(nil) }
        _ = await other.result()
    }

    /// Passes bytes on between two streams, but of those that come from the second only so many.
    final class Valve: @unchecked Sendable {
        private var rest: Int

        init(limit: Int) {
            self.rest = limit
        }

        func join(_ a: MemoryByteStream, _ b: MemoryByteStream) {
            a.receiver = Half {
                b.write($0)
            } onFlush: {
                b.flush()
            }
            b.receiver = Half { bytes in
                var bytes = bytes
                let count = min(self.rest, bytes.readableBytes)
                self.rest -= count
                if count > 0, let slice = bytes.readSlice(length: count) { a.write(slice) }
            } onFlush: {
                a.flush()
            }
            a.setReading(true)
            b.setReading(true)
        }

        private final class Half: ByteStreamReceiver {
            let onBytes: (ByteBuffer) -> Void
            let onFlush: () -> Void

            init(_ onBytes: @escaping (ByteBuffer) -> Void, onFlush: @escaping () -> Void) {
                self.onBytes = onBytes
                self.onFlush = onFlush
            }

            func received(_ bytes: ByteBuffer) { self.onBytes(bytes) }
            func receiveComplete() { self.onFlush() }
            func writabilityChanged() {}
            func inputEnded() {}
            func closed(_ error: (any Error)?) {}
        }
    }
}
