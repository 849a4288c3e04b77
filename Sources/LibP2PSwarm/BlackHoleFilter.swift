internal import LibP2PCore
package import Multiformats

/// Notices that a network swallows UDP, or leads no IPv6 anywhere, and stops dialling such addresses there. Pure.
///
/// UDP and IPv6 are counted apart; an address may belong to both. Only public, direct addresses count, and only they are left out:
/// 1. Of the last 100 dials at least 5 must have succeeded. Before there were 100, every request is a probe.
/// 2. While it is blocked, every 100th request is let through as a probe; an address that one of its kinds probes is dialled
///    whatever the other kind says.
/// 3. A success while it is blocked starts the count anew.
/// 4. A peer that would have no address left keeps all it has: a wrong verdict must not cut anybody off.
package struct BlackHoleFilter: Sendable {
    /// What may be swallowed.
    package enum Kind: String, CaseIterable, Hashable, Sendable {
        case udp
        case ipv6

        /// For people.
        package var name: String { self == .udp ? "UDP" : "IPv6" }
    }

    /// The dials that a verdict looks back on, and the requests from one probe to the next.
    package static let window = 100
    /// Of these, so many must have succeeded.
    package static let minimumSuccesses = 5

    private var counters: [Kind: Counter] = [:]

    package init() {}

    /// Of `addresses`, those to dial, in order, and those to leave out, with the kind at fault. Counts as one request for each kind
    /// that is among them.
    ///
    /// - Parameter isAll: Whether the peer has no other address.
    package mutating func select(_ addresses: [Multiaddr], isAll: Bool) -> (
        kept: [Multiaddr], refused: [(address: Multiaddr, kind: Kind)]
    ) {
        let kinds = addresses.map(Self.kinds)
        var verdicts: [Kind: Verdict] = [:]
        for kind in Kind.allCases where kinds.contains(where: { $0.contains(kind) }) {
            verdicts[kind] = self.counters[kind, default: Counter()].request()
        }
        var kept: [Multiaddr] = []
        var refused: [(address: Multiaddr, kind: Kind)] = []
        for (address, kinds) in zip(addresses, kinds) {
            let isProbe = kinds.contains { verdicts[$0] == .probe }
            if !isProbe, let kind = kinds.first(where: { verdicts[$0] == .refuse }) {
                refused.append((address, kind))
            } else {
                kept.append(address)
            }
        }
        return isAll && kept.isEmpty ? (addresses, []) : (kept, refused)
    }

    /// A dial of `address` has ended: somebody was there, or not.
    package mutating func record(_ address: Multiaddr, succeeded: Bool) {
        for kind in Self.kinds(of: address) { self.counters[kind, default: Counter()].record(succeeded) }
    }

    /// Forgets everything: the network is another one.
    package mutating func reset() { self.counters = [:] }

    /// What is known of a kind.
    package func state(of kind: Kind) -> BlackHoleState {
        let counter = self.counters[kind] ?? Counter()
        return BlackHoleState(
            name: kind.name, isBlocked: counter.isBlocked, successes: counter.successes, dials: counter.results.count)
    }

    /// What a public, direct address belongs to.
    private static func kinds(of address: Multiaddr) -> [Kind] {
        guard let ip = address.ipAddress, !ip.isPrivate, !address.isRelayed else { return [] }
        return (address.contains(.udp) ? [.udp] : []) + (ip.family == .ipv6 ? [.ipv6] : [])
    }

    private enum Verdict { case allow, probe, refuse }

    private struct Counter: Sendable {
        /// The last ones, oldest first.
        private(set) var results: [Bool] = []
        private(set) var successes = 0
        private var requests = 0

        var isBlocked: Bool {
            self.results.count >= BlackHoleFilter.window && self.successes < BlackHoleFilter.minimumSuccesses
        }

        mutating func request() -> Verdict {
            guard self.results.count >= BlackHoleFilter.window else { return .probe }
            guard self.isBlocked else { return .allow }
            self.requests += 1
            guard self.requests >= BlackHoleFilter.window else { return .refuse }
            self.requests = 0
            return .probe
        }

        mutating func record(_ succeeded: Bool) {
            if self.isBlocked, succeeded {
                self = Counter()
                return
            }
            self.results.append(succeeded)
            if succeeded { self.successes += 1 }
            if self.results.count > BlackHoleFilter.window, self.results.removeFirst() { self.successes -= 1 }
        }
    }
}

/// What is known of a kind of address that networks sometimes swallow.
public struct BlackHoleState: Hashable, Sendable {
    /// `UDP` or `IPv6`.
    public let name: String
    /// Whether such addresses are left out, but for a probe now and then.
    public let isBlocked: Bool
    /// Successes among ``dials``.
    public let successes: Int
    /// The last dials of public addresses of this kind, at most 100.
    public let dials: Int
}
