public import Multiformats
public import NIOCore

/// How dials of one address went.
public struct DialRecord: Hashable, Sendable {
    /// When a connection there was made last, in milliseconds since 1970.
    public internal(set) var reachedAt: UInt64?
    /// How long that took, from the first packet to a secured and multiplexed connection.
    public internal(set) var handshake: TimeAmount?
    /// When a dial failed last, in milliseconds since 1970.
    public internal(set) var failedAt: UInt64?
    /// Why; for people, at most 300 bytes.
    public internal(set) var failure: String?
    /// Dials that failed since the last success.
    public internal(set) var failures = 0
    /// Until when it is left alone, on the swarm's clock.
    public internal(set) var retryAt: NIODeadline?
    /// The name that stands for this address.
    public internal(set) var name: Multiaddr?
}

/// What is remembered of the dials of one peer, per address. Pure; the caller brings time and chance.
///
/// After the first failure an address is left alone for 5 s, after n more for 5 s + n² s, at most 5 min; a random part of a fifth at
/// most is taken off, so that peers that lost each other at the same moment do not meet again at each. A success anywhere ends all
/// waiting.
struct AddressBook: Sendable {
    /// Addresses that are remembered; those that were never reached are forgotten first, then the ones not used for the longest.
    static let maximumAddresses = 64
    static let maximumReasonBytes = 300
    static let firstBackoff = TimeAmount.seconds(5)
    static let maximumBackoff = TimeAmount.seconds(300)

    /// Least recently used first.
    private(set) var records: [(address: Multiaddr, record: DialRecord)] = []

    /// How long an address is left alone after so many failures in a row.
    static func backoff(failures: Int, random: UInt64) -> TimeAmount {
        // Beyond this many the limit holds anyway.
        let more = Int64(min(max(failures - 1, 0), 100))
        let whole = min(Self.firstBackoff + .seconds(more * more), Self.maximumBackoff).nanoseconds
        return .nanoseconds(whole - Int64(random % UInt64(whole / 5 + 1)))
    }

    func record(of address: Multiaddr) -> DialRecord? { self.records.last { $0.address == address }?.record }

    /// Where the peer was reached last, unless a dial there has failed since.
    var lastGood: Multiaddr? {
        let reached = self.records.filter { $0.record.reachedAt != nil }
        guard let best = reached.max(by: { ($0.record.reachedAt ?? 0) < ($1.record.reachedAt ?? 0) }) else {
            return nil
        }
        // Of those reached in the same millisecond the last one.
        let latest = reached.last { $0.record.reachedAt == best.record.reachedAt } ?? best
        return latest.record.failures == 0 ? latest.address : nil
    }

    mutating func succeeded(_ address: Multiaddr, handshake: TimeAmount?, name: Multiaddr?, at wallTime: UInt64) {
        for index in self.records.indices { self.records[index].record.retryAt = nil }
        self.update(address) { record in
            record.reachedAt = wallTime
            record.handshake = handshake ?? record.handshake
            record.failures = 0
            record.name = name ?? record.name
        }
    }

    mutating func failed(
        _ address: Multiaddr, reason: String, name: Multiaddr?, at wallTime: UInt64, now: NIODeadline, random: UInt64
    ) {
        self.update(address) { record in
            record.failedAt = wallTime
            record.failure = Self.bounded(reason)
            record.failures = min(record.failures + 1, 1_000_000)
            record.retryAt = now + Self.backoff(failures: record.failures, random: random)
            record.name = name ?? record.name
        }
    }

    /// A name stands for some address again, whatever becomes of that.
    mutating func resolved(_ name: Multiaddr) {
        guard let index = self.records.firstIndex(where: { $0.address == name }) else { return }
        self.records[index].record = DialRecord()
    }

    /// Takes over what was known before a restart, the most recent first.
    mutating func restore(_ address: Multiaddr, reachedAt: UInt64?, handshake: TimeAmount?) {
        guard self.records.count < Self.maximumAddresses, self.record(of: address) == nil else { return }
        var record = DialRecord()
        record.reachedAt = reachedAt
        record.handshake = handshake
        self.records.insert((address, record), at: 0)
    }

    /// Nothing is left alone any more: the network is another one.
    mutating func forgetBackoffs() {
        for index in self.records.indices { self.records[index].record.retryAt = nil }
    }

    private mutating func update(_ address: Multiaddr, _ body: (inout DialRecord) -> Void) {
        var record = DialRecord()
        if let index = self.records.firstIndex(where: { $0.address == address }) {
            record = self.records.remove(at: index).record
        } else if self.records.count >= Self.maximumAddresses {
            self.records.remove(at: self.records.firstIndex { $0.record.reachedAt == nil } ?? 0)
        }
        body(&record)
        self.records.append((address, record))
    }

    private static func bounded(_ reason: String) -> String {
        guard reason.utf8.count > Self.maximumReasonBytes else { return reason }
        return String(decoding: reason.utf8.prefix(Self.maximumReasonBytes - 6), as: UTF8.self) + "…"
    }
}
