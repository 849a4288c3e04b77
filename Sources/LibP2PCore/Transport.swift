public import Multiformats
public import NIOCore
public import PeerIdentity

/// Makes connections over one kind of address: TCP, QUIC, memory, a relay.
public protocol Transport: Sendable {
    /// Whether a pre-shared key protects every connection it makes. A node of a private network uses no others.
    var hasPreSharedKey: Bool { get }

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

    /// Dials as ``dial(_:expecting:cancellation:)`` does, and tells on the way how far it has come. From any thread, at most once per
    /// stage, and never after the future has completed.
    func dial(
        _ address: Multiaddr, expecting peer: PeerID, cancellation: EventLoopFuture<Void>,
        progress: @escaping @Sendable (DialProgress) -> Void
    ) -> EventLoopFuture<any Connection>

    /// Starts to listen. Connections go to `accept` fully upgraded, on their own loops.
    func listen(on address: Multiaddr, accept: @escaping @Sendable (any Connection) -> Void)
        -> EventLoopFuture<any Listener>
}

extension Transport {
    /// No: the key of a private network has to be put beneath everything else, which not all transports let us do.
    public var hasPreSharedKey: Bool { false }

    /// For transports that have nothing to tell on the way.
    public func dial(
        _ address: Multiaddr, expecting peer: PeerID, cancellation: EventLoopFuture<Void>,
        progress: @escaping @Sendable (DialProgress) -> Void
    ) -> EventLoopFuture<any Connection> {
        self.dial(address, expecting: peer, cancellation: cancellation)
    }
}

/// How far a dial has come.
public enum DialProgress: Hashable, Sendable {
    /// Somebody answers; what is left is the handshake.
    case reached
}

/// A place where a transport accepts connections.
public protocol Listener: AnyObject, Sendable {
    /// The bound address: real port, still unspecified where the caller asked for that.
    var address: Multiaddr { get }
    /// Stops accepting; connections already made live on.
    func close() -> EventLoopFuture<Void>
}

/// Why a transport could not make a connection, where no other error says it.
public enum TransportError: Error, Hashable, Sendable, CustomStringConvertible {
    /// Not an address of this transport.
    case unsupportedAddress(Multiaddr)
    /// This node itself listens there.
    case ownAddress
    /// Another socket has this address and port.
    case portBusy
    /// Both ends dialled at once and hold one and the same connection as dialers. It was closed.
    case simultaneousOpen
    /// Both ends dialled at once, and the remote's dial goes on: its connection is to be waited for.
    case yieldedToRemote
    /// Somebody else is at this address.
    case peerMismatch(expected: PeerID, found: PeerID)
    /// Connecting and upgrading took too long.
    case timedOut
    /// Nobody waits for the result any more.
    case cancelled
    /// This side dropped the connection, and what was unsent, without a word.
    case aborted

    /// For people.
    public var description: String {
        switch self {
        case .unsupportedAddress(let address): "\(address) is no address of this transport"
        case .ownAddress: "this node itself listens there"
        case .portBusy: "the port is in use"
        case .simultaneousOpen: "both ends dialled at once"
        case .yieldedToRemote: "both ends dialled at once, and the remote's connection did not come"
        case .peerMismatch(let expected, let found): "\(found) is there, not \(expected)"
        case .timedOut: "no answer in time"
        case .cancelled: "nobody waits for it any more"
        case .aborted: "this side dropped the connection"
        }
    }
}

extension Multiaddr {
    /// The address without `/p2p/<peer>` at its end.
    package var withoutPeerID: Multiaddr { self.removingTrailingP2P().address }
}
