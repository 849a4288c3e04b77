public import Multiformats
public import PeerIdentity

/// Why a peer could not be reached.
public enum DialError: Error, Hashable, Sendable, CustomStringConvertible {
    /// What became of one address.
    public struct Attempt: Hashable, Sendable {
        /// The address.
        public var address: Multiaddr
        /// Why it failed, for people.
        public var reason: String

        package init(address: Multiaddr, reason: String) {
            self.address = address
            self.reason = reason
        }
    }

    /// That is this node itself.
    case dialToSelf
    /// No address of the peer is known.
    case noAddresses(PeerID)
    /// No transport of this node speaks any of its addresses.
    case noTransport([Multiaddr])
    /// Every address failed.
    case allAttemptsFailed([Attempt])
    /// As many connections as this node allows, in all or to this peer, are open.
    case tooManyConnections
    /// The node is shutting down.
    case shutDown

    /// One line for people.
    public var description: String {
        switch self {
        case .dialToSelf: "that is this node itself"
        case .noAddresses(let peer): "no address of \(peer) is known"
        case .noTransport(let addresses):
            "no transport for " + addresses.map(\.description).joined(separator: ", ")
        case .allAttemptsFailed(let attempts):
            attempts.map { "\($0.address): \($0.reason)" }.joined(separator: "; ")
        case .tooManyConnections: "too many connections are open"
        case .shutDown: "the node is shutting down"
        }
    }
}
