internal import Multiformats
internal import PeerIdentity

/// One address that a dial of a peer has got to.
struct DialTicket: Hashable, Sendable {
    /// Which dial.
    var key: DialKey
    /// Tells the dial from earlier ones with the same key.
    var number: UInt64
    /// Where to.
    var address: Multiaddr
}

/// What callers must have in common to share a dial.
struct DialKey: Hashable, Sendable {
    /// Whom they want.
    var peer: PeerID
    /// What the connection must be at least.
    var grade: PathGrade?
}

/// How many dials run at once, in all and to each peer; the others wait, and start in the order in which they came as far as their
/// peers allow. Pure.
struct DialSlots: Sendable {
    let total: Int
    let perPeer: Int
    private var running: [PeerID: Int] = [:]
    private var waiting: [DialTicket] = []

    init(total: Int, perPeer: Int) {
        self.total = total
        self.perPeer = perPeer
    }

    /// Dials under way.
    private(set) var runningCount = 0
    /// Dials that wait for others to end.
    var waitingCount: Int { self.waiting.count }

    /// Whether the dial starts now. If not, it waits until ``leave(_:)`` returns it.
    mutating func enter(_ ticket: DialTicket) -> Bool {
        guard self.hasRoom(for: ticket) else {
            self.waiting.append(ticket)
            return false
        }
        self.take(ticket)
        return true
    }

    /// A dial that was started has ended. Returns those that start now.
    mutating func leave(_ ticket: DialTicket) -> [DialTicket] {
        guard let count = self.running[ticket.key.peer] else { return [] }
        self.running[ticket.key.peer] = count > 1 ? count - 1 : nil
        self.runningCount -= 1
        var started: [DialTicket] = []
        while let index = self.waiting.firstIndex(where: { self.hasRoom(for: $0) }) {
            let next = self.waiting.remove(at: index)
            self.take(next)
            started.append(next)
        }
        return started
    }

    /// Nobody wants this dial any more: what waits of it does not start.
    mutating func withdraw(_ number: UInt64) { self.waiting.removeAll { $0.number == number } }

    /// Whether it waits still.
    func isWaiting(_ ticket: DialTicket) -> Bool { self.waiting.contains(ticket) }

    private func hasRoom(for ticket: DialTicket) -> Bool {
        self.runningCount < self.total && self.running[ticket.key.peer, default: 0] < self.perPeer
    }

    private mutating func take(_ ticket: DialTicket) {
        self.running[ticket.key.peer, default: 0] += 1
        self.runningCount += 1
    }
}
