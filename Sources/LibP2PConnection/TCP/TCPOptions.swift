public import NIOCore

#if canImport(Glibc)
    internal import Glibc
#endif

/// What a TCP transport asks of its sockets.
public struct TCPOptions: Sendable {
    /// Congestion control to ask for, `bbr` or `cubic`; `nil` leaves the kernel's own. Where the kernel lacks it nothing fails: the
    /// connection's details show what was got.
    public var congestion: String?
    /// Bytes that may wait unsent in the kernel (`TCP_NOTSENT_LOWAT`), so that a queue above stays in charge.
    public var unsentBytes: Int
    /// Marks every packet of our sockets, for policy routing (`SO_MARK`); needs CAP_NET_ADMIN. 0 is none.
    public var mark: UInt32
    /// Whether dials leave from the listening port, as hole punching needs.
    public var reusesPort: Bool
    /// How long a connect may take.
    public var connectTimeout: TimeAmount
    /// How long security and muxer may take on top.
    public var upgradeTimeout: TimeAmount
    /// Inbound connections that may be in their handshake at once; more are closed unheard.
    public var maximumPendingInbound: Int
    /// What connections leave the network through; `nil` where nothing is in the way. Dials through it leave from any port, and take at
    /// most ``connectTimeout`` once more for what is said with it.
    public var proxy: Proxy?

    /// The defaults: BBR, 128 KiB unsent, port reuse, 10 s to connect and 10 s to upgrade, 128 handshakes at once, no proxy.
    public init(
        congestion: String? = "bbr", unsentBytes: Int = 128 << 10, mark: UInt32 = 0, reusesPort: Bool = true,
        connectTimeout: TimeAmount = .seconds(10), upgradeTimeout: TimeAmount = .seconds(10),
        maximumPendingInbound: Int = 128, proxy: Proxy? = nil
    ) {
        self.congestion = congestion
        self.unsentBytes = unsentBytes
        self.mark = mark
        self.reusesPort = reusesPort
        self.connectTimeout = connectTimeout
        self.upgradeTimeout = upgradeTimeout
        self.maximumPendingInbound = maximumPendingInbound
        self.proxy = proxy
    }
}

/// The kernel's type for a congestion control's name: 16 bytes, padded with zeros.
struct CongestionName: Sendable {
    private var words: (UInt64, UInt64) = (0, 0)

    init() {}

    init(_ name: String) {
        withUnsafeMutableBytes(of: &self.words) { $0.copyBytes(from: Array(name.utf8.prefix(15))) }
    }

    var text: String {
        withUnsafeBytes(of: self.words) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
}

/// Socket options that NIO has no name for.
enum SocketOptions {
    static let reusePort = ChannelOptions.Types.SocketOption(
        level: SocketOptionLevel(SOL_SOCKET), name: SocketOptionName(SO_REUSEPORT))
    static let mark = ChannelOptions.Types.SocketOption(
        level: SocketOptionLevel(SOL_SOCKET), name: SocketOptionName(SO_MARK))
    static let maximumSegment = ChannelOptions.Types.SocketOption(
        level: SocketOptionLevel(IPPROTO_TCP), name: SocketOptionName(TCP_MAXSEG))
    static let onlyIPv6 = ChannelOptions.Types.SocketOption(
        level: SocketOptionLevel(IPPROTO_IPV6), name: SocketOptionName(IPV6_V6ONLY))
}

extension SocketOptionProvider {
    /// Sets what can be set after the connection is made. What the kernel refuses is left as it is.
    func apply(_ options: TCPOptions) -> EventLoopFuture<String?> {
        let level = SocketOptionLevel(IPPROTO_TCP)
        let congestion = SocketOptionName(TCP_CONGESTION)
        var done = self.unsafeSetSocketOption(
            level: level, name: SocketOptionName(TCP_NOTSENT_LOWAT), value: CInt(clamping: options.unsentBytes)
        ).recover { _ in }
        if let name = options.congestion {
            done = done.flatMap { [self] in
                self.unsafeSetSocketOption(level: level, name: congestion, value: CongestionName(name)).recover { _ in }
            }
        }
        return done.flatMap { [self] in
            let read: EventLoopFuture<CongestionName> = self.unsafeGetSocketOption(level: level, name: congestion)
            return read.map { $0.text.isEmpty ? nil : $0.text }.recover { _ in nil }
        }
    }
}
