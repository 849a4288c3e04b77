import ControlAPI
import LibP2P
import NIOCore
import Testing

@testable import OverlayEngine

@Suite struct AddressReporterTests {
    static func address(_ text: String) throws -> Multiaddr { try Multiaddr(text) }
    static let now = NIODeadline.uptimeNanoseconds(0) + .seconds(100)

    @Test func configuredOnesFirstEachWithItsDials() throws {
        let store = PeerStore(wallClock: { 1_767_323_045_000 })
        let peer = Samples.id(2)
        let (name, configured, dialled) = (
            try Self.address("/dns4/b.example/tcp/1"), try Self.address("/ip4/192.0.2.1/tcp/1"),
            try Self.address("/ip4/192.0.2.2/tcp/1")
        )
        store.add([try Self.address("/ip4/192.0.2.3/tcp/1")], of: peer, from: .identify)
        store.add([try Self.address("/ip4/192.0.2.4/tcp/1")], of: peer, from: .signedRecord)
        store.recordFailure(configured, of: peer, reason: "refused", now: Self.now, random: 0)
        store.recordFailure(configured, of: peer, reason: "timed out", now: Self.now, random: 0)
        store.recordFailure(dialled, of: peer, reason: "refused", name: name, now: Self.now - .seconds(60), random: 0)
        store.recordSuccess(try Self.address("/ip4/192.0.2.5/tcp/1"), of: peer, handshake: .microseconds(31_400))
        store.recordFailure(configured, of: peer, reason: "timed out", now: Self.now, random: 0)
        let report = AddressReporter.report(
            configured: [name, configured.appending(peer), configured], known: store.report(of: peer), now: Self.now)
        let time = "2026-01-02T03:04:05Z"
        #expect(
            report == [
                .init(address: "/dns4/b.example/tcp/1", source: "configuration", lastError: nil),
                .init(
                    address: "/ip4/192.0.2.1/tcp/1", source: "configuration", failures: 3, lastError: "timed out",
                    failedAt: time, retryInSeconds: 9),
                .init(
                    address: "/ip4/192.0.2.5/tcp/1", source: "last good", reachedAt: time, handshakeMilliseconds: 31.4,
                    lastError: nil),
                .init(address: "/ip4/192.0.2.4/tcp/1", source: "signed record", lastError: nil),
                .init(address: "/ip4/192.0.2.3/tcp/1", source: "identify", lastError: nil),
                .init(
                    address: "/ip4/192.0.2.2/tcp/1", source: "name", name: "/dns4/b.example/tcp/1", failures: 1,
                    lastError: "refused", failedAt: time),
            ])
    }

    @Test func anErrorThatASuccessHasOutlivedIsNotShown() throws {
        let (store, peer) = (PeerStore(wallClock: { 0 }), Samples.id(2))
        let address = try Self.address("/ip4/192.0.2.1/tcp/1")
        store.recordFailure(address, of: peer, reason: "refused", now: Self.now, random: 0)
        store.recordSuccess(address, of: peer)
        let report = AddressReporter.report(configured: [], known: store.report(of: peer), now: Self.now)
        #expect(report.map(\.lastError) == [nil] && report.map(\.reachedAt) == ["1970-01-01T00:00:00Z"])
    }
}
