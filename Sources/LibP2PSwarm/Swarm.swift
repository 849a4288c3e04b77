public import LibP2PCore
public import Logging
public import Multiformats
public import NIOCore
public import PeerIdentity
internal import Synchronization

/// Which connections exist, to whom, and how many.
///
/// All state belongs to one event loop, the swarm's own; connections live on loops of theirs. Calls may come from anywhere.
public final class Swarm: @unchecked Sendable {
    /// Whether a connection may stay. Asked once per connection when its peer is proven, on the swarm's loop, before any stream.
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
    private var observers: [@Sendable (SwarmEvent) -> Void] = []
    private var eventStreams: [UInt64: AsyncStream<SwarmEvent>.Continuation] = [:]
    private var lastNumber: UInt64 = 0
    private var isShutDown = false
    /// The last connection is gone, and the last event is told.
    private var hasEnded = false

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
    /// - Throws: ``ListenError``; ``DialError/shutDown`` when the swarm has ended.
    public func listen(on addresses: [Multiaddr]) async throws -> [Multiaddr] {
        var bound: [any Listener] = []
        do {
            for address in addresses {
                guard let transport = self.transports.first(where: { $0.canListen(on: address) }) else {
                    throw ListenError(address: address, cause: TransportError.unsupportedAddress(address))
                }
                do {
                    bound.append(try await transport.listen(on: address) { [weak self] in self?.adopt($0) }.get())
                } catch {
                    throw ListenError(address: address, cause: error)
                }
            }
        } catch {
            for listener in bound { try? await listener.close().get() }
            throw error
        }
        let listeners = bound
        let isTaken = try await self.eventLoop.submit { () -> Bool in
            guard !self.isShutDown else { return false }
            self.listeners += listeners
            self.bound.withLock { $0 += listeners.map(\.address) }
            for listener in listeners { self.emit(.listening(listener.address)) }
            return true
        }.get()
        guard isTaken else {
            for listener in listeners { try? await listener.close().get() }
            throw DialError.shutDown
        }
        return listeners.map(\.address)
    }

    // MARK: Dialling

    /// Returns a live connection to `peer`, an existing one when there is one.
    ///
    /// Concurrent calls for the same peer share one dial, to which each adds its hints; a connection that the peer makes in the
    /// meantime ends it too.
    ///
    /// - Parameters:
    ///   - peer: Who must be at the far end; a mismatch fails that address only.
    ///   - hints: Addresses to try before those of the peer store.
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

    /// Calls `observer` for each event from now on, on the swarm's loop and in order, until the swarm has shut down.
    public func observe(_ observer: @escaping @Sendable (SwarmEvent) -> Void) {
        self.run { if !self.hasEnded { self.observers.append(observer) } }
    }

    /// Events from now on, until the swarm has shut down. When the reader is slow the oldest of more than 256 are lost.
    public func events() -> AsyncStream<SwarmEvent> {
        let (stream, continuation) = AsyncStream.makeStream(of: SwarmEvent.self, bufferingPolicy: .bufferingNewest(256))
        self.run {
            guard !self.hasEnded else { return continuation.finish() }
            let number = self.nextNumber()
            self.eventStreams[number] = continuation
            continuation.onTermination = { _ in self.run { self.eventStreams[number] = nil } }
        }
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

    /// Stops listening, gives up dials, closes every connection and returns when all are gone and their events are told.
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
        try? await self.eventLoop.submit {
            self.hasEnded = true
            self.observers = []
            for continuation in self.eventStreams.values { continuation.finish() }
            self.eventStreams = [:]
        }.get()
    }

    // MARK: Connections

    /// Takes a connection that somebody made by other means than ``connect(to:at:)``, a relay or a hole punch. Callable from any
    /// thread; the connection has no delegate yet.
    public func adopt(_ connection: any Connection) { self.run { _ = self.insert(connection) } }

    /// Keeps the connection, or closes it and says why. Streams are accepted on it when it is known to stay.
    private func insert(_ connection: any Connection) -> SwarmEvent.Refusal? {
        let peer = connection.remotePeer
        if let refusal = self.refusal(of: connection) {
            connection.close(refusal.code)
            self.emit(.refused(peer, connection.remoteAddress, refusal))
            return refusal
        }
        self.connections[peer, default: []].append(connection)
        self.connectionCount += 1
        if connection.role == .dialer { self.peerStore.recordSuccess(connection.remoteAddress, of: peer) }
        let dispatcher = StreamDispatcher(registry: self.registry)
        // Queued before anything that an observer of the event may ask of the connection.
        connection.eventLoop.execute { connection.delegate = dispatcher }
        self.emit(.connected(connection))
        self.finish(peer, .success(connection))
        connection.closeFuture.hop(to: self.eventLoop).whenComplete { self.remove(connection, $0) }
        return nil
    }

    private func refusal(of connection: any Connection) -> SwarmEvent.Refusal? {
        let peer = connection.remotePeer
        if self.isShutDown { return .shutDown }
        if peer == self.localPeer { return .ownIdentity }
        if !self.gater(peer, connection.remoteAddress, connection.role) { return .gated }
        if self.connectionCount >= self.limits.total { return .tooManyConnections }
        if self.connections[peer, default: []].count >= self.limits.perPeer { return .tooManyConnectionsOfPeer }
        return nil
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
        for continuation in self.eventStreams.values { continuation.yield(event) }
    }

