internal import LibP2PCore
internal import LibP2PProtocols
internal import Multiformats
internal import NIOCore
internal import OverlayCore
internal import PeerIdentity

/// The packets of one network to and from one peer: a flow-fair queue, the lanes that carry it, and the choice among them.
///
/// Owned by the event loop of packets, on which all connections live.
final class PeerTunnel: StreamLane.Delegate, DatagramLane.Delegate, @unchecked Sendable {
    /// What a tunnel asks its network.
    protocol Owner: AnyObject {
        /// Packets wait, and no lane carries them.
        func tunnelWantsConnection(_ tunnel: PeerTunnel)
        /// The connection carries nothing any more.
        func tunnel(_ tunnel: PeerTunnel, lost connection: any Connection)
        /// The connection died after large segments were sent: perhaps the path swallows them.
        func tunnel(_ tunnel: PeerTunnel, suspectsSmallMTUOn connection: any Connection)
        /// The tunnel carries packets, or does so no more, or on another path.
        func tunnel(_ tunnel: PeerTunnel, changed change: Change)
        /// Lanes and packets are greeted with this.
        func hello(epoch: UInt64) -> Hello
        /// Opens a flow of datagrams on a connection that has them.
        func datagramFlow(on connection: any Connection) -> EventLoopFuture<DatagramFlow>
        /// Packets that the tunnel is done with.
        func release(_ packets: inout PacketList)
    }

    /// What has become of a tunnel.
    enum Change: String {
        case up = "tunnel up"
        case down = "tunnel down"
        case moved = "tunnel on another path"
    }

    /// A connection and its lane.
    struct Route {
        let lane: StreamLane
        var datagrams: DatagramLane?
        var liveness: Liveness
        /// Packets may be sent on the lane: the peer has agreed, and we have not left it.
        var isOpen = false
        var receivedAt: UInt64 = 0
        /// Bytes of packets sent since something was heard.
        var unansweredBytes = 0
    }

    /// A probe that somebody asked for.
    private struct Ping {
        let promise: EventLoopPromise<PingAnswer>
        let timer: Scheduled<Void>
        let sentAt: UInt64
    }

    /// What came of a ping.
    struct PingAnswer: Sendable {
        var nanoseconds: UInt64
        var connection: any Connection
    }

    /// What a path carries that carries anything: a path that died after more may have swallowed a large segment.
    static let smallBytes = 1_220
    /// How much later than expected a datagram may arrive when a flow moves to another path, in nanoseconds.
    static let jitter: UInt64 = 2_000_000

    var member: Member
    let eventLoop: any EventLoop
    private(set) var refusal: String?
    let received = InboundGate.Counters()
    /// The streams on which the peer sends to us.
    let inbound: InboundLanes

    private unowned let owner: any Owner
    private let gate: InboundGate
    private let mtu: Int
    private var queue: FlowQueue
    private let datagrams: DatagramQueue
    private var sentOnStreams: (packets: UInt64, bytes: UInt64) = (0, 0)
    private var routes: [ConnectionID: Route] = [:]
    private var inboundDatagrams: [InboundDatagramLane] = []
    private var sending: ConnectionID?
    /// Connections that are to be replaced.
    private var retiring: Set<ConnectionID> = []
    private var lastEpoch: UInt64 = 0
    private var remoteInstance: UInt64?
    private var pings: [UInt64: Ping] = [:]
    private var timer: Scheduled<Void>?
    private var timerDeadline: UInt64 = .max
    private var isUsed = false

    init(member: Member, mtu: Int, eventLoop: any EventLoop, gate: InboundGate, owner: any Owner) {
        self.member = member
        self.eventLoop = eventLoop
        self.gate = gate
        self.owner = owner
        self.mtu = mtu
        self.inbound = InboundLanes(eventLoop: eventLoop)
        self.datagrams = DatagramQueue(mtu: mtu)
        self.queue = FlowQueue(mtuBytes: mtu)
        self.queue.isWaiting = true
    }

