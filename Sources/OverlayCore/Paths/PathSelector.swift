package import PeerIdentity

/// A connection to a peer, as far as the choice among several depends on it.
package struct Path: Equatable, Sendable {
    /// The connection's number on this machine.
    package var id: UInt64
    /// Packets go through a relay.
    package var isRelayed = false
    /// The relay limits bytes or time.
    package var isLimited = false
    /// What the connection runs on.
    package var carrier = Carrier.tcp
    /// Bulk does not collapse on it when packets are lost: it runs under BBR.
    package var isPaced = true
    /// The connection carries datagrams large enough for a packet.
    package var carriesDatagrams = false
    /// Nothing suggests that the path is dead.
    package var isAlive = true
    /// The connection is about to be replaced: its key is old, or its relay reservation ends.
    package var isRetiring = false
    /// The smoothed round-trip time in nanoseconds, when it has been measured.
    package var rtt: UInt64?
    /// When the connection was established, in nanoseconds.
    package var establishedAt: UInt64
    /// When a packet last went or came over it, in nanoseconds. Keepalives and probes do not count.
    package var lastUsedAt: UInt64

    package init(id: UInt64, establishedAt: UInt64) {
        self.id = id
        self.establishedAt = establishedAt
        self.lastUsedAt = establishedAt
    }

    /// What a connection runs on, the one that costs least CPU per byte first.
    package enum Carrier: UInt8, Comparable, Sendable {
        case tcp
        case quic
        case webSocket

        package static func < (a: Carrier, b: Carrier) -> Bool { a.rawValue < b.rawValue }
    }
}

/// Chooses the connections to send on, and those to close.
///
/// Each end chooses for itself; the directions may differ. Streams and datagrams are chosen apart: bulk goes where it is cheap and keeps
/// its rate, the rest where a lost packet delays no other. The rules, each deciding where those before it are even:
///
/// 1. alive before dead;
/// 2. staying before retiring;
/// 3. direct before relayed;
/// 4. unlimited before limited;
/// 5. for streams: under BBR before any other congestion control;
/// 6. not much slower than the fastest (below) before much slower;
/// 7. TCP before QUIC before WebSocket;
/// 8. measured before unmeasured, then the lower RTT;
/// 9. the newer connection.
///
/// The path in use stays in use unless another is better by rules 1 to 7. Much slower is an RTT more than a third and more than 1 ms higher:
/// a move costs more than it gains below that, and two paths of like RTT would alternate.
///
/// Datagrams need a path that carries them, alive, and by rules 1 to 4 no worse than that of the streams; without one all packets travel on streams.
///
/// Pure: everything, time too, is passed in.
package enum PathSelector {
    /// The most connections kept per peer.
    package static let maximumPaths = 4
    /// How long a surplus connection must be unused by both ends before it is closed, in nanoseconds.
    package static let surplusIdle: UInt64 = 30_000_000_000
    /// How long a connection must be unused that is one too many, in nanoseconds.
    package static let excessIdle: UInt64 = 1_000_000_000
    /// The least gain in RTT that is worth a move, in nanoseconds.
    package static let minimumGain: UInt64 = 1_000_000

    /// The path for streams. `nil` when there is none; a dead one when all are dead.
    ///
    /// - Parameter current: The path in use, if any.
    package static func choose(from paths: [Path], current: UInt64?) -> Path? {
        self.best(of: paths, current: current, for: .stream)
    }

    /// The path for datagrams. `nil` when they had better travel as all others do.
    ///
    /// - Parameters:
    ///   - stream: What ``choose(from:current:)`` chose for streams.
    ///   - current: The path in use for datagrams, if any.
    package static func chooseForDatagrams(from paths: [Path], beside stream: Path?, current: UInt64?) -> Path? {
        let able = paths.filter { $0.carriesDatagrams && $0.isAlive }
        guard let best = self.best(of: able, current: current, for: .datagram) else { return nil }
        if let stream, self.tier(stream, .datagram) < self.tier(best, .datagram) { return nil }
        return best
    }

    /// The paths from best to worst for streams.
    package static func ranked(_ paths: [Path]) -> [Path] { self.ranked(paths, for: .stream) }

    /// The connections that this end is to close now.
    ///
    /// Only the end with the lower peer ID closes connections, so that the two do not close one each and are left with none. It keeps the paths
    /// that it sends on, and closes another when neither end has used it for 30 s. Of more than four it closes the worst, once a second has passed
    /// without use.
    ///
    /// - Parameters:
    ///   - current: The paths this end sends on.
    ///   - now: Nanoseconds of the clock that the paths' times are from.
    package static func surplus(
        of paths: [Path], current: Set<UInt64>, local: PeerID, remote: PeerID, now: UInt64
    ) -> [UInt64] {
        guard local < remote, let best = self.ranked(paths).first else { return [] }
        let kept = current.isEmpty ? [best.id] : current
        let others = self.ranked(paths).filter { !kept.contains($0.id) }
        let places = max(self.maximumPaths - kept.count, 0)
        return others.enumerated().filter { rank, path in
            now >= path.lastUsedAt.addingClamped(rank >= places ? self.excessIdle : self.surplusIdle)
        }.map(\.element.id)
    }

    private enum Use {
        case stream
        case datagram
    }

    private static func best(of paths: [Path], current: UInt64?, for use: Use) -> Path? {
        guard let best = self.ranked(paths, for: use).first else { return nil }
        guard let incumbent = paths.first(where: { $0.id == current }), incumbent.id != best.id else { return best }
        guard self.tier(incumbent, use) == self.tier(best, use) else { return best }
        if self.isMuchSlower(incumbent.rtt, than: best.rtt) { return best }
        // A carrier that is cheaper is worth a move only to a path whose RTT is known to be no worse.
        return best.carrier < incumbent.carrier && best.rtt != nil ? best : incumbent
    }

    private static func ranked(_ paths: [Path], for use: Use) -> [Path] {
        let ranks = paths.map { path in
            (
                path: path, tier: self.tier(path, use),
                isSlow: paths.contains {
                    self.tier($0, use) == self.tier(path, use) && self.isMuchSlower(path.rtt, than: $0.rtt)
                }
            )
        }
        return ranks.sorted { a, b in
            let first = (a.tier, a.isSlow ? 1 : 0, a.path.carrier.rawValue, a.path.rtt ?? .max)
            let second = (b.tier, b.isSlow ? 1 : 0, b.path.carrier.rawValue, b.path.rtt ?? .max)
            if first != second { return first < second }
            return (a.path.establishedAt, a.path.id) > (b.path.establishedAt, b.path.id)
        }.map(\.path)
    }

    private static func isMuchSlower(_ a: UInt64?, than b: UInt64?) -> Bool {
        guard let a, let b, a > b else { return false }
        return b < a - a / 4 && a - b > self.minimumGain
    }

    /// Rules 1 to 5 as one number; lower is better.
    private static func tier(_ path: Path, _ use: Use) -> Int {
        var rules = [!path.isAlive, path.isRetiring, path.isRelayed, path.isLimited]
        if use == .stream { rules.append(!path.isPaced) }
        return rules.reduce(0) { $0 << 1 | ($1 ? 1 : 0) }
    }
}
