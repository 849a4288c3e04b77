public import Multiformats
public import NIOCore
public import PeerIdentity

/// Makes connections over one kind of address: TCP, QUIC, memory, a relay.
public protocol Transport: Sendable {
    /// Whether this transport can dial `address` (any `/p2p` at its end included).
    func canDial(_ address: Multiaddr) -> Bool

    /// Whether this transport can listen on `address`.
    func canListen(on address: Multiaddr) -> Bool

    /// Dials, secures and multiplexes. The future fails within the transport's own time-out; a caller that lost interest
    /// completes `cancellation`, and the attempt ends.
    ///
    /// - Parameters:
    ///   - address: Where; resolved already, no DNS names.
    ///   - peer: Who must be there.
    func dial(_ address: Multiaddr, expecting peer: PeerID, cancellation: EventLoopFuture<Void>)
        -> EventLoopFuture<any Connection>

    /// Starts to listen. Connections go to `accept` fully upgraded, on their own loops.
    func listen(on address: Multiaddr, accept: @escaping @Sendable (any Connection) -> Void)
        -> EventLoopFuture<any Listener>
}

/// A place where a transport accepts connections.
public protocol Listener: AnyObject, Sendable {
    /// The bound address: real port, still unspecified where the caller asked for that.
    var address: Multiaddr { get }
    /// Stops accepting; connections already made live on.
    func close() -> EventLoopFuture<Void>
}

/// Why a transport could not make a connection, where no other error says it.
public enum TransportError: Error, Hashable, Sendable {
    /// Not an address of this transport.
    case unsupportedAddress(Multiaddr)
    /// Both ends dialled at once and hold one and the same connection as dialers. It was closed.
    case simultaneousOpen
    /// Both ends dialled at once; the peer with the lower ID, the remote, dials again.
    case yieldedToRemote
    /// Somebody else is at this address.
    case peerMismatch(expected: PeerID, found: PeerID)
    /// Connecting and upgrading took too long.
    case timedOut
}

extension Multiaddr {
    /// The address without `/p2p/<peer>` at its end.
    package var withoutPeerID: Multiaddr { self.removingTrailingP2P().address }
}
