internal import Foundation
internal import LibP2PCore
public import Multiformats
public import PeerIdentity
internal import Synchronization

/// What is known of peers: addresses and where they come from, protocols, the last signed record.
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

    private struct Entry: Sendable {
        var addresses: [(address: Multiaddr, source: Source)] = []
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
    private let state: Mutex<State>

    /// - Parameter path: The file of last good addresses; read now, written by ``save()``. An unreadable file counts as empty: what is
    ///   lost are hints.
    public init(path: String? = nil) {
        self.path = path
        self.state = Mutex(State())
        guard let path, let data = FileManager.default.contents(atPath: path), data.count <= 16 << 20,
            let saved = try? JSONDecoder().decode([String: [String]].self, from: data)
        else { return }
        for (peer, addresses) in saved.prefix(Self.maximumPeers) {
            guard let peer = try? PeerID(peer) else { continue }
            let known = addresses.prefix(Self.maximumAddressesPerPeer).compactMap { try? Multiaddr($0) }
            if !known.isEmpty { self.add(known, of: peer, from: .lastGood) }
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

    /// A connection to `peer` at `address` was made.
    public func recordSuccess(_ address: Multiaddr, of peer: PeerID) {
        self.add([address], of: peer, from: .lastGood)
    }

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
        let saved: [String: [String]]? = self.state.withLock { state in
            guard state.isDirty else { return nil }
            state.isDirty = false
            return Dictionary(
                uniqueKeysWithValues: state.entries.compactMap { peer, entry in
                    let good = entry.addresses.filter { $0.source == .lastGood }.map(\.address.description)
                    return good.isEmpty ? nil : (peer.description, Array(good.prefix(8)))
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
