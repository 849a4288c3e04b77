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
    /// Bound addresses, for dials to leave from.
    private let bound = Mutex<[SocketAddress]>([])
    /// Places whose path seems to swallow large segments, and until when we believe so.
    private let smallMTU = Mutex<[IPAddress: NIODeadline]>([:])
    let handshakes: InboundHandshakes

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
        let loop = self.group.next()
        guard let remote = address.tcpSocketAddress else {
            return loop.makeFailedFuture(TransportError.unsupportedAddress(address))
        }
        let dial = Dial(remote: remote, peer: peer, loop: loop, cancellation: cancellation)
        guard self.options.reusesPort, let source = self.listeningAddress(toReach: remote) else {
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
        var bootstrap = ServerBootstrap(group: self.group)
            .serverChannelOption(.backlog, value: 256)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.autoRead, value: false)
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelOption(.recvAllocator, value: Self.receiveAllocator)
            .childChannelOption(.writeBufferWaterMark, value: Self.waterMark)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { [self] channel in
                self.accepted(channel, accept: accept)
                return channel.eventLoop.makeSucceededVoidFuture()
            }
        if self.options.mark != 0 {
            bootstrap = bootstrap.serverChannelOption(
                SocketOptions.mark, value: SocketOptionValue(self.options.mark))
        }
        if case .v6 = local {
            bootstrap = bootstrap.serverChannelOption(SocketOptions.onlyIPv6, value: 1)
        }
        return bootstrap.bind(to: local).flatMapErrorThrowing { error in
            throw (error as? IOError)?.errnoCode == EADDRINUSE ? TransportError.portBusy : error
        }.flatMap { channel in
            // Only now, when the port is ours alone: with this option from the beginning, two daemons of one user would
            // share a port without noticing, and each would get some of the other's connections.
            channel.setOption(SocketOptions.reusePort, value: self.options.reusesPort ? 1 : 0).map { channel }
        }.flatMapThrowing { channel in
            guard let bound = channel.localAddress, let boundAddress = Multiaddr(tcp: bound) else {
                channel.close(promise: nil)
                throw TransportError.unsupportedAddress(address)
            }
            self.bound.withLock { $0.append(bound) }
            return TCPListener(channel: channel, address: boundAddress) {
                self.bound.withLock { $0.removeAll { $0 == bound } }
                self.handshakes.close(through: bound.port)
            }
        }
    }

    // MARK: Dialling

    /// What one call of ``dial(_:expecting:cancellation:)`` is about.
    struct Dial: Sendable {
        let remote: SocketAddress
        let peer: PeerID
        let loop: any EventLoop
        let cancellation: EventLoopFuture<Void>
        let state = State()

        final class State: Sendable {
            /// The connection is somebody else's.
            let hasSucceeded = Atomic<Bool>(false)
            let isCancelled = Atomic<Bool>(false)
        }
    }

    /// The listening port cannot be used for this dial: a connection from it to that place exists or is just ending.
    struct PortInUse: Error {}

    private func connect(_ dial: Dial, from source: SocketAddress?) -> EventLoopFuture<any Channel> {
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
        channel.flatMap { channel -> EventLoopFuture<any Connection> in
            guard !self.isOwn(channel) else {
                channel.close(promise: nil)
                return dial.loop.makeFailedFuture(TransportError.ownAddress)
            }
            return self.upgrade(channel, role: .dialer, remote: dial.remote, expecting: dial.peer)
        }.map { connection in
            dial.state.hasSucceeded.store(true, ordering: .releasing)
            return connection
        }.flatMapErrorThrowing { error in
            if dial.state.isCancelled.load(ordering: .acquiring) { throw TransportError.cancelled }
            throw SimultaneousOpen.explains(error) ? TransportError.simultaneousOpen : error
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

    private func listeningAddress(toReach remote: SocketAddress) -> SocketAddress? {
        let toLoopback = remote.ip?.isLoopback
        return self.bound.withLock { bound in
            bound.first {
                $0.protocol == remote.protocol && ($0.ip?.isUnspecified == true || $0.ip?.isLoopback == toLoopback)
            }
        }
    }

    /// Whether a dialled channel leads to a listener of ours: from an address of this machine to the same, and to a port we hold.
    private func isOwn(_ channel: any Channel) -> Bool {
        guard let local = channel.localAddress, let remote = channel.remoteAddress, local.ip == remote.ip else {
            return false
        }
        return self.bound.withLock { bound in
            bound.contains {
                $0.protocol == remote.protocol && $0.port == remote.port
                    && ($0.ip?.isUnspecified == true || $0.ip == remote.ip)
            }
        }
    }

    // MARK: Accepting

    private func accepted(_ channel: any Channel, accept: @escaping @Sendable (any Connection) -> Void) {
        guard let remote = channel.remoteAddress, self.handshakes.begin(channel, from: remote) else {
            channel.close(promise: nil)
            return
        }
        let stream = ChannelByteStream(eventLoop: channel.eventLoop)
        stream.onActive = {
            self.upgrade(channel, role: .listener, remote: remote, expecting: nil).whenComplete { result in
                self.handshakes.end(channel, result.map { _ in })
                if case .success(let connection) = result { accept(connection) }
            }
        }
        do {
            try channel.pipeline.syncOperations.addHandler(stream)
        } catch {
            channel.close(promise: nil)
        }
    }

    // MARK: Both

    /// Small reads stay small, so that idle connections are cheap; a busy one grows to 256 KiB, several records at a time.
    private static let receiveAllocator = AdaptiveRecvByteBufferAllocator(
        minimum: 2048, initial: 4096, maximum: 256 << 10)
    private static let waterMark = ChannelOptions.Types.WriteBufferWaterMark(low: 64 << 10, high: 128 << 10)

    private func upgrade(_ channel: any Channel, role: Role, remote: SocketAddress, expecting peer: PeerID?)
        -> EventLoopFuture<any Connection>
    {
        let loop = channel.eventLoop
        let stream: ChannelByteStream
        do {
            stream = try channel.pipeline.syncOperations.handler(type: ChannelByteStream.self)
        } catch {
            channel.close(promise: nil)
            return loop.makeFailedFuture(error)
        }
        guard let localAddress = channel.localAddress.flatMap({ Multiaddr(tcp: $0) }),
            let remoteAddress = Multiaddr(tcp: remote), let provider = channel as? any SocketOptionProvider
        else {
            channel.close(promise: nil)
            return loop.makeFailedFuture(ChannelError.ioOnClosedChannel)
        }
        return provider.apply(self.options).flatMap { congestion in
            self.upgrader.upgrade(
                stream,
                as: ConnectionUpgrader.Request(
                    role: role, expectedPeer: peer, localAddress: localAddress, remoteAddress: remoteAddress,
                    transport: "tcp", congestion: congestion, timeout: self.options.upgradeTimeout))
        }
    }
}

/// A bound TCP port.
final class TCPListener: Listener {
    let address: Multiaddr
    private let channel: any Channel
    private let onClose: @Sendable () -> Void

    init(channel: any Channel, address: Multiaddr, onClose: @escaping @Sendable () -> Void) {
        self.channel = channel
        self.address = address
        self.onClose = onClose
    }

    func close() -> EventLoopFuture<Void> {
        self.onClose()
        return self.channel.close()
    }
}
