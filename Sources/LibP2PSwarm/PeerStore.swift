internal import Foundation
internal import LibP2PCore
public import Multiformats
public import NIOCore
public import PeerIdentity
internal import Synchronization

/// What is known of peers: addresses, where they come from and how dials of them went, protocols, the last signed record.
///
/// The addresses at which a peer was last reached survive a restart, when a file is given.
public final class PeerStore: Sendable {
    /// Where an address comes from. Later cases outrank earlier ones when room is short.
    public enum Source: Comparable, Sendable {
        /// The peer said so.
        case identify
        /// The peer said so and signed it.
        case signedRecord
        /// A connection to it was made.
        case lastGood
        /// The configuration, or a caller.
        case configured
    }

    /// Addresses kept per peer.
    public static let maximumAddressesPerPeer = 32
    /// Peers kept; the one not heard of for the longest gives way, those without configured addresses first.
    public static let maximumPeers = 4096

    private static let maximumSavedAddresses = 8

    private struct Entry: Sendable {
        var addresses: [(address: Multiaddr, source: Source)] = []
        var book = AddressBook()
        var protocols: Set<String> = []
        var recordSequence: UInt64 = 0
        var lastHeardOf: UInt64 = 0

        /// Whoever is smallest is forgotten first.
        var worth: (Int, UInt64) { (self.addresses.contains { $0.source == .configured } ? 1 : 0, self.lastHeardOf) }
    }

    private struct State: Sendable {
        var entries: [PeerID: Entry] = [:]
        var clock: UInt64 = 0
        var isDirty = false

        mutating func update(_ peer: PeerID, limit: Int, _ body: (inout Entry) -> Void) {
            self.clock += 1
            var entry = self.entries[peer] ?? Entry()
            entry.lastHeardOf = self.clock
            body(&entry)
            self.entries[peer] = entry
            if self.entries.count > limit,
                let oldest = self.entries.min(by: { $0.value.worth < $1.value.worth })?.key
            {
                self.entries[oldest] = nil
            }
        }
    }

    private let path: String?
    private let wallClock: @Sendable () -> UInt64
    private let state: Mutex<State>

    /// - Parameters:
    ///   - path: The file of last good addresses; read now, written by ``save()``. An unreadable file counts as empty: what is lost are
    ///     hints.
    ///   - wallClock: Milliseconds since 1970, for people to read; the system's clock when `nil`.
    public init(path: String? = nil, wallClock: (@Sendable () -> UInt64)? = nil) {
        self.path = path
        self.wallClock = wallClock ?? { UInt64(max(Date().timeIntervalSince1970, 0) * 1000) }
        self.state = Mutex(State())
        guard let path, let data = FileManager.default.contents(atPath: path), data.count <= 16 << 20,
            let saved = try? JSONDecoder().decode([String: [SavedAddress]].self, from: data)
        else { return }
        for (peer, addresses) in saved.prefix(Self.maximumPeers) {
            guard let peer = try? PeerID(peer) else { continue }
            let known = addresses.prefix(Self.maximumAddressesPerPeer).compactMap { saved in
                (try? Multiaddr(saved.address)).map { (address: $0.withoutPeerID, saved: saved) }
            }
            guard !known.isEmpty else { continue }
            self.add(known.map(\.address), of: peer, from: .lastGood)
            self.state.withLock { state in
                for (address, saved) in known {
                    state.entries[peer]?.book.restore(
                        address, reachedAt: saved.reachedAt, handshake: saved.handshake)
                }
            }
        }
        self.state.withLock { $0.isDirty = false }
    }

    /// Adds addresses of a peer, the best first. Beyond the bound the lowest-ranking and oldest give way.
    public func add(_ addresses: [Multiaddr], of peer: PeerID, from source: Source) {
        self.state.withLock { state in
            state.update(peer, limit: Self.maximumPeers) { entry in
                for address in addresses.map(\.withoutPeerID).reversed() {
                    let known = entry.addresses.firstIndex { $0.address == address }
                    let rank = max(source, known.map { entry.addresses[$0].source } ?? source)
                    if let known { entry.addresses.remove(at: known) }
                    entry.addresses.insert((address, rank), at: 0)
                }
                while entry.addresses.count > Self.maximumAddressesPerPeer {
                    let lowest = entry.addresses.map(\.source).min()
                    entry.addresses.remove(
                        at: entry.addresses.lastIndex { $0.source == lowest } ?? entry.addresses.endIndex - 1)
                }
            }
            if source == .lastGood { state.isDirty = true }
        }
    }

