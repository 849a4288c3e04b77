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
    let transports: [any Transport]
    let limits: ConnectionLimits
    let mayDial: @Sendable (Multiaddr) -> Bool
    let resolver: (any MultiaddrResolver)?
    let dialTimeout: TimeAmount
    let random: @Sendable () -> UInt64
    private let gater: Gater

    private let bound = Mutex<[Multiaddr]>([])

    // Everything below is owned by the event loop.
    private(set) var connections: [PeerID: [any Connection]] = [:]
    private(set) var connectionCount = 0
    var dials: [DialKey: Dial] = [:]
    var slots: DialSlots
    var blackHoles = BlackHoleFilter()
    private var listeners: [any Listener] = []
    private var observers: [@Sendable (SwarmEvent) -> Void] = []
    private var eventStreams: [UInt64: AsyncStream<SwarmEvent>.Continuation] = [:]
    private var lastNumber: UInt64 = 0
    private(set) var isShutDown = false
    /// The last connection is gone, and the last event is told.
    private var hasEnded = false

    /// - Parameters:
    ///   - eventLoop: Owns the swarm's state.
    ///   - transports: Asked in this order for each address.
    ///   - dialTimeout: The whole budget of one ``connect(to:at:options:)``, over all addresses.
    ///   - resolver: Looks up names in addresses. Without one, they cannot be dialled.
    ///   - random: Fresh random numbers; the system's when `nil`.
    ///   - dials: Which addresses are dialled at all. Asked for what a name stands for, too; an IPv4-mapped IPv6 address is shown to it as
    ///     IPv4.
    public init(
        eventLoop: any EventLoop, localPeer: PeerID, transports: [any Transport], registry: ProtocolRegistry,
        peerStore: PeerStore, limits: ConnectionLimits = ConnectionLimits(), dialLimits: DialLimits = DialLimits(),
        dialTimeout: TimeAmount = .seconds(15), resolver: (any MultiaddrResolver)? = nil,
        random: (@Sendable () -> UInt64)? = nil, logger: Logger,
        dials: @escaping @Sendable (Multiaddr) -> Bool = { _ in true },
        gater: @escaping Gater = { _, _, _ in true }
    ) {
        self.eventLoop = eventLoop
        self.localPeer = localPeer
        self.transports = transports
        self.registry = registry
        self.peerStore = peerStore
        self.limits = limits
        self.slots = DialSlots(total: dialLimits.total, perPeer: dialLimits.perPeer)
        self.dialTimeout = dialTimeout
        self.resolver = resolver
        self.random = random ?? { UInt64.random(in: .min ... .max) }
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
    public func connect(to peer: PeerID, at hints: [Multiaddr] = [], options: DialOptions = DialOptions())
        async throws -> any Connection
    {
        try await self.eventLoop.flatSubmit {
            self.dial(peer, at: hints, preferring: nil, options, forceNew: false)
        }.get()
    }

    /// Makes another connection to `peer` beside those that exist. Otherwise as ``connect(to:at:options:)``.
    ///
    /// - Parameter grade: What the connection must be at least: other addresses are not dialled, and a lesser connection that the peer
    ///   makes does not end the dial.
    public func connectAnew(
        to peer: PeerID, at hints: [Multiaddr] = [], preferring grade: PathGrade? = nil,
        options: DialOptions = DialOptions()
    ) async throws -> any Connection {
        try await self.eventLoop.flatSubmit {
            self.dial(peer, at: hints, preferring: grade, options, forceNew: true)
        }.get()
    }

    /// The machine's links or addresses changed: addresses that failed may work, and a network that swallowed UDP may be another one.
    public func networkChanged() {
        self.peerStore.forgetBackoffs()
        self.run { self.blackHoles.reset() }
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

    /// What dialling is like at the moment.
    public func dialReport() async -> DialReport {
        let report = try? await self.eventLoop.submit {
            DialReport(
                underWay: self.slots.runningCount, waiting: self.slots.waitingCount,
                lookups: self.dials.values.reduce(0) { $0 + $1.lookupsUnderWay },
                blackHoles: BlackHoleFilter.Kind.allCases.map { self.blackHoles.state(of: $0) })
        }.get()
        return report ?? DialReport(underWay: 0, waiting: 0, lookups: 0, blackHoles: [])
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
            for key in self.dials.keys { self.finish(key, .failure(DialError.shutDown)) }
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

    /// Takes a connection that somebody made by other means than ``connect(to:at:options:)``, a relay or a hole punch. Callable from any
    /// thread; the connection has no delegate yet.
    public func adopt(_ connection: any Connection) { self.run { _ = self.insert(connection) } }

    /// Keeps the connection, or closes it and says why. Streams are accepted on it when it is known to stay.
    ///
    /// - Parameter attempt: The dial that has made it.
    func insert(_ connection: any Connection, by attempt: FinishedAttempt? = nil) -> SwarmEvent.Refusal? {
        let peer = connection.remotePeer
        if let refusal = self.refusal(of: connection) {
            connection.close(refusal.code)
            self.emit(.refused(peer, connection.remoteAddress, refusal))
            return refusal
        }
        self.connections[peer, default: []].append(connection)
        self.connectionCount += 1
        if connection.role == .dialer {
            self.peerStore.recordSuccess(
                attempt?.address ?? connection.remoteAddress, of: peer, handshake: attempt?.time, name: attempt?.name)
        }
        let dispatcher = StreamDispatcher(registry: self.registry)
        // Queued before anything that an observer of the event may ask of the connection.
        connection.eventLoop.execute { connection.delegate = dispatcher }
        self.emit(.connected(connection))
        for key in self.dials.keys where key.peer == peer && key.grade.map({ PathGrade(connection) >= $0 }) ?? true {
            self.finish(key, .success(connection))
        }
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

    func emit(_ event: SwarmEvent) {
        for observer in self.observers { observer(event) }
        for continuation in self.eventStreams.values { continuation.yield(event) }
    }

    func nextNumber() -> UInt64 {
        self.lastNumber += 1
        return self.lastNumber
    }

    func run(_ body: @escaping @Sendable () -> Void) {
        if self.eventLoop.inEventLoop { body() } else { self.eventLoop.execute(body) }
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
