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
    /// An inbound connection was closed by a rule of this node.
    case refused(PeerID, Multiaddr, Refusal)
    /// A listener is bound.
    case listening(Multiaddr)

    /// Why an inbound connection was closed.
    public enum Refusal: Hashable, Sendable {
        /// The gater does not want this peer.
        case gated
        /// As many connections as allowed are open.
        case tooManyConnections
        /// This peer has as many connections as allowed.
        case tooManyConnectionsOfPeer
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
