public import LibP2PCore
public import Logging
public import Multiformats
public import NIOCore
public import PeerIdentity
internal import Synchronization

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#endif

/// Which connections exist, to whom, and how many.
///
/// All state belongs to one event loop, the swarm's own; connections live on loops of theirs. Calls may come from anywhere.
public final class Swarm: @unchecked Sendable {
    /// Whether a connection may stay. Asked once per connection when its peer is proven, on the connection's loop, before any stream.
    public typealias Gater = @Sendable (_ peer: PeerID, _ address: Multiaddr, _ role: Role) -> Bool

    /// The loop that owns the swarm.
    public let eventLoop: any EventLoop
    /// Who this node is.
    public let localPeer: PeerID
    /// What this node accepts.
    public let registry: ProtocolRegistry
    /// What is known of others.
    public let peerStore: PeerStore

    let logger: Logger
    private let transports: [any Transport]
    private let limits: ConnectionLimits
    private let mayDial: @Sendable (Multiaddr) -> Bool
    private let gater: Gater
    private let dialTimeout: TimeAmount

    private let bound = Mutex<[Multiaddr]>([])

    // Everything below is owned by the event loop.
    private var connections: [PeerID: [any Connection]] = [:]
    private var connectionCount = 0
    private var dials: [PeerID: Dial] = [:]
    private var listeners: [any Listener] = []
    private var observers: [(@Sendable (SwarmEvent) -> Void)] = []
    private var isShutDown = false

    /// - Parameters:
    ///   - eventLoop: Owns the swarm's state.
    ///   - transports: Asked in this order for each address.
    ///   - dials: Which addresses are dialled at all.
    ///   - dialTimeout: The whole budget of one ``connect(to:at:)``, over all addresses.
    public init(
        eventLoop: any EventLoop, localPeer: PeerID, transports: [any Transport], registry: ProtocolRegistry,
        peerStore: PeerStore, limits: ConnectionLimits = ConnectionLimits(), dialTimeout: TimeAmount = .seconds(15),
        logger: Logger, dials: @escaping @Sendable (Multiaddr) -> Bool = { _ in true },
        gater: @escaping Gater = { _, _, _ in true }
    ) {
        self.eventLoop = eventLoop
        self.localPeer = localPeer
        self.transports = transports
        self.registry = registry
        self.peerStore = peerStore
        self.limits = limits
        self.dialTimeout = dialTimeout
        self.logger = logger
        self.mayDial = dials
        self.gater = gater
    }

    // MARK: Listening

    /// Binds every address, or none.
    /// - Returns: The bound addresses, with real ports.
    public func listen(on addresses: [Multiaddr]) async throws -> [Multiaddr] {
        var bound: [any Listener] = []
        do {
            for address in addresses {
                guard let transport = self.transports.first(where: { $0.canListen(on: address) }) else {
                    throw ListenError(address: address, reason: "no transport of this node listens there")
                }
                do {
                    bound.append(try await transport.listen(on: address) { [weak self] in self?.accepted($0) }.get())
                } catch {
                    throw ListenError(address: address, reason: String(describing: error), cause: error)
                }
            }
        } catch {
            for listener in bound { try? await listener.close().get() }
            throw error
        }
        let listeners = bound
        self.bound.withLock { $0 += listeners.map(\.address) }
        self.run {
            self.listeners += listeners
            for listener in listeners { self.emit(.listening(listener.address)) }
        }
        return bound.map(\.address)
    }

    // MARK: Dialling

    /// Returns a live connection to `peer`, an existing one when there is one.
    ///
    /// Concurrent calls for the same peer share one dial; a connection that the peer makes in the meantime ends it too.
    ///
    /// - Parameters:
    ///   - peer: Who must be at the far end; a mismatch fails that address only.
    ///   - hints: Addresses to try besides those of the peer store.
    /// - Throws: ``DialError``.
    public func connect(to peer: PeerID, at hints: [Multiaddr] = []) async throws -> any Connection {
        try await self.eventLoop.flatSubmit { self.connectOnLoop(to: peer, at: hints, forceNew: false) }.get()
    }

    /// Makes another connection to `peer` beside those that exist. Otherwise as ``connect(to:at:)``.
    public func connectAnew(to peer: PeerID, at hints: [Multiaddr] = []) async throws -> any Connection {
        try await self.eventLoop.flatSubmit { self.connectOnLoop(to: peer, at: hints, forceNew: true) }.get()
    }

    /// Connects where needed and opens a stream with the first of `protocols` that the peer speaks.
    public func openStream(to peer: PeerID, _ protocols: [ProtocolID]) async throws -> any Stream {
        try await self.connect(to: peer).openStream(protocols).get()
    }

    // MARK: State

    /// Calls `observer` for each event from now on, on the swarm's loop and in order. For as long as the swarm lives.
    public func observe(_ observer: @escaping @Sendable (SwarmEvent) -> Void) {
        self.run { self.observers.append(observer) }
    }

