internal import ControlAPI
internal import LibP2P
internal import Logging
internal import NIOCore
internal import OverlayCore
internal import Synchronization
internal import TunnelDevice

/// All networks of this machine on one host: who belongs, which connection carries what.
///
/// Everything but construction and what is marked otherwise belongs to the event loop of packets.
final class Overlay: OverlayNetwork.Delegate, InboundLane.Delegate, InboundDatagramLane.Delegate, @unchecked Sendable {
    /// Members that are connected without being asked for.
    static let maximumEagerLinks = 32
    /// How often memory is trimmed and superfluous connections are closed.
    static let upkeepInterval = TimeAmount.seconds(10)
    /// Two such deaths within this time are no accident.
    static let suspicionInterval = TimeAmount.seconds(15)
    /// Pooled memory for packets under way, all networks together.
    static let packetMemoryBytes = 32 << 20

    let host: LibP2P.Host
    let eventLoop: any EventLoop
    let logger: Logger
    let startedAt = NIODeadline.now()
    private(set) var networks: [OverlayNetwork] = []
    private(set) var links: [PeerID: PeerLink] = [:]
    /// Networks that are down by choice.
    private(set) var held: [String: NetworkPlan] = [:]

    private let membership: Membership
    private let pool = PacketPool(limitBytes: Overlay.packetMemoryBytes)
    /// Tells this run of the daemon from the one before.
    private let instance = UInt64.random(in: 1 ... .max)
    private var lanes: [ObjectIdentifier: InboundLane] = [:]
    private var lastLane: UInt64 = 0
    private let keyLifetime: KeyLifetime
    private var upkeep: RepeatedTask?
    /// When a path to a peer last died after large segments.
    private var lastSuspicions: [PeerID: NIODeadline] = [:]
    private let onDeviceFailure: @Sendable (String, PacketReadError) -> Void

    init(
        host: LibP2P.Host, membership: Membership, eventLoop: any EventLoop, keyLifetime: KeyLifetime = .standard,
        logger: Logger, onDeviceFailure: @escaping @Sendable (String, PacketReadError) -> Void
    ) {
        self.host = host
        self.membership = membership
        self.eventLoop = eventLoop
        self.keyLifetime = keyLifetime
        self.logger = logger
        self.onDeviceFailure = onDeviceFailure
    }

    /// Opens for packets.
    func start() {
        self.host.accept(PacketProtocol.id, from: { [membership] in membership.contains($0) }) { [weak self] stream in
            guard let self, let connection = stream.connection else { return stream.reset(.shutdown) }
            self.lastLane += 1
            let lane = InboundLane(stream, number: self.lastLane, of: connection, delegate: self)
            self.lanes[ObjectIdentifier(lane)] = lane
            lane.start()
        }
        self.host.datagrams.accept(PacketProtocol.id, from: { [membership] in membership.contains($0) }) {
            [weak self] flow in
            guard let self else { return flow.close(.shutdown) }
            InboundDatagramLane(flow, delegate: self).start()
        }
        self.host.swarm.observe { [weak self] event in self?.handle(event) }
        let interval = min(Self.upkeepInterval, .nanoseconds(Int64(clamping: self.keyLifetime.nanoseconds / 4)))
        self.upkeep = self.eventLoop.scheduleRepeatedTask(initialDelay: interval, delay: interval) { [weak self] _ in
            self?.keepUp()
        }
    }

    /// Ends all tunnels and links.
    func stop() {
        self.upkeep?.cancel()
        self.host.swarm.registry.remove(PacketProtocol.id)
        self.host.datagrams.remove(PacketProtocol.id)
        for network in self.networks { network.stop(.shuttingDown) }
        for link in self.links.values { link.stop(.shutdown) }
        self.links = [:]
        self.lanes = [:]
    }

    // MARK: Networks

    /// Takes a network with an open device into service.
    func add(device: LinuxTUN, plan: NetworkPlan) throws {
        let network = try OverlayNetwork(
            device: device, plan: plan, pool: self.pool, instance: self.instance, eventLoop: self.eventLoop)
        network.delegate = self
        try network.start()
        self.networks.append(network)
        self.held[plan.configuration.name] = nil
        self.relink()
    }

