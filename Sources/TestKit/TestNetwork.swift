package import LibP2P
package import NIOCore
package import NIOEmbedded

/// Whole hosts on a network inside the process. All of them run on one event loop, whose clock stands still until the test moves it:
/// what is due at once happens by itself, what is due later happens in ``advance(by:)``.
package final class TestNetwork: Sendable {
    /// The loop of every host, and the clock.
    package let clock = NIOAsyncTestingEventLoop()
    /// The network.
    package let network = MemoryNetwork()

    /// An empty network.
    package init() {}

    /// Starts a host that listens on a number of its own, `/memory/…`, unless `configure` says otherwise.
    package func host(_ configure: (inout HostConfiguration) -> Void = { _ in }) async throws -> Host {
        var configuration = HostConfiguration(key: try PrivateKey.generate())
        configuration.memoryNetwork = self.network
        configuration.listen = [Multiaddr(components: [.memory(0)])]
        configure(&configuration)
        let host = Host(configuration, group: self.clock)
        try await host.start()
        return host
    }

    /// Starts two hosts and connects the first to the second.
    package func pair() async throws -> ConnectedHosts {
        let (a, b) = (try await self.host(), try await self.host())
        let events = b.swarm.journal()
        let outbound = try await a.connect(to: b.peerID, at: b.addresses)
        let inbound = await events.first { $0.connection }
        return ConnectedHosts(dialer: a, listener: b, outbound: outbound, inbound: inbound)
    }

    /// Does what is due now, and returns when nothing is left of it on the loop.
    package func settle() async { await self.clock.run() }

    /// Moves time, and does what is due by then.
    package func advance(by time: TimeAmount) async { await self.clock.advanceTime(by: time) }
}

/// Two hosts and both ends of the connection between them.
package struct ConnectedHosts: Sendable {
    /// The host that dialled.
    package let dialer: Host
    /// The other one.
    package let listener: Host
    /// The dialer's end.
    package let outbound: any Connection
    /// The listener's end.
    package let inbound: any Connection

    /// Ends both hosts.
    package func shutDown() async {
        await self.dialer.shutDown()
        await self.listener.shutDown()
    }
}

extension Swarm {
    /// What happens from now on.
    package func journal() -> Journal<SwarmEvent> {
        let journal = Journal<SwarmEvent>()
        self.observe { journal.write($0) }
        return journal
    }
}

extension SwarmEvent {
    /// The connection that has come to be.
    package var connection: (any Connection)? { if case .connected(let connection) = self { connection } else { nil } }
    /// The connection that is gone.
    package var lost: (any Connection)? {
        if case .disconnected(let connection, _, _) = self { connection } else { nil }
    }
    /// Why a connection was not kept.
    package var refusal: Refusal? { if case .refused(_, _, let refusal) = self { refusal } else { nil } }
}
