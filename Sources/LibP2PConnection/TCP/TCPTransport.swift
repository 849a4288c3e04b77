public import LibP2PCore
public import Multiformats
public import NIOCore
internal import NIOPosix
public import PeerIdentity
internal import Synchronization

#if canImport(Glibc)
    internal import Glibc
#endif

/// TCP: `/ip4/…/tcp/…` and `/ip6/…/tcp/…`, secured and multiplexed by a ``ConnectionUpgrader``.
///
/// Dials leave from the port that is listened on, where there is one of that family: a NAT then maps the very port that others can
/// reach, and what peers observe of us is our listening address.
///
/// When both ends dial each other at once, TCP may give both the dialer's side of one connection. Both close it then; the peer with the
/// lower ID dials again from a port of its own, the other waits for that.
public final class TCPTransport: Transport {
    private let group: any EventLoopGroup
    private let localPeer: PeerID
    private let upgrader: ConnectionUpgrader
    private let options: TCPOptions
    /// Places whose path seems to swallow large segments, and until when we believe so.
    private let smallMTU = Mutex<[IPAddress: NIODeadline]>([:])
    let handshakes: InboundHandshakes
    /// The listening sockets, which WebSockets share.
    let ports: ListeningPorts

    /// - Parameters:
    ///   - group: Loops that connections are spread over.
    ///   - localPeer: Who we are; decides who dials again.
    public init(
        group: any EventLoopGroup, localPeer: PeerID, upgrader: ConnectionUpgrader, options: TCPOptions = TCPOptions()
    ) {
        self.group = group
        self.localPeer = localPeer
        self.upgrader = upgrader
        self.options = options
        self.handshakes = InboundHandshakes(limit: options.maximumPendingInbound)
        self.ports = ListeningPorts(group: group, options: options, handshakes: self.handshakes)
    }

    /// Whether its upgrader has one.
    public var hasPreSharedKey: Bool { self.upgrader.hasPreSharedKey }

    /// A specific IP address and a port other than 0.
    public func canDial(_ address: Multiaddr) -> Bool {
        guard let remote = address.tcpSocketAddress, let ip = remote.ip else { return false }
        return remote.port ?? 0 > 0 && !ip.isUnspecified
    }

    /// Any IP address; port 0 asks for a free one.
    public func canListen(on address: Multiaddr) -> Bool { address.tcpSocketAddress != nil }

    /// Dials; see ``Transport/dial(_:expecting:cancellation:)``.
    public func dial(_ address: Multiaddr, expecting peer: PeerID, cancellation: EventLoopFuture<Void>)
        -> EventLoopFuture<any Connection>
    {
        self.dial(address, expecting: peer, cancellation: cancellation) { _ in }
    }

    /// Dials, and tells when the connection is there and the handshake begins.
    public func dial(
        _ address: Multiaddr, expecting peer: PeerID, cancellation: EventLoopFuture<Void>,
        progress: @escaping @Sendable (DialProgress) -> Void
    ) -> EventLoopFuture<any Connection> {
        let loop = self.group.next()
        guard let remote = address.tcpSocketAddress else {
            return loop.makeFailedFuture(TransportError.unsupportedAddress(address))
        }
        let dial = Dial(remote: remote, peer: peer, loop: loop, cancellation: cancellation, progress: progress)
        guard self.options.reusesPort, self.proxy(for: dial) == nil, let source = self.ports.source(toReach: remote)
        else {
            return self.upgrade(self.connect(dial, from: nil), dial)
        }
        return self.upgrade(self.connect(dial, from: source), dial).flatMapError { self.dialAgain(dial, after: $0) }
    }

    /// Binds a port. Taken by another socket, it fails with ``TransportError/portBusy``.
    public func listen(on address: Multiaddr, accept: @escaping @Sendable (any Connection) -> Void)
        -> EventLoopFuture<any Listener>
    {
        guard let local = address.tcpSocketAddress else {
            return self.group.next().makeFailedFuture(TransportError.unsupportedAddress(address))
        }
        let service = ListeningPorts.Service(
            upgrade: { self.upgrade($0, role: .listener, expecting: nil) }, accept: accept)
        return self.ports.listen(for: .plain, on: local, service) { $0 }
    }

    /// A loop for one more dial.
    func nextLoop() -> any EventLoop { self.group.next() }

    // MARK: Dialling

    /// What one call of ``dial(_:expecting:cancellation:)`` is about.
    struct Dial: Sendable {
        let remote: SocketAddress
        let peer: PeerID
        let loop: any EventLoop
        let cancellation: EventLoopFuture<Void>
        /// The remote's name, where there is one that a proxy may know.
        var name: String?
        var progress: @Sendable (DialProgress) -> Void = { _ in }
        let state = State()

