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
        /// All is lost; why, per address in the order of the attempts.
        case fail([DialError.Attempt])
    }

    /// Attempts under way at the same time.
    static let maximumConcurrent = 8
    /// How long an attempt that gave way to the remote's own dial waits for it.
    static let yieldTimeout = TimeAmount.seconds(3)

    private var waiting: ArraySlice<(address: Multiaddr, due: NIODeadline)>
    private var underWay = Set<Multiaddr>()
    private var failures: [DialError.Attempt] = []
    private var yieldedUntil: NIODeadline?
    private var isOver = false

    init(plan: [DialPlanner.Step], now: NIODeadline) {
        self.waiting = plan.map { ($0.address, now + $0.delay) }[...]
    }

    /// When ``advance(to:)`` wants to be called again. `nil`: not because of time.
    var nextDeadline: NIODeadline? {
        guard !self.isOver else { return nil }
        if let first = self.waiting.first, self.underWay.count < Self.maximumConcurrent { return first.due }
        return self.underWay.isEmpty ? self.yieldedUntil : nil
    }

    /// Starts what is due. When nothing is under way the next attempt need not wait for its time.
    mutating func advance(to now: NIODeadline) -> [Action] {
        guard !self.isOver else { return [] }
        var actions: [Action] = []
        while let next = self.waiting.first, self.underWay.count < Self.maximumConcurrent,
            next.due <= now || (self.underWay.isEmpty && self.yieldedUntil == nil)
        {
            self.waiting.removeFirst()
            self.underWay.insert(next.address)
            actions.append(.start(next.address))
        }
        if self.waiting.isEmpty, self.underWay.isEmpty, self.yieldedUntil.map({ $0 <= now }) ?? true {
            self.isOver = true
            actions.append(.fail(self.failures))
        }
        return actions
    }

    /// An attempt has failed.
    mutating func failed(_ address: Multiaddr, _ error: any Error, now: NIODeadline) -> [Action] {
        guard !self.isOver, self.underWay.remove(address) != nil else { return [] }
        self.failures.append(DialError.Attempt(address: address, reason: String(describing: error)))
        if case TransportError.yieldedToRemote = error { self.yieldedUntil = now + Self.yieldTimeout }
        return self.advance(to: now)
    }

    /// A connection to the peer is there. Nothing else starts.
    mutating func connected() { self.isOver = true }

    /// The whole budget is used up.
    mutating func timedOut() -> [Action] {
        guard !self.isOver else { return [] }
        self.isOver = true
        let unfinished = self.underWay.map(\.description).sorted()
        return [
            .fail(
                self.failures
                    + unfinished.compactMap { text in
                        (try? Multiaddr(text)).map { DialError.Attempt(address: $0, reason: "no answer in time") }
                    })
        ]
    }
}