    /// Gives all memory back and closes all lanes.
    func close(_ code: CloseCode) {
        self.timer?.cancel()
        let routes = self.routes.values
        self.routes = [:]
        for route in routes {
            route.lane.close(code)
            route.datagrams?.close()
        }
        self.inbound.close(code)
        let inboundDatagrams = self.inboundDatagrams
        self.inboundDatagrams = []
        for lane in inboundDatagrams { lane.close() }
        for ping in self.pings.values { self.fail(ping) }
        self.pings = [:]
        self.datagrams.use(nil, after: 0, now: 0)
        var packets = self.queue.removeAll()
        var others = self.datagrams.removeAll()
        packets.append(contentsOf: &others)
        self.owner.release(&packets)
        self.sending = nil
    }

    // MARK: State

    /// Whether packets flow now.
    var isUp: Bool { self.sending != nil }

    /// The lanes that are open, the one in use first.
    var openRoutes: [Route] {
        self.routes.values.filter(\.isOpen).sorted { a, b in
            (a.lane.connection.id == self.sending ? 0 : 1, a.lane.connection.id)
                < (b.lane.connection.id == self.sending ? 0 : 1, b.lane.connection.id)
        }
    }

    /// Whether we send on this connection.
    func sends(on connection: any Connection) -> Bool {
        connection.id == self.sending || connection.id == self.datagrams.lane?.connection.id
    }

    /// Whether the peer sends on this connection.
    func receives(on connection: any Connection) -> Bool { self.inbound.contains(connection) }

    /// Packets given to a path, super-packets as one.
    var sentPackets: UInt64 { self.sentOnStreams.packets &+ self.datagrams.sentPackets }

    /// Their bytes.
    var sentBytes: UInt64 { self.sentOnStreams.bytes &+ self.datagrams.sentBytes }

    /// What the queue dropped or marked, besides what came in and was refused.
    var drops: DropCounters {
        var drops = self.received.drops
        for counts in [self.queue.counts, self.datagrams.counts] {
            drops.count(.queueFull, packets: counts.queueFull)
            drops.count(.congestion, packets: counts.congestion)
            drops.count(.expired, packets: counts.expired)
        }
        drops.count(.tooBig, packets: self.datagrams.oversizedPackets)
        drops += self.outboundDrops
        return drops
    }

    private var outboundDrops = DropCounters()

    /// Whether packets wait for a connection.
    var hasWaitingPackets: Bool { !self.queue.isEmpty }

    // MARK: Packets out

    /// Takes packets from the TUN and sends what can be sent.
    func send(_ packets: inout PacketList, now: UInt64) {
        self.isUsed = true
        let rtt = self.sending.flatMap { self.routes[$0]?.liveness.rtt } ?? 0
        while let packet = packets.popFirst() {
            switch self.datagrams.kind(of: packet, rtt: rtt, now: now) {
            case .stream: self.queue.enqueue(packet, now: now)
            case .datagram: self.datagrams.enqueue(packet, now: now)
            }
        }
        self.pump(now: now)
        if self.sending == nil { self.owner.tunnelWantsConnection(self) }
    }

    /// Moves packets from the queues to the lanes as long as those take them, datagrams first.
    private func pump(now: UInt64) {
        if !self.datagrams.isEmpty { self.pumpDatagrams(now: now) }
        guard let sending = self.sending, let route = self.routes[sending] else { return self.releaseDropped() }
        let lane = route.lane
        var done = PacketList()
        var hasSent = false
        while !self.queue.isEmpty, lane.isWritable {
            var bytes = 0
            while bytes < BurstBuffers.bytes, let packet = self.queue.dequeue(now: now, react: Self.signalCongestion) {
                let length = packet.length
                if lane.append(packet) {
                    self.sentOnStreams.packets &+= 1
                    self.sentOnStreams.bytes &+= UInt64(length)
                } else {
                    self.outboundDrops.count(.tooBig)
                }
                bytes += length
                done.append(packet)
            }
            lane.flush(now: now)
            self.routes[sending]?.unansweredBytes += bytes
            hasSent = true
        }
        if hasSent {
            self.routes[sending]?.liveness.sent(now: now)
            self.armTimer(now: now)
        }
        done.append(contentsOf: &self.droppedByQueue)
        self.owner.release(&done)
    }