    /// Takes a network out of service. Its members stay connected.
    func takeDown(_ name: String) {
        guard let index = self.networks.firstIndex(where: { $0.plan.configuration.name == name }) else { return }
        let network = self.networks.remove(at: index)
        network.stop(.networkDown)
        self.held[name] = network.plan
        self.relink()
    }

    /// Knows a network that is down by choice.
    func hold(_ plan: NetworkPlan) {
        self.held[plan.configuration.name] = plan
        self.relink()
    }

    /// Goes over to another plan of a network. Tunnels that stay are not touched.
    func apply(_ plan: NetworkPlan) {
        guard let network = self.network(plan.configuration.name) else { return }
        network.apply(plan)
        self.relink()
    }

    func network(_ name: String) -> OverlayNetwork? {
        self.networks.first { $0.plan.configuration.name == name }
    }

    /// Makes links and tunnels fit each other.
    private func relink() {
        var order: [PeerID] = []
        var tunnels: [PeerID: [(network: OverlayNetwork, tunnel: PeerTunnel)]] = [:]
        for network in self.networks {
            for member in network.plan.members {
                guard let tunnel = network.tunnels[member.peer] else { continue }
                if tunnels[member.peer] == nil { order.append(member.peer) }
                tunnels[member.peer, default: []].append((network, tunnel))
            }
        }
        let heldPeers = Set(self.held.values.flatMap { $0.members.map(\.peer) })
        self.membership.set(Set(order).union(heldPeers))
        for (peer, link) in self.links where tunnels[peer] == nil {
            guard !heldPeers.contains(peer) else {
                link.tunnels = []
                continue
            }
            self.links[peer] = nil
            self.lastSuspicions[peer] = nil
            link.stop(.gated)
        }
        // Members of a network that is down may come in, and stay until it is up.
        for peer in heldPeers where self.links[peer] == nil && tunnels[peer] == nil {
            self.links[peer] = PeerLink(
                peer: peer, host: self.host, eventLoop: self.eventLoop, isEager: false, logger: self.logger)
        }
        for (rank, peer) in order.enumerated() {
            let isEager = rank < Self.maximumEagerLinks
            if let link = self.links[peer] {
                let known = Set(link.tunnels.map { ObjectIdentifier($0.tunnel) })
                link.tunnels = tunnels[peer] ?? []
                let mustDial = isEager && !link.isEager && link.entries.isEmpty
                link.isEager = isEager
                for entry in link.tunnels where !known.contains(ObjectIdentifier(entry.tunnel)) {
                    for connection in link.entries { entry.tunnel.connected(connection.connection) }
                }
                if mustDial { link.start() }
            } else {
                let link = PeerLink(
                    peer: peer, host: self.host, eventLoop: self.eventLoop, isEager: isEager, logger: self.logger)
                link.tunnels = tunnels[peer] ?? []
                self.links[peer] = link
                link.start()
            }
        }
    }

    // MARK: Events

    /// The machine's links, addresses or routes changed.
    func networkChanged() {
        self.host.swarm.networkChanged()
        for link in self.links.values { link.networkChanged() }
    }

    /// From the swarm's loop.
    private func handle(_ event: SwarmEvent) {
        switch event {
        case .connected(let connection):
            self.run { self.links[connection.remotePeer]?.connected(connection) }
        case .disconnected(let connection, let reason, _):
            connection.closeFuture.hop(to: self.eventLoop).whenComplete { result in
                self.lost(connection, result, reason)
            }
        case .refused(let peer, let address, let refusal):
            self.logger.info(
                "connection refused",
                metadata: ["peer": "\(peer)", "address": "\(address)", "reason": "\(refusal)"])
        case .dialFailed, .listening:
            break
        }
    }

    private func lost(_ connection: any Connection, _ result: Result<Void, any Error>, _ reason: String?) {
        guard let link = self.links[connection.remotePeer] else { return }
        // A machine that does not list us closes us right after the handshake.
        if case .failure(let error) = result, ConnectionClosedError.meansStranger(error) {
            for entry in link.tunnels { entry.tunnel.isNotListed() }
            return link.lost(connection, link.tunnels.first?.tunnel.refusal)
        }
        link.lost(connection, reason)
    }