    /// Replaces all addresses of one source.
    public func set(_ addresses: [Multiaddr], of peer: PeerID, from source: Source) {
        self.state.withLock { state in
            state.update(peer, limit: Self.maximumPeers) { $0.addresses.removeAll { $0.source == source } }
        }
        self.add(addresses, of: peer, from: source)
    }

    /// The known addresses of a peer: last good ones first, then by rank.
    public func addresses(of peer: PeerID) -> [Multiaddr] {
        let known = self.state.withLock { $0.entries[peer]?.addresses ?? [] }
        let good = known.filter { $0.source == .lastGood }
        let rest = known.filter { $0.source != .lastGood }
            .enumerated().sorted { ($1.element.source, $0.offset) < ($0.element.source, $1.offset) }.map(\.element)
        return (good + rest).map(\.address)
    }

    /// The known addresses of a peer and where they come from.
    public func known(of peer: PeerID) -> [(address: Multiaddr, source: Source)] {
        self.state.withLock { $0.entries[peer]?.addresses ?? [] }
    }

    /// What the peer said it speaks, sorted.
    public func protocols(of peer: PeerID) -> [String] {
        self.state.withLock { $0.entries[peer]?.protocols.sorted() ?? [] }
    }

    // MARK: Dials

    /// An address of a peer, and what is known of it.
    public struct AddressReport: Hashable, Sendable {
        /// The address, without `/p2p`.
        public var address: Multiaddr
        /// Where it comes from; `nil` for one that only a caller of a dial, or the resolution of a name, has brought up.
        public var source: Source?
        /// How dials of it went.
        public var dials: DialRecord
    }

    /// All addresses of a peer that are known or were dialled: the known ones as ``addresses(of:)`` has them, then the others, the
    /// latest first.
    public func report(of peer: PeerID) -> [AddressReport] {
        let order = self.addresses(of: peer)
        guard let entry = self.state.withLock({ $0.entries[peer] }) else { return [] }
        let known = order.compactMap { address -> AddressReport? in
            guard let source = entry.addresses.first(where: { $0.address == address })?.source else { return nil }
            return AddressReport(
                address: address, source: source, dials: entry.book.record(of: address) ?? DialRecord())
        }
        let others = entry.book.records.reversed().filter { !order.contains($0.address) }
        return known + others.map { AddressReport(address: $0.address, source: nil, dials: $0.record) }
    }

    /// How the last dials of a peer's addresses went.
    func dialRecords(of peer: PeerID) -> [Multiaddr: DialRecord] {
        let records = self.state.withLock { $0.entries[peer]?.book.records ?? [] }
        return Dictionary(records.map { ($0.address, $0.record) }, uniquingKeysWith: { $1 })
    }

    /// Where a peer was reached last, unless a dial there has failed since.
    public func lastGoodAddress(of peer: PeerID) -> Multiaddr? {
        self.state.withLock { $0.entries[peer]?.book.lastGood }
    }

    /// A connection to `peer` at `address` was made.
    ///
    /// - Parameters:
    ///   - handshake: The time from the start of the dial.
    ///   - name: What was resolved to that address.
    public func recordSuccess(
        _ address: Multiaddr, of peer: PeerID, handshake: TimeAmount? = nil, name: Multiaddr? = nil
    ) {
        self.add([address], of: peer, from: .lastGood)
        let wallTime = self.wallClock()
        self.state.withLock { state in
            state.entries[peer]?.book.succeeded(
                address.withoutPeerID, handshake: handshake, name: name, at: wallTime)
        }
    }

    /// A dial of `address`, or the resolution of a name, has failed. The address is not thereby known.
    ///
    /// - Parameters:
    ///   - now: The swarm's clock.
    ///   - random: A fresh random number: it spreads the times of the next dial.
    public func recordFailure(
        _ address: Multiaddr, of peer: PeerID, reason: String, name: Multiaddr? = nil, now: NIODeadline, random: UInt64
    ) {
        let wallTime = self.wallClock()
        self.state.withLock { state in
            state.update(peer, limit: Self.maximumPeers) { entry in
                entry.book.failed(
                    address.withoutPeerID, reason: reason, name: name, at: wallTime, now: now, random: random)
            }
        }
    }