        final class State: Sendable {
            /// The connection is somebody else's.
            let hasSucceeded = Atomic<Bool>(false)
            let isCancelled = Atomic<Bool>(false)
            let hasBeenReached = Atomic<Bool>(false)
        }

        /// What a proxy is asked for.
        var target: ProxyTarget? {
            guard let ip = self.remote.ip, let port = self.remote.port.flatMap({ UInt16(exactly: $0) }) else {
                return nil
            }
            return ProxyTarget(ip: ip, port: port, name: self.name)
        }
    }

    /// The listening port cannot be used for this dial: a connection from it to that place exists or is just ending.
    struct PortInUse: Error {}

    /// Connects from `source`, or from any port, through the proxy where there is one for it.
    func connect(_ dial: Dial, from source: SocketAddress?) -> EventLoopFuture<any Channel> {
        if source == nil, let proxy = self.proxy(for: dial) { return self.connect(dial, through: proxy) }
        var bootstrap = self.clientBootstrap(for: dial)
        if let source {
            bootstrap = bootstrap.channelOption(SocketOptions.reusePort, value: 1).bind(to: source)
        }
        return bootstrap.connect(to: dial.remote).flatMapErrorThrowing { error in
            if dial.state.isCancelled.load(ordering: .acquiring) { throw TransportError.cancelled }
            switch error {
            case ChannelError.connectTimeout: throw TransportError.timedOut
            case let failure as IOError
            where source != nil && [EADDRNOTAVAIL, EADDRINUSE, EINVAL].contains(failure.errnoCode): throw PortInUse()
            default: throw error
            }
        }
    }

    private func proxy(for dial: Dial) -> Proxy? {
        guard let proxy = self.options.proxy, let target = dial.target,
            proxy.isUsed(for: target.ip, port: target.port, name: target.name)
        else { return nil }
        return proxy
    }

    private func connect(_ dial: Dial, through proxy: Proxy) -> EventLoopFuture<any Channel> {
        guard let target = dial.target else { return dial.loop.makeFailedFuture(ChannelError.unknownLocalAddress) }
        let bootstrap = self.clientBootstrap(for: dial)
        let channel: EventLoopFuture<any Channel>
        if let address = try? SocketAddress(ipAddress: proxy.host, port: Int(proxy.port)) {
            channel = bootstrap.connect(to: address)
        } else {
            channel = bootstrap.connect(host: proxy.host, port: Int(proxy.port))
        }
        return channel.flatMapErrorThrowing { error in
            throw ProxyError.unreachable(proxy: proxy.endpoint, reason: String(describing: error))
        }.flatMap { channel in
            channel.eventLoop.makeCompletedFuture {
                try channel.pipeline.syncOperations.handler(type: ChannelByteStream.self)
            }.flatMap { stream in
                let timeout = self.options.connectTimeout
                let leftover =
                    switch proxy.kind {
                    case .http:
                        OpeningDriver.run(
                            HTTPConnectOpening(target, proxy.credentials), on: stream, timeout: timeout
                        ).map(\.leftover)
                    case .socks5:
                        OpeningDriver.run(SOCKS5Opening(target, proxy.credentials), on: stream, timeout: timeout)
                            .map(\.leftover)
                    }
                // The remote may have spoken already.
                return leftover.map { stream.putBack($0) }
            }.map { channel }
        }.flatMapErrorThrowing { error in
            throw dial.state.isCancelled.load(ordering: .acquiring) ? TransportError.cancelled : error
        }
    }

    /// Fits a path of 1,280 bytes, the least that IPv6 allows.
    private static let smallSegmentBytes: SocketOptionValue = 1_220
    private static let smallMTUMemory = TimeAmount.minutes(10)
    private static let maximumSmallMTUPlaces = 1_024

    /// Dials to `ip` ask for small segments, in both directions, for the next ten minutes: the path there seems to swallow large
    /// ones without a word (a black hole for path MTU discovery).
    public func suspectSmallMTU(at ip: IPAddress) {
        let now = NIODeadline.now()
        self.smallMTU.withLock { places in
            places = places.filter { $0.value > now }
            guard places.count < Self.maximumSmallMTUPlaces else { return }
            places[ip] = now + Self.smallMTUMemory
        }
    }

    private func needsSmallSegments(_ remote: SocketAddress) -> Bool {
        guard let ip = remote.ip else { return false }
        return self.smallMTU.withLock { $0[ip].map { $0 > .now() } ?? false }
    }

