import LibP2PCore
import Multiformats
import NIOCore
import NIOEmbedded
import PeerIdentity
import TestKit
import Testing

@testable import LibP2PConnection

/// Whole upgrades between nodes with these keys and those.
@Suite(.timeLimit(.minutes(1))) struct ProtectedUpgradeTests {
    let loop = NIOAsyncTestingEventLoop()
    let near: MemoryByteStream
    let far: MemoryByteStream

    static let keys = Result { try (0..<2).map { try PreSharedKey(bytes: [UInt8](repeating: $0, count: 32)) } }

    init() {
        (self.near, self.far) = MemoryByteStream.pair(on: self.loop)
    }

    func upgrade(_ role: Role, key: Int?, securities: [ProtocolID] = ["/noise"]) throws -> EventLoopFuture<
        any Connection
    > {
        let identity = try PrivateKey.generate()
        let upgrader = ConnectionUpgrader(
            securities: securities.map { name -> any SecurityUpgrader in
                name == "/noise" ? NoiseUpgrader(identity: identity) : OtherSecurity(protocolID: name)
            }, muxers: [YamuxMuxer()], preSharedKey: try key.map { try Self.keys.get()[$0] })
        #expect(upgrader.hasPreSharedKey == (key != nil))
        let stream = role == .dialer ? self.near : self.far
        let address = Multiaddr(components: [.memory(1)])
        return self.loop.flatSubmit {
            upgrader.upgrade(
                stream,
                as: .init(
                    role: role, expectedPeer: nil, localAddress: address, remoteAddress: address, transport: "memory",
                    timeout: .seconds(10)))
        }
    }

    @Test(arguments: [["/noise"], ["/x", "/noise"]] as [[ProtocolID]], [1, 65_536])
    func membersAgree(securities: [ProtocolID], pieces: Int) async throws {
        try await self.near.onLoop { $0.pieces = .atMost(pieces) }
        try await self.far.onLoop { $0.pieces = .atMost(pieces) }
        let inbound = try self.upgrade(.listener, key: 0)
        let outbound = try self.upgrade(.dialer, key: 0, securities: securities)
        let (a, b) = (try await outbound.get(), try await inbound.get())
        #expect(a.details.security == "/noise" && b.details.muxer == "/yamux/1.0.0")
        for connection in [a, b] { connection.close(.none) }
    }

    @Test(arguments: [(0, 1), (1, 0), (0, nil), (nil, 0)] as [(Int?, Int?)])
    func othersAreNamed(dialer: Int?, listener: Int?) async throws {
        let inbound = try self.upgrade(.listener, key: listener)
        let outbound = try self.upgrade(.dialer, key: dialer)
        await self.loop.run()
        await self.loop.advanceTime(by: .seconds(10))
        for (key, outcome) in [(dialer, await outbound.result()), (listener, await inbound.result())] {
            #expect(outcome.error != nil)
            guard key != nil else { continue }
            switch outcome.error as? PrivateNetworkError {
            case .keyMismatch, .keyUnproven: break
            default: Issue.record("\(String(describing: outcome.error)) does not say that it is the key")
            }
        }
        #expect(try await self.near.onLoop { $0.isClosed })
        #expect(try await self.far.onLoop { $0.isClosed })
    }

    @Test(arguments: [Role.dialer, .listener]) func silenceIsNamed(role: Role) async throws {
        let upgrade = try self.upgrade(role, key: 0)
        await self.loop.run()
        await self.loop.advanceTime(by: .seconds(10))
        await #expect(throws: PrivateNetworkError.keyUnproven(reason: "no answer in time")) { try await upgrade.get() }
    }

    /// Among members every other failure keeps its name.
    @Test func aMembersOtherFailuresKeepTheirNames() async throws {
        let inbound = try self.upgrade(.listener, key: 0, securities: ["/x", "/y"])
        let outbound = try self.upgrade(.dialer, key: 0, securities: ["/noise", "/z"])
        await #expect(throws: NegotiationError.unsupported(["/noise", "/z"])) { try await outbound.get() }
        await #expect(throws: (any Error).self) { try await inbound.get() }
    }
}
