internal import LibP2PCore
internal import LibP2PProtocols
internal import Logging
internal import Multiformats
internal import NIOCore
internal import OverlayCore
internal import PeerIdentity
internal import Synchronization
internal import TunnelDevice

/// One network at work: its TUN, its tunnels, its route table.
///
/// Everything but construction belongs to the event loop of packets.
final class OverlayNetwork: PeerTunnel.Owner, @unchecked Sendable {
    /// What a network tells the overlay.
    protocol Delegate: AnyObject {
        func network(_ network: OverlayNetwork, wantsConnectionFor tunnel: PeerTunnel)
        func network(_ network: OverlayNetwork, tunnel: PeerTunnel, lost connection: any Connection)
        func network(_ network: OverlayNetwork, tunnel: PeerTunnel, changed change: PeerTunnel.Change)
        func network(_ network: OverlayNetwork, suspectsSmallMTUOn connection: any Connection)
        func network(_ network: OverlayNetwork, datagramFlowOn connection: any Connection)
            -> EventLoopFuture<DatagramFlow>
        func networkFailed(_ network: OverlayNetwork, _ error: PacketReadError)
    }

    let eventLoop: any EventLoop
    let device: LinuxTUN
    private(set) var plan: NetworkPlan
    private(set) var tunnels: [PeerID: PeerTunnel] = [:]
    weak var delegate: (any Delegate)?

    private let pool: PacketPool
    private let instance: UInt64
    private let gate: InboundGate
    private let pump: PacketPump
    private let reader: TUNReader<LinuxTUN, PacketPump>
    private var byIndex: [PeerTunnel?] = []
    private var deliveries: [PacketPump.Delivery] = []
    private var icmpLimiter: ICMPRateLimiter

    /// Packets that were dropped before a peer was known, or for one that is gone.
    private var drops = DropCounters()

    init(
        device: LinuxTUN, plan: NetworkPlan, pool: PacketPool, instance: UInt64, eventLoop: any EventLoop
    ) throws {
        self.device = device
        self.plan = plan
        self.pool = pool
        self.instance = instance
        self.eventLoop = eventLoop
        self.gate = InboundGate(device: device, filter: plan.filter)
        self.icmpLimiter = ICMPRateLimiter(perSecond: 100, burst: 50, now: NIODeadline.now().uptimeNanoseconds)
        let relay = DrainRelay()
        self.pump = PacketPump(
            device: device, pool: pool, eventLoop: eventLoop, filter: plan.filter,
            peerCapacity: plan.members.count, ownAddresses: (plan.ownIPs.first, plan.ownIPs.last),
            drain: { relay.network?.drain() }, onFailure: { error in relay.network?.deviceFailed(error) })
        self.reader = try TUNReader(device: device, sink: self.pump)
        relay.network = self
    }

    /// Starts to carry packets. Event loop only.
    func start() throws {
        self.apply(self.plan)
        try self.reader.start()
    }

    /// Ends every tunnel and the reader's thread. Event loop only.
    func stop(_ code: CloseCode) {
        self.reader.stop()
        self.drain()
        for tunnel in self.tunnels.values { tunnel.close(code) }
        self.tunnels = [:]
        self.byIndex = []
    }

    /// Goes over to another plan of the same network: members come and go, routes move, tunnels that stay are not touched.
    ///
    /// - Returns: The members that are no more.
    @discardableResult
    func apply(_ plan: NetworkPlan) -> [PeerTunnel] {
        self.plan = plan
        self.gate.filter = plan.filter
        let capacity = (plan.members.map { Int($0.index.rawValue) }.max() ?? -1) + 1
        var gone = self.tunnels
        for member in plan.members {
            if let tunnel = gone.removeValue(forKey: member.peer) {
                tunnel.member = member
            } else {
                self.tunnels[member.peer] = PeerTunnel(
                    member: member, mtu: plan.configuration.mtuBytes, eventLoop: self.eventLoop, gate: self.gate,
                    owner: self)
            }
        }
        for (peer, tunnel) in gone {
            self.tunnels[peer] = nil
            tunnel.close(.removed)
        }
        self.byIndex = Array(repeating: nil, count: capacity)
        for tunnel in self.tunnels.values { self.byIndex[Int(tunnel.member.index.rawValue)] = tunnel }
        self.pump.update(filter: plan.filter, peerCapacity: capacity)
        return Array(gone.values)
    }