    private func pumpDatagrams(now: UInt64) {
        var done = PacketList()
        if let lane = self.datagrams.lane {
            let bytes = self.datagrams.pump(now: now, done: &done)
            if bytes > 0 {
                self.routes[lane.connection.id]?.unansweredBytes += bytes
                self.routes[lane.connection.id]?.liveness.sent(now: now)
                self.armTimer(now: now)
            }
            if let deadline = self.datagrams.nextDeadline(now: now) {
                self.eventLoop.scheduleTask(deadline: .uptimeNanoseconds(deadline)) { [weak self] in
                    self?.pump(now: NIODeadline.now().uptimeNanoseconds)
                }
            }
        } else {
            var waiting = self.datagrams.removeAll()
            while let packet = waiting.popFirst() { self.queue.enqueue(packet, now: now) }
        }
        self.owner.release(&done)
    }

    /// Marks a packet that can be marked.
    static func signalCongestion(_ packet: PacketRef) -> FlowQueue.Reaction {
        guard packet.flags.contains(.ecnCapable) else { return .drop }
        return ECN.markCongestionExperienced(packet.bytes) ? .marked : .drop
    }

    private var droppedByQueue: PacketList {
        get { self.queue.takeDropped() }
        set { _ = newValue }
    }

    private func releaseDropped() {
        var dropped = self.queue.takeDropped()
        self.owner.release(&dropped)
    }

    /// The peer cannot be reached: what waits for it is given to `body`, packet by packet, and dropped.
    func giveUp(_ body: (PacketRef) -> Void) {
        var packets = self.queue.removeAll()
        packets.forEach { packet in
            self.outboundDrops.count(.unreachable)
            body(packet)
        }
        self.owner.release(&packets)
    }

    // MARK: Packets in

    /// A packet that the peer sent. Borrows `bytes`.
    @inline(__always)
    func received(_ bytes: UnsafeRawBufferPointer, _ metadata: OffloadMetadata) {
        // The bytes are a plaintext buffer of the connection's own, which nobody reads again.
        self.gate.admit(
            UnsafeMutableRawBufferPointer(mutating: bytes), metadata, from: self.member.index, counting: self.received)
    }

    /// A packet that the peer sent in a datagram. Borrows `bytes`.
    @inline(__always)
    func receivedDatagram(_ bytes: UnsafeRawBufferPointer) {
        self.gate.admitDatagram(bytes, from: self.member.index, counting: self.received)
    }

    /// No more datagrams come in this turn of the loop.
    func datagramsComplete() { self.gate.endDatagrams() }

    /// The peer's stream broke the protocol.
    func countMalformedStream() { self.received.drops.count(.malformed) }

    /// Something came from the peer on `connection`.
    func heard(on connection: any Connection) {
        self.isUsed = true
        self.routes[connection.id]?.liveness.heard()
        self.routes[connection.id]?.unansweredBytes = 0
        self.routes[connection.id]?.receivedAt = NIODeadline.now().uptimeNanoseconds
    }

    // MARK: Connections

    /// A connection to the peer is there: open a lane on it.
    func connected(_ connection: any Connection) {
        guard self.routes[connection.id] == nil else { return }
        connection.openStream([PacketProtocol.id]).whenComplete { result in
            switch result {
            case .success(let stream): self.openLane(stream, on: connection)
            // The connection is ending. Why is said when it has ended.
            case .failure: break
            }
        }
    }