    private func nextNumber() -> UInt64 {
        self.lastNumber += 1
        return self.lastNumber
    }

    private func run(_ body: @escaping @Sendable () -> Void) {
        if self.eventLoop.inEventLoop { body() } else { self.eventLoop.execute(body) }
    }

    // MARK: Dials

    /// One dial and all who wait for it.
    private struct Dial {
        /// Tells it from an earlier dial of the same peer, whose attempts may still be ending.
        let number: UInt64
        var session: DialSession
        let promise: EventLoopPromise<any Connection>
        let cancellation: EventLoopPromise<Void>
        var timer: Scheduled<Void>?
        let budget: Scheduled<Void>
    }

    private func connectOnLoop(to peer: PeerID, at hints: [Multiaddr], forceNew: Bool) -> EventLoopFuture<
        any Connection
    > {
        func fail(_ error: DialError) -> EventLoopFuture<any Connection> { self.eventLoop.makeFailedFuture(error) }
        guard !self.isShutDown else { return fail(.shutDown) }
        guard peer != self.localPeer else { return fail(.dialToSelf) }
        if !forceNew, let connection = self.connections[peer]?.last {
            return self.eventLoop.makeSucceededFuture(connection)
        }
        let hints = hints.map(\.withoutPeerID)
        if let dial = self.dials[peer] {
            let plan = DialPlanner.plan(self.usable(hints))
            self.withDial(dial.number, of: peer) { session, now in
                session.add(plan, now: now)
                return session.advance(to: now)
            }
            return dial.promise.futureResult
        }
        guard self.connectionCount < self.limits.total, self.connections[peer, default: []].count < self.limits.perPeer
        else { return fail(.tooManyConnections) }

        let known = (hints + self.peerStore.addresses(of: peer)).filter(self.mayDial)
        guard !known.isEmpty else { return fail(.noAddresses(peer)) }
        let usable = self.usable(known)
        guard !usable.isEmpty else { return fail(.noTransport(Array(known.prefix(DialPlanner.maximumAddresses)))) }

        let number = self.nextNumber()
        let dial = Dial(
            number: number, session: DialSession(plan: DialPlanner.plan(usable), now: self.eventLoop.now),
            promise: self.eventLoop.makePromise(), cancellation: self.eventLoop.makePromise(),
            budget: self.eventLoop.scheduleTask(in: self.dialTimeout) {
                self.withDial(number, of: peer) { session, _ in session.timedOut() }
            })
        self.dials[peer] = dial
        self.withDial(number, of: peer) { session, now in session.advance(to: now) }
        return dial.promise.futureResult
    }

    private func usable(_ addresses: [Multiaddr]) -> [Multiaddr] {
        addresses.filter { address in self.transports.contains { $0.canDial(address) } }
    }

    /// Changes a dial's session, unless the dial is over, does what the session says and sets the timer anew.
    private func withDial(
        _ number: UInt64, of peer: PeerID, _ body: (inout DialSession, NIODeadline) -> [DialSession.Action]
    ) {
        guard var dial = self.dials[peer], dial.number == number else { return }
        let actions = body(&dial.session, self.eventLoop.now)
        dial.timer?.cancel()
        dial.timer = dial.session.nextDeadline.map { deadline in
            self.eventLoop.scheduleTask(deadline: deadline) {
                self.withDial(number, of: peer) { session, now in session.advance(to: now) }
            }
        }
        self.dials[peer] = dial
        for action in actions {
            switch action {
            case .start(let address): self.attempt(address, of: peer, for: dial)
            case .fail(let attempts): self.finish(peer, .failure(DialError.allAttemptsFailed(attempts)))
            }
        }
    }

    private func attempt(_ address: Multiaddr, of peer: PeerID, for dial: Dial) {
        let number = dial.number
        let failed = { @Sendable (error: any Error) in
            self.withDial(number, of: peer) { session, now in session.failed(address, error, now: now) }
        }
        guard let transport = self.transports.first(where: { $0.canDial(address) }) else {
            return failed(TransportError.unsupportedAddress(address))
        }
        transport.dial(address, expecting: peer, cancellation: dial.cancellation.futureResult)
            .hop(to: self.eventLoop).whenComplete { result in
                switch result {
                case .success(let connection):
                    if let refusal = self.insert(connection) { failed(refusal) }
                case .failure(let error):
                    if case TransportError.peerMismatch(_, found: self.localPeer) = error {
                        self.emit(.refused(self.localPeer, address, .ownIdentity))
                    }
                    failed(error)
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
}

/// An address could not be listened on.
public struct ListenError: Error, Sendable, CustomStringConvertible {
    /// Where.
    public let address: Multiaddr
    /// What the transport said.
    public let cause: any Error

    package init(address: Multiaddr, cause: any Error) {
        self.address = address
        self.cause = cause
    }

    /// Whether another socket has this address and port.
    public var isPortBusy: Bool { if case TransportError.portBusy = self.cause { true } else { false } }

    /// One line.
    public var description: String { "\(self.address): \(self.cause)" }
}

/// Gives inbound streams to the handlers of the registry.
private final class StreamDispatcher: ConnectionDelegate, Sendable {
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
