import ArgumentParser
import LibP2P
import LibP2PCore
import Logging
import OverlayCore

/// A peer that behaves badly on purpose: the lab shows with it that a daemon counts, bounds and survives what a peer can do.
///
/// It speaks with the key of a member, or of a stranger, and prints one line: what it did and how the daemon answered. It never judges;
/// the scenarios do.
@main
struct HostilePeer: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lab-peer", abstract: "Attack a daemon in the lab.",
        discussion: Attack.allCases.map { "\($0.rawValue): \($0.summary)" }.joined(separator: "\n"))

    @Argument(help: "What to do.") var attack: Attack
    @Option(help: "The file of the key to speak with.") var key: String
    @Option(help: "The daemon's peer ID.") var target: String
    @Option(help: "The daemon's IPv4 address.") var address: String
    @Option(help: "The daemon's TCP port.") var port: UInt16 = 4117
    @Option(help: "The name of the network.") var network = "lab"
    @Option(help: "The network's secret.") var secret: String?
    @Option(help: "The overlay addresses that belong to the key: IPv4, IPv6.") var from: String
    @Option(help: "The daemon's overlay addresses: IPv4, IPv6.") var to: String
    @Option(help: "How often, where the attack has a number.") var count = 50
    @Option(help: "How long, where the attack has no end of its own.") var seconds: Int64 = 4

    func run() async throws {
        LoggingSystem.bootstrap { label in
            var handler = StreamLogHandler.standardError(label: label)
            handler.logLevel = .error
            return handler
        }
        var host = HostConfiguration(key: try IdentityFile(path: self.key).load())
        host.agentVersion = "lab-peer"
        let session = Session(
            host: Host(host), target: try PeerID(self.target),
            address: try Multiaddr("/ip4/\(self.address)/tcp/\(self.port)"),
            networkID: NetworkID(staticName: self.network, secret: self.secret))
        let plan = AttackPlan(
            from: try OverlayAddresses(self.from), to: try OverlayAddresses(self.to), count: self.count,
            seconds: self.seconds,
            address: self.address, port: self.port)
        try await session.start()
        let story = try await self.attack.run(plan, session)
        print("\(self.attack.rawValue): \(story)")
        await session.stop()
    }
}

/// What an attack works with.
struct AttackPlan: Sendable {
    var from: OverlayAddresses
    var to: OverlayAddresses
    var count: Int
    var seconds: Int64
    var address: String
    var port: UInt16
}

/// One machine's addresses in the overlay.
struct OverlayAddresses: Sendable {
    let ipv4: IPAddress
    let ipv6: IPAddress

    /// Parses `100.64.0.1,fd00::1`.
    init(_ text: String) throws {
        let addresses = text.split(separator: ",").compactMap { IPAddress(String($0)) }
        guard let ipv4 = addresses.first(where: { $0.family == .ipv4 }),
            let ipv6 = addresses.first(where: { $0.family == .ipv6 })
        else { throw ValidationError("'\(text)' is not an IPv4 and an IPv6 address") }
        self.ipv4 = ipv4
        self.ipv6 = ipv6
    }
}