    /// Packets that never came to a peer.
    var dropCounters: DropCounters {
        var drops = self.pump.dropCounters
        drops += self.drops
        return drops
    }

    /// Counts a stranger that said hello.
    func countStranger() { self.drops.count(.stranger) }

    /// Lets go of memory that idle tunnels do not need. To be called now and then.
    func trim() {
        for tunnel in self.tunnels.values { tunnel.trim() }
        self.gate.trim()
    }

    /// Tells the senders of what waits for `tunnel` that it cannot be reached, and drops it.
    func giveUp(_ tunnel: PeerTunnel) {
        let reply = UnsafeMutableRawBufferPointer.allocate(byteCount: ICMPError.maximumByteCount, alignment: 16)
        defer { reply.deallocate() }
        let now = NIODeadline.now().uptimeNanoseconds
        tunnel.giveUp { packet in
            let bytes = UnsafeRawBufferPointer(packet.bytes)
            guard self.icmpLimiter.allows(now: now), let parsed = try? IPPacket(parsing: bytes),
                let own = self.plan.ownIPs.first(where: { $0.family == parsed.family }),
                let count = ICMPError.hostUnreachable.reply(to: parsed, in: bytes, from: own, into: reply)
            else { return }
            _ = self.device.writeFinished(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(reply)[..<count]))
        }
    }

    // MARK: PeerTunnel.Owner

    func tunnelWantsConnection(_ tunnel: PeerTunnel) {
        self.delegate?.network(self, wantsConnectionFor: tunnel)
    }

    func tunnel(_ tunnel: PeerTunnel, lost connection: any Connection) {
        self.delegate?.network(self, tunnel: tunnel, lost: connection)
    }

    func tunnel(_ tunnel: PeerTunnel, suspectsSmallMTUOn connection: any Connection) {
        self.delegate?.network(self, suspectsSmallMTUOn: connection)
    }

    func tunnel(_ tunnel: PeerTunnel, changed change: PeerTunnel.Change) {
        self.delegate?.network(self, tunnel: tunnel, changed: change)
    }

    func hello(epoch: UInt64) -> Hello {
        Hello(
            networkID: self.plan.id, instance: self.instance, epoch: epoch, capabilities: self.capabilities,
            innerMTU: self.plan.configuration.mtuBytes)
    }

    func datagramFlow(on connection: any Connection) -> EventLoopFuture<DatagramFlow> {
        self.delegate?.network(self, datagramFlowOn: connection)
            ?? connection.eventLoop.makeFailedFuture(DatagramServiceError.noDatagrams)
    }

    func release(_ packets: inout PacketList) { self.pool.give(&packets) }

    // MARK: Details

    /// What our TUN takes. Without offload it takes finished packets only.
    private var capabilities: Capabilities {
        var capabilities: Capabilities = .datagrams
        let offload = self.device.offload
        if offload.contains(.checksum) { capabilities.insert(.checksumPending) }
        if offload.contains(.tcp4) { capabilities.insert(.tso4) }
        if offload.contains(.tcp6) { capabilities.insert(.tso6) }
        if offload.contains(.udp4), offload.contains(.udp6) { capabilities.insert(.uso) }
        return capabilities
    }

    /// Gives what the reader brought to the tunnels. Event loop only.
    private func drain() {
        self.pump.takeDeliveries(into: &self.deliveries)
        guard !self.deliveries.isEmpty else { return }
        let now = NIODeadline.now().uptimeNanoseconds
        for index in self.deliveries.indices {
            let number = Int(self.deliveries[index].peer.rawValue)
            if number < self.byIndex.count, let tunnel = self.byIndex[number] {
                tunnel.send(&self.deliveries[index].packets, now: now)
            } else {
                self.drops.count(.noRoute, packets: UInt64(self.deliveries[index].packets.count))
                self.pool.give(&self.deliveries[index].packets)
            }
        }
        self.deliveries.removeAll(keepingCapacity: true)
    }

    private func deviceFailed(_ error: PacketReadError) {
        self.eventLoop.execute { self.delegate?.networkFailed(self, error) }
    }

    /// Breaks the knot between a pump, which needs to say where packets go, and the network that owns it.
    private final class DrainRelay: @unchecked Sendable {
        weak var network: OverlayNetwork?
    }
}