    /// Events from now on. When the reader is slow the oldest of more than 256 are lost.
    public func events() -> AsyncStream<SwarmEvent> {
        let (stream, continuation) = AsyncStream.makeStream(of: SwarmEvent.self, bufferingPolicy: .bufferingNewest(256))
        self.observe { continuation.yield($0) }
        return stream
    }

    /// The connections to `peer`, oldest first.
    public func connections(to peer: PeerID) async -> [any Connection] {
        (try? await self.eventLoop.submit { self.connections[peer] ?? [] }.get()) ?? []
    }

    /// All connections.
    public func connections() async -> [any Connection] {
        (try? await self.eventLoop.submit { self.connections.values.flatMap { $0 } }.get()) ?? []
    }

    /// The bound addresses, with real ports. Unspecified IPs stay unspecified.
    public var boundAddresses: [Multiaddr] { self.bound.withLock { $0 } }

    /// Closes every connection to `peer`.
    public func disconnect(_ peer: PeerID, _ code: ConnectionErrorCode = .none) {
        self.run { for connection in self.connections[peer] ?? [] { connection.close(code) } }
    }

    /// Stops listening, gives up dials, closes every connection and returns when all are gone.
    public func shutDown() async {
        let endings = try? await self.eventLoop.submit { () -> [EventLoopFuture<Void>] in
            self.isShutDown = true
            for peer in self.dials.keys { self.finish(peer, .failure(DialError.shutDown)) }
            let open = self.connections.values.flatMap { $0 }
            for connection in open { connection.close(.shutdown) }
            let listeners = self.listeners
            self.listeners = []
            self.bound.withLock { $0 = [] }
            return listeners.map { $0.close() } + open.map { $0.closeFuture.recover { _ in } }
        }.get()
        for ending in endings ?? [] { try? await ending.get() }
    }

    // MARK: Connections

    /// Takes a connection that somebody made by other means than ``connect(to:at:)``, a relay or a hole punch.
    /// Called on the connection's loop.
    public func adopt(_ connection: any Connection) { self.accepted(connection) }

    /// On the connection's loop.
    private func accepted(_ connection: any Connection) {
        guard self.admit(connection) else { return }
        self.run { self.insert(connection) }
    }

    /// On the connection's loop: streams are accepted from here on.
    private func admit(_ connection: any Connection) -> Bool {
        guard connection.remotePeer != self.localPeer else {
            connection.close(.gated)
            return false
        }
        guard self.gater(connection.remotePeer, connection.remoteAddress, connection.role) else {
            connection.close(.gated)
            self.run { self.emit(.refused(connection.remotePeer, connection.remoteAddress, .gated)) }
            return false
        }
        connection.delegate = StreamDispatcher(registry: self.registry)
        return true
    }

    private func insert(_ connection: any Connection) {
        let peer = connection.remotePeer
        guard !self.isShutDown else { return connection.close(.shutdown) }
        guard self.connectionCount < self.limits.total else {
            connection.close(.resourceLimitExceeded)
            return self.emit(.refused(peer, connection.remoteAddress, .tooManyConnections))
        }
        guard self.connections[peer, default: []].count < self.limits.perPeer else {
            connection.close(.resourceLimitExceeded)
            return self.emit(.refused(peer, connection.remoteAddress, .tooManyConnectionsOfPeer))
        }
        self.connections[peer, default: []].append(connection)
        self.connectionCount += 1
        if connection.role == .dialer { self.peerStore.recordSuccess(connection.remoteAddress, of: peer) }
        connection.closeFuture.hop(to: self.eventLoop).whenComplete { self.remove(connection, $0) }
        self.emit(.connected(connection))
        self.finish(peer, .success(connection))
    }

    private func remove(_ connection: any Connection, _ result: Result<Void, any Error>) {
        let peer = connection.remotePeer
        guard let index = self.connections[peer]?.firstIndex(where: { $0.id == connection.id }) else { return }
        self.connections[peer]?.remove(at: index)
        self.connectionCount -= 1
        let remaining = self.connections[peer]?.count ?? 0
        if remaining == 0 { self.connections[peer] = nil }
        var reason: String?
        if case .failure(let error) = result { reason = String(describing: error) }
        self.emit(.disconnected(connection, reason: reason, remaining: remaining))
    }

    private func emit(_ event: SwarmEvent) {
        for observer in self.observers { observer(event) }
    }

    private func run(_ body: @escaping @Sendable () -> Void) {
        if self.eventLoop.inEventLoop { body() } else { self.eventLoop.execute(body) }
    }

    // MARK: Dials

    /// One dial and all who wait for it.
    private struct Dial {
        var session: DialSession
        let promise: EventLoopPromise<any Connection>
        let cancellation: EventLoopPromise<Void>
        var timer: Scheduled<Void>?
        let budget: Scheduled<Void>
    }

