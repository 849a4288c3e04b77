package import PeerIdentity

/// A connection to a peer, as far as the choice among several depends on it.
package struct Path: Equatable, Sendable {
    /// The connection's number on this machine.
    package var id: UInt64
    /// Packets go through a relay.
    package var isRelayed = false
    /// The relay limits bytes or time.
    package var isLimited = false
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
}

/// Chooses the connection to send on, and those to close.
///
/// Each end chooses for itself; the directions may differ. The rules, each deciding where those before it are even:
///
/// 1. alive before dead;
/// 2. staying before retiring;
/// 3. direct before relayed;
/// 4. unlimited before limited;
/// 5. with datagrams before without;
/// 6. measured before unmeasured, then the lower RTT;
/// 7. the newer connection.
///
/// The path in use stays in use unless another is better by rules 1 to 5, or has an RTT lower by more than a quarter and by more
/// than 1 ms: a move costs more than it gains below that, and two paths of like RTT would alternate.
///
/// Pure: everything, time too, is passed in.
package enum PathSelector {
    /// The most connections kept per peer.
    package static let maximumPaths = 4
    /// How long a surplus connection must be unused by both ends before it is closed, in nanoseconds.
    package static let surplusIdle: UInt64 = 30_000_000_000
    /// The least gain in RTT that is worth a move, in nanoseconds.
    package static let minimumGain: UInt64 = 1_000_000

    /// The path to send on. `nil` when there is none; a dead one when all are dead.
    ///
    /// - Parameter current: The path in use, if any.
    package static func choose(from paths: [Path], current: UInt64?) -> Path? {
        guard let best = self.ranked(paths).first else { return nil }
        guard let incumbent = paths.first(where: { $0.id == current }), incumbent.id != best.id else { return best }
        return self.isWorthMoving(from: incumbent, to: best) ? best : incumbent
    }

    /// The paths from best to worst.
    package static func ranked(_ paths: [Path]) -> [Path] {
        paths.sorted { self.precedes($0, $1) }
    }

    /// The connections that this end is to close now.
    ///
    /// Only the end with the lower peer ID closes connections, so that the two do not close one each and are left with none. It keeps the path
    /// that it sends on, and closes another when neither end has used it for 30 s. Of more than four it closes the worst at once.
    ///
    /// - Parameters:
    ///   - current: The path this end sends on.
    ///   - now: Nanoseconds of the clock that the paths' times are from.
    package static func surplus(
        of paths: [Path], current: UInt64?, local: PeerID, remote: PeerID, now: UInt64
    ) -> [UInt64] {
        guard local < remote, let kept = self.choose(from: paths, current: current) else { return [] }
        let others = self.ranked(paths).filter { $0.id != kept.id }
        return others.enumerated().filter { rank, path in
            rank >= self.maximumPaths - 1 || now >= path.lastUsedAt.addingClamped(self.surplusIdle)
        }.map(\.element.id)
    }

    private static func isWorthMoving(from incumbent: Path, to best: Path) -> Bool {
        guard self.tier(incumbent) == self.tier(best) else { return true }
        guard let old = incumbent.rtt, let new = best.rtt else { return false }
        return new < old - old / 4 && old - new > self.minimumGain
    }

    /// Rules 1 to 5 as one number; lower is better.
    private static func tier(_ path: Path) -> Int {
        let rules = [!path.isAlive, path.isRetiring, path.isRelayed, path.isLimited, !path.carriesDatagrams]
        return rules.reduce(0) { $0 << 1 | ($1 ? 1 : 0) }
    }

    private static func precedes(_ a: Path, _ b: Path) -> Bool {
        let order = (self.tier(a), a.rtt ?? .max)
        let other = (self.tier(b), b.rtt ?? .max)
        if order != other { return order < other }
        return (a.establishedAt, a.id) > (b.establishedAt, b.id)
    }
}
