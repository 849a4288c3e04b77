internal import LibP2PCore
internal import Multiformats
internal import NIOCore
internal import NIOPosix
internal import Synchronization

#if canImport(Glibc)
    internal import Glibc
#endif

/// A connected TCP socket before anything is said on it.
struct ConnectedSocket: Sendable {
    let stream: ChannelByteStream
    /// `/ip4|ip6/…/tcp/…`.
    let localAddress: Multiaddr
    /// `/ip4|ip6/…/tcp/…`.
    let remoteAddress: Multiaddr
    /// What the kernel reads back for TCP's congestion control.
    let congestion: String?
    /// When it has to be a connection.
    let deadline: NIODeadline

    /// What is left until ``deadline``.
    var timeLeft: TimeAmount { max(.zero, self.deadline - self.stream.eventLoop.now) }
}

/// The listening sockets of a node. Several services share one where they ask for the same address and port, in any order; with port 0 each
/// gets a socket of its own.
final class ListeningPorts: Sendable {
    /// What becomes of those who connect.
    struct Service: Sendable {
        /// Makes a connection of a socket.
        var upgrade: @Sendable (ConnectedSocket) -> EventLoopFuture<any Connection>
        /// Takes it.
        var accept: @Sendable (any Connection) -> Void
    }

    private struct State: Sendable {
        /// By the address asked for, unless that left the port open. Some are still being bound.
        var byAddress: [SocketAddress: EventLoopFuture<ListeningPort>] = [:]
        var bound: [ListeningPort] = []
    }

    private let group: any EventLoopGroup
    private let options: TCPOptions
    private let handshakes: InboundHandshakes
    private let state = Mutex(State())

    init(group: any EventLoopGroup, options: TCPOptions, handshakes: InboundHandshakes) {
        self.group = group
        self.options = options
        self.handshakes = handshakes
    }

    /// Adds a service to the socket bound to `address`, which is bound where there is none. Another socket's, or that service's already, the
    /// address fails with ``TransportError/portBusy``.
    ///
    /// - Parameter named: Makes the listener's address of the bound one.
    func listen(
        for kind: PortService, on address: SocketAddress, _ service: Service,
        named: @escaping @Sendable (Multiaddr) -> Multiaddr
    ) -> EventLoopFuture<any Listener> {
        let promise = self.group.next().makePromise(of: ListeningPort.self)
        let existing: EventLoopFuture<ListeningPort>? = self.state.withLock { state in
            guard let port = address.port, port != 0 else { return nil }
            if let existing = state.byAddress[address] { return existing }
            state.byAddress[address] = promise.futureResult
            return nil
        }
        if let existing {
            promise.fail(TransportError.portBusy)
            return existing.flatMap { port in
                switch port.add(kind, service) {
                case .added:
                    return port.eventLoop.makeSucceededFuture(
                        TCPListener(port: port, kind: kind, address: named(port.address)))
                case .taken:
                    return port.eventLoop.makeFailedFuture(TransportError.portBusy)
                case .closing:
                    return port.closed.flatMap { self.listen(for: kind, on: address, service, named: named) }
                }
            }
        }
        self.bind(address, first: kind, service).whenComplete { result in
            self.state.withLock { state in
                switch result {
                case .success(let port): state.bound.append(port)
                case .failure: if address.port != 0 { state.byAddress[address] = nil }
                }
            }
            promise.completeWith(result)
        }
        return promise.futureResult.map { TCPListener(port: $0, kind: kind, address: named($0.address)) }
    }

    /// The bound address that a dial to `remote` leaves from, so that a NAT maps the port that others can reach.
    func source(toReach remote: SocketAddress) -> SocketAddress? {
        let toLoopback = remote.ip?.isLoopback
        return self.state.withLock { state in
            state.bound.first {
                $0.socketAddress.protocol == remote.protocol && $0.services.contains(.plain)
                    && ($0.socketAddress.ip?.isUnspecified == true || $0.socketAddress.ip?.isLoopback == toLoopback)
            }?.socketAddress
        }
    }

    /// Whether a dialled channel leads back to one of these: from an address of this machine to the same, and to a port we hold.
    func holdFarEnd(of channel: any Channel) -> Bool {
        guard let local = channel.localAddress, let remote = channel.remoteAddress, local.ip == remote.ip else {
            return false
        }
        return self.state.withLock { state in
            state.bound.map(\.socketAddress).contains {
                $0.protocol == remote.protocol && $0.port == remote.port
                    && ($0.ip?.isUnspecified == true || $0.ip == remote.ip)
            }
        }
    }

