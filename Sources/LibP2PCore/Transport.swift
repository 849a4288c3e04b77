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
