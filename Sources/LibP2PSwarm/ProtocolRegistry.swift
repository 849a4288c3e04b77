public import LibP2PCore
public import PeerIdentity
internal import Synchronization

/// The protocols this node accepts, and who may use them. Read from every connection's loop, changed rarely.
public final class ProtocolRegistry: Sendable {
    /// Takes a stream whose protocol is negotiated. Called on the stream's loop; it sets the stream's receiver in that call.
    public typealias Handler = @Sendable (any Stream) -> Void
    /// Whether a peer may use, and learns of, a protocol.
    public typealias Admission = @Sendable (PeerID) -> Bool

    private struct Entry: Sendable {
        var handler: Handler
        var admits: Admission?
    }

    private let entries = Mutex<[ProtocolID: Entry]>([:])

    /// Makes an empty registry.
    public init() {}

    /// Accepts `protocolID` from now on, from peers that `admits` lets in (all, when `nil`). Replaces an earlier handler.
    public func accept(_ protocolID: ProtocolID, from admits: Admission? = nil, _ handler: @escaping Handler) {
        self.entries.withLock { $0[protocolID] = Entry(handler: handler, admits: admits) }
    }

    /// Accepts `protocolID` no longer.
    public func remove(_ protocolID: ProtocolID) {
        self.entries.withLock { $0[protocolID] = nil }
    }

    /// The protocols that `peer` may use, sorted by name.
    public func protocols(for peer: PeerID) -> [ProtocolID] {
        let entries = self.entries.withLock { $0 }
        return entries.filter { $0.value.admits?(peer) ?? true }.keys.sorted { $0.rawValue < $1.rawValue }
    }

    /// The handler of `protocolID`, when `peer` may use it.
    public func handler(of protocolID: ProtocolID, for peer: PeerID) -> Handler? {
        guard let entry = self.entries.withLock({ $0[protocolID] }), entry.admits?(peer) ?? true else { return nil }
        return entry.handler
    }
}