    private func openLane(_ stream: any Stream, on connection: any Connection) {
        self.lastEpoch += 1
        let lane = StreamLane(
            stream, of: connection, hello: self.owner.hello(epoch: self.lastEpoch), delegate: self)
        self.routes[connection.id] = Route(
            lane: lane, liveness: Liveness(firstProbe: UInt64.random(in: 0...UInt64.max / 2)))
        lane.start()
    }

    /// The peer closed a connection, or refused a lane, because it does not know us.
    func isNotListed() { self.refusal = "\(self.member.name) does not list this machine" }

    /// What was said of the peer's answers holds no more.
    func forgetRefusal() { self.refusal = nil }

    /// The connection is to be replaced: packets leave it as soon as there is another.
    func retire(_ connection: any Connection) {
        guard self.retiring.insert(connection.id).inserted else { return }
        self.chooseLane(now: NIODeadline.now().uptimeNanoseconds)
    }

    /// A connection to the peer is gone.
    func disconnected(_ id: ConnectionID) {
        self.retiring.remove(id)
        guard let route = self.routes.removeValue(forKey: id) else { return }
        route.datagrams?.close()
        self.chooseLane(now: NIODeadline.now().uptimeNanoseconds)
    }

    /// What we answer to a peer's hello.
    func answer(to hello: Hello) -> Hello { self.owner.hello(epoch: hello.epoch) }

    /// The peer has opened a lane. A new instance of the peer voids what the old one left.
    func inboundOpened(_ lane: InboundLane) {
        guard let agreement = lane.agreement else { return }
        if let known = self.remoteInstance, known != agreement.remoteInstance {
            for old in self.inbound.lanes where old.agreement?.remoteInstance != agreement.remoteInstance {
                old.close(.superseded)
            }
            for route in self.routes.values
            where route.lane.connection.id != lane.connection.id
                && route.lane.agreement.map({ $0.remoteInstance != agreement.remoteInstance }) ?? false
            {
                self.abandon(route)
            }
        }
        self.remoteInstance = agreement.remoteInstance
        self.inbound.opened(lane, epoch: agreement.epoch)
        self.heard(on: lane.connection)
        self.connected(lane.connection)
    }

    func inboundClosed(_ lane: InboundLane) { self.inbound.closed(lane) }

    /// The peer has opened datagrams on a connection; they take the place of those that it had there.
    func inboundDatagramsOpened(_ lane: InboundDatagramLane) {
        let old = self.inboundDatagrams.filter { $0.connection.id == lane.connection.id }
        self.inboundDatagrams.removeAll { $0.connection.id == lane.connection.id }
        self.inboundDatagrams.append(lane)
        for lane in old { lane.close() }
    }

    func inboundDatagramsClosed(_ lane: InboundDatagramLane) { self.inboundDatagrams.removeAll { $0 === lane } }

    /// Whether one more inbound lane may be opened. When there are too many, the oldest makes room: the peer has left it, which it cannot
    /// say on a path that is dead, and where only the peer sends nobody here notices.
    func makeRoom(for hello: Hello) -> Bool {
        guard self.inbound.lanes.count >= InboundLanes.maximumCount else { return true }
        guard let oldest = self.inbound.oldestSpare, let agreement = oldest.agreement,
            agreement.remoteInstance != hello.instance || agreement.epoch < hello.epoch
        else { return false }
        let connection = oldest.connection
        oldest.close(.superseded)
        guard !self.inbound.lanes.contains(where: { $0.connection.id == connection.id }) else { return true }
        self.disconnected(connection.id)
        self.owner.tunnel(self, lost: connection)
        return true
    }

    // MARK: StreamLane.Delegate

