package import Multiformats
package import PeerIdentity

/// What a reload has to do: from one configuration to the next.
package struct ConfigurationDifference: Equatable, Sendable {
    /// The keys whose new value waits for a restart, in the order of the key table.
    package var restartRequired: [String]
    /// The operator groups, where they changed.
    package var operators: [String]?
    /// The networks that are in both and changed.
    package var networks: [NetworkDifference]

    /// Whether a reload changes nothing at once.
    package var isEmpty: Bool { self.operators == nil && self.networks.isEmpty }

    /// One line for each change.
    package var lines: [String] {
        (self.operators.map { ["operators: [ \($0.joined(separator: ", ")) ]"] } ?? []) + self.networks.flatMap(\.lines)
    }
}

/// What changed in one network. Peers are told apart by ID; this machine's own entry is not among them.
package struct NetworkDifference: Equatable, Sendable {
    /// A peer whose entry is another now.
    package struct Change: Equatable, Sendable {
        package var old: PeerConfiguration
        package var new: PeerConfiguration
    }

    /// A prefix behind a peer.
    package struct Route: Hashable, Sendable {
        package var prefix: IPPrefix
        package var peer: PeerID
    }

    /// The network's name.
    package var network: String
    package var addedPeers: [PeerConfiguration] = []
    package var removedPeers: [PeerConfiguration] = []
    /// Name, addresses, IPv4 address or routes are others.
    package var changedPeers: [Change] = []
    /// Routes of added, changed and removed peers alike. One that moves to another peer is removed and added.
    package var addedRoutes: [Route] = []
    package var removedRoutes: [Route] = []
    /// What this machine announces.
    package var addedAnnouncements: [IPPrefix] = []
    package var removedAnnouncements: [IPPrefix] = []
    /// `acceptRoutes`, where it changed.
    package var acceptRoutes: [IPPrefix]?

    var isEmpty: Bool { self == NetworkDifference(network: self.network) }

    var lines: [String] {
        let names = Dictionary(
            (self.addedPeers + self.changedPeers.map(\.new) + self.removedPeers + self.changedPeers.map(\.old))
                .map { ($0.id, $0.name) }, uniquingKeysWith: { first, _ in first })
        func via(_ route: Route) -> String {
            "route \(route.prefix) via \(names[route.peer] ?? route.peer.description)"
        }
        var lines = self.addedPeers.map { "peer \($0.name) added" }
        lines += self.removedPeers.map { "peer \($0.name) removed" }
        lines += self.changedPeers.map { change in
            change.old.name == change.new.name
                ? "peer \(change.new.name) changed" : "peer \(change.old.name) is now \(change.new.name)"
        }
        lines += self.removedRoutes.map { "\(via($0)) removed" }
        lines += self.addedRoutes.map { "\(via($0)) added" }
        lines += self.removedAnnouncements.map { "\($0) no longer announced" }
        lines += self.addedAnnouncements.map { "\($0) announced" }
        if let accepted = self.acceptRoutes {
            lines.append("acceptRoutes: [ \(accepted.map(\.description).joined(separator: ", ")) ]")
        }
        return lines.map { "\(self.network): \($0)" }
    }
}

extension DaemonConfiguration {
    /// What leads from this configuration to `new`.
    ///
    /// A network whose `ipv4Prefix` changes keeps its peers until the restart: their addresses come from the prefix.
    package func difference(to new: DaemonConfiguration) -> ConfigurationDifference {
        var restart: [String] = []
        if self.name != new.name { restart.append("name") }
        if self.listen != new.listen { restart.append("listen") }
        if self.relay != new.relay { restart.append("relay") }
        if self.tcpCongestion != new.tcpCongestion { restart.append("tcpCongestion") }
        if self.protocolVersion != new.protocolVersion { restart.append("protocolVersion") }

        var networks: [NetworkDifference] = []
        for old in self.networks {
            guard let new = new.networks.first(where: { $0.name == old.name }) else {
                restart.append("networks.\(old.name)")
                continue
            }
            let key = "networks.\(old.name)"
            if old.interface != new.interface { restart.append("\(key).interface") }
            if old.mtuBytes != new.mtuBytes { restart.append("\(key).mtu") }
            if old.ipv4Prefix != new.ipv4Prefix { restart.append("\(key).ipv4Prefix") }
            if old.networkSecret != new.networkSecret { restart.append("\(key).networkSecret") }
            if old.own?.ipv4 != new.own?.ipv4 { restart.append("\(key).peers (this machine's ipv4)") }
            guard old.ipv4Prefix == new.ipv4Prefix else { continue }
            let difference = old.difference(to: new)
            if !difference.isEmpty { networks.append(difference) }
        }
        for network in new.networks where !self.networks.contains(where: { $0.name == network.name }) {
            restart.append("networks.\(network.name)")
        }
        return ConfigurationDifference(
            restartRequired: restart, operators: self.operators == new.operators ? nil : new.operators,
            networks: networks)
    }

    /// The configuration a daemon runs with after a reload: from `new` whatever
    /// ``difference(to:)`` does not leave for a restart.
    package func reloaded(with new: DaemonConfiguration) -> DaemonConfiguration {
        var result = self
        result.operators = new.operators
        for index in result.networks.indices {
            guard let network = new.networks.first(where: { $0.name == result.networks[index].name }),
                network.ipv4Prefix == result.networks[index].ipv4Prefix
            else { continue }
            let ownIPv4 = result.networks[index].own?.ipv4
            result.networks[index].acceptRoutes = network.acceptRoutes
            result.networks[index].peers = network.peers
            result.networks[index].own = network.own
            result.networks[index].own?.ipv4 = ownIPv4
        }
        return result
    }
}

extension NetworkConfiguration {
    fileprivate func difference(to new: NetworkConfiguration) -> NetworkDifference {
        var difference = NetworkDifference(network: self.name)
        let before = Dictionary(self.peers.map { ($0.id, $0) }, uniquingKeysWith: { first, _ in first })
        let after = Dictionary(new.peers.map { ($0.id, $0) }, uniquingKeysWith: { first, _ in first })
        difference.addedPeers = new.peers.filter { before[$0.id] == nil }
        difference.removedPeers = self.peers.filter { after[$0.id] == nil }
        difference.changedPeers = new.peers.compactMap { peer in
            before[peer.id].flatMap { $0 == peer ? nil : NetworkDifference.Change(old: $0, new: peer) }
        }
        let routesBefore = Set(self.peerRoutes)
        let routesAfter = Set(new.peerRoutes)
        difference.addedRoutes = new.peerRoutes.filter { !routesBefore.contains($0) }
        difference.removedRoutes = self.peerRoutes.filter { !routesAfter.contains($0) }
        let announcedBefore = self.own?.routes ?? []
        let announcedAfter = new.own?.routes ?? []
        difference.addedAnnouncements = announcedAfter.filter { !announcedBefore.contains($0) }
        difference.removedAnnouncements = announcedBefore.filter { !announcedAfter.contains($0) }
        if self.acceptRoutes != new.acceptRoutes { difference.acceptRoutes = new.acceptRoutes }
        return difference
    }

    private var peerRoutes: [NetworkDifference.Route] {
        self.peers.flatMap { peer in peer.routes.map { NetworkDifference.Route(prefix: $0, peer: peer.id) } }
    }
}
