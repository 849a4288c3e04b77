public import LibP2PCore
public import LibP2PSwarm
public import Logging
public import Multiformats
internal import NIOCore
public import PeerIdentity
internal import Synchronization

/// `/ipfs/id/1.0.0` and `/ipfs/id/push/1.0.0`: peers tell each other who and where they are and what they speak.
///
/// Every new connection is identified at once. What was learnt goes to the peer store; ``observe(_:)`` tells of it.
///
/// Spec: `identify/README.md`.
public final class IdentifyService: Sendable {
    /// Asking.
    public static let protocolID: ProtocolID = "/ipfs/id/1.0.0"
    /// Telling, after a change.
    public static let pushProtocolID: ProtocolID = "/ipfs/id/push/1.0.0"
    /// How long one exchange may take.
    static let timeout = TimeAmount.seconds(10)
    /// Pushes of ours under way at the same time.
    static let maximumConcurrentPushes = 32
    /// Questions and pushes of one peer that we attend to at the same time.
    static let maximumStreamsPerPeer = 16

    /// What this node says of itself.
    public struct Configuration: Sendable {
        /// The program and its version.
        public var agentVersion: String
        /// The family of protocols.
        public var protocolVersion: String
        /// Where the node can be reached, as of now. Called from any thread.
        public var addresses: @Sendable () -> [Multiaddr]

        /// Makes the configuration.
        public init(
            agentVersion: String, protocolVersion: String, addresses: @escaping @Sendable () -> [Multiaddr]
        ) {
            self.agentVersion = agentVersion
            self.protocolVersion = protocolVersion
            self.addresses = addresses
        }
    }

    /// Told of every answer and push, from any thread.
    public typealias Observer = @Sendable (any Connection, IdentifyInfo) -> Void

    private let key: PrivateKey
    private let swarm: Swarm
    private let configuration: Configuration
    private let logger: Logger
    private let observers = Mutex<[Observer]>([])
    private let inbound = StreamQuota(perPeer: IdentifyService.maximumStreamsPerPeer)
    private let sequence = Mutex(PeerRecordSequence())
    private let outcomes = Mutex<[ConnectionID: EventLoopFuture<IdentifyInfo>]>([:])

    /// Makes the service. ``start()`` sets it to work.
    public init(key: PrivateKey, swarm: Swarm, configuration: Configuration, logger: Logger) {
        self.key = key
        self.swarm = swarm
        self.configuration = configuration
        self.logger = logger
    }

    /// Answers from now on, and identifies every new connection.
    public func start() {
        self.accept(Self.protocolID) { stream, connection in
            self.send(to: stream, of: connection)
        }
        self.accept(Self.pushProtocolID) { stream, connection in
            let buffered = BufferedStream(stream)
            return stream.eventLoop.makeFutureWithTask {
                do {
                    try self.learn(try await self.receive(buffered), of: connection, isPartial: true)
                } catch {
                    self.logger.debug("identify push failed", metadata: Self.metadata(connection, error))
                }
            }
        }
        self.swarm.observe { [self] event in
            switch event {
            case .connected(let connection): self.identify(connection)
            case .disconnected(let connection, _, _): self.outcomes.withLock { $0[connection.id] = nil }
            default: break
            }
        }
    }

    /// Calls `observer` for each answer and push from now on. A push may hold only what has changed.
    public func observe(_ observer: @escaping Observer) {
        self.observers.withLock { $0.append(observer) }
    }

    /// What the far end of `connection` says of itself: the answer that came, or will come, to the question asked when it was made.
    /// When that failed, it is asked anew.
    /// - Throws: ``IdentifyError``, ``NegotiationError``, or why the stream closed.
    public func info(of connection: any Connection) async throws -> IdentifyInfo {
        try await self.identify(connection).get()
    }

    /// Tells every connected peer that speaks push what we now say of ourselves, and returns when all have read it or failed to.
    public func push() async {
        let connections = await self.swarm.connections()
        await withTaskGroup(of: Void.self) { group in
            var seen = Set<PeerID>()
            var running = 0
            for connection in connections where seen.insert(connection.remotePeer).inserted {
                guard self.swarm.peerStore.speaks(Self.pushProtocolID.rawValue, connection.remotePeer) else { continue }
                if running >= Self.maximumConcurrentPushes { await group.next() }
                running += 1
                group.addTask {
                    do {
                        let stream = try await connection.openStream([Self.pushProtocolID]).get()
                        try await stream.eventLoop.flatSubmit { self.send(to: stream, of: connection) }.get()
                    } catch {
                        self.logger.debug("identify push failed", metadata: Self.metadata(connection, error))
                    }
                }
            }
        }
    }

    // MARK: Details

    /// Accepts `protocolID` within the quota; what `attend` returns completes when the stream needs no more attention.
    private func accept(
        _ protocolID: ProtocolID, _ attend: @escaping @Sendable (any Stream, any Connection) -> EventLoopFuture<Void>
    ) {
        self.swarm.registry.accept(protocolID) { [self] stream in
            guard let connection = stream.connection else { return stream.reset(.unspecified) }
            let peer = connection.remotePeer
            guard self.inbound.take(for: peer) else { return stream.reset(.resourceLimitExceeded) }
            attend(stream, connection).whenComplete { _ in self.inbound.giveBack(for: peer) }
        }
    }