    func laneOpened(_ lane: StreamLane) {
        guard let agreement = lane.agreement else { return }
        self.refusal = nil
        self.routes[lane.connection.id]?.isOpen = true
        self.routes[lane.connection.id]?.liveness.heard()
        self.remoteInstance = self.remoteInstance ?? agreement.remoteInstance
        let now = NIODeadline.now().uptimeNanoseconds
        if let rtt = lane.connection.roundTripTime {
            self.routes[lane.connection.id]?.liveness.measured(rtt: UInt64(clamping: rtt.nanoseconds))
        }
        self.chooseLane(now: now)
        self.pump(now: now)
        if agreement.capabilities.contains(.datagrams) { self.openDatagrams(beside: lane) }
    }

    func laneWritable(_ lane: StreamLane) {
        guard lane.connection.id == self.sending else { return }
        self.pump(now: NIODeadline.now().uptimeNanoseconds)
    }

    func lane(_ lane: StreamLane, heard echo: UInt64?) {
        self.routes[lane.connection.id]?.unansweredBytes = 0
        guard let echo else {
            self.routes[lane.connection.id]?.liveness.heard()
            return
        }
        let now = NIODeadline.now().uptimeNanoseconds
        _ = self.routes[lane.connection.id]?.liveness.echoed(echo, now: now)
        guard let ping = self.pings.removeValue(forKey: echo) else { return }
        ping.timer.cancel()
        self.routes[lane.connection.id]?.liveness.measured(rtt: now &- ping.sentAt)
        ping.promise.succeed(PingAnswer(nanoseconds: now &- ping.sentAt, connection: lane.connection))
    }

    func laneClosed(_ lane: StreamLane, _ reason: LaneClosure) {
        let connection = lane.connection
        guard self.routes[connection.id]?.lane === lane else { return }
        self.disconnected(connection.id)
        switch reason {
        case .refused(.networkDown), .closedByPeer(.networkDown):
            // The connection is fine. When the network comes up there, the peer opens a lane, and so do we.
            self.refusal = "the network is down at \(self.member.name)"
        case .refused(.unknownNetworkOrMember):
            self.isNotListed()
            self.owner.tunnel(self, lost: connection)
        default:
            self.refusal = reason.description
            self.owner.tunnel(self, lost: connection)
        }
    }

    func laneDrained(_ lane: StreamLane) {
        let connection = lane.connection
        guard self.routes[connection.id]?.lane === lane else { return }
        self.routes[connection.id] = nil
        // The path stays, as a spare one.
        if !self.retiring.contains(connection.id) { self.connected(connection) }
    }

    // MARK: DatagramLane.Delegate

    private func openDatagrams(beside stream: StreamLane) {
        guard let connection = stream.connection as? any DatagramConnection, connection.maximumDatagramSize > 0 else {
            return
        }
        self.owner.datagramFlow(on: connection).whenSuccess { flow in
            guard self.routes[connection.id]?.lane === stream, self.routes[connection.id]?.datagrams == nil else {
                return flow.close(.unspecified)
            }
            let lane = DatagramLane(flow, hello: self.owner.hello(epoch: stream.epoch), delegate: self)
            self.routes[connection.id]?.datagrams = lane
            lane.start()
        }
    }

    func datagramLaneChanged(_ lane: DatagramLane) { self.chooseLane(now: NIODeadline.now().uptimeNanoseconds) }

    func datagramLaneWritable(_ lane: DatagramLane) {
        guard lane === self.datagrams.lane else { return }
        self.pump(now: NIODeadline.now().uptimeNanoseconds)
    }

    func datagramLaneClosed(_ lane: DatagramLane) {
        guard self.routes[lane.connection.id]?.datagrams === lane else { return }
        self.routes[lane.connection.id]?.datagrams = nil
        self.chooseLane(now: NIODeadline.now().uptimeNanoseconds)
    }

    /// Whether packets of this tunnel fit into datagrams of a connection.
    func carriesDatagrams(on connection: any Connection) -> Bool {
        self.routes[connection.id]?.datagrams?.carries(self.mtu) ?? false
    }

