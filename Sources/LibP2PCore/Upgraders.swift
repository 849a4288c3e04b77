public import NIOCore
public import PeerIdentity

/// Turns a plain byte stream into one that is encrypted and whose far end is proven.
public protocol SecurityUpgrader: Sendable {
    /// What multistream-select calls it: `/noise`.
    var protocolID: ProtocolID { get }

    /// Runs the handshake on `stream`'s loop. On failure the stream is closed with the same error: the protocol's own, or
    /// ``TransportError/peerMismatch(expected:found:)`` when somebody else than `expected` is there.
    ///
    /// - Parameters:
    ///   - stream: The plain stream; owned by the upgrader from now on. Bytes of the handshake that have already been read are
    ///     delivered by it as any others.
    ///   - role: The dialer is the initiator.
    ///   - expected: Who must be at the far end; `nil` when any peer may be.
    ///   - muxers: Our muxers in order of preference, for security protocols that negotiate the muxer early.
    func secure(_ stream: any ByteStream, role: Role, expecting expected: PeerID?, muxers: [ProtocolID])
        -> EventLoopFuture<SecuredStream>
}

/// An encrypted stream whose keys stay the same for its whole life.
public protocol SealedByteStream: ByteStream {
    /// Bytes encrypted so far.
    var bytesSealed: UInt64 { get }
}

/// The outcome of a security handshake.
public struct SecuredStream: Sendable {
    /// Plain bytes in, plain bytes out; encrypted beneath.
    public let stream: any ByteStream
    /// Who is at the far end.
    public let remotePeer: PeerID
    /// The muxer that the handshake settled; `nil` when multistream-select must.
    public let muxer: ProtocolID?

    /// Makes the outcome.
    public init(stream: any ByteStream, remotePeer: PeerID, muxer: ProtocolID?) {
        self.stream = stream
        self.remotePeer = remotePeer
        self.muxer = muxer
    }
}

/// Splits a secured byte stream into streams.
public protocol MuxerUpgrader: Sendable {
    /// What multistream-select calls it: `/yamux/1.0.0`.
    var protocolID: ProtocolID { get }

    /// Starts a session on `stream`, which it owns from now on. Called on the stream's loop.
    func multiplex(_ stream: any ByteStream, role: Role) -> any MuxerSession
}

/// A muxer at work on one connection. Event loop only.
public protocol MuxerSession: AnyObject, Sendable {
    /// Who is told about inbound streams and the end. Set before ``start()``.
    var delegate: (any MuxerSessionDelegate)? { get set }
    /// Streams open now, in both directions.
    var streamCount: Int { get }
    /// The muxer's own smoothed estimate; `nil` until measured.
    var roundTripTime: TimeAmount? { get }

    /// Begins to read.
    func start()
    /// Opens a stream, ready to be written to; the remote learns of it with the first byte or at the next flush.
    /// - Throws: ``MuxerError``.
    func openStream() throws -> any MuxedStream
    /// Sends a ping and completes with the time until its answer.
    func ping() -> EventLoopFuture<TimeAmount>
    /// Tells the remote goodbye, ends every stream, closes the byte stream beneath.
    func close(_ code: ConnectionErrorCode)
    /// Ends every stream and drops the byte stream beneath with ``TransportError/aborted``, without a word to the remote.
    func abort()
}

/// A stream as the muxer gives it out, before anything is negotiated on it.
public protocol MuxedStream: Stream {
    /// Set once by the connection that the muxer works for.
    var connection: (any Connection)? { get set }
}

/// What a muxer tells its connection, on the loop.
public protocol MuxerSessionDelegate: AnyObject {
    /// The remote has opened a stream. Its receiver is set within this call, or the stream is reset.
    func session(_ session: any MuxerSession, accepted stream: any MuxedStream)
    /// The session has ended; all streams have been told before. `error` is `nil` after an orderly end.
    func session(_ session: any MuxerSession, closed error: (any Error)?)
}

/// Why a muxer refuses to open a stream.
public enum MuxerError: Error, Hashable, Sendable {
    /// The session has ended, or the remote said it takes no more streams.
    case sessionClosed
    /// As many streams as allowed wait for the remote's acknowledgement.
    case tooManyUnacknowledgedStreams
    /// No stream number is left.
    case streamIDsExhausted
    /// Our own limit of streams on one connection.
    case tooManyStreams
}

/// Why negotiation of a protocol failed.
public enum NegotiationError: Error, Hashable, Sendable {
    /// The remote speaks none of these.
    case unsupported([ProtocolID])
    /// A message of the negotiation is longer than allowed.
    case messageTooLong(bytes: Int)
    /// A message of the negotiation does not end in a newline, or is not text.
    case malformedMessage
    /// The remote did not begin with `/multistream/1.0.0`.
    case unexpectedHeader(String)
    /// The remote answered with something that was not asked for.
    case unexpectedReply(String)
    /// The remote proposed more protocols than allowed.
    case tooManyProposals
    /// Nothing to propose.
    case noProtocolsProposed
    /// It took too long.
    case timedOut
    /// The stream ended before an agreement.
    case streamEnded
}