    private func keepUp() {
        self.pool.trim()
        for network in self.networks { network.trim() }
        for link in self.links.values {
            link.retireOldConnections(self.keyLifetime)
            link.closeSurplus()
            link.seekBetterPath()
        }
    }

    private func run(_ body: @escaping @Sendable () -> Void) {
        if self.eventLoop.inEventLoop { body() } else { self.eventLoop.execute(body) }
    }

    // MARK: OverlayNetwork.Delegate

    func network(_ network: OverlayNetwork, wantsConnectionFor tunnel: PeerTunnel) {
        self.links[tunnel.member.peer]?.trafficWaits()
    }

    func network(_ network: OverlayNetwork, tunnel: PeerTunnel, lost connection: any Connection) {
        guard let link = self.links[tunnel.member.peer] else { return }
        // Another network may still use the connection.
        let isUsed = link.tunnels.contains { entry in
            entry.tunnel !== tunnel && entry.tunnel.openRoutes.contains { $0.lane.connection.id == connection.id }
        }
        guard !isUsed else { return }
        link.lost(connection, tunnel.refusal)
        connection.close(.none)
    }

    func network(_ network: OverlayNetwork, tunnel: PeerTunnel, changed change: PeerTunnel.Change) {
        let peer = tunnel.member.peer
        self.logger.info(
            "\(change.rawValue)",
            metadata: [
                "network": "\(network.plan.configuration.name)", "peer": "\(peer)", "name": "\(tunnel.member.name)",
            ])
        if tunnel.isUp { self.links[peer]?.opened() }
    }

    /// A path that comes back at once and dies of the next large segment has a black hole, one that was merely cut has not.
    func network(_ network: OverlayNetwork, suspectsSmallMTUOn connection: any Connection) {
        let now = NIODeadline.now()
        defer { self.lastSuspicions[connection.remotePeer] = now }
        guard let last = self.lastSuspicions[connection.remotePeer], now - last < Self.suspicionInterval else { return }
        self.logger.notice(
            "path dies of large segments: smaller ones from now on",
            metadata: ["address": "\(connection.remoteAddress)"])
        self.host.suspectSmallMTU(at: connection.remoteAddress)
    }

    func network(_ network: OverlayNetwork, datagramFlowOn connection: any Connection)
        -> EventLoopFuture<DatagramFlow>
    {
        self.host.datagrams.open(PacketProtocol.id, on: connection)
    }

    func networkFailed(_ network: OverlayNetwork, _ error: PacketReadError) {
        self.onDeviceFailure(network.plan.configuration.name, error)
    }

    // MARK: InboundLane.Delegate

    func lane(_ lane: InboundLane, saidHello hello: Hello) -> HelloVerdict {
        let verdict = self.judge(hello, from: lane.connection.remotePeer)
        if case .accept(let tunnel) = verdict, !tunnel.makeRoom(for: hello) { return .refuse(.tooManyStreams) }
        return verdict
    }

    func datagramLane(_ lane: InboundDatagramLane, saidHello hello: Hello) -> HelloVerdict {
        self.judge(hello, from: lane.connection.remotePeer)
    }

    private func judge(_ hello: Hello, from peer: PeerID) -> HelloVerdict {
        guard let network = self.networks.first(where: { $0.plan.id == hello.networkID }),
            let tunnel = network.tunnels[peer]
        else {
            if self.held.values.contains(where: { $0.id == hello.networkID && $0.members.contains { $0.peer == peer } })
            {
                return .refuse(.networkDown)
            }
            for network in self.networks where network.plan.id == hello.networkID { network.countStranger() }
            return .refuse(.unknownNetworkOrMember)
        }
        return .accept(tunnel)
    }

    func laneClosed(_ lane: InboundLane) {
        self.lanes[ObjectIdentifier(lane)] = nil
    }
}

/// Who belongs to any of our networks. Asked from every connection's loop.
final class Membership: Sendable {
    private let members = Mutex<Set<PeerID>>([])

    func contains(_ peer: PeerID) -> Bool { self.members.withLock { $0.contains(peer) } }

    func set(_ members: Set<PeerID>) { self.members.withLock { $0 = members } }
}