    // MARK: Choice

    private func chooseLane(now: UInt64) {
        let paths = self.routes.values.filter(\.isOpen).map { route in
            var path = Path(id: route.lane.connection.id.rawValue, establishedAt: route.lane.connection.id.rawValue)
            path.isRelayed = route.lane.connection.details.relay != nil
            path.isLimited = route.lane.connection.details.isLimited
            path.isAlive = !route.liveness.isDead
            path.isRetiring = self.retiring.contains(route.lane.connection.id)
            path.carrier = Path.Carrier(transport: route.lane.connection.details.transport)
            path.isPaced = route.lane.connection.details.congestion.map { $0.hasPrefix("bbr") } ?? true
            path.rtt = route.liveness.rtt
            path.carriesDatagrams = route.datagrams?.carries(self.mtu) ?? false
            return path
        }
        let chosen = PathSelector.choose(from: paths, current: self.sending?.rawValue)
        let before = self.sending
        let after = chosen.map { ConnectionID(rawValue: $0.id) }
        self.chooseDatagramLane(from: paths, beside: chosen, now: now)
        guard before != after else { return }
        if let before, let after, self.leave(before, for: after) == .later { return }
        self.sending = after
        self.queue.isWaiting = after == nil
        self.owner.tunnel(self, changed: before == nil ? .up : after == nil ? .down : .moved)
        if self.sending == nil {
            if !self.queue.isEmpty { self.owner.tunnelWantsConnection(self) }
        } else {
            self.pump(now: now)
        }
    }

    private func chooseDatagramLane(from paths: [Path], beside stream: Path?, now: UInt64) {
        let current = self.datagrams.lane
        let currentID = current.map { $0.connection.id.rawValue }
        let chosen = PathSelector.chooseForDatagrams(from: paths, beside: stream, current: currentID)
        let next = chosen.flatMap { self.routes[ConnectionID(rawValue: $0.id)]?.datagrams }
        guard next !== current else { return }
        // A faster path waits until what is under way on the slower one has arrived.
        let slower = paths.first { $0.id == currentID && $0.isAlive }?.rtt ?? 0
        let faster = chosen?.rtt ?? 0
        self.datagrams.use(next, after: slower > faster ? slower - faster + Self.jitter : Self.jitter, now: now)
        if !self.datagrams.isEmpty { self.pump(now: now) }
    }

    private enum Leaving {
        case done
        /// The lane to go to has to be opened anew: the choice is made again when it is.
        case later
    }

    /// Ends the lane in use with a MOVE to another, so that nothing is lost and the peer can keep the order. A lane that is gone or dead is simply
    /// left.
    private func leave(_ current: ConnectionID, for next: ConnectionID) -> Leaving {
        guard let old = self.routes[current], old.isOpen, !old.liveness.isDead, let new = self.routes[next] else {
            return .done
        }
        guard new.lane.epoch > old.lane.epoch else {
            // Epochs only rise.
            self.routes[next] = nil
            new.lane.close(.superseded)
            self.connected(new.lane.connection)
            return .later
        }
        self.routes[current]?.isOpen = false
        self.routes[current]?.liveness.heard()
        old.lane.leave(for: new.lane.epoch)
        return .done
    }

    /// Leaves a path that is dead, at once.
    private func abandon(_ route: Route) {
        let connection = route.lane.connection
        self.disconnected(connection.id)
        route.lane.reset()
        connection.close(.none)
        self.owner.tunnel(self, lost: connection)
    }

    // MARK: Liveness

    /// Probes every path now: the network has changed.
    func probeAll() {
        let now = NIODeadline.now().uptimeNanoseconds
        for id in self.routes.keys { self.perform(self.routes[id]?.liveness.probe(now: now) ?? .none, on: id) }
        self.armTimer(now: now)
    }

