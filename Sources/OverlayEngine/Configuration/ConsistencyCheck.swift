import Multiformats
import PeerIdentity

/// What must not clash within a network or across networks, each with its place in the file.
struct ConsistencyCheck {
    /// The peers of one network.
    struct Peers {
        private var lines: [String: Int] = [:]
        private var owners: [PeerID: (name: String, line: Int)] = [:]

        mutating func add(
            name: String, at nameNode: ConfigurationNode, id: PeerID, at idNode: ConfigurationNode
        ) throws(ConfigurationError) {
            if let line = self.lines.updateValue(nameNode.line, forKey: name) {
                throw nameNode.error(.duplicateName(name, line: line))
            }
            if let owner = self.owners.updateValue((name, idNode.line), forKey: id) {
                throw idNode.error(.duplicatePeerID(name: owner.name, line: owner.line))
            }
        }
    }

    private struct Route {
        let prefix: IPPrefix
        let owner: String
        let id: PeerID
        let network: String
        let order: Int
        let node: ConfigurationNode
    }

    private var interfaces: [String: (network: String, line: Int)] = [:]
    private var overlays: [(prefix: IPPrefix, network: String)] = []
    private var hosts: [IPAddress: (owner: String, line: Int)] = [:]
    private var routes: [Route] = []

    mutating func add(interface: String, of network: String, at node: ConfigurationNode) throws(ConfigurationError) {
        if let other = self.interfaces.updateValue((network, node.line), forKey: interface) {
            throw node.error(.duplicateInterface(interface, network: other.network, line: other.line))
        }
    }

    mutating func add(overlay prefix: IPPrefix, of network: String) { self.overlays.append((prefix, network)) }

    /// Networks may share a prefix, but the kernel routes an address to one interface only.
    mutating func add(ipv4 address: IPAddress, of owner: String, at node: ConfigurationNode) throws(ConfigurationError)
    {
        if let other = self.hosts.updateValue((owner, node.line), forKey: address) {
            throw node.error(.duplicateIPv4(address.description, owner: other.owner, line: other.line))
        }
    }

    mutating func add(route: IPPrefix, of owner: String, id: PeerID, in network: String, at node: ConfigurationNode) {
        self.routes.append(
            Route(prefix: route, owner: owner, id: id, network: network, order: self.routes.count, node: node))
    }

    /// Compares the routes with each other and with the overlay addresses of all networks.
    func finish() throws(ConfigurationError) {
        for route in self.routes {
            for overlay in self.overlays where overlay.prefix.overlaps(route.prefix) {
                throw route.node.error(
                    .routeOverlapsOverlay(
                        route.prefix.description, prefix: overlay.prefix.description, network: overlay.network))
            }
        }
        // The first mistake in the file, whatever the order of the addresses.
        if let first = self.clashes().min(by: { $0.order < $1.order }) { throw first.error }
    }

    /// Two prefixes are disjoint or one holds the other. So in order of address and length, a prefix follows all that
    /// hold it, and these form a chain no longer than an address has bits.
    private func clashes() -> [(order: Int, error: ConfigurationError)] {
        let sorted = self.routes.sorted { a, b in
            (a.prefix.address, a.prefix.length, a.order) < (b.prefix.address, b.prefix.length, b.order)
        }
        var clashes: [(order: Int, error: ConfigurationError)] = []
        var holders: [Route] = []
        for route in sorted {
            while let last = holders.last, !last.prefix.contains(route.prefix) { holders.removeLast() }
            for holder in holders {
                let isSameOwner = holder.id == route.id && holder.network == route.network
                if isSameOwner && holder.prefix != route.prefix { continue }
                let (first, second) = holder.order < route.order ? (holder, route) : (route, holder)
                let fault: ConfigurationFault =
                    isSameOwner
                    ? .routeTwice(second.prefix.description, line: first.node.line)
                    : .routeOverlaps(
                        second.prefix.description, other: first.prefix.description, owner: first.owner,
                        line: first.node.line)
                clashes.append((second.order, second.node.error(fault)))
            }
            if holders.last?.prefix != route.prefix { holders.append(route) }
        }
        return clashes
    }
}
