internal import LibP2P
internal import Logging
internal import NIOCore
internal import OverlayCore

/// Keeps one peer connected, for all networks that it shares with us: dials, dials again, looks for better ways, closes what is
/// superfluous.
///
/// Owned by the event loop of packets.
final class PeerLink: @unchecked Sendable {
    /// A connection and since when it exists.
    struct Entry {
        let connection: any Connection
        let establishedAt: UInt64
        let since: WallTime
        /// Its keys have served their time: another connection is to take its place.
        var isRetiring = false
    }

    let peer: PeerID
    private(set) var entries: [Entry] = []
    private(set) var lastError: String?
    var isEager: Bool
    /// The networks' tunnels to this peer.
    var tunnels: [(network: OverlayNetwork, tunnel: PeerTunnel)] = []

    private let host: LibP2P.Host
    private let eventLoop: any EventLoop
    private let logger: Logger
    private var schedule = RedialSchedule()
    private var upgrade = PathUpgrade()
    private var timer: Scheduled<Void>?
    private var isOver = false

    init(peer: PeerID, host: LibP2P.Host, eventLoop: any EventLoop, isEager: Bool, logger: Logger) {
        self.peer = peer
        self.host = host
        self.eventLoop = eventLoop
        self.isEager = isEager
        self.logger = logger
    }

    /// Whether a dial or a greeting is under way.
    var isConnecting: Bool { self.schedule.isDialling || (!self.entries.isEmpty && !self.isUp) }

    /// Whether any network's packets flow.
    var isUp: Bool { self.tunnels.contains { $0.tunnel.isUp } }

    /// Dials that failed since the last success.
    var failures: Int { self.schedule.failures }

    /// Begins: an eager link dials at once.
    func start() {
        if self.isEager { self.schedule.wanted(now: self.now) }
        self.arm()
    }

    /// Gives the peer up and closes its connections.
    func stop(_ code: ConnectionErrorCode) {
        self.isOver = true
        self.timer?.cancel()
        for entry in self.entries { entry.connection.close(code) }
        self.entries = []
    }

    // MARK: Events

    /// Packets wait.
    func trafficWaits() {
        self.schedule.trafficWaits(now: self.now)
        self.arm()
    }

    /// The machine's links or addresses changed: what is there may be dead, and what failed may work.
    func networkChanged() {
        for entry in self.tunnels { entry.tunnel.probeAll() }
        self.upgrade.networkChanged(now: .now())
        guard !self.isUp, self.isEager || self.tunnels.contains(where: { $0.tunnel.hasWaitingPackets }) else { return }
        self.schedule.networkChanged(now: self.now)
        self.arm()
    }

    /// Packets flow.
    func opened() {
        self.lastError = nil
        self.schedule.connected()
        self.arm()
    }

    /// A connection is there, ours or the peer's.
    func connected(_ connection: any Connection) {
        guard !self.isOver, !self.entries.contains(where: { $0.connection.id == connection.id }) else { return }
        self.entries.append(Entry(connection: connection, establishedAt: self.now, since: .now))
        for entry in self.tunnels { entry.tunnel.connected(connection) }
    }

    /// A connection is gone, or of no more use.
    func lost(_ connection: any Connection, _ reason: String?) {
        guard let index = self.entries.firstIndex(where: { $0.connection.id == connection.id }) else { return }
        self.entries.remove(at: index)
        for entry in self.tunnels { entry.tunnel.disconnected(connection.id) }
        guard !self.isOver, self.entries.allSatisfy(\.isRetiring) else { return }
        guard !self.isUp else {
            if self.schedule.isDialling { self.failed() } else { self.schedule.wanted(now: self.now) }
            return self.arm()
        }
        guard self.entries.isEmpty else { return }
        if let reason { self.lastError = reason }
        if self.schedule.isDialling {
            // It broke before packets flowed: that is a failed dial.
            self.failed()
        } else if self.tunnels.contains(where: { $0.tunnel.hasWaitingPackets }) {
            self.schedule.trafficWaits(now: self.now)
        } else if self.isEager {
            self.schedule.wanted(now: self.now)
        }
        self.arm()
    }

    /// Replaces connections whose keys have served their time: another is made, packets move to it, the old one falls out of use. To be
    /// called now and then.
    func retireOldConnections(_ lifetime: KeyLifetime) {
        var mustDial = false
        for index in self.entries.indices where !self.entries[index].isRetiring {
            let connection = self.entries[index].connection
            let isDue = lifetime.isOver(
                sealed: connection.bytesSealed, age: self.now &- self.entries[index].establishedAt,
                isDialer: connection.role == .dialer)
            guard isDue else { continue }
            self.entries[index].isRetiring = true
            mustDial = true
            for entry in self.tunnels { entry.tunnel.retire(connection) }
        }
        guard mustDial, self.entries.allSatisfy(\.isRetiring) else { return }
        self.schedule.wanted(now: self.now)
        self.arm()
    }