    /// Sends a probe on the path in use and completes with its round trip.
    func ping(timeout: TimeAmount) -> EventLoopFuture<PingAnswer> {
        let promise = self.eventLoop.makePromise(of: PingAnswer.self)
        guard let sending = self.sending, let route = self.routes[sending] else {
            promise.fail(TunnelError.notConnected(self.refusal))
            return promise.futureResult
        }
        let now = NIODeadline.now().uptimeNanoseconds
        self.isUsed = true
        let id = UInt64.random(in: UInt64.max / 2...UInt64.max)
        let timer = self.eventLoop.scheduleTask(in: timeout) { [weak self] in
            guard let ping = self?.pings.removeValue(forKey: id) else { return }
            ping.promise.fail(TunnelError.timedOut)
        }
        self.pings[id] = Ping(promise: promise, timer: timer, sentAt: now)
        route.lane.send(.probe(id))
        self.routes[sending]?.liveness.sent(now: now)
        self.armTimer(now: now)
        return promise.futureResult
    }

    private func fail(_ ping: Ping) {
        ping.timer.cancel()
        ping.promise.fail(TunnelError.timedOut)
    }

    private func perform(_ action: Liveness.Action, on id: ConnectionID) {
        switch action {
        case .none: break
        case .probe(let number): self.routes[id]?.lane.send(.probe(number))
        case .dead:
            guard let route = self.routes[id] else { return }
            self.refusal = "the path went silent"
            self.outboundDrops.count(.pathLost)
            if route.unansweredBytes > Self.smallBytes {
                self.owner.tunnel(self, suspectsSmallMTUOn: route.lane.connection)
            }
            self.abandon(route)
        }
    }

    private func tick() {
        self.timerDeadline = .max
        let now = NIODeadline.now().uptimeNanoseconds
        var probes = false
        for id in Array(self.routes.keys) {
            let action = self.routes[id]?.liveness.tick(now: now) ?? .none
            if case .probe = action { probes = true }
            self.perform(action, on: id)
        }
        if probes {
            // One silent path casts doubt on all: the answers tell which ones live.
            for id in Array(self.routes.keys) where self.routes[id]?.isOpen ?? false {
                self.perform(self.routes[id]?.liveness.probe(now: now) ?? .none, on: id)
            }
        }
        self.armTimer(now: now)
    }

    private func armTimer(now: UInt64) {
        guard let deadline = self.routes.values.compactMap(\.liveness.nextDeadline).min(),
            deadline < self.timerDeadline
        else { return }
        self.timer?.cancel()
        self.timerDeadline = deadline
        self.timer = self.eventLoop.scheduleTask(deadline: .uptimeNanoseconds(max(deadline, now))) { [weak self] in
            self?.tick()
        }
    }

    // MARK: Upkeep

    /// Lets go of memory that an idle tunnel does not need. To be called now and then.
    func trim() {
        defer { self.isUsed = false }
        guard !self.isUsed else { return }
        self.queue.trim()
        self.datagrams.trim()
        for route in self.routes.values { route.lane.trim() }
        self.inbound.trim()
    }

    /// When packets last went or came on a connection; 0 for never.
    func lastUse(of connection: any Connection) -> UInt64 {
        guard let route = self.routes[connection.id] else { return 0 }
        return max(route.lane.sentAt, route.receivedAt)
    }
}

extension Path.Carrier {
    /// The carrier of a connection, by its transport's name.
    init(transport: String) {
        switch transport {
        case "quic-v1": self = .quic
        case "ws", "wss": self = .webSocket
        default: self = .tcp
        }
    }
}

/// Why a tunnel could not do something.
enum TunnelError: Error, CustomStringConvertible {
    /// No lane is open; perhaps it is known why.
    case notConnected(String?)
    /// No answer came in time.
    case timedOut

    var description: String {
        switch self {
        case .notConnected(let reason): reason.map { "not connected: \($0)" } ?? "not connected"
        case .timedOut: "no answer in time"
        }
    }
}
