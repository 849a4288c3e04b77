import LibP2PCore
import Multiformats
import NIOCore
import NIOEmbedded
import PeerIdentity
import TestKit
import Testing

@testable import LibP2PConnection

@Suite(.timeLimit(.minutes(1))) struct PlaintextTests {
    static let keys = Result { try (1...2).map { try PrivateKey(ed25519Seed: [UInt8](repeating: $0, count: 32)) } }

    static func publicKey(_ index: Int) throws -> PublicKey { try Self.keys.get()[index].publicKey }

    /// A message of two fields, by hand: the ID, and the key in its own encoding.
    static func message(id: [UInt8]?, key: [UInt8]?) -> [UInt8] {
        let fields =
            (id.map { [0x0a, UInt8($0.count)] + $0 } ?? []) + (key.map { [0x12, UInt8($0.count)] + $0 } ?? [])
        return [UInt8(fields.count)] + fields
    }

    static func message(_ key: PublicKey) -> [UInt8] { self.message(id: PeerID(key).bytes, key: key.encoded) }

    // MARK: The exchange

    @Test func saysWhoItIs() throws {
        let key = try Self.publicKey(0)
        let exchange = PlaintextExchange(key: key, expecting: nil)
        let message = try Array(exchange.start().readableBytesView)
        #expect(message == Self.message(key))
        // Written out: an ID of 38 bytes that holds the key, and the key of 36 bytes.
        #expect(message.count == 1 + 2 + 38 + 2 + 36 && message[0] == 78)
        #expect(message[1...6] == [0x0a, 38, 0x00, 0x24, 0x08, 0x01] && message[41...44] == [0x12, 36, 0x08, 0x01])
    }

    @Test func survivesAnySplit() throws {
        let key = try Self.publicKey(1)
        let input = Self.message(key) + [1, 2, 3]
        for first in 0...input.count {
            for second in stride(from: first, through: input.count, by: 3) {
                var exchange = PlaintextExchange(key: try Self.publicKey(0), expecting: PeerID(key))
                var found: PeerID?
                var rest: [UInt8] = []
                for piece in [input[..<first], input[first..<second], input[second...]] {
                    if found != nil {
                        rest += piece
                        continue
                    }
                    switch exchange.receive(ByteBuffer(bytes: piece)) {
                    case .wait: break
                    case .finished(let peer, let leftover):
                        found = peer
                        rest = Array(leftover.readableBytesView)
                    case .fail(let error): Issue.record("\(error)")
                    }
                }
                #expect(found == PeerID(key) && rest == [1, 2, 3])
            }
        }
    }

    static let bad:
        [(@Sendable (PublicKey, PublicKey) -> [UInt8], @Sendable (PublicKey, PublicKey) -> PlaintextError)] = [
            ({ a, _ in Self.message(id: PeerID(a).bytes, key: nil) }, { _, _ in .malformedMessage }),
            ({ a, _ in Self.message(id: nil, key: a.encoded) }, { _, _ in .malformedMessage }),
            ({ _, _ in [2, 0xff, 0xff] }, { _, _ in .malformedMessage }),
            ({ _, _ in [0] }, { _, _ in .malformedMessage }),
            ({ a, _ in Self.message(id: PeerID(a).bytes, key: [8, 1]) }, { _, _ in .invalidKey }),
            ({ a, b in Self.message(id: PeerID(a).bytes, key: b.encoded) }, { _, b in .wrongID(ofKey: PeerID(b)) }),
            ({ a, _ in Self.message(id: [1], key: a.encoded) }, { a, _ in .wrongID(ofKey: PeerID(a)) }),
            ({ _, b in Self.message(b) }, { a, b in .unexpectedPeer(expected: PeerID(a), found: PeerID(b)) }),
            ({ _, _ in [0x81, 0x80, 0x04] }, { _, _ in .malformedLength }),
            ({ _, _ in [0x80, 0x00] }, { _, _ in .malformedLength }),
        ]

    @Test(arguments: bad.indices) func refuses(index: Int) throws {
        let (a, b) = (try Self.publicKey(0), try Self.publicKey(1))
        var exchange = PlaintextExchange(key: b, expecting: PeerID(a))
        #expect(exchange.receive(ByteBuffer(bytes: Self.bad[index].0(a, b))) == .fail(Self.bad[index].1(a, b)))
    }

    // MARK: Connections

    let loop = NIOAsyncTestingEventLoop()

    func upgrade(_ stream: MemoryByteStream, _ role: Role, expecting expected: PeerID? = nil) throws -> EventLoopFuture<
        any Connection
    > {
        let upgrader = ConnectionUpgrader(
            securities: [PlaintextUpgrader(key: try Self.publicKey(role == .dialer ? 0 : 1))],
            muxers: [YamuxMuxer(), MplexMuxer()])
        let address = Multiaddr(components: [.memory(1)])
        return self.loop.flatSubmit {
            upgrader.upgrade(
                stream,
                as: .init(
                    role: role, expectedPeer: expected, localAddress: address, remoteAddress: address,
                    transport: "memory", timeout: .seconds(10)))
        }
    }

    @Test(arguments: [1, 7, 65_536]) func wholeConnections(pieces: Int) async throws {
        let (near, far) = MemoryByteStream.pair(on: self.loop, pieces: .atMost(pieces))
        let inbound = try self.upgrade(far, .listener)
        let outbound = try self.upgrade(near, .dialer, expecting: PeerID(Self.publicKey(1)))
        let (a, b) = (try await outbound.get(), try await inbound.get())
        #expect(try a.remotePeer == PeerID(Self.publicKey(1)) && b.remotePeer == PeerID(Self.publicKey(0)))
        #expect(a.details.security == "/plaintext/2.0.0" && a.details.muxer == "/yamux/1.0.0")
        for connection in [a, b] { connection.close(.none) }
    }

    @Test func anotherPeerThanTheOneDialledIsRefused() async throws {
        let (near, far) = MemoryByteStream.pair(on: self.loop)
        let inbound = try self.upgrade(far, .listener)
        let (expected, found) = try (PeerID(Self.publicKey(0)), PeerID(Self.publicKey(1)))
        let outbound = try self.upgrade(near, .dialer, expecting: expected)
        await #expect(throws: PlaintextError.unexpectedPeer(expected: expected, found: found)) {
            try await outbound.get()
        }
        _ = await inbound.result()
    }

    @Test func silenceTimesOut() async throws {
        let (near, far) = MemoryByteStream.pair(on: self.loop)
        let outbound = try self.upgrade(near, .dialer)
        await self.loop.run()
        await self.loop.advanceTime(by: .seconds(10))
        await #expect(throws: TransportError.timedOut) { try await outbound.get() }
        try await far.onLoop { $0.close(nil) }
    }
}
