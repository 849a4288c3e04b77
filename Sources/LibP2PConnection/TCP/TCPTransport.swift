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
    private let pendingInbound = Mutex<Int>(0)

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
    }

    public func canDial(_ address: Multiaddr) -> Bool {
        guard let socketAddress = address.tcpSocketAddress else { return false }
        return socketAddress.port ?? 0 > 0
    }

    public func canListen(on address: Multiaddr) -> Bool { address.tcpSocketAddress != nil }

    public func dial(_ address: Multiaddr, expecting peer: PeerID, cancellation: EventLoopFuture<Void>)
        -> EventLoopFuture<any Connection>
    {
        let loop = self.group.next()
        guard let remote = address.tcpSocketAddress else {
            return loop.makeFailedFuture(TransportError.unsupportedAddress(address))
        }
        let source = self.options.reusesPort ? self.listeningAddress(toReach: remote) : nil
        let first = self.dial(remote, from: source, address, expecting: peer, on: loop, cancellation: cancellation)
        guard source != nil else { return first }
        return first.flatMapError { error in
            switch error {
            case TransportError.simultaneousOpen where self.localPeer > peer:
                return loop.makeFailedFuture(TransportError.yieldedToRemote)
            case TransportError.simultaneousOpen, is PortInUse:
                return self.dial(remote, from: nil, address, expecting: peer, on: loop, cancellation: cancellation)
            default:
                return loop.makeFailedFuture(error)
            }
        }
    }

    public func listen(on address: Multiaddr, accept: @escaping @Sendable (any Connection) -> Void)
        -> EventLoopFuture<any Listener>
    {
        let loop = self.group.next()
        guard let local = address.tcpSocketAddress else {
            return loop.makeFailedFuture(TransportError.unsupportedAddress(address))
        }
        var bootstrap = ServerBootstrap(group: self.group)
            .serverChannelOption(.backlog, value: 256)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelOption(SocketOptions.reusePort, value: self.options.reusesPort ? 1 : 0)
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
        return bootstrap.bind(to: local).flatMapThrowing { channel in
            guard let bound = channel.localAddress, let boundAddress = Multiaddr(tcp: bound) else {
                throw TransportError.unsupportedAddress(address)
            }
            self.bound.withLock { $0.append(bound) }
            return TCPListener(channel: channel, address: boundAddress) { [weak self] in
                self?.bound.withLock { $0.removeAll { $0 == bound } }
            }
        }
    }

    // MARK: Details

    /// Small reads stay small, so that idle connections are cheap; a busy one grows to 256 KiB, several records at a time.
    private static let receiveAllocator = AdaptiveRecvByteBufferAllocator(minimum: 2048, initial: 4096, maximum: 256 << 10)
    private static let waterMark = ChannelOptions.Types.WriteBufferWaterMark(low: 64 << 10, high: 128 << 10)

    private func dial(
        _ remote: SocketAddress, from source: SocketAddress?, _ address: Multiaddr, expecting peer: PeerID,
        on loop: any EventLoop, cancellation: EventLoopFuture<Void>
    ) -> EventLoopFuture<any Connection> {
        let attempt = Attempt()
        var bootstrap = ClientBootstrap(group: loop)
            .connectTimeout(self.options.connectTimeout)
            .channelOption(.socketOption(.so_reuseaddr), value: 1)
            .channelOption(.autoRead, value: false)
            .channelOption(.allowRemoteHalfClosure, value: true)
            .channelOption(.recvAllocator, value: Self.receiveAllocator)
            .channelOption(.writeBufferWaterMark, value: Self.waterMark)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                // A dial that nobody waits for any more ends with its channel.
                cancellation.whenSuccess {
                    if !attempt.hasSucceeded.load(ordering: .acquiring) { channel.close(promise: nil) }
                }
                return channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(ChannelByteStream(eventLoop: channel.eventLoop))
                }
            }
        if self.options.mark != 0 {
            bootstrap = bootstrap.channelOption(
                SocketOptions.mark, value: SocketOptionValue(self.options.mark))
        }
        if let source {
            bootstrap = bootstrap.channelOption(SocketOptions.reusePort, value: 1).bind(to: source)
        }
        return bootstrap.connect(to: remote).flatMapErrorThrowing { error in
            if source != nil, let failure = error as? IOError,
                [EADDRNOTAVAIL, EADDRINUSE, EINVAL].contains(failure.errnoCode)
            {
                throw PortInUse()
            }
            throw error
        }.flatMap { channel in
            self.upgrade(channel, role: .dialer, remoteAddress: address, expecting: peer)
        }.map { connection in
            attempt.hasSucceeded.store(true, ordering: .releasing)
            return connection
        }
    }

    private func accepted(_ channel: any Channel, accept: @escaping @Sendable (any Connection) -> Void) {
        let hasRoom = self.pendingInbound.withLock { pending in
            guard pending < self.options.maximumPendingInbound else { return false }
            pending += 1
            return true
        }
        guard hasRoom, let remote = channel.remoteAddress, let address = Multiaddr(tcp: remote) else {
            if hasRoom { self.pendingInbound.withLock { $0 -= 1 } }
            channel.close(promise: nil)
            return
        }
        let stream = ChannelByteStream(eventLoop: channel.eventLoop)
        stream.onActive = {
            self.upgrade(channel, role: .listener, remoteAddress: address, expecting: nil).whenComplete { result in
                self.pendingInbound.withLock { $0 -= 1 }
                if case .success(let connection) = result { accept(connection) }
            }
        }
        do {
            try channel.pipeline.syncOperations.addHandler(stream)
        } catch {
            self.pendingInbound.withLock { $0 -= 1 }
            channel.close(promise: nil)
        }
    }

    private func upgrade(_ channel: any Channel, role: Role, remoteAddress: Multiaddr, expecting peer: PeerID?)
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
        guard let local = channel.localAddress, let localAddress = Multiaddr(tcp: local),
            let provider = channel as? any SocketOptionProvider
        else {
            channel.close(promise: nil)
            return loop.makeFailedFuture(ChannelError.ioOnClosedChannel)
        }
        return provider.apply(self.options).flatMap { congestion in
            self.upgrader.upgrade(
                stream,
                as: ConnectionUpgrader.Request(
                    role: role, expectedPeer: peer, localAddress: localAddress,
                    remoteAddress: remoteAddress.withoutPeerID, transport: "tcp", congestion: congestion,
                    timeout: self.options.upgradeTimeout))
        }
    }

    private func listeningAddress(toReach remote: SocketAddress) -> SocketAddress? {
        let toLoopback = remote.isLoopback
        return self.bound.withLock { bound in
            bound.first { $0.protocol == remote.protocol && ($0.isUnspecified || $0.isLoopback == toLoopback) }
        }
    }

    /// Whether a dial is done, and its connection somebody else's.
    private final class Attempt: Sendable {
        let hasSucceeded = Atomic<Bool>(false)
    }

    /// The listening port cannot be used for this dial: a connection from it to that place exists or is just ending.
    private struct PortInUse: Error {}
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
