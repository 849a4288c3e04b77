public import Multiformats
public import NIOCore
public import PeerIdentity

/// A secured, multiplexed connection to one peer.
///
/// What is constant can be read anywhere. Everything else belongs to `eventLoop`.
public protocol Connection: AnyObject, Sendable {
    /// Unique within this process.
    var id: ConnectionID { get }
    /// The loop that owns the connection and all its streams.
    var eventLoop: any EventLoop { get }
    /// Who dialled.
    var role: Role { get }
    /// Who is at the far end, proven by the handshake.
    var remotePeer: PeerID { get }
    /// The transport's own address of this end, without `/p2p`.
    var localAddress: Multiaddr { get }
    /// The transport's own address of the far end, without `/p2p`.
    var remoteAddress: Multiaddr { get }
    /// How it was built.
    var details: ConnectionDetails { get }

    /// Who is told about inbound streams and the end. Event loop only.
    var delegate: (any ConnectionDelegate)? { get set }
    /// Streams open now, in both directions. Event loop only.
    var streamCount: Int { get }
    /// The muxer's or transport's own smoothed estimate, `nil` until measured. Event loop only.
    var roundTripTime: TimeAmount? { get }
    /// Bytes encrypted under keys that nothing renews; 0 where the transport renews its keys by itself. Event loop only.
    var bytesSealed: UInt64 { get }
    /// Asks the remote for a sign of life beneath all streams and completes with the time it took.
    func probe() -> EventLoopFuture<TimeAmount>

    /// Opens a stream and negotiates the first of `protocols` that the remote speaks.
    ///
    /// With exactly one protocol the negotiation is optimistic: the future completes at once, writing is possible at once,
    /// and a refusal ends the stream with ``NegotiationError/unsupported(_:)``.
    /// Callable from any thread; completes on the connection's loop.
    func openStream(_ protocols: [ProtocolID]) -> EventLoopFuture<any Stream>

    /// Ends the connection and every stream on it. Callable from any thread.
    func close(_ code: ConnectionErrorCode)

    /// Ends the connection without a word to the remote: what is unsent is dropped. For a path that is dead. Callable from any thread.
    func abort()

    /// Completes when the connection is gone: with success after an orderly end, else with the reason.
    var closeFuture: EventLoopFuture<Void> { get }
}

extension Connection {
    /// Nothing is sealed for good.
    public var bytesSealed: UInt64 { 0 }

    /// Closes in order, where there is no quicker way.
    public func abort() { self.close(.none) }
}

/// How a connection was built; shown to users, never used for decisions about trust.
public struct ConnectionDetails: Hashable, Sendable {
    /// `tcp`, `quic-v1`, `ws`, `memory`, …
    public var transport: String
    /// `/noise`, `/tls/1.0.0`.
    public var security: ProtocolID
    /// `/yamux/1.0.0`, or `quic`.
    public var muxer: ProtocolID
    /// Whether the security handshake settled the muxer, which saves a round trip.
    public var hasEarlyMuxer: Bool
    /// What the kernel reads back for TCP's congestion control; `nil` where there is none.
    public var congestion: String?
    /// The relay that carries it.
    public var relay: PeerID?
    /// Whether the relay limits time or data.
    public var isLimited: Bool

    /// Makes the details of a direct connection.
    public init(
        transport: String, security: ProtocolID, muxer: ProtocolID, hasEarlyMuxer: Bool = false,
        congestion: String? = nil, relay: PeerID? = nil, isLimited: Bool = false
    ) {
        self.transport = transport
        self.security = security
        self.muxer = muxer
        self.hasEarlyMuxer = hasEarlyMuxer
        self.congestion = congestion
        self.relay = relay
        self.isLimited = isLimited
    }
}

/// What a connection tells its owner, on the connection's loop.
public protocol ConnectionDelegate: AnyObject {
    /// The protocols that a stream which the remote opens may negotiate, matched one by one.
    func connection(_ connection: any Connection, accepts protocolID: ProtocolID) -> Bool

    /// The remote has opened a stream and negotiated its protocol. Whoever takes it sets its receiver in this call.
    func connection(_ connection: any Connection, accepted stream: any Stream)
}

/// A number for each connection of this process.
public struct ConnectionID: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
    /// The number; later connections have larger ones.
    public let rawValue: UInt64

    /// Wraps a number.
    public init(rawValue: UInt64) {
        self.rawValue = rawValue
    }

    /// Order of creation.
    public static func < (a: ConnectionID, b: ConnectionID) -> Bool { a.rawValue < b.rawValue }

    /// The number.
    public var description: String { String(self.rawValue) }
}

/// Why a connection is closed, as the remote is told where the muxer can. Spec: libp2p/specs PR 623.
public struct ConnectionErrorCode: RawRepresentable, Hashable, Sendable {
    /// The number on the wire.
    public let rawValue: UInt32

    /// Wraps a number from the wire.
    public init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    /// An orderly end.
    public static let none = ConnectionErrorCode(rawValue: 0)
    /// No protocol in common.
    public static let protocolNegotiationFailed = ConnectionErrorCode(rawValue: 0x1000)
    /// A limit of ours was reached.
    public static let resourceLimitExceeded = ConnectionErrorCode(rawValue: 0x1001)
    /// Too many requests.
    public static let rateLimited = ConnectionErrorCode(rawValue: 0x1002)
    /// The remote broke a protocol.
    public static let protocolViolation = ConnectionErrorCode(rawValue: 0x1003)
    /// Another connection took this one's place.
    public static let supplanted = ConnectionErrorCode(rawValue: 0x1004)
    /// Unused, and collected.
    public static let garbageCollected = ConnectionErrorCode(rawValue: 0x1005)
    /// The node ends.
    public static let shutdown = ConnectionErrorCode(rawValue: 0x1006)
    /// The remote is not welcome here.
    public static let gated = ConnectionErrorCode(rawValue: 0x1007)
}

/// The connection was closed for a reason that this side or the other gave.
public struct ConnectionClosedError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The reason given.
    public let code: ConnectionErrorCode
    /// Whether the remote did it.
    public let byRemote: Bool

    /// Makes the error.
    public init(code: ConnectionErrorCode, byRemote: Bool) {
        self.code = code
        self.byRemote = byRemote
    }

    /// For people.
    public var description: String {
        "connection closed by \(self.byRemote ? "the remote" : "this node") (code 0x\(String(self.code.rawValue, radix: 16)))"
    }
}