    // MARK: Binding

    private func bind(_ address: SocketAddress, first kind: PortService, _ service: Service)
        -> EventLoopFuture<ListeningPort>
    {
        let services = ListeningPort.Services([kind: service])
        var bootstrap = ServerBootstrap(group: self.group)
            .serverChannelOption(.backlog, value: 256)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.autoRead, value: false)
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelOption(.recvAllocator, value: TCPTransport.receiveAllocator)
            .childChannelOption(.writeBufferWaterMark, value: TCPTransport.waterMark)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { [self] channel in
                self.accepted(channel, by: services)
                return channel.eventLoop.makeSucceededVoidFuture()
            }
        if self.options.mark != 0 {
            bootstrap = bootstrap.serverChannelOption(
                SocketOptions.mark, value: SocketOptionValue(self.options.mark))
        }
        if case .v6 = address {
            bootstrap = bootstrap.serverChannelOption(SocketOptions.onlyIPv6, value: 1)
        }
        return bootstrap.bind(to: address).flatMapErrorThrowing { error in
            throw (error as? IOError)?.errnoCode == EADDRINUSE ? TransportError.portBusy : error
        }.flatMap { channel in
            // Only now, when the port is ours alone: with this option from the beginning, two daemons of one user would
            // share a port without noticing, and each would get some of the other's connections.
            channel.setOption(SocketOptions.reusePort, value: self.options.reusesPort ? 1 : 0).map { channel }
        }.flatMapThrowing { channel in
            guard let bound = channel.localAddress, let boundAddress = Multiaddr(tcp: bound) else {
                channel.close(promise: nil)
                throw ChannelError.ioOnClosedChannel
            }
            let closed = channel.closeFuture.always { _ in self.forget(channel, address) }
            return ListeningPort(
                channel: channel, socketAddress: bound, address: boundAddress, services: services, closed: closed,
                handshakes: self.handshakes)
        }
    }

    private func forget(_ channel: any Channel, _ address: SocketAddress) {
        self.state.withLock { state in
            state.bound.removeAll { $0.isBound(by: channel) }
            if address.port != 0 { state.byAddress[address] = nil }
        }
    }

    // MARK: Accepting

    private func accepted(_ channel: any Channel, by services: ListeningPort.Services) {
        guard let remote = channel.remoteAddress, self.handshakes.begin(channel, from: remote) else {
            channel.close(promise: nil)
            return
        }
        let stream = ChannelByteStream(eventLoop: channel.eventLoop)
        stream.onActive = {
            ConnectedSocket.make(channel, remote: remote, self.options).flatMap { socket in
                self.choose(services, for: socket).flatMap { kind -> EventLoopFuture<(PortService, any Connection)> in
                    guard let service = services[kind] else {
                        socket.stream.close(PortServiceError.notServed(kind))
                        return channel.eventLoop.makeFailedFuture(PortServiceError.notServed(kind))
                    }
                    return service.upgrade(socket).map { (kind, $0) }
                }
            }.whenComplete { result in
                self.handshakes.end(channel, result.map { _ in })
                guard case .success((let kind, let connection)) = result else { return }
                // The service may have ended in the meantime.
                if let service = services[kind] { service.accept(connection) } else { connection.close(.shutdown) }
            }
        }
        do {
            try channel.pipeline.syncOperations.addHandler(stream)
        } catch {
            channel.close(promise: nil)
        }
    }

    /// Which service a socket is for. Where it can only be the plain one nothing is waited for: there both sides may speak first.
    private func choose(_ services: ListeningPort.Services, for socket: ConnectedSocket) -> EventLoopFuture<PortService>
    {
        let kinds = services.kinds
        if kinds == [.plain] { return socket.stream.eventLoop.makeSucceededFuture(.plain) }
        return OpeningDriver.run(PortServiceReader(served: kinds), on: socket.stream, timeout: socket.timeLeft)
            .map { kind, first in
                socket.stream.putBack(first)
                return kind
            }
    }
}

