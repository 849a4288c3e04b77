internal import LibP2PCore
internal import Multiformats
internal import NIOCore

/// The dial of one peer over all its addresses: which attempt starts when, and what comes of it. Pure; the swarm does what it says.
///
/// The first connection wins, wherever it comes from: an attempt of ours or the peer's own dial to us. The session is lost when every
/// attempt has failed and no name is looked up any more.
struct DialSession: Sendable {
    enum Action: Equatable {
        /// Dial this address.
        case start(Multiaddr)
        /// All is lost; why, per address: those of the plan in its order, then those that were not dialled.
        case fail([DialError.Attempt])
    }

    /// Attempts under way at the same time.
    static let maximumConcurrent = 8
    /// How long an attempt that gave way to the remote's own dial waits for it.
    static let yieldTimeout = TimeAmount.seconds(3)
    /// Once a public address answers, how long its handshake may take before other addresses are tried beside it.
    static let handshakePatience = TimeAmount.milliseconds(500)

    private enum State {
        case waiting(until: NIODeadline)
        case underWay(patience: NIODeadline?)
        case failed(String)
    }

    /// In the order of the plan, which is that of their times.
    private var attempts: [(address: Multiaddr, state: State)] = []
    /// Where ``attempts`` begin to wait: they start in order.
    private var firstWaiting = 0
    private var underWayCount = 0
    private var yieldedUntil: NIODeadline?
    /// Addresses that are not dialled, and why.
    private var refused: [DialError.Attempt] = []
    /// Names that are looked up.
    private var names: [Multiaddr] = []
    private var isOver = false

    init(plan: [DialPlanner.Step], now: NIODeadline) {
        self.add(plan, now: now)
    }

    /// When ``advance(to:)`` wants to be called again. `nil`: not because of time.
    var nextDeadline: NIODeadline? {
        guard !self.isOver else { return nil }
        let due = self.underWayCount < Self.maximumConcurrent ? self.nextDue : nil
        let end = self.underWayCount == 0 ? self.yieldedUntil : nil
        return [due, end].compactMap { $0 }.min()
    }

    /// The addresses that are being dialled.
    var addressesUnderWay: [Multiaddr] {
        self.attempts.compactMap { if case .underWay = $0.state { $0.address } else { nil } }
    }

    /// Whether there is nothing left to hope for but what comes now.
    var isBarren: Bool { self.underWayCount == 0 && self.firstWaiting == self.attempts.count }

    /// More addresses have become known. Those that the session has already, failed ones too, are left out; the others start in their
    /// time from now on.
    mutating func add(_ plan: [DialPlanner.Step], now: NIODeadline) {
        for step in plan where !self.attempts.contains(where: { $0.address == step.address }) {
            guard self.attempts.count < DialPlanner.maximumAddresses else { return }
            self.refused.removeAll { $0.address == step.address }
            let due = now + step.delay
            let later = self.attempts[self.firstWaiting...].firstIndex {
                if case .waiting(let other) = $0.state { other > due } else { false }
            }
            self.attempts.insert((step.address, .waiting(until: due)), at: later ?? self.attempts.endIndex)
        }
    }

    /// These are not dialled.
    mutating func refuse(_ attempts: [DialError.Attempt]) {
        for attempt in attempts where !self.knows(attempt.address) {
            guard self.refused.count < DialPlanner.maximumAddresses else { return }
            self.refused.append(attempt)
        }
    }

    /// These names are being looked up. Returns those that are new to the session.
    mutating func lookUp(_ names: [Multiaddr]) -> [Multiaddr] {
        let new = names.filter { !self.knows($0) && !self.names.contains($0) }
        self.names += new
        return new
    }

    /// The name has been looked up, and what it stands for was added.
    ///
    /// - Parameter failure: Why that is nothing.
    mutating func lookedUp(_ name: Multiaddr, failure: String?, now: NIODeadline) -> [Action] {
        guard let index = self.names.firstIndex(of: name) else { return [] }
        self.names.remove(at: index)
        if let failure { self.refused.append(DialError.Attempt(address: name, reason: failure)) }
        return self.advance(to: now)
    }

    /// Starts what is due. When nothing is under way the next attempt need not wait for its time.
    mutating func advance(to now: NIODeadline) -> [Action] {
        guard !self.isOver else { return [] }
        var actions: [Action] = []
        let isYielding = self.yieldedUntil.map { now < $0 } ?? false
        while let due = self.nextDue, self.underWayCount < Self.maximumConcurrent,
            due <= now || (self.underWayCount == 0 && !isYielding)
        {
            self.attempts[self.firstWaiting].state = .underWay(patience: nil)
            self.underWayCount += 1
            actions.append(.start(self.attempts[self.firstWaiting].address))
            self.firstWaiting += 1
        }
        if self.underWayCount == 0, !isYielding, self.names.isEmpty { actions.append(self.giveUp()) }
        return actions
    }

    /// Somebody answers at this address. Its handshake gets the time to end before others start; private addresses are fast enough
    /// without.
    mutating func reached(_ address: Multiaddr, now: NIODeadline) {
        guard let index = self.index(ofUnderWay: address), address.ipAddress?.isPrivate == false else { return }
        self.attempts[index].state = .underWay(patience: now + Self.handshakePatience)
    }

    /// An attempt has failed.
    mutating func failed(_ address: Multiaddr, _ error: any Error, now: NIODeadline) -> [Action] {
        guard !self.isOver, let index = self.index(ofUnderWay: address) else { return [] }
        self.attempts[index].state = .failed(String(describing: error))
        self.underWayCount -= 1
        if case TransportError.yieldedToRemote = error { self.yieldedUntil = now + Self.yieldTimeout }
        return self.advance(to: now)
    }

    /// A connection to the peer is there. Nothing else starts.
    mutating func connected() { self.isOver = true }

    /// The whole budget is used up.
    mutating func timedOut() -> [Action] { self.isOver ? [] : [self.giveUp()] }

    private var nextDue: NIODeadline? {
        guard self.firstWaiting < self.attempts.count, case .waiting(let due) = self.attempts[self.firstWaiting].state
        else { return nil }
        let patience = self.attempts[..<self.firstWaiting].compactMap {
            if case .underWay(let patience) = $0.state { patience } else { nil }
        }.max()
        return max(due, patience ?? due)
    }

    private func index(ofUnderWay address: Multiaddr) -> Int? {
        self.attempts.firstIndex { if case .underWay = $0.state { $0.address == address } else { false } }
    }

    private func knows(_ address: Multiaddr) -> Bool {
        self.attempts.contains { $0.address == address } || self.refused.contains { $0.address == address }
    }

    private mutating func giveUp() -> Action {
        self.isOver = true
        let tried = self.attempts.map { address, state in
            switch state {
            case .waiting: DialError.Attempt(address: address, reason: "not tried in time")
            case .underWay: DialError.Attempt(address: address, reason: "no answer in time")
            case .failed(let reason): DialError.Attempt(address: address, reason: reason)
            }
        }
        return .fail(
            tried + self.refused
                + self.names.map { DialError.Attempt(address: $0, reason: "the name was not resolved in time") })
    }
}
