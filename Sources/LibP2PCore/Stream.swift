/// One stream of a connection. A stream is a ``ByteStream`` whose two directions end separately.
public protocol Stream: ByteStream {
    /// The muxer's number of this stream, unique within its connection.
    var id: UInt64 { get }

    /// Who opened it.
    var role: Role { get }

    /// What was negotiated on it. `nil` until then.
    var protocolID: ProtocolID? { get set }

    /// The connection it belongs to. `nil` once that has ended.
    var connection: (any Connection)? { get }

    /// Kills both directions; the remote is told `code`.
    func reset(_ code: StreamErrorCode)
}

/// Which side of something this node is.
public enum Role: Hashable, Sendable {
    /// This node dialled, or opened the stream.
    case dialer
    /// The remote did.
    case listener

    /// The other side's role.
    public var opposite: Role { self == .dialer ? .listener : .dialer }
}

/// Why a stream was reset, as the remote is told. Spec: libp2p/specs PR 623.
public struct StreamErrorCode: RawRepresentable, Hashable, Sendable {
    /// The number on the wire.
    public let rawValue: UInt32

    /// Wraps a number from the wire.
    public init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    /// No reason given.
    public static let unspecified = StreamErrorCode(rawValue: 0)
    /// No protocol in common.
    public static let protocolNegotiationFailed = StreamErrorCode(rawValue: 0x1001)
    /// A limit of ours was reached.
    public static let resourceLimitExceeded = StreamErrorCode(rawValue: 0x1002)
    /// Too many requests.
    public static let rateLimited = StreamErrorCode(rawValue: 0x1003)
    /// The remote broke the protocol.
    public static let protocolViolation = StreamErrorCode(rawValue: 0x1004)
    /// Another stream took this one's place.
    public static let supplanted = StreamErrorCode(rawValue: 0x1005)
    /// Unused, and collected.
    public static let garbageCollected = StreamErrorCode(rawValue: 0x1006)
    /// The node ends.
    public static let shutdown = StreamErrorCode(rawValue: 0x1007)
    /// The remote is not welcome here.
    public static let gated = StreamErrorCode(rawValue: 0x1008)
}

/// A stream was reset; by whom, and with which code.
public struct StreamResetError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The reason given.
    public let code: StreamErrorCode
    /// Whether the remote did it.
    public let byRemote: Bool

    /// Makes the error.
    public init(code: StreamErrorCode, byRemote: Bool) {
        self.code = code
        self.byRemote = byRemote
    }

    /// For people.
    public var description: String {
        "stream reset by \(self.byRemote ? "the remote" : "this node") (code 0x\(String(self.code.rawValue, radix: 16)))"
    }
}
