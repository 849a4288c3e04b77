public import LibP2PCore
public import NIOCore

/// Splits a secured byte stream into streams by mplex, for peers that speak nothing better.
///
/// mplex is deprecated: it has no flow control, so that one stream whose reader is slow holds up the whole connection, and is killed
/// when that takes too long. It has no pings either, and no goodbye.
///
/// Spec: `mplex/README.md`.
public struct MplexMuxer: MuxerUpgrader {
    /// The limits of every session made by this muxer.
    public let configuration: MplexConfiguration

    /// Makes a muxer.
    public init(configuration: MplexConfiguration = MplexConfiguration()) {
        self.configuration = configuration
    }

    /// `/mplex/6.7.0`.
    public var protocolID: ProtocolID { "/mplex/6.7.0" }

    /// Starts a session on `stream`, which it owns from now on. Called on the stream's loop. Nothing is read or written
    /// before ``MuxerSession/start()``.
    public func multiplex(_ stream: any ByteStream, role: Role) -> any MuxerSession {
        MplexConnection(stream, role: role, configuration: self.configuration)
    }
}

/// The limits of an mplex session.
public struct MplexConfiguration: Hashable, Sendable {
    /// Streams of the remote that may be open at once. One more is reset.
    public var maximumInboundStreams = 1024

    /// Streams of the remote that may be open at once without a protocol having been negotiated on them. One more is reset.
    public var acceptBacklog = 256

    /// Streams of ours that may be open at once.
    public var maximumOutboundStreams = 4096

    /// Bytes kept for a stream that does not read. One more holds up the connection.
    public var streamBufferBytes = 1024 * 1024

    /// Bytes kept for all streams of the session together. One more holds up the connection.
    public var totalBufferBytes = 16 * 1024 * 1024

    /// How long the connection may be held up before the stream whose reader is slow is reset with
    /// ``StreamErrorCode/resourceLimitExceeded``. The same as go-mplex.
    public var slowReaderTime = TimeAmount.seconds(5)

    /// Bytes a stream queues before it is no longer writable.
    public var sendQueueBytes = 256 * 1024

    /// How long the byte stream beneath may take to carry what was written before it is closed.
    public var lingerTime = TimeAmount.seconds(1)

    /// The defaults.
    public init() {}
}
