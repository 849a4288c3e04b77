public import NIOCore

/// How a peer is dialled.
public struct DialOptions: Hashable, Sendable {
    /// What is done with an address whose last dial has failed not long ago; see ``PeerStore/recordFailure(_:of:reason:name:now:random:)``.
    public enum Backoff: Hashable, Sendable {
        /// It is left out.
        case respected
        /// It is left out, unless the caller has named it.
        case respectedUnlessNamed
        /// It is dialled, but up to so much later than it would be. For redials that cannot wait.
        case heldAtMost(TimeAmount)
        /// It is dialled as any other.
        case ignored
    }

    /// What becomes of addresses that have failed.
    public var backoff: Backoff
    /// The peer dials us at this very moment, too: all addresses start at once.
    public var isSimultaneous: Bool
    /// TCP goes before QUIC: the caller wants a cheap path for bulk first, and looks for one with datagrams later.
    public var startsWithTCP: Bool

    /// The defaults of ``Swarm/connect(to:at:options:)``.
    public init(backoff: Backoff = .respectedUnlessNamed, isSimultaneous: Bool = false, startsWithTCP: Bool = false) {
        self.backoff = backoff
        self.isSimultaneous = isSimultaneous
        self.startsWithTCP = startsWithTCP
    }
}

/// How much a swarm dials at the same time.
public struct DialLimits: Hashable, Sendable {
    /// Addresses in all.
    public var total: Int
    /// Addresses of one peer.
    public var perPeer: Int

    /// The defaults: 160 in all, 8 of a peer.
    public init(total: Int = 160, perPeer: Int = 8) {
        self.total = total
        self.perPeer = perPeer
    }
}

/// What a swarm's dialling is like at the moment.
public struct DialReport: Hashable, Sendable {
    /// Addresses that are being dialled.
    public let underWay: Int
    /// Addresses that wait until others are done.
    public let waiting: Int
    /// Names that are being looked up.
    public let lookups: Int
    /// UDP, then IPv6.
    public let blackHoles: [BlackHoleState]
}
