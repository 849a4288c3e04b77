internal import LibP2PCore
internal import Multiformats
internal import NIOCore

/// The dial of one peer over all its addresses: which attempt starts when, and what comes of it. Pure; the swarm does what it says.
///
/// The first connection wins, wherever it comes from: an attempt of ours or the peer's own dial to us.
struct DialSession {
    enum Action: Equatable {
        /// Dial this address.
        case start(Multiaddr)
        /// All is lost; why, per address in the order of the plan.
        case fail([DialError.Attempt])
    }

    /// Attempts under way at the same time.
    static let maximumConcurrent = 8
    /// How long an attempt that gave way to the remote's own dial waits for it.
    static let yieldTimeout = TimeAmount.seconds(3)

    private enum State {
        case waiting(until: NIODeadline)
        case underWay
        case failed(String)
    }

    /// In the order of the plan, which is that of their times.
    private var attempts: [(address: Multiaddr, state: State)] = []
    /// Where ``attempts`` begin to wait: they start in order.
    private var firstWaiting = 0
    private var underWayCount = 0
    private var yieldedUntil: NIODeadline?
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

    /// More addresses have become known. Those that the session has already, failed ones too, are left out; the others go last.
    mutating func add(_ plan: [DialPlanner.Step], now: NIODeadline) {
        let earliest = self.attempts.last.flatMap { if case .waiting(let due) = $0.state { due } else { nil } } ?? now
        for step in plan where !self.attempts.contains(where: { $0.address == step.address }) {
            guard self.attempts.count < DialPlanner.maximumAddresses else { return }
            self.attempts.append((step.address, .waiting(until: max(now + step.delay, earliest))))
        }
    }

    /// Starts what is due. When nothing is under way the next attempt need not wait for its time.
    mutating func advance(to now: NIODeadline) -> [Action] {
        guard !self.isOver else { return [] }
        var actions: [Action] = []
        let isYielding = self.yieldedUntil.map { now < $0 } ?? false
        while let due = self.nextDue, self.underWayCount < Self.maximumConcurrent,
            due <= now || (self.underWayCount == 0 && !isYielding)
        {
            self.attempts[self.firstWaiting].state = .underWay
            self.underWayCount += 1
            actions.append(.start(self.attempts[self.firstWaiting].address))
            self.firstWaiting += 1
        }
        if self.underWayCount == 0, !isYielding { actions.append(self.giveUp()) }
        return actions
    }

    /// An attempt has failed.
    mutating func failed(_ address: Multiaddr, _ error: any Error, now: NIODeadline) -> [Action] {
        guard !self.isOver, let index = self.attempts.firstIndex(where: { $0.address == address }),
            case .underWay = self.attempts[index].state
        else { return [] }
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
        return due
    }

    private mutating func giveUp() -> Action {
        self.isOver = true
        return .fail(
            self.attempts.map { address, state in
                switch state {
                case .waiting: DialError.Attempt(address: address, reason: "not tried in time")
                case .underWay: DialError.Attempt(address: address, reason: "no answer in time")
                case .failed(let reason): DialError.Attempt(address: address, reason: reason)
                }
            })
    }
}
