internal import LibP2PConnection
public import LibP2PCore
public import LibP2PProtocols
internal import LibP2PQUIC
public import LibP2PSwarm
internal import Logging
public import Multiformats
public import NIOCore
internal import NIOPosix
public import PeerIdentity

/// A libp2p node: listens, dials, says who it is, answers pings.
///
/// ```swift
/// let host = try Host(HostConfiguration(key: .generateEd25519()))
/// try await host.start()
/// host.accept("/echo/1.0.0") { stream in … }
/// let stream = try await host.openStream(to: peer, at: [address], ["/echo/1.0.0"])
/// ```
public final class Host: Sendable {
    /// Who this node is.
    public let peerID: PeerID
    /// Its connections.
    public let swarm: Swarm
    /// What peers say of themselves.
    public let identify: IdentifyService
    /// Pings, both ways.
    public let ping: PingService
    /// Datagrams of applications, on connections that carry any.
    package let datagrams = DatagramService()
    /// Throughput: measures it with any peer that lets us, and serves those that the configuration lets in.
    public let perf: PerfService
    /// What is known of peers.
    public var peerStore: PeerStore { self.swarm.peerStore }

    private let configuration: HostConfiguration
    private let tcp: TCPTransport
    private let privateNetwork: PrivateNetwork

    /// Builds the node. Nothing listens or dials before ``start()``.
    ///
    /// - Parameter group: Loops for everything; NIO's own, which live as long as the process, when `nil`. A group of the caller's must
    ///   outlive the last stream and task of the host.
    public init(_ configuration: HostConfiguration, group: (any EventLoopGroup)? = nil) {
        let group = group ?? MultiThreadedEventLoopGroup.singleton
        let peerID = PeerID(configuration.key.publicKey)
        self.peerID = peerID
        self.configuration = configuration

        let upgrader = ConnectionUpgrader(
            securities: configuration.testSecurities
                ?? configuration.securities.map { $0.upgrader(for: configuration.key) },
            muxers: configuration.muxers,
            preSharedKey: configuration.preSharedKey)
        let tcp = TCPTransport(group: group, localPeer: peerID, upgrader: upgrader, options: configuration.tcp)
        self.tcp = tcp
        var transports: [any Transport] = [
            tcp, WebSocketTransport(over: tcp, upgrader: upgrader, options: configuration.webSocket),
        ]
        if let options = configuration.quic {
            transports.append(QUICTransport(group: group, identity: configuration.key, options: options))
        }
        if let network = configuration.memoryNetwork {
            transports.append(MemoryTransport(network: network, eventLoop: group.next(), upgrader: upgrader))
        }
        let privateNetwork = PrivateNetwork(
            configuration.preSharedKey, transports: transports, listen: configuration.listen)
        self.privateNetwork = privateNetwork
        let swarm = Swarm(
            eventLoop: group.next(), localPeer: peerID, transports: privateNetwork.transports,
            registry: ProtocolRegistry(),
            peerStore: PeerStore(path: configuration.peerStorePath), limits: configuration.limits,
            dialLimits: configuration.dialLimits, dialTimeout: configuration.dialTimeout,
            resolver: configuration.resolver, logger: configuration.logger, dials: configuration.dials,
            gater: configuration.gater)
        self.swarm = swarm
        let announces = configuration.announces
        self.identify = IdentifyService(
            key: configuration.key, swarm: swarm,
            configuration: IdentifyService.Configuration(
                agentVersion: configuration.agentVersion, protocolVersion: configuration.protocolVersion
            ) { AnnouncedAddresses.expand(swarm.boundAddresses).filter(announces) },
            logger: configuration.logger)
        self.ping = PingService()
        self.perf = PerfService()
    }

    /// Binds the configured addresses, all or none, and starts the services. In a private network addresses that its key cannot protect
    /// are left out, with a warning.
    /// - Throws: ``ListenError``; its cause is ``PrivateNetworkError/unprotectedTransport(_:)`` where no address can be protected.
    public func start() async throws {
        let listen = try self.privateNetwork.addressesToListenOn(logger: self.configuration.logger)
        self.identify.start()
        self.ping.register(with: self.swarm.registry)
        self.datagrams.register(with: self.swarm.registry)
        if let admits = self.configuration.perf { self.perf.register(with: self.swarm.registry, from: admits) }
        _ = try await self.swarm.listen(on: listen)
    }

    /// Closes every connection, saves the peer store, and returns when all is gone.
    public func shutDown() async {
        await self.swarm.shutDown()
        do {
            try self.peerStore.save()
        } catch {
            self.configuration.logger.warning("peer store not saved", metadata: ["reason": "\(error)"])
        }
    }

    /// The addresses this node is reachable at as far as it knows, without `/p2p`.
    public var addresses: [Multiaddr] {
        AnnouncedAddresses.expand(self.swarm.boundAddresses).filter(self.configuration.announces)
    }

    /// Dials to this IP use small TCP segments for the next ten minutes: a path there seems to swallow large ones without a word.
    public func suspectSmallMTU(at address: Multiaddr) {
        if let ip = address.ipAddress { self.tcp.suspectSmallMTU(at: ip) }
    }

    /// Accepts `protocolID` from now on, from peers that `admits` lets in (all, when `nil`).
    public func accept(
        _ protocolID: ProtocolID, from admits: ProtocolRegistry.Admission? = nil,
        _ handler: @escaping ProtocolRegistry.Handler
    ) {
        self.swarm.registry.accept(protocolID, from: admits, handler)
    }

    /// Connects to a peer; see ``LibP2PSwarm/Swarm/connect(to:at:options:)``.
    public func connect(to peer: PeerID, at addresses: [Multiaddr] = []) async throws -> any Connection {
        try await self.swarm.connect(to: peer, at: addresses)
    }

    /// Connects where needed and opens a stream with the first of `protocols` that the peer speaks.
    public func openStream(to peer: PeerID, at addresses: [Multiaddr] = [], _ protocols: [ProtocolID])
        async throws -> any Stream
    {
        try await self.connect(to: peer, at: addresses).openStream(protocols).get()
    }
}
