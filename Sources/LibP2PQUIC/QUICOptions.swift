public import NIOCore

/// What a QUIC transport asks of its sockets and allows its peers.
public struct QUICOptions: Sendable {
    /// How fast a connection sends.
    public enum CongestionControl: Hashable, Sendable {
        /// Watches for loss; RFC 9438.
        case cubic
        /// Models the path; stands random loss.
        case bbr
        /// Its second version.
        case bbr2
    }

    /// The congestion control of every connection.
    public var congestion = CongestionControl.bbr
    /// Marks every packet of our sockets, for policy routing (`SO_MARK`); needs CAP_NET_ADMIN. 0 is none.
    public var mark: UInt32 = 0
    /// The kernel's buffers of each socket, each way, where it allows so much. In bytes.
    public var socketBufferBytes: UInt32 = 7 << 20
    /// How long a handshake may take.
    public var handshakeTimeout = TimeAmount.seconds(10)
    /// A connection ends after this long without a packet from the remote.
    public var idleTimeout = TimeAmount.seconds(30)
    /// A connection that is quiet for this long sends a sign of life, which also holds a NAT's mapping.
    public var keepalive = TimeAmount.seconds(15)

    /// What a stream's receive window begins with, and how far it may grow. In bytes.
    public var streamWindow = Window(initial: 512 << 10, maximum: 10 << 20)
    /// The same for all streams of a connection together.
    public var connectionWindow = Window(initial: 1 << 20, maximum: 15 << 20)
    /// Streams of the remote that may be open at once.
    public var maximumInboundStreams = 1024
    /// Bytes a stream queues before it is no longer writable.
    public var sendQueueBytes = 128 << 10
    /// How long a datagram may wait for its turn before it is dropped.
    public var datagramPatience = TimeAmount.milliseconds(20)

    /// Inbound handshakes under way at once on one socket; more are not begun.
    public var maximumPendingInbound = 512
    /// The same from one IPv4 /24 or IPv6 /56. Loopback has no such limit.
    public var maximumPendingPerSource = 64
    /// From so many inbound handshakes on, or from a quarter of the limit per source, who begins another must first prove its address,
    /// which costs a round trip (Retry).
    public var retryThreshold = 64

    /// A window that grows with the path's needs.
    public struct Window: Hashable, Sendable {
        /// What it begins with. In bytes.
        public var initial: UInt64
        /// How far it grows. In bytes.
        public var maximum: UInt64

        /// Makes a window.
        public init(initial: UInt64, maximum: UInt64) {
            self.initial = initial
            self.maximum = maximum
        }
    }

    /// The defaults.
    public init() {}
}