    /// A name has been looked up, and stands for something.
    func recordResolution(of name: Multiaddr, of peer: PeerID) {
        self.state.withLock { $0.entries[peer]?.book.resolved(name.withoutPeerID) }
    }

    /// No address is left alone any longer: the machine's network is another one.
    public func forgetBackoffs() {
        self.state.withLock { state in
            for peer in state.entries.keys { state.entries[peer]?.book.forgetBackoffs() }
        }
    }

    // MARK: Protocols and records

    /// What the peer said it speaks, at most 1,024 names.
    public func setProtocols(_ protocols: [String], of peer: PeerID) {
        self.state.withLock { state in
            state.update(peer, limit: Self.maximumPeers) { $0.protocols = Set(protocols.prefix(1024)) }
        }
    }

    /// Whether the peer said it speaks `name`.
    public func speaks(_ name: String, _ peer: PeerID) -> Bool {
        self.state.withLock { $0.entries[peer]?.protocols.contains(name) ?? false }
    }

    /// Takes a verified peer record, unless one at least as new was taken before. It takes the place of what the peer said before,
    /// signed or not.
    ///
    /// - Parameter addresses: Those of its addresses that are worth keeping here.
    /// - Returns: Whether it was taken.
    @discardableResult
    public func consume(_ record: PeerRecord, keeping addresses: [Multiaddr]) -> Bool {
        let isNew = self.state.withLock { state in
            guard record.sequence > state.entries[record.peerID]?.recordSequence ?? 0 else { return false }
            state.update(record.peerID, limit: Self.maximumPeers) { $0.recordSequence = record.sequence }
            return true
        }
        guard isNew else { return false }
        self.set([], of: record.peerID, from: .identify)
        self.set(addresses, of: record.peerID, from: .signedRecord)
        return true
    }

    /// Forgets a peer.
    public func remove(_ peer: PeerID) {
        self.state.withLock {
            $0.entries[peer] = nil
            $0.isDirty = true
        }
    }

    /// Writes the last good addresses to the file, if there is one and something changed. A crash leaves the old or the new file.
    public func save() throws {
        guard let path = self.path else { return }
        let saved: [String: [SavedAddress]]? = self.state.withLock { state in
            guard state.isDirty else { return nil }
            state.isDirty = false
            return Dictionary(
                uniqueKeysWithValues: state.entries.compactMap { peer, entry in
                    let good = entry.addresses.filter { $0.source == .lastGood }.prefix(Self.maximumSavedAddresses)
                    let saved = good.map { SavedAddress($0.address, entry.book.record(of: $0.address)) }
                    return saved.isEmpty ? nil : (peer.description, saved)
                })
        }
        guard let saved else { return }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted]
        do {
            try encoder.encode(saved).write(to: URL(fileURLWithPath: path), options: .atomic)
        } catch {
            self.state.withLock { $0.isDirty = true }
            throw error
        }
    }
}

/// One address in the file. Older files have its text alone.
private struct SavedAddress: Codable {
    var address: String
    /// In milliseconds since 1970.
    var reachedAt: UInt64?
    var handshakeMilliseconds: Double?

    init(_ address: Multiaddr, _ record: DialRecord?) {
        self.address = address.description
        self.reachedAt = record?.reachedAt
        self.handshakeMilliseconds = record?.handshake.map { Double($0.nanoseconds) / 1_000_000 }
    }

    init(from decoder: any Decoder) throws {
        if let text = try? decoder.singleValueContainer().decode(String.self) {
            self.address = text
            return
        }
        let container = try decoder.container(keyedBy: CodingKeys.self)
        self.address = try container.decode(String.self, forKey: .address)
        self.reachedAt = try container.decodeIfPresent(UInt64.self, forKey: .reachedAt)
        self.handshakeMilliseconds = try container.decodeIfPresent(Double.self, forKey: .handshakeMilliseconds)
    }

    var handshake: TimeAmount? {
        guard let milliseconds = self.handshakeMilliseconds, (0...1e6).contains(milliseconds) else { return nil }
        return .nanoseconds(Int64(milliseconds * 1_000_000))
    }
}
