public import LibP2PCore
public import Multiformats
public import PeerIdentity

/// What happens to a swarm's connections.
public enum SwarmEvent: Sendable {
    /// A connection to a peer is there.
    case connected(any Connection)
    /// A connection is gone. `remaining` others to the same peer live on.
    case disconnected(any Connection, reason: String?, remaining: Int)
    /// A peer could not be reached.
    case dialFailed(PeerID, DialError)
    /// A new connection was closed by a rule of this node.
    case refused(PeerID, Multiaddr, Refusal)
    /// A listener is bound.
    case listening(Multiaddr)

    /// Why a connection was not kept.
    public enum Refusal: Error, Hashable, Sendable, CustomStringConvertible {
        /// The gater does not want this peer.
        case gated
        /// As many connections as allowed are open.
        case tooManyConnections
        /// This peer has as many connections as allowed.
        case tooManyConnectionsOfPeer
        /// This node's own peer ID is at the far end: another machine has a copy of its key, or the address leads back here in a way
        /// that its transport cannot see.
        case ownIdentity
        /// The node is shutting down.
        case shutDown

        /// For people.
        public var description: String {
            switch self {
            case .gated: "refused by a rule of this node"
            case .tooManyConnections: "too many connections are open"
            case .tooManyConnectionsOfPeer: "too many connections to this peer are open"
            case .ownIdentity: "this node's own peer ID is there"
            case .shutDown: "the node is shutting down"
            }
        }

        /// What the remote is told.
        var code: ConnectionErrorCode {
            switch self {
            case .gated, .ownIdentity: .gated
            case .tooManyConnections, .tooManyConnectionsOfPeer: .resourceLimitExceeded
            case .shutDown: .shutdown
            }
        }
    }
}

/// How many connections a swarm holds.
public struct ConnectionLimits: Hashable, Sendable {
    /// Connections in all.
    public var total: Int
    /// Connections to one peer, in both directions.
    public var perPeer: Int

    /// The defaults: 1,024 in all, 8 to a peer.
    public init(total: Int = 1024, perPeer: Int = 8) {
        self.total = total
        self.perPeer = perPeer
    }
}