    /// Closes connections that neither end uses. To be called now and then.
    func closeSurplus() {
        guard self.entries.count > 1 else { return }
        let current = self.entries.filter { entry in self.tunnels.contains { $0.tunnel.sends(on: entry.connection) } }
        let paths = self.entries.map { entry in
            var path = Path(id: entry.connection.id.rawValue, establishedAt: entry.establishedAt)
            path.isRelayed = entry.connection.details.relay != nil
            path.isRetiring = entry.isRetiring
            path.lastUsedAt = max(
                entry.establishedAt, self.tunnels.map { $0.tunnel.lastUse(of: entry.connection) }.max() ?? 0)
            return path
        }
        let surplus = PathSelector.surplus(
            of: paths, current: Set(current.map(\.connection.id.rawValue)), local: self.host.peerID,
            remote: self.peer, now: self.now)
        for id in surplus {
            guard let entry = self.entries.first(where: { $0.connection.id.rawValue == id }) else { continue }
            self.lost(entry.connection, nil)
            entry.connection.close(.supplanted)
        }
    }

    /// Dials a better kind of address than those in use, where one is known. To be called now and then.
    func seekBetterPath() {
        guard !self.isOver, self.isUp, !self.schedule.isDialling else { return }
        let addresses = self.memberAddresses
        let known = (addresses + self.host.peerStore.addresses(of: self.peer)).filter(self.host.swarm.canDial)
        let grades = self.entries.map { PathGrade($0.connection) }
        guard let least = self.upgrade.next(connections: grades, addresses: known, now: .now()) else { return }
        self.dial(at: addresses, preferring: least) { link, error in
            if let error { link.logger.debug("no better path", metadata: link.metadata(error)) }
            link.upgrade.ended(
                succeeded: error == nil, now: .now(), random: UInt64.random(in: .min ... .max))
        }
    }

    // MARK: Dialling

    /// Bulk is cheapest on TCP; datagrams join when the better path is looked for. Redials cannot wait for what an address has done to an earlier one; ``RedialSchedule`` spreads them in time.
    private static let dialOptions = DialOptions(backoff: .heldAtMost(.seconds(1)), startsWithTCP: true)

    private var memberAddresses: [Multiaddr] { self.tunnels.flatMap { $0.tunnel.member.addresses } }

    private var now: UInt64 { NIODeadline.now().uptimeNanoseconds }

    private func arm() {
        self.timer?.cancel()
        self.timer = nil
        guard !self.isOver, let deadline = self.schedule.nextDeadline else { return }
        self.timer = self.eventLoop.scheduleTask(deadline: .uptimeNanoseconds(max(deadline, self.now))) { [weak self] in
            self?.tick()
        }
    }

    private func tick() {
        guard !self.isOver, self.schedule.tick(now: self.now) else { return self.arm() }
        self.dial(at: self.memberAddresses, preferring: nil) { link, error in
            // The swarm has announced a success before. By now that may be gone again, which the swarm has also said.
            guard let error else { return }
            link.lastError = String(describing: error)
            for entry in link.tunnels { entry.tunnel.forgetRefusal() }
            link.logger.debug("dial failed", metadata: link.metadata(error))
            link.failed()
            link.arm()
        }
    }

    private func dial(
        at addresses: [Multiaddr], preferring grade: PathGrade?,
        then: @escaping @Sendable (PeerLink, (any Error)?) -> Void
    ) {
        let attempt = self.eventLoop.makePromise(of: (any Connection).self)
        attempt.completeWithTask { [host, peer] in
            try await host.swarm.connectAnew(
                to: peer, at: addresses, preferring: grade, options: Self.dialOptions)
        }
        attempt.futureResult.whenComplete { [weak self] result in
            guard let self, !self.isOver else { return }
            switch result {
            case .success: then(self, nil)
            case .failure(let error): then(self, error)
            }
        }
    }

    private func metadata(_ error: any Error) -> Logger.Metadata {
        ["peer": "\(self.peer)", "reason": "\(error)"]
    }

    private func failed() {
        for entry in self.tunnels where entry.tunnel.hasWaitingPackets { entry.network.giveUp(entry.tunnel) }
        self.schedule.failed(now: self.now, random: UInt64.random(in: .min ... .max))
    }
}
