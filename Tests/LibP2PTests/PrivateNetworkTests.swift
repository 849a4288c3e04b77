import Logging
import NIOCore
import NIOEmbedded
import TestKit
import Testing

@testable import LibP2P

/// Whole hosts, in private networks and without.
@Suite(.timeLimit(.minutes(1))) struct PrivateNetworkTests {
    let network = TestNetwork()
    static let keys = Result { try (0..<2).map { try PreSharedKey(bytes: [UInt8](repeating: $0, count: 32)) } }

    @Test(arguments: [false, true]) func membersSpeakWithEachOther(overTCP: Bool) async throws {
        let key = try Self.keys.get()[0]
        var hosts: [Host] = []
        for _ in 0..<2 {
            if overTCP {
                hosts.append(try await TCPHostTests.host("/ip4/127.0.0.1/tcp/0") { $0.preSharedKey = key })
            } else {
                hosts.append(try await self.network.host { $0.preSharedKey = key })
            }
        }
        let (a, b) = (hosts[0], hosts[1])
        let connection = try await a.connect(to: b.peerID, at: b.addresses)
        #expect(try await a.ping.ping(connection, count: 2).count == 2)
        #expect(try await a.identify.info(of: connection).listenAddresses == b.addresses)
        for host in hosts { await host.shutDown() }
    }

    @Test(arguments: [(0, 1), (0, nil), (nil, 0)] as [(Int?, Int?)])
    func othersDoNot(dialer: Int?, listener: Int?) async throws {
        let a = try await self.network.host { $0.preSharedKey = try? dialer.map { try Self.keys.get()[$0] } }
        let b = try await self.network.host { $0.preSharedKey = try? listener.map { try Self.keys.get()[$0] } }
        let dial = Task { try await a.connect(to: b.peerID, at: b.addresses) }
        let journal = Journal<DialError?>()
        Task {
            do {
                _ = try await dial.value
                journal.write(nil)
            } catch {
                journal.write(error as? DialError)
            }
        }
        await self.network.settle()
        await self.network.advance(by: .seconds(20))
        let error = await journal.wait(forCount: 1).first ?? nil
        guard case .allAttemptsFailed(let attempts)? = error else {
            Issue.record("another end: \(String(describing: error))")
            return
        }
        if dialer != nil { #expect(attempts.first?.reason.contains("our pre-shared key") == true) }
        #expect(await a.swarm.connections().isEmpty)
        #expect(await b.swarm.connections().isEmpty)
        for host in [a, b] { await host.shutDown() }
    }

    // MARK: Transports that cannot be protected

    /// Takes what is said, and how loudly.
    struct Recorder: LogHandler {
        let lines: Journal<String>
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.trace

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { self.metadata[key] }
            set { self.metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            self.lines.write(
                "\(event.level) \(event.message) \(event.metadata?["addresses"].map(String.init(describing:)) ?? "")")
        }
    }

    static func logger() -> (Logger, Journal<String>) {
        let lines = Journal<String>()
        return (Logger(label: "test") { _ in Recorder(lines: lines) }, lines)
    }

    let memory = Multiaddr(components: [.memory(7)])
    let tcp = Result { try ["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/2"].map { try Multiaddr($0) } }

    /// One transport that has the key, and one (for TCP addresses) that has none.
    func transports(_ key: PreSharedKey?) -> [any Transport] {
        let upgrader = ConnectionUpgrader(securities: [], muxers: [], preSharedKey: key)
        return [
            ScriptedTransport(eventLoop: self.network.clock),
            MemoryTransport(network: MemoryNetwork(), eventLoop: self.network.clock, upgrader: upgrader),
        ]
    }

    @Test func whatCannotBeProtectedIsNeitherListenedOnNorDialled() async throws {
        let (key, tcp) = (try Self.keys.get()[0], try self.tcp.get())
        let (logger, lines) = Self.logger()
        let transports = self.transports(key)
        let network = PrivateNetwork(key, transports: transports, listen: [tcp[0], self.memory, tcp[1]])
        #expect(try network.addressesToListenOn(logger: logger) == [self.memory])
        #expect(
            lines.entries == [
                "warning a pre-shared key cannot protect these addresses: not listened on /ip4/192.0.2.1/tcp/1, /ip4/192.0.2.2/tcp/2"
            ])

        let peer = PeerID(try PrivateKey.generate().publicKey)
        let unprotected = try #require(network.transports.first { $0.canDial(tcp[0]) && $0.canListen(on: tcp[0]) })
        let never = self.network.clock.makePromise(of: Void.self)
        let dial = unprotected.dial(tcp[0], expecting: peer, cancellation: never.futureResult)
        await #expect(throws: PrivateNetworkError.unprotectedTransport(tcp[0])) { try await dial.get() }
        await #expect(throws: PrivateNetworkError.unprotectedTransport(tcp[0])) {
            try await unprotected.listen(on: tcp[0]) { _ in }.get()
        }
        #expect((transports[0] as? ScriptedTransport)?.dials.entries.isEmpty == true)
        #expect(
            PrivateNetworkError.unprotectedTransport(tcp[0]).description
                == "no pre-shared key can protect /ip4/192.0.2.1/tcp/1")
        never.succeed()
    }

    @Test func nothingLeftToListenOnIsAnError() throws {
        let (key, tcp) = (try Self.keys.get()[0], try self.tcp.get())
        let network = PrivateNetwork(key, transports: self.transports(key), listen: tcp)
        let error = #expect(throws: ListenError.self) {
            try network.addressesToListenOn(logger: Self.logger().0)
        }
        #expect(error?.address == tcp[0])
        #expect(error?.cause as? PrivateNetworkError == .unprotectedTransport(tcp[0]))
        // Who never wanted to listen does not have to.
        #expect(
            try PrivateNetwork(key, transports: self.transports(key), listen: [])
                .addressesToListenOn(logger: Self.logger().0).isEmpty)
    }

    @Test func withoutAKeyNothingChanges() throws {
        let tcp = try self.tcp.get()
        let network = PrivateNetwork(nil, transports: self.transports(nil), listen: tcp + [self.memory])
        let (logger, lines) = Self.logger()
        #expect(try network.addressesToListenOn(logger: logger) == tcp + [self.memory])
        #expect(lines.entries.isEmpty)
        #expect(network.transports.contains { $0 is ScriptedTransport })
    }
}
