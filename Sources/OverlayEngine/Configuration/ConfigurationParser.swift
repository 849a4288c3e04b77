import ControlAPI
import Multiformats
import PeerIdentity

/// Walks the file from the root and gathers on the way what must be compared across networks.
struct ConfigurationParser {
    let context: DaemonConfiguration.Context
    private(set) var warnings: [ConfigurationWarning] = []

    private var skipped: [AddressKind: Skipped] = [:]
    private var check = ConsistencyCheck()

    /// The addresses of a transport this build has not got.
    private struct Skipped {
        var count: Int
        let first: ConfigurationNode
    }

    init(context: DaemonConfiguration.Context) {
        self.context = context
    }

    mutating func daemon(_ root: ConfigurationNode) throws(ConfigurationError) -> DaemonConfiguration {
        let fields = try root.fields(of: "")
        var configuration = DaemonConfiguration(
            name: self.context.defaultName, listen: [], relay: .members, operators: ["warren"], tcpCongestion: "bbr",
            protocolVersion: "ipfs/0.1.0", networks: [])

        if let name = fields["name"] { configuration.name = try self.label(name) }
        configuration.listen = try self.listen(fields["listen"])
        if let relay = fields["relay"] {
            let text = try relay.text()
            guard let policy = DaemonConfiguration.RelayPolicy(rawValue: text) else {
                throw relay.error(.notOneOf(text, DaemonConfiguration.RelayPolicy.allCases.map(\.rawValue)))
            }
            configuration.relay = policy
        }
        if let operators = fields["operators"] { configuration.operators = try self.operators(operators) }
        if let congestion = fields["tcpCongestion"] {
            // TCP_CA_NAME_MAX is 16 with the final zero.
            configuration.tcpCongestion = try congestion.text(
                atMost: 15, rule: "write one that /proc/sys/net/ipv4/tcp_available_congestion_control lists"
            ) { Self.isWord($0) || $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: "_") }
        }
        if let version = fields["protocolVersion"] {
            configuration.protocolVersion = try version.text(
                atMost: 128, rule: "use 1 to 128 visible ASCII characters"
            ) { (0x21...0x7E).contains($0) }
        }
        if let networks = fields["networks"] {
            configuration.networks = try self.networks(networks, ownName: configuration.name)
        }
        try self.check.finish()
        self.reportSkipped()
        return configuration
    }

    // MARK: Networks

    private mutating func networks(
        _ node: ConfigurationNode, ownName: String
    ) throws(ConfigurationError) -> [NetworkConfiguration] {
        guard !node.isEmpty else { return [] }
        let entries = try node.entries()
        guard entries.count <= DaemonConfiguration.maximumNetworks else {
            throw node.error(.tooMany(maximum: DaemonConfiguration.maximumNetworks))
        }
        var networks: [NetworkConfiguration] = []
        for (name, value, line) in entries {
            guard Endpoint.isLabel(name) else {
                throw ConfigurationError(file: value.file, line: line, key: value.key, fault: .badLabel(name))
            }
            networks.append(try self.network(value, name: name, ownName: ownName))
        }
        // Defaults take the numbers that nobody wrote down.
        var number = 0
        let written = Set(networks.map(\.interface))
        for index in networks.indices where networks[index].interface.isEmpty {
            while written.contains("warren\(number)") { number += 1 }
            networks[index].interface = "warren\(number)"
            number += 1
        }
        return networks
    }

    private mutating func network(
        _ node: ConfigurationNode, name: String, ownName: String
    ) throws(ConfigurationError) -> NetworkConfiguration {
        let fields = node.isEmpty ? [:] : try node.fields(of: "networks.<name>")
        var network = NetworkConfiguration(
            name: name, interface: "", mtuBytes: DaemonConfiguration.defaultMTUBytes,
            ipv4Prefix: Self.defaultIPv4Prefix, networkSecret: nil, acceptRoutes: [], own: nil, peers: [])

        if let interface = fields["interface"] {
            network.interface = try self.interface(interface)
            try self.check.add(interface: network.interface, of: name, at: interface)
        }
        if let mtu = fields["mtu"] { network.mtuBytes = try mtu.integer(in: DaemonConfiguration.mtuRange) }
        if let prefix = fields["ipv4Prefix"] { network.ipv4Prefix = try self.ipv4Prefix(prefix) }
        if let secret = fields["networkSecret"] {
            let text = try secret.text()
            guard (1...DaemonConfiguration.maximumSecretBytes).contains(text.utf8.count) else {
                throw secret.error(.badSecretLength(maximumBytes: DaemonConfiguration.maximumSecretBytes))
            }
            network.networkSecret = NetworkSecret(text)
        }
        self.check.add(overlay: network.ipv4Prefix, of: name)
        if let prefix = self.context.ipv6Prefix(name, network.networkSecret) {
            self.check.add(overlay: prefix, of: name)
        }

        if let accepted = fields["acceptRoutes"] {
            for item in try accepted.items(atMost: DaemonConfiguration.maximumRoutesPerPeer) {
                network.acceptRoutes.append(try self.route(item))
            }
            if !network.acceptRoutes.isEmpty {
                self.warn(accepted, "is for managed mode, which this build has not got: skipped")
            }
        }
        if let peers = fields["peers"] {
            var names = ConsistencyCheck.Peers()
            for item in try peers.items(atMost: DaemonConfiguration.maximumPeersPerNetwork) {
                let (peer, isOwn) = try self.peer(item, in: network, ownName: ownName, names: &names)
                if isOwn { network.own = peer } else { network.peers.append(peer) }
            }
        }
        return network
    }

    private mutating func peer(
        _ node: ConfigurationNode, in network: NetworkConfiguration, ownName: String,
        names: inout ConsistencyCheck.Peers
    ) throws(ConfigurationError) -> (PeerConfiguration, isOwn: Bool) {
        let fields = try node.fields(of: "networks.<name>.peers[]")
        guard let nameNode = fields["name"] else {
            throw node.error(missing: "name", fix: "write 'name: …', as that machine calls itself")
        }
        guard let idNode = fields["id"] else {
            throw node.error(missing: "id", fix: "paste the output of 'warren id' on that machine")
        }
        let name = try self.label(nameNode)
        let id = try self.peerID(idNode)
        try names.add(name: name, at: nameNode, id: id, at: idNode)

        let isOwn = self.context.ownPeerID.map { $0 == id } ?? (name == ownName)
        if isOwn && name != ownName { throw nameNode.error(.ownEntryHasOtherName(name, ownName: ownName)) }
        if !isOwn && name == ownName {
            throw nameNode.error(.ownNameOfAnotherPeer(name, ownID: self.context.ownPeerID?.description))
        }

        var peer = PeerConfiguration(name: name, id: id, addresses: [], ipv4: nil, routes: [])
        if let addresses = fields["addresses"] { peer.addresses = try self.addresses(addresses, of: id) }
        if let ipv4 = fields["ipv4"] {
            let address = try self.ipv4(ipv4, inside: network.ipv4Prefix)
            try self.check.add(ipv4: address, of: name, at: ipv4)
            peer.ipv4 = address
        }
        if let routes = fields["routes"] {
            for item in try routes.items(atMost: DaemonConfiguration.maximumRoutesPerPeer) {
                let route = try self.route(item)
                self.check.add(route: route, of: name, id: id, in: network.name, at: item)
                peer.routes.append(route)
            }
        }
        return (peer, isOwn)
    }

    // MARK: Addresses

    private mutating func listen(_ node: ConfigurationNode?) throws(ConfigurationError) -> [Multiaddr] {
        guard let node else {
            return DaemonConfiguration.defaultListen.compactMap { try? Multiaddr($0) }
                .filter { AddressKind($0).map(self.context.transports.contains) ?? false }
        }
        var addresses: [Multiaddr] = []
        var lines: [Multiaddr: Int] = [:]
        for item in try node.items(atMost: DaemonConfiguration.maximumListenAddresses) {
            let address = try self.multiaddr(item)
            guard let kind = AddressKind(address), kind != .relayed else {
                throw item.error(.cannotListen(reason: "no transport has this form"))
            }
            guard address.components.first?.protocol == .ip4 || address.components.first?.protocol == .ip6 else {
                throw item.error(.cannotListen(reason: "it does not begin with an IP address"))
            }
            guard !address.contains(.p2p) else { throw item.error(.cannotListen(reason: "it names a peer")) }
            if let line = lines.updateValue(item.line, forKey: address) {
                throw item.error(.duplicateAddress(line: line))
            }
            if self.isInThisBuild(kind, at: item) { addresses.append(address) }
        }
        return addresses
    }

    private mutating func addresses(_ node: ConfigurationNode, of peer: PeerID) throws(ConfigurationError)
        -> [Multiaddr]
    {
        var addresses: [Multiaddr] = []
        var lines: [Multiaddr: Int] = [:]
        for item in try node.items(atMost: DaemonConfiguration.maximumAddressesPerPeer) {
            let (address, named) = try self.multiaddr(item).removingTrailingP2P()
            if let named, named != peer.bytes {
                throw item.error(.addressOfAnotherPeer(PeerID(uncheckedBytes: named).description))
            }
            guard let kind = AddressKind(address) else {
                throw item.error(.cannotDial(reason: "no transport has this form"))
            }
            if let ip = address.ipAddress, ip.isUnspecified {
                throw item.error(.cannotDial(reason: "\(ip) is every address and none"))
            }
            if address.tcpPort == 0 || address.udpPort == 0 { throw item.error(.cannotDial(reason: "the port is 0")) }
            if let line = lines.updateValue(item.line, forKey: address) {
                throw item.error(.duplicateAddress(line: line))
            }
            if self.isInThisBuild(kind, at: item) { addresses.append(address) }
        }
        return addresses
    }

    private func multiaddr(_ node: ConfigurationNode) throws(ConfigurationError) -> Multiaddr {
        let text = try node.text()
        do { return try Multiaddr(text) } catch { throw node.error(.badMultiaddr(reason: "\(error)")) }
    }

    private mutating func isInThisBuild(_ kind: AddressKind, at node: ConfigurationNode) -> Bool {
        guard !self.context.transports.contains(kind) else { return true }
        self.skipped[kind, default: Skipped(count: 0, first: node)].count += 1
        return false
    }

    private mutating func reportSkipped() {
        for (kind, skipped) in self.skipped.sorted(by: { $0.value.first.line < $1.value.first.line }) {
            let count = skipped.count == 1 ? "this address is" : "\(skipped.count) addresses, this the first, are"
            self.warn(skipped.first, "\(count) skipped: this build has no \(kind.rawValue)")
        }
    }

    // MARK: Values

    private func label(_ node: ConfigurationNode) throws(ConfigurationError) -> String {
        let text = try node.text()
        guard Endpoint.isLabel(text) else { throw node.error(.badLabel(text)) }
        return text
    }

    private func peerID(_ node: ConfigurationNode) throws(ConfigurationError) -> PeerID {
        let text = try node.text()
        do { return try PeerID(text) } catch { throw node.error(.badPeerID(reason: "\(error)")) }
    }

    private func operators(_ node: ConfigurationNode) throws(ConfigurationError) -> [String] {
        var groups: [String] = []
        for item in try node.items(atMost: DaemonConfiguration.maximumOperators) {
            let group = try item.text(atMost: 32, rule: "write the name of a group") {
                Self.isWord($0) || "-_.".utf8.contains($0)
            }
            if !groups.contains(group) { groups.append(group) }
        }
        return groups
    }

    private func interface(_ node: ConfigurationNode) throws(ConfigurationError) -> String {
        let text = try node.text()
        // IFNAMSIZ is 16 with the final zero. `all` and `default` are taken by /proc/sys/net.
        guard (1...15).contains(text.utf8.count), text.utf8.allSatisfy({ Self.isWord($0) || "-_.".utf8.contains($0) }),
            ![".", "..", "all", "default", "lo"].contains(text)
        else { throw node.error(.badInterface(text)) }
        return text
    }

    private func prefix(_ node: ConfigurationNode) throws(ConfigurationError) -> IPPrefix {
        let text = try node.text()
        guard let prefix = IPPrefix(text) else {
            throw node.error(.badPrefix(text, suggestion: Self.suggestion(for: text)))
        }
        return prefix
    }

    /// What was meant by an address with bits beyond the length, or without a length.
    private static func suggestion(for text: String) -> String? {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard let address = parts.first.flatMap({ IPAddress(String($0)) }) else { return nil }
        switch parts.count {
        case 1: return IPPrefix(host: address).description
        case 2: return Int(parts[1]).flatMap { IPPrefix(address, length: $0)?.description }
        default: return nil
        }
    }

    private func ipv4Prefix(_ node: ConfigurationNode) throws(ConfigurationError) -> IPPrefix {
        let prefix = try self.prefix(node)
        guard prefix.address.family == .ipv4 else { throw node.error(.badPrefix(prefix.description, suggestion: nil)) }
        guard DaemonConfiguration.ipv4PrefixLengthRange.contains(prefix.length) else {
            throw node.error(.prefixLengthOutOfRange(prefix.length, DaemonConfiguration.ipv4PrefixLengthRange))
        }
        guard !Self.isUnroutable(prefix) else { throw node.error(.unroutablePrefix(prefix.description)) }
        return prefix
    }

    private func route(_ node: ConfigurationNode) throws(ConfigurationError) -> IPPrefix {
        let route = try self.prefix(node)
        guard route.length > 0 else { throw node.error(.defaultRoute(route.description)) }
        guard !Self.isUnroutable(route) else { throw node.error(.unroutablePrefix(route.description)) }
        return route
    }

    private func ipv4(_ node: ConfigurationNode, inside prefix: IPPrefix) throws(ConfigurationError) -> IPAddress {
        let text = try node.text()
        guard let address = IPAddress(text), address.family == .ipv4 else { throw node.error(.badIPv4Address(text)) }
        guard prefix.contains(address) else {
            throw node.error(.addressOutsidePrefix(text, prefix: prefix.description))
        }
        let host = address.low - prefix.address.low
        guard host != 0, host != (1 << UInt64(32 - prefix.length)) - 1 else {
            throw node.error(.addressReserved(text, prefix: prefix.description))
        }
        return address
    }

    private static let defaultIPv4Prefix =
        IPPrefix(DaemonConfiguration.defaultIPv4Prefix) ?? IPPrefix(host: IPAddress(ipv4: 0))

    /// Prefixes whose addresses never leave a machine or a link.
    private static let unroutable: [IPPrefix] = [
        "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "::1/128", "fe80::/10", "ff00::/8",
    ].compactMap { IPPrefix($0) }

    private static func isUnroutable(_ prefix: IPPrefix) -> Bool { Self.unroutable.contains { $0.overlaps(prefix) } }

    private static func isWord(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        default: false
        }
    }

    private mutating func warn(_ node: ConfigurationNode, _ text: String) {
        self.warnings.append(ConfigurationWarning(file: node.file, line: node.line, key: node.key, text: text))
    }
}

extension IPAddress {
    /// Whether it is `0.0.0.0` or `::`.
    fileprivate var isUnspecified: Bool { self.high == 0 && self.low == 0 }
}