    private func connectOnLoop(to peer: PeerID, at hints: [Multiaddr], forceNew: Bool) -> EventLoopFuture<any Connection> {
        func fail(_ error: DialError) -> EventLoopFuture<any Connection> { self.eventLoop.makeFailedFuture(error) }
        guard !self.isShutDown else { return fail(.shutDown) }
        guard peer != self.localPeer else { return fail(.dialToSelf) }
        if !forceNew, let connection = self.connections[peer]?.last {
            return self.eventLoop.makeSucceededFuture(connection)
        }
        if let dial = self.dials[peer] { return dial.promise.futureResult }
        guard self.connectionCount < self.limits.total else { return fail(.tooManyConnections) }

        let known = (hints.map(\.withoutPeerID) + self.peerStore.addresses(of: peer)).filter(self.mayDial)
        guard !known.isEmpty else { return fail(.noAddresses(peer)) }
        let usable = known.filter { address in self.transports.contains { $0.canDial(address) } }
        guard !usable.isEmpty else { return fail(.noTransport(Array(known.prefix(DialPlanner.maximumAddresses)))) }

        let dial = Dial(
            session: DialSession(plan: DialPlanner.plan(usable), now: self.eventLoop.now),
            promise: self.eventLoop.makePromise(), cancellation: self.eventLoop.makePromise(),
            budget: self.eventLoop.scheduleTask(in: self.dialTimeout) { self.withDial(peer) { $0.timedOut() } })
        self.dials[peer] = dial
        self.withDial(peer) { $0.advance(to: self.eventLoop.now) }
        return dial.promise.futureResult
    }

    /// Changes a dial's session, does what it says and sets its timer anew.
    private func withDial(_ peer: PeerID, _ body: (inout DialSession) -> [DialSession.Action]) {
        guard var dial = self.dials[peer] else { return }
        let actions = body(&dial.session)
        dial.timer?.cancel()
        dial.timer = dial.session.nextDeadline.map { deadline in
            self.eventLoop.scheduleTask(deadline: deadline) {
                self.withDial(peer) { $0.advance(to: self.eventLoop.now) }
            }
        }
        self.dials[peer] = dial
        for action in actions {
            switch action {
            case .start(let address): self.attempt(address, of: peer, cancellation: dial.cancellation.futureResult)
            case .fail(let attempts): self.finish(peer, .failure(DialError.allAttemptsFailed(attempts)))
            }
        }
    }

    private func attempt(_ address: Multiaddr, of peer: PeerID, cancellation: EventLoopFuture<Void>) {
        guard let transport = self.transports.first(where: { $0.canDial(address) }) else {
            return self.withDial(peer) {
                $0.failed(address, TransportError.unsupportedAddress(address), now: self.eventLoop.now)
            }
        }
        transport.dial(address, expecting: peer, cancellation: cancellation).whenComplete { result in
            // On the connection's loop, where no byte of a stream has been read yet.
            switch result {
            case .success(let connection):
                if self.admit(connection) {
                    self.run { self.insert(connection) }
                } else {
                    self.run { self.withDial(peer) { $0.failed(address, SelfOrGated(), now: self.eventLoop.now) } }
                }
            case .failure(let error):
                self.run { self.withDial(peer) { $0.failed(address, error, now: self.eventLoop.now) } }
            }
        }
    }

    private func finish(_ peer: PeerID, _ result: Result<any Connection, any Error>) {
        guard var dial = self.dials.removeValue(forKey: peer) else { return }
        dial.session.connected()
        dial.timer?.cancel()
        dial.budget.cancel()
        if case .failure(let error as DialError) = result { self.emit(.dialFailed(peer, error)) }
        dial.promise.completeWith(result)
        // After the promise: an attempt that is cancelled must not be taken for one that failed.
        dial.cancellation.succeed()
    }

    private struct SelfOrGated: Error, CustomStringConvertible {
        var description: String { "refused by a rule of this node" }
    }
}

/// An address could not be listened on.
public struct ListenError: Error, Sendable, CustomStringConvertible {
    /// Where.
    public let address: Multiaddr
    /// Why, for people.
    public let reason: String
    /// What the transport said.
    public let cause: (any Error)?

    package init(address: Multiaddr, reason: String, cause: (any Error)? = nil) {
        self.address = address
        self.reason = reason
        self.cause = cause
    }

    /// Whether another program has the port.
    public var isPortBusy: Bool { (self.cause as? IOError)?.errnoCode == EADDRINUSE }

    /// One line.
    public var description: String { "\(self.address): \(self.reason)" }
}

/// Gives inbound streams to the handlers of the registry.
private final class StreamDispatcher: ConnectionDelegate {
    private let registry: ProtocolRegistry

    init(registry: ProtocolRegistry) {
        self.registry = registry
    }

    func connection(_ connection: any Connection, accepts protocolID: ProtocolID) -> Bool {
        self.registry.handler(of: protocolID, for: connection.remotePeer) != nil
    }

    func connection(_ connection: any Connection, accepted stream: any Stream) {
        guard let protocolID = stream.protocolID,
            let handler = self.registry.handler(of: protocolID, for: connection.remotePeer)
        else { return stream.reset(.protocolNegotiationFailed) }
        handler(stream)
    }
}
