import LibP2PCore
import Multiformats
import NIOCore
import NIOPosix
import PeerIdentity
import TestKit

@testable import LibP2PConnection

/// A transport, who it belongs to, and what it has accepted.
struct TCPNode {
    let key: PrivateKey
    let transport: TCPTransport
    let accepted = Journal<any Connection>()
    var peerID: PeerID { PeerID(self.key.publicKey) }

    init(_ options: TCPOptions = TCPOptions(), key: PrivateKey? = nil, upgrader: ConnectionUpgrader? = nil) throws {
        self.key = try key ?? PrivateKey.generate()
        self.transport = TCPTransport(
            group: MultiThreadedEventLoopGroup.singleton, localPeer: PeerID(self.key.publicKey),
            upgrader: upgrader
                ?? ConnectionUpgrader(securities: [NoiseUpgrader(identity: self.key)], muxers: [YamuxMuxer()]),
            options: options)
    }

    func listen(on address: Multiaddr) async throws -> any Listener {
        try await self.transport.listen(on: address) { self.accepted.write($0) }.get()
    }

    func listen(on address: String = "/ip4/127.0.0.1/tcp/0") async throws -> any Listener {
        try await self.listen(on: try Multiaddr(address))
    }

    func dial(_ address: Multiaddr, expecting peer: PeerID) async throws -> any Connection {
        try await self.transport.dial(address, expecting: peer, cancellation: Self.never).get()
    }

    func dial(_ address: Multiaddr, expecting peer: PeerID, cancellation: EventLoopFuture<Void>)
        -> EventLoopFuture<any Connection>
    {
        self.transport.dial(address, expecting: peer, cancellation: cancellation)
    }

    /// Nobody cancels.
    static let neverPromise = MultiThreadedEventLoopGroup.singleton.any().makePromise(of: Void.self)
    static var never: EventLoopFuture<Void> { self.neverPromise.futureResult }
}

/// A TCP connection without libp2p on it: the test plays the remote.
struct RawConnection {
    let channel: any Channel
    let stream: ChannelByteStream
    let receiver: RecordingReceiver

    static func connect(to address: Multiaddr) async throws -> RawConnection {
        let bootstrap = ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelOption(.autoRead, value: false)
            .channelOption(.allowRemoteHalfClosure, value: true)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(ChannelByteStream(eventLoop: channel.eventLoop))
                }
            }
        return try await RawConnection(try await bootstrap.connect(to: try address.socketAddress()).get())
    }

    init(_ channel: any Channel) async throws {
        self.channel = channel
        self.stream = try await channel.eventLoop.submit {
            try channel.pipeline.syncOperations.handler(type: ChannelByteStream.self)
        }.get()
        self.receiver = try await self.stream.record()
    }

    func send(_ bytes: [UInt8]) async throws {
        try await self.stream.onLoop {
            $0.write(ByteBuffer(bytes: bytes))
            $0.flush()
        }
    }

    func close() { self.channel.close(promise: nil) }
}

/// A listener without libp2p.
struct RawListener {
    let channel: any Channel
    let accepted = Journal<any Channel>()
    let address: Multiaddr

    init(on address: String = "/ip4/127.0.0.1/tcp/0", reusingPort: Bool = false) async throws {
        let accepted = self.accepted
        self.channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelOption(SocketOptions.reusePort, value: reusingPort ? 1 : 0)
            .childChannelOption(.autoRead, value: false)
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelInitializer { channel in
                let stream = ChannelByteStream(eventLoop: channel.eventLoop)
                stream.onActive = { accepted.write(channel) }
                return channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(stream) }
            }
            .bind(to: try Multiaddr(address).socketAddress()).get()
        self.address = try self.channel.listeningAddress()
    }

    /// The first connection that came in.
    func connection() async throws -> RawConnection {
        try await RawConnection(await self.accepted.first { $0 })
    }
}

struct NotTCP: Error {}

extension Multiaddr {
    func socketAddress() throws -> SocketAddress {
        guard let address = self.tcpSocketAddress else { throw NotTCP() }
        return address
    }
}

extension Channel {
    func listeningAddress() throws -> Multiaddr {
        guard let address = self.localAddress.flatMap({ Multiaddr(tcp: $0) }) else { throw NotTCP() }
        return address
    }
}

extension Result where Failure == any Error {
    var error: (any Error)? { if case .failure(let error) = self { error } else { nil } }
}