    /// What every socket that dials is like.
    func clientBootstrap(for dial: Dial) -> ClientBootstrap {
        let bootstrap = ClientBootstrap(group: dial.loop)
            .connectTimeout(self.options.connectTimeout)
            .channelOption(.socketOption(.so_reuseaddr), value: 1)
            .channelOption(.autoRead, value: false)
            .channelOption(.allowRemoteHalfClosure, value: true)
            .channelOption(.recvAllocator, value: Self.receiveAllocator)
            .channelOption(.writeBufferWaterMark, value: Self.waterMark)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                // A dial that nobody waits for any more ends with its channel.
                dial.cancellation.whenSuccess {
                    dial.state.isCancelled.store(true, ordering: .releasing)
                    if !dial.state.hasSucceeded.load(ordering: .acquiring) { channel.close(promise: nil) }
                }
                return channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(ChannelByteStream(eventLoop: channel.eventLoop))
                }
            }
        let segmented =
            self.needsSmallSegments(dial.remote)
            ? bootstrap.channelOption(SocketOptions.maximumSegment, value: Self.smallSegmentBytes) : bootstrap
        guard self.options.mark != 0 else { return segmented }
        return segmented.channelOption(SocketOptions.mark, value: SocketOptionValue(self.options.mark))
    }

    func upgrade(_ channel: EventLoopFuture<any Channel>, _ dial: Dial) -> EventLoopFuture<any Connection> {
        self.upgrade(channel, dial) { self.upgrade($0, role: .dialer, expecting: dial.peer) }.flatMapErrorThrowing {
            throw SimultaneousOpen.explains($0) ? TransportError.simultaneousOpen : $0
        }
    }

    /// Makes a connection of a channel by means of `body`, which runs on the channel's loop.
    func upgrade(
        _ channel: EventLoopFuture<any Channel>, _ dial: Dial,
        by body: @escaping @Sendable (ConnectedSocket) -> EventLoopFuture<any Connection>
    ) -> EventLoopFuture<any Connection> {
        channel.flatMap { channel -> EventLoopFuture<any Connection> in
            guard !self.ports.holdFarEnd(of: channel) else {
                channel.close(promise: nil)
                return dial.loop.makeFailedFuture(TransportError.ownAddress)
            }
            if !dial.state.hasBeenReached.exchange(true, ordering: .relaxed) { dial.progress(.reached) }
            return ConnectedSocket.make(channel, remote: dial.remote, self.options).flatMap(body)
        }.map { connection in
            dial.state.hasSucceeded.store(true, ordering: .releasing)
            return connection
        }.flatMapErrorThrowing { error in
            throw dial.state.isCancelled.load(ordering: .acquiring) ? TransportError.cancelled : error
        }
    }

    /// A dial from the listening port has failed: where that is the port's fault, there is another way.
    func dialAgain(_ dial: Dial, after error: any Error) -> EventLoopFuture<any Connection> {
        switch error {
        case TransportError.simultaneousOpen where self.localPeer > dial.peer:
            return dial.loop.makeFailedFuture(TransportError.yieldedToRemote)
        case TransportError.simultaneousOpen:
            return self.upgrade(self.connect(dial, from: nil), dial)
        case is PortInUse:
            // Perhaps the remote's own dial holds this pair of addresses; then it serves us as well, if it comes to anything.
            guard let handshake = self.handshakes.outcome(from: dial.remote) else {
                return self.upgrade(self.connect(dial, from: nil), dial)
            }
            return handshake.hop(to: dial.loop).map { true }.recover { _ in false }.flatMap { isThere in
                isThere
                    ? dial.loop.makeFailedFuture(TransportError.yieldedToRemote)
                    : self.upgrade(self.connect(dial, from: nil), dial)
            }
        default:
            return dial.loop.makeFailedFuture(error)
        }
    }

    // MARK: Both

    /// Small reads stay small, so that idle connections are cheap; a busy one grows to 256 KiB, several records at a time.
    static let receiveAllocator = AdaptiveRecvByteBufferAllocator(
        minimum: 2048, initial: 4096, maximum: 256 << 10)
    static let waterMark = ChannelOptions.Types.WriteBufferWaterMark(low: 64 << 10, high: 128 << 10)

    private func upgrade(_ socket: ConnectedSocket, role: Role, expecting peer: PeerID?)
        -> EventLoopFuture<any Connection>
    {
        self.upgrader.upgrade(
            socket.stream,
            as: ConnectionUpgrader.Request(
                role: role, expectedPeer: peer, localAddress: socket.localAddress, remoteAddress: socket.remoteAddress,
                transport: "tcp", congestion: socket.congestion, timeout: socket.timeLeft))
    }
}
