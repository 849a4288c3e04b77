/// Says when to dial a peer again.
///
/// 1. The first dial, and one after the machine's links or addresses changed, is due at once, even beside a connection that may only look alive.
/// 2. While packets wait for the peer: 1 s after the last failure.
/// 3. Else after a back-off that doubles from 1 s to 30 s, of which a random part between half and all is waited.
///
/// Pure; times are nanoseconds, randomness is passed in. One dial at a time: ``tick(now:)`` starts it, ``failed(now:random:)`` or
/// ``connected()`` ends it.
package struct RedialSchedule: Equatable, Sendable {
    private enum State: Equatable, Sendable {
        /// No dial is wanted: there is a connection, or nobody asks for one.
        case resting
        /// The next dial starts at `due`.
        case scheduled(due: UInt64)
        /// A dial is under way; `again` when the network changed meanwhile.
        case dialling(again: Bool)
    }

    /// The wait while packets wait.
    package static let trafficInterval: UInt64 = 1_000_000_000
    /// The longest back-off.
    package static let maximumBackoff: UInt64 = 30_000_000_000

    /// Whether packets wait for the peer.
    package private(set) var hasTraffic = false
    /// Failures since the last connection or network change.
    package private(set) var failures = 0

    private var state = State.resting
    private var lastFailure: UInt64?

    package init() {}

    /// When to call ``tick(now:)``.
    package var nextDeadline: UInt64? {
        if case .scheduled(let due) = self.state { due } else { nil }
    }

    /// Whether a dial is under way.
    package var isDialling: Bool {
        if case .dialling = self.state { true } else { false }
    }

    /// A connection is wanted: dial now, unless that is under way or planned.
    package mutating func wanted(now: UInt64) {
        if case .resting = self.state { self.state = .scheduled(due: self.earliest(now)) }
    }

    /// Nobody wants a connection any more. A dial under way may finish.
    package mutating func unwanted() {
        self.hasTraffic = false
        if case .scheduled = self.state { self.state = .resting }
    }

    /// A packet waits for the peer: the next dial is due no later than 1 s after the last failure.
    package mutating func trafficWaits(now: UInt64) {
        self.hasTraffic = true
        switch self.state {
        case .resting: self.state = .scheduled(due: self.earliest(now))
        case .scheduled(let due): self.state = .scheduled(due: min(due, self.earliest(now)))
        case .dialling: break
        }
    }

    /// No packet waits any more: they expired. The dial that is planned stays.
    package mutating func trafficGone() { self.hasTraffic = false }

    /// A link or an address of the machine changed, or new addresses of the peer came up: dial at once.
    package mutating func networkChanged(now: UInt64) {
        self.failures = 0
        self.lastFailure = nil
        if case .dialling = self.state {
            self.state = .dialling(again: true)
        } else {
            self.state = .scheduled(due: now)
        }
    }

    /// Whether a dial is to be started now. `true` once per dial.
    package mutating func tick(now: UInt64) -> Bool {
        guard case .scheduled(let due) = self.state, now >= due else { return false }
        self.state = .dialling(again: false)
        return true
    }

    /// The dial under way failed.
    ///
    /// - Parameter random: A fresh random number: it spreads the back-offs of peers that lost each other at the same time.
    package mutating func failed(now: UInt64, random: UInt64) {
        guard case .dialling(let again) = self.state else { return }
        if again {
            self.state = .scheduled(due: now)
            return
        }
        self.failures = min(self.failures + 1, 32)
        self.lastFailure = now
        if self.hasTraffic {
            self.state = .scheduled(due: now.addingClamped(Self.trafficInterval))
        } else {
            let whole = min(Self.trafficInterval << UInt64(self.failures - 1), Self.maximumBackoff)
            self.state = .scheduled(due: now.addingClamped(whole / 2 + random % (whole / 2 + 1)))
        }
    }

    /// There is a connection, dialled or accepted.
    package mutating func connected() {
        self.state = .resting
        self.failures = 0
        self.lastFailure = nil
        self.hasTraffic = false
    }

    /// Now, but not sooner than 1 s after the last failure.
    private func earliest(_ now: UInt64) -> UInt64 {
        guard let last = self.lastFailure else { return now }
        return max(now, last.addingClamped(Self.trafficInterval))
    }
}
