public import LibP2PCore
public import NIOCore

/// Splits a secured byte stream into streams by Yamux.
///
/// Spec: hashicorp/yamux `spec.md`; libp2p/specs `yamux/README.md`.
public struct YamuxMuxer: MuxerUpgrader {
    /// The limits of every session made by this muxer.
    public let configuration: YamuxConfiguration

    /// Makes a muxer.
    public init(configuration: YamuxConfiguration = YamuxConfiguration()) {
        self.configuration = configuration
    }

    /// `/yamux/1.0.0`.
    public var protocolID: ProtocolID { "/yamux/1.0.0" }

    /// Starts a session on `stream`, which it owns from now on. Called on the stream's loop. Nothing is read or written
    /// before ``MuxerSession/start()``.
    public func multiplex(_ stream: any ByteStream, role: Role) -> any MuxerSession {
        YamuxConnection(stream, role: role, configuration: self.configuration)
    }
}

/// The limits of a Yamux session.
public struct YamuxConfiguration: Hashable, Sendable {
    /// Streams of the remote that may be open at once. One more is reset with
    /// ``StreamErrorCode/resourceLimitExceeded``.
    public var maximumInboundStreams = 1024

    /// Streams of the remote that may be open at once without a protocol having been negotiated on them. One more is reset
    /// likewise.
    public var acceptBacklog = 256

    /// Streams of ours that may be open at once.
    public var maximumOutboundStreams = 4096

    /// How far a stream's receive window may grow, in bytes; at least the 256 KiB it starts with, at most 1 GiB.
    public var maximumReceiveWindowBytes = 16 * 1024 * 1024

    /// How many bytes the receive windows of all streams may grow, taken together, beyond the 256 KiB that each starts with.
    public var windowGrowthBytes = 64 * 1024 * 1024

    /// The round-trip time that the growth of windows reckons with when the measured one is shorter. An idle path measures
    /// far shorter than one whose queues are in use, and a window that fits the former starves a fast flow on the latter.
    public var minimumTuningRoundTripTime = TimeAmount.milliseconds(1)

    /// Bytes a stream queues before it is no longer writable.
    public var sendQueueBytes = 256 * 1024

    /// After this long without a byte from the remote it is pinged. So often the round-trip time is measured, too, while
    /// data arrives.
    public var keepaliveInterval = TimeAmount.seconds(30)

    /// How long the answer to a ping may take.
    public var pingTimeout = TimeAmount.seconds(10)

    /// How long the byte stream beneath may take to carry a goodbye before it is closed.
    public var lingerTime = TimeAmount.seconds(1)

    /// The defaults.
    public init() {}
}