extension ConnectedSocket {
    /// Sets what can be set once a channel is connected. On its loop; a channel that is gone is an error.
    static func make(_ channel: any Channel, remote: SocketAddress, _ options: TCPOptions)
        -> EventLoopFuture<ConnectedSocket>
    {
        let stream: ChannelByteStream
        do {
            stream = try channel.pipeline.syncOperations.handler(type: ChannelByteStream.self)
        } catch {
            channel.close(promise: nil)
            return channel.eventLoop.makeFailedFuture(error)
        }
        guard let localAddress = channel.localAddress.flatMap({ Multiaddr(tcp: $0) }),
            let remoteAddress = Multiaddr(tcp: remote), let provider = channel as? any SocketOptionProvider
        else {
            channel.close(promise: nil)
            return channel.eventLoop.makeFailedFuture(ChannelError.ioOnClosedChannel)
        }
        let deadline = channel.eventLoop.now + options.upgradeTimeout
        return provider.apply(options).map { congestion in
            ConnectedSocket(
                stream: stream, localAddress: localAddress, remoteAddress: remoteAddress, congestion: congestion,
                deadline: deadline)
        }
    }
}

/// One bound socket, and its services.
final class ListeningPort: Sendable {
    /// The services of a port, which come and go.
    final class Services: Sendable {
        private struct State: Sendable {
            var services: [PortService: ListeningPorts.Service]
            var isClosing = false
        }

        private let state: Mutex<State>

        init(_ services: [PortService: ListeningPorts.Service]) {
            self.state = Mutex(State(services: services))
        }

        var kinds: Set<PortService> { self.state.withLock { Set($0.services.keys) } }

        subscript(kind: PortService) -> ListeningPorts.Service? { self.state.withLock { $0.services[kind] } }

        func add(_ kind: PortService, _ service: ListeningPorts.Service) -> Addition {
            self.state.withLock { state in
                guard !state.isClosing else { return .closing }
                guard state.services[kind] == nil else { return .taken }
                state.services[kind] = service
                return .added
            }
        }

        /// Whether none is left.
        func remove(_ kind: PortService) -> Bool {
            self.state.withLock { state in
                state.services[kind] = nil
                state.isClosing = state.services.isEmpty
                return state.isClosing
            }
        }
    }

    /// What comes of asking for a service.
    enum Addition {
        case added
        /// Somebody has it.
        case taken
        /// The last service has ended, and the port with it.
        case closing
    }

    /// The bound address.
    let socketAddress: SocketAddress
    /// The same.
    let address: Multiaddr
    /// Completes when the port is free again.
    let closed: EventLoopFuture<Void>
    private let channel: any Channel
    private let held: Services
    private let handshakes: InboundHandshakes

    init(
        channel: any Channel, socketAddress: SocketAddress, address: Multiaddr, services: Services,
        closed: EventLoopFuture<Void>, handshakes: InboundHandshakes
    ) {
        self.channel = channel
        self.socketAddress = socketAddress
        self.address = address
        self.held = services
        self.closed = closed
        self.handshakes = handshakes
    }

    var eventLoop: any EventLoop { self.channel.eventLoop }

    /// What is listened for now.
    var services: Set<PortService> { self.held.kinds }

    func isBound(by channel: any Channel) -> Bool { self.channel === channel }

    func add(_ kind: PortService, _ service: ListeningPorts.Service) -> Addition { self.held.add(kind, service) }

    /// Ends a service; with the last one the port is closed, and handshakes that came in through it.
    func remove(_ kind: PortService) -> EventLoopFuture<Void> {
        guard self.held.remove(kind) else { return self.eventLoop.makeSucceededVoidFuture() }
        self.handshakes.close(through: self.socketAddress.port)
        return self.channel.close().recover { _ in }.flatMap { self.closed }
    }
}

/// A service of a bound TCP port.
final class TCPListener: Listener {
    let address: Multiaddr
    private let port: ListeningPort
    private let kind: PortService
    private let ending = Mutex<EventLoopFuture<Void>?>(nil)

    init(port: ListeningPort, kind: PortService, address: Multiaddr) {
        self.port = port
        self.kind = kind
        self.address = address
    }

    /// A second call does nothing more: another listener may have the service by then.
    func close() -> EventLoopFuture<Void> {
        self.ending.withLock { ending in
            if let ending { return ending }
            let future = self.port.remove(self.kind)
            ending = future
            return future
        }
    }
}
