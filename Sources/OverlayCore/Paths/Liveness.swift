/// Tells whether a path still carries packets.
///
/// Nothing is asked of an idle path. When something was sent and nothing was heard for max(300 ms, 3 RTT), the path is probed; when two probes in
/// a row stay unanswered for that time, the path is dead. Whatever is heard, of any kind, proves the path alive.
///
/// Pure; times are nanoseconds of one monotonic clock. One machine per path; the owner probes all paths of a peer when one of them asks
/// for it, with ``probe(now:)`` on each.
package struct Liveness: Equatable, Sendable {
    /// What the caller must do next.
    package enum Action: Equatable, Sendable {
        case none
        /// Send a probe of this number on the path, and probe the peer's other paths too.
        case probe(UInt64)
        /// The path is dead: leave it at once.
        case dead
    }

    private enum State: Equatable, Sendable {
        /// Nothing sent since something was heard.
        case quiet
        /// Sent, the first time at `since`, and nothing heard since.
        case waiting(since: UInt64)
        /// Probe `id` left at `sentAt`; `misses` before it stayed unanswered.
        case probing(id: UInt64, sentAt: UInt64, misses: Int)
        case dead
    }

    /// The shortest time to wait for an answer.
    package static let minimumTimeout: UInt64 = 300_000_000
    /// Unanswered probes that make a path dead.
    package static let maximumMisses = 2
    /// An RTT beyond this is a broken clock or a stalled machine, not a path.
    private static let maximumRTT: UInt64 = 10_000_000_000

    /// The smoothed round-trip time, in nanoseconds (RFC 6298's mean, without its variance). `nil` before the first measurement.
    package private(set) var rtt: UInt64?

    private var state = State.quiet
    private var nextProbe: UInt64
    private var lastProbe: (id: UInt64, sentAt: UInt64)?

    /// - Parameter firstProbe: The number of the first probe; different per path, so that an echo fits one path only.
    package init(firstProbe: UInt64 = 0) { self.nextProbe = firstProbe }

    /// Whether the path is dead. Only something heard revives it.
    package var isDead: Bool { self.state == .dead }

    /// How long an answer may take.
    package var timeout: UInt64 { max(Self.minimumTimeout, 3 * (self.rtt ?? 0)) }

    /// When to call ``tick(now:)``; `nil` when there is nothing to wait for.
    package var nextDeadline: UInt64? {
        switch self.state {
        case .quiet, .dead: nil
        case .waiting(let since): since.addingClamped(self.timeout)
        case .probing(_, let sentAt, _): sentAt.addingClamped(self.timeout)
        }
    }

    /// Something was sent that the peer may answer: packets, not echoes.
    package mutating func sent(now: UInt64) {
        if case .quiet = self.state { self.state = .waiting(since: now) }
    }

    /// Something was heard on the path.
    ///
    /// - Returns: Whether that revived a dead path.
    @discardableResult
    package mutating func heard() -> Bool {
        let wasDead = self.isDead
        self.state = .quiet
        return wasDead
    }

    /// The echo of probe `id` was heard: measures, besides what ``heard()`` does.
    ///
    /// - Returns: The round-trip time in nanoseconds; `nil` when `id` is not the last probe.
    package mutating func echoed(_ id: UInt64, now: UInt64) -> UInt64? {
        self.heard()
        guard let probe = self.lastProbe, probe.id == id, now >= probe.sentAt else { return nil }
        self.lastProbe = nil
        let sample = now - probe.sentAt
        self.measured(rtt: sample)
        return sample
    }

    /// Takes a round-trip time that was measured elsewhere: by the transport, or by a ping.
    package mutating func measured(rtt sample: UInt64) {
        let sample = min(sample, Self.maximumRTT)
        guard let rtt = self.rtt else {
            self.rtt = sample
            return
        }
        self.rtt = rtt - rtt / 8 + sample / 8
    }

    /// Probes the path at once: another path of the peer went silent, or the network changed. A probe under way stands.
    package mutating func probe(now: UInt64) -> Action {
        switch self.state {
        case .probing: .none
        case .quiet, .waiting, .dead: self.sendProbe(now: now, misses: 0)
        }
    }

    /// Judges the silence.
    package mutating func tick(now: UInt64) -> Action {
        guard let deadline = self.nextDeadline, now >= deadline else { return .none }
        switch self.state {
        case .quiet, .dead:
            return .none
        case .waiting:
            return self.sendProbe(now: now, misses: 0)
        case .probing(_, _, let misses):
            guard misses + 1 < Self.maximumMisses else {
                self.state = .dead
                return .dead
            }
            return self.sendProbe(now: now, misses: misses + 1)
        }
    }

    private mutating func sendProbe(now: UInt64, misses: Int) -> Action {
        let id = self.nextProbe
        self.nextProbe &+= 1
        self.lastProbe = (id, now)
        self.state = .probing(id: id, sentAt: now, misses: misses)
        return .probe(id)
    }

    package static func == (a: Liveness, b: Liveness) -> Bool {
        a.state == b.state && a.rtt == b.rtt && a.nextProbe == b.nextProbe && a.lastProbe?.id == b.lastProbe?.id
            && a.lastProbe?.sentAt == b.lastProbe?.sentAt
    }
}

extension UInt64 {
    /// The sum, or the largest value when there is no such number.
    func addingClamped(_ other: UInt64) -> UInt64 {
        let (sum, overflow) = self.addingReportingOverflow(other)
        return overflow ? .max : sum
    }
}
