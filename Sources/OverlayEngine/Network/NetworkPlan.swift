internal import Multiformats
internal import OverlayCore
internal import PeerIdentity
internal import TunnelDevice

/// What a network's configuration comes to: who has which address, who owns which prefix, what the kernel is to look like. Pure.
struct NetworkPlan: Sendable {
    /// A prefix that was added by an operator, until the daemon ends.
    struct AddedRoute: Hashable, Sendable {
        var prefix: IPPrefix
        var peer: PeerID
    }

    let id: NetworkID
    let configuration: NetworkConfiguration
    /// This machine's addresses, IPv4 first.
    let ownIPs: [IPAddress]
    let members: [Member]
    let addresses: AddressPlan
    let filter: PacketFilter
    let desired: DesiredNetwork

    /// - Parameters:
    ///   - indices: The members' numbers; grows by the members that are new.
    ///   - added: Operators' routes.
    ///   - removed: Configured prefixes that an operator took out.
    /// - Throws: ``AddressPlan/Failure``, ``RouteTable/Failure``.
    init(
        _ configuration: NetworkConfiguration, localPeer: PeerID, localName: String, indices: inout [PeerID: PeerIndex],
        added: [AddedRoute] = [], removed: Set<IPPrefix> = []
    ) throws {
        self.configuration = configuration
        self.id = NetworkID(
            staticName: configuration.name,
            secret: configuration.networkSecret.map { String(decoding: $0.bytes, as: UTF8.self) })
        let own = AddressPlan.Member(peer: localPeer, name: localName, ipv4: configuration.own?.ipv4)
        self.addresses = try AddressPlan(
            network: self.id, name: configuration.name, ipv4Prefix: configuration.ipv4Prefix,
            members: [own] + configuration.peers.map { AddressPlan.Member(peer: $0.id, name: $0.name, ipv4: $0.ipv4) })

        let assignments = Dictionary(self.addresses.assignments.map { ($0.peer, $0) }, uniquingKeysWith: { a, _ in a })
        self.ownIPs = assignments[localPeer].map { [$0.ipv4, $0.ipv6] } ?? []
        var members: [Member] = []
        for peer in configuration.peers {
            let index = indices[peer.id] ?? PeerIndex(rawValue: UInt32(truncatingIfNeeded: indices.count))
            indices[peer.id] = index
            let extra = added.filter { $0.peer == peer.id }.map(\.prefix)
            members.append(
                Member(
                    index: index, peer: peer.id, name: peer.name,
                    ips: assignments[peer.id].map { [$0.ipv4, $0.ipv6] } ?? [],
                    routes: peer.routes.filter { !removed.contains($0) } + extra, addresses: peer.addresses))
        }
        self.members = members

        var entries = self.ownIPs.map { RouteTable.Entry(IPPrefix(host: $0), peer: nil) }
        entries += (configuration.own?.routes ?? []).map { RouteTable.Entry($0, peer: nil) }
        for member in members {
            entries += member.ips.map { RouteTable.Entry(IPPrefix(host: $0), peer: member.index) }
            entries += member.routes.map { RouteTable.Entry($0, peer: member.index) }
        }
        self.filter = PacketFilter(routes: try RouteTable(entries))
        self.desired = DesiredNetwork(
            interface: configuration.interface, mtu: configuration.mtuBytes, queueLength: Self.queuePackets,
            addresses: self.ownIPs,
            routes: members.flatMap { $0.ips.map { IPPrefix(host: $0) } + $0.routes })
    }

    /// The TUN's own queue holds packets only while our thread is not scheduled; super-packets make it large in bytes.
    private static let queuePackets = 500
}
