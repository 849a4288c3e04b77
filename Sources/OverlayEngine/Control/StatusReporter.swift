internal import ControlAPI
internal import LibP2P
internal import NIOCore
internal import OverlayCore
internal import TunnelDevice

/// Puts together what `warren status` shows. Event loop of packets only.
struct StatusReporter {
    private let overlay: Overlay
    private let host: LibP2P.Host

    init(_ overlay: Overlay, host: LibP2P.Host) {
        self.overlay = overlay
        self.host = host
    }

    func report() -> StatusReport {
        let uptime = NIODeadline.now() - self.overlay.startedAt
        return StatusReport(
            peerID: self.host.peerID.description, uptimeSeconds: Double(uptime.nanoseconds / 1_000_000) / 1000,
            listen: self.host.addresses.map(\.description), observed: [], reachability: .unknown, relays: [],
            networks: self.overlay.networks.map(self.network) + self.overlay.held.values.map(self.heldNetwork))
    }

    /// A network that is down: it is known, and has no addresses.
    private func heldNetwork(_ plan: NetworkPlan) -> NetworkReport {
        NetworkReport(
            name: plan.configuration.name, id: plan.id.description, interface: plan.configuration.interface, ips: [],
            mtu: plan.configuration.mtuBytes, dropped: DropCounters().byName,
            peers: plan.members.map { member in
                PeerReport(
                    id: member.peer.description, name: member.name, ips: member.ips.map(\.description),
                    routes: member.routes.map(\.description), state: .idle, reason: "the network is down here",
                    paths: [],
                    sentBytes: 0, receivedBytes: 0, sentPackets: 0, receivedPackets: 0,
                    reorderedPackets: 0, dropped: DropCounters().byName)
            })
    }

    private func network(_ network: OverlayNetwork) -> NetworkReport {
        let plan = network.plan
        return NetworkReport(
            name: plan.configuration.name, id: plan.id.description, interface: network.device.name,
            ips: plan.ownIPs.map(\.description), mtu: plan.configuration.mtuBytes,
            dropped: network.dropCounters.byName,
            peers: plan.members.compactMap { member in
                network.tunnels[member.peer].map { self.peer($0, self.overlay.links[member.peer]) }
            })
    }

    private func peer(_ tunnel: PeerTunnel, _ link: PeerLink?) -> PeerReport {
        let member = tunnel.member
        let (state, reason) = self.state(tunnel, link)
        return PeerReport(
            id: member.peer.description, name: member.name, ips: member.ips.map(\.description),
            routes: member.routes.map(\.description), state: state, reason: reason,
            paths: (link?.entries ?? []).map { self.path($0, tunnel) }, sentBytes: tunnel.sentBytes,
            receivedBytes: tunnel.received.bytes, sentPackets: tunnel.sentPackets,
            receivedPackets: tunnel.received.packets, reorderedPackets: tunnel.inbound.reorderedPackets,
            dropped: tunnel.drops.byName)
    }

    private func state(_ tunnel: PeerTunnel, _ link: PeerLink?) -> (PeerReport.State, String) {
        if let route = tunnel.openRoutes.first, tunnel.isUp {
            guard let relay = route.lane.connection.details.relay else { return (.direct, "") }
            return (.relayed, "through \(relay)")
        }
        let reason = tunnel.refusal ?? link?.lastError ?? ""
        guard let link else { return (.idle, reason) }
        if link.failures > 0 { return (.unreachable, reason) }
        if link.isConnecting { return (.connecting, reason) }
        return (.idle, reason)
    }

    private func path(_ entry: PeerLink.Entry, _ tunnel: PeerTunnel) -> PathReport {
        let connection = entry.connection
        let route = tunnel.openRoutes.first { $0.lane.connection.id == connection.id }
        let rtt = route?.liveness.rtt ?? connection.roundTripTime.map { UInt64(clamping: $0.nanoseconds) }
        return PathReport(
            address: connection.remoteAddress.description, transport: connection.details.transport,
            security: Self.shortName(connection.details.security), muxer: Self.shortName(connection.details.muxer),
            congestion: connection.details.congestion, relay: connection.details.relay?.description,
            limited: connection.details.isLimited, sending: tunnel.sends(on: connection),
            receiving: tunnel.receives(on: connection),
            lanes: (route == nil ? [] : ["stream"]) + (tunnel.carriesDatagrams(on: connection) ? ["datagram"] : []),
            rttMilliseconds: rtt.map { Double($0) / 1_000_000 }, since: entry.since.rfc3339)
    }

    /// `/noise` → `noise`, `/yamux/1.0.0` → `yamux`.
    private static func shortName(_ protocolID: ProtocolID) -> String {
        protocolID.rawValue.split(separator: "/").first.map(String.init) ?? protocolID.rawValue
    }
}