    @discardableResult
    private func identify(_ connection: any Connection) -> EventLoopFuture<IdentifyInfo> {
        let (outcome, promise) = self.outcomes.withLock { outcomes in
            if let known = outcomes[connection.id] { return (known, EventLoopPromise<IdentifyInfo>?.none) }
            let promise = connection.eventLoop.makePromise(of: IdentifyInfo.self)
            outcomes[connection.id] = promise.futureResult
            return (promise.futureResult, promise)
        }
        guard let promise else { return outcome }
        outcome.whenFailure { error in
            self.outcomes.withLock { $0[connection.id] = nil }
            self.logger.debug("identify failed", metadata: Self.metadata(connection, error))
        }
        promise.completeWithTask {
            let stream = try await connection.openStream([Self.protocolID]).get()
            let buffered = try await stream.eventLoop.submit { BufferedStream(stream) }.get()
            let info = try await self.receive(buffered)
            try self.learn(info, of: connection, isPartial: false)
            return info
        }
        return outcome
    }

    private func receive(_ stream: BufferedStream) async throws -> IdentifyInfo {
        defer { stream.close() }
        return try await stream.within(Self.timeout) { stream in
            var messages: [[UInt8]] = []
            while true {
                do {
                    let message = try await stream.readMessage(atMost: IdentifyInfo.maximumMessageBytes)
                    messages.append(Array(message.readableBytesView))
                } catch StreamReadError.ended(afterBytes: 0) where !messages.isEmpty {
                    return try IdentifyInfo(merging: messages)
                }
                guard messages.count <= IdentifyInfo.maximumMessages else { throw IdentifyError.tooManyMessages }
            }
        }
    }

    /// On the stream's loop. Completes when the remote has read all and closed its side, or the stream has failed.
    private func send(to stream: any Stream, of connection: any Connection) -> EventLoopFuture<Void> {
        do {
            for message in try self.ownInfo(for: connection).encoded() {
                var bytes = ByteBuffer()
                bytes.writeLengthPrefixed(message)
                stream.write(bytes)
            }
            stream.flush()
            stream.closeWrite()
            return IdentifyFarewell.wait(for: stream)
        } catch {
            self.logger.error("identify could not encode", metadata: Self.metadata(connection, error))
            stream.reset(.unspecified)
            return stream.eventLoop.makeFailedFuture(error)
        }
    }

    private func ownInfo(for connection: any Connection) throws -> IdentifyInfo {
        var info = IdentifyInfo()
        let addresses = Array(self.configuration.addresses().prefix(PeerRecord.maximumAddresses))
        info.publicKey = self.key.publicKey
        info.listenAddresses = addresses
        info.protocols = self.swarm.registry.protocols(for: connection.remotePeer).map(\.rawValue)
        info.observedAddress = connection.remoteAddress
        info.protocolVersion = self.configuration.protocolVersion
        info.agentVersion = self.configuration.agentVersion
        let record = PeerRecord(
            peerID: self.swarm.localPeer, sequence: self.sequence.withLock { $0.next(at: WallClock.nanoseconds()) },
            addresses: addresses)
        info.signedPeerRecord = try record.seal(with: self.key).bytes
        return info
    }

    /// Takes over what the remote says of itself; of a partial message only what is there.
    private func learn(_ info: IdentifyInfo, of connection: any Connection, isPartial: Bool) throws {
        let peer = connection.remotePeer
        if let key = info.publicKey, PeerID(key) != peer { throw IdentifyError.wrongPublicKey }
        let store = self.swarm.peerStore
        let remote = connection.remoteAddress.ipAddress
        if !isPartial || !info.protocols.isEmpty { store.setProtocols(info.protocols, of: peer) }
        if let bytes = info.signedPeerRecord, let (record, _) = try? PeerRecord.open(bytes), record.peerID == peer {
            store.consume(record, keeping: Self.useful(record.addresses, from: remote))
        } else if !isPartial || !info.listenAddresses.isEmpty {
            store.set(Self.useful(info.listenAddresses, from: remote), of: peer, from: .identify)
        }
        for observer in self.observers.withLock({ $0 }) { observer(connection, info) }
    }

    /// Drops addresses that mean nothing where we are: a peer on this machine may name any, a peer near by none of its own loopback,
    /// a peer on the internet public ones only.
    static func useful(_ addresses: [Multiaddr], from remote: IPAddress?) -> [Multiaddr] {
        addresses.filter { address in
            guard let ip = address.ipAddress, let remote else { return true }
            if ip.isUnspecified { return false }
            return remote.isLoopback || (remote.isPrivate ? !ip.isLoopback : !ip.isPrivate)
        }
    }

    private static func metadata(_ connection: any Connection, _ error: any Error) -> Logger.Metadata {
        ["peer": "\(connection.remotePeer)", "connection": "\(connection.id)", "reason": "\(error)"]
    }
}

/// Holds an answered stream until the remote has read it and closed its side, then lets it go.
private final class IdentifyFarewell: ByteStreamReceiver {
    private let timer: Scheduled<Void>
    private let promise: EventLoopPromise<Void>

    private init(_ stream: any Stream) {
        self.timer = stream.eventLoop.scheduleTask(in: IdentifyService.timeout) { stream.reset(.garbageCollected) }
        self.promise = stream.eventLoop.makePromise()
    }

    static func wait(for stream: any Stream) -> EventLoopFuture<Void> {
        let farewell = IdentifyFarewell(stream)
        stream.receiver = farewell
        stream.setReading(true)
        return farewell.promise.futureResult
    }

    func received(_ bytes: ByteBuffer) {}
    func receiveComplete() {}
    func writabilityChanged() {}
    func inputEnded() {}

    func closed(_ error: (any Error)?) {
        self.timer.cancel()
        if let error { self.promise.fail(error) } else { self.promise.succeed() }
    }
}
