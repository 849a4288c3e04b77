internal import ControlAPI
internal import Foundation
internal import LibP2P
internal import Logging
internal import NIOCore
internal import OverlayCore
internal import Synchronization
internal import TunnelDevice

/// What a daemon needs before it can start, made from files.
enum DaemonSetup {
    /// Locks and records of all daemons of this machine.
    static let lockDirectory = "/run/warren"

    /// A network's plan and its members' numbers.
    struct Plan: Sendable {
        var plan: NetworkPlan
        var indices: [PeerID: PeerIndex]
    }

    static func identity(in statePath: String) throws -> PrivateKey {
        do {
            return try IdentityFile(path: statePath + "/identity.key").load()
        } catch {
            throw DaemonError.noIdentity(String(describing: error))
        }
    }

    static func configuration(_ options: DaemonOptions, ownPeerID: PeerID) throws -> DaemonConfiguration.Parsed {
        try DaemonConfiguration.load(
            path: options.configPath,
            context: DaemonConfiguration.Context(
                ownPeerID: ownPeerID, defaultName: Environment.hostName,
                ipv6Prefix: { name, secret in
                    AddressPlan.ipv6Prefix(
                        of: NetworkID(
                            staticName: name, secret: secret.map { String(decoding: $0.bytes, as: UTF8.self) }))
                }))
    }

    /// The plans of all networks.
    ///
    /// - Throws: ``ConfigurationError`` when addresses collide, with each other or with what the machine has.
    static func plans(_ configuration: DaemonConfiguration, localPeer: PeerID, file: String) throws -> [Plan] {
        var plans: [Plan] = []
        for network in configuration.networks {
            var indices: [PeerID: PeerIndex] = [:]
            do {
                let plan = try NetworkPlan(
                    network, localPeer: localPeer, localName: configuration.name, indices: &indices)
                plans.append(Plan(plan: plan, indices: indices))
            } catch {
                throw ConfigurationError(
                    file: file, line: nil, key: "networks.\(network.name)",
                    fault: .addressPlan(String(describing: error)))
            }
        }
        let interfaces = Set(configuration.networks.map(\.interface))
        let machine = ((try? NetworkInterfaces.current()) ?? []).filter { !interfaces.contains($0.name) }
        let addresses = machine.flatMap { interface in
            interface.addresses.map { AddressPlan.MachineAddress(interface: interface.name, address: $0.address) }
        }
        for (index, plan) in plans.enumerated() {
            let others = plans[..<index].map(\.plan.addresses)
            guard let collision = plan.plan.addresses.collisions(with: Array(others), machine: addresses).first else {
                continue
            }
            throw ConfigurationError(
                file: file, line: nil, key: "networks.\(plan.plan.configuration.name).peers",
                fault: .addressCollision(collision.description))
        }
        return plans
    }

    static func hostConfiguration(
        _ configuration: DaemonConfiguration, key: PrivateKey, options: DaemonOptions, membership: Membership,
        prefixes: OverlayPrefixes, logger: Logger
    ) -> HostConfiguration {
        var host = HostConfiguration(key: key)
        host.listen = configuration.listen
        host.tcp.congestion = configuration.tcpCongestion
        host.tcp.mark = Fwmark.warren
        host.quic?.mark = Fwmark.warren
        // The order by cost: Noise packs a burst into few records, each sealed in place.
        host.securities = [.noise, .tls]
        host.quic?.mark = Fwmark.warren
        // Short, so that a path that comes back is found soon: a dial that hangs retransmits ever more rarely.
        host.tcp.connectTimeout = .seconds(3)
        host.peerStorePath = options.statePath + "/peers.json"
        host.agentVersion = BuildVersion.agent
        host.protocolVersion = configuration.protocolVersion
        host.announces = { address in !prefixes.contain(address) }
        host.dials = { address in !prefixes.contain(address) }
        host.gater = { peer, _, _ in membership.contains(peer) }
        host.perf = { membership.contains($0) }
        host.logger = logger
        return host
    }

    /// A port that cannot be had, as a mistake in the configuration.
    static func explain(_ error: ListenError, file: String) -> ConfigurationError {
        let address = error.address.description
        let text = (try? String(contentsOfFile: file, encoding: .utf8)) ?? ""
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        let line = lines.firstIndex { $0.contains(address) && !$0.drop { $0 == " " }.hasPrefix("#") }
        return ConfigurationError(
            file: file, line: line.map { $0 + 1 }, key: "listen",
            fault: error.isPortBusy ? .portBusy(address) : .cannotBind(address, reason: String(describing: error.cause))
        )
    }
}

/// The prefixes of our own networks: their addresses are never listened on, announced or dialled.
final class OverlayPrefixes: Sendable {
    private let prefixes = Mutex<[IPPrefix]>([])

    func set(_ prefixes: [IPPrefix]) { self.prefixes.withLock { $0 = prefixes } }

    func contain(_ address: Multiaddr) -> Bool {
        guard let ip = address.ipAddress else { return false }
        return self.prefixes.withLock { $0.contains { $0.contains(ip) } }
    }
}

/// Which networks are down by choice (`warren down`). Survives restarts.
struct NetworkChoices: Sendable {
    private let path: String

    init(directory: String) { self.path = directory + "/down.json" }

    func isDown(_ network: String) -> Bool { self.down.contains(network) }

    func setDown(_ isDown: Bool, _ network: String) throws {
        var down = self.down
        if isDown { down.insert(network) } else { down.remove(network) }
        guard down != self.down else { return }
        try JSONEncoder().encode(down.sorted()).write(to: URL(fileURLWithPath: self.path), options: .atomic)
    }

    private var down: Set<String> {
        guard let data = FileManager.default.contents(atPath: self.path),
            let names = try? JSONDecoder().decode([String].self, from: data)
        else { return [] }
        return Set(names)
    }
}
