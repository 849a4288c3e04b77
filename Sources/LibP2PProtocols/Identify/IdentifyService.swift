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
    /// Pushes under way at the same time.
    static let maximumConcurrentPushes = 32

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
        self.swarm.registry.accept(Self.protocolID) { [self] stream in
            guard let connection = stream.connection else { return stream.reset(.unspecified) }
            self.send(to: stream, of: connection)
        }
        self.swarm.registry.accept(Self.pushProtocolID) { [self] stream in
            guard let connection = stream.connection else { return stream.reset(.unspecified) }
            let buffered = BufferedStream(stream)
            Task {
                do {
                    try self.learn(try await self.receive(buffered), of: connection)
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

    /// Calls `observer` for each answer and push from now on.
    public func observe(_ observer: @escaping Observer) {
        self.observers.withLock { $0.append(observer) }
    }

    /// What the far end of `connection` says of itself: the answer that came, or will come, to the question asked when it was made.
    /// - Throws: ``IdentifyError``, ``NegotiationError``, or why the stream closed.
    public func info(of connection: any Connection) async throws -> IdentifyInfo {
        if let known = self.outcomes.withLock({ $0[connection.id] }) { return try await known.get() }
        return try await self.identify(connection).get()
    }

    /// Tells every connected peer that speaks push what has changed.
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
                        stream.eventLoop.execute { self.send(to: stream, of: connection) }
                    } catch {
                        self.logger.debug("identify push failed", metadata: Self.metadata(connection, error))
                    }
                }
            }
        }
    }

    // MARK: Details

    @discardableResult
    private func identify(_ connection: any Connection) -> EventLoopFuture<IdentifyInfo> {
        let promise = connection.eventLoop.makePromise(of: IdentifyInfo.self)
        let outcome = promise.futureResult
        self.outcomes.withLock { $0[connection.id] = outcome }
        outcome.whenFailure { error in
            self.logger.debug("identify failed", metadata: Self.metadata(connection, error))
        }
        promise.completeWithTask {
            let stream = try await connection.openStream([Self.protocolID]).get()
            let buffered = try await stream.eventLoop.submit { BufferedStream(stream) }.get()
            let info = try await self.receive(buffered)
            try self.learn(info, of: connection)
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

    /// On the stream's loop.
    private func send(to stream: any Stream, of connection: any Connection) {
        do {
            for message in try self.ownInfo(for: connection).encoded() {
                var bytes = ByteBuffer()
                bytes.writeLengthPrefixed(message)
                stream.write(bytes)
            }
            stream.flush()
            stream.closeWrite()
            IdentifyFarewell.wait(for: stream)
        } catch {
            self.logger.error("identify could not encode", metadata: Self.metadata(connection, error))
            stream.reset(.unspecified)
        }
    }

    private func ownInfo(for connection: any Connection) throws -> IdentifyInfo {
        var info = IdentifyInfo()
        let addresses = self.configuration.addresses()
        info.publicKey = self.key.publicKey
        info.listenAddresses = addresses
        info.protocols = self.swarm.registry.protocols(for: connection.remotePeer).map(\.rawValue)
        info.observedAddress = connection.remoteAddress
        info.protocolVersion = self.configuration.protocolVersion
        info.agentVersion = self.configuration.agentVersion
        let record = PeerRecord(
            peerID: self.swarm.localPeer, sequence: self.sequence.withLock { $0.next(at: WallClock.nanoseconds()) },
            addresses: Array(addresses.prefix(PeerRecord.maximumAddresses)))
        info.signedPeerRecord = try record.seal(with: self.key).bytes
        return info
    }

    private func learn(_ info: IdentifyInfo, of connection: any Connection) throws {
        let peer = connection.remotePeer
        if let key = info.publicKey, PeerID(key) != peer { throw IdentifyError.wrongPublicKey }
        let store = self.swarm.peerStore
        store.setProtocols(info.protocols, of: peer)
        var isCertified = false
        if let bytes = info.signedPeerRecord, let (record, _) = try? PeerRecord.open(bytes), record.peerID == peer {
            store.consume(record, keeping: Self.useful(record.addresses, from: connection))
            isCertified = true
        }
        if !isCertified { store.set(Self.useful(info.listenAddresses, from: connection), of: peer, from: .identify) }
        for observer in self.observers.withLock({ $0 }) { observer(connection, info) }
    }

    /// Drops addresses that mean nothing where we are: a peer on this machine may name any, a peer near by none of its own loopback,
    /// a peer on the internet public ones only.
    private static func useful(_ addresses: [Multiaddr], from connection: any Connection) -> [Multiaddr] {
        guard let remote = connection.remoteAddress.ipAddress else { return addresses }
        if remote.isLoopback { return addresses }
        return addresses.filter { address in
            guard let ip = address.ipAddress else { return true }
            return remote.isPrivate ? !ip.isLoopback : !ip.isPrivate
        }
    }

    private static func metadata(_ connection: any Connection, _ error: any Error) -> Logger.Metadata {
        ["peer": "\(connection.remotePeer)", "connection": "\(connection.id)", "reason": "\(error)"]
    }
}

/// Holds an answered stream until the remote has read it and closed its side, then lets it go.
private final class IdentifyFarewell: ByteStreamReceiver {
    private let timer: Scheduled<Void>

    private init(_ stream: any Stream) {
        self.timer = stream.eventLoop.scheduleTask(in: IdentifyService.timeout) { stream.reset(.garbageCollected) }
    }

    static func wait(for stream: any Stream) {
        stream.receiver = IdentifyFarewell(stream)
        stream.setReading(true)
    }

    func received(_ bytes: ByteBuffer) {}
    func receiveComplete() {}
    func writabilityChanged() {}
    func inputEnded() {}
    func closed(_ error: (any Error)?) { self.timer.cancel() }
}
