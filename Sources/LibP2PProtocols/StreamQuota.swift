internal import PeerIdentity
internal import Synchronization

/// Counts the inbound streams of each peer, so that none takes more than its share.
final class StreamQuota: Sendable {
    private let limit: Int
    private let counts = Mutex<[PeerID: Int]>([:])

    init(perPeer limit: Int) {
        self.limit = limit
    }

    /// Counts one more, unless the peer has as many as it may.
    func take(for peer: PeerID) -> Bool {
        self.counts.withLock { counts in
            guard counts[peer, default: 0] < self.limit else { return false }
            counts[peer, default: 0] += 1
            return true
        }
    }

    /// One that was counted has ended.
    func giveBack(for peer: PeerID) {
        self.counts.withLock { counts in
            counts[peer, default: 1] -= 1
            if counts[peer] == 0 { counts[peer] = nil }
        }
    }
}
