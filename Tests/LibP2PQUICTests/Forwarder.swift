import Multiformats
import NIOCore
import NIOPosix
import Synchronization
import TestKit
import Testing

@testable import LibP2PQUIC

/// Carries datagrams between one dialer and one listener, as a NAT does, and does to them what the test wants.
final class Forwarder: Sendable {
    enum Direction: Sendable {
        case toListener
        case toDialer
    }

    /// What becomes of one datagram: those that go on instead.
    typealias Treatment = @Sendable (Direction, [UInt8]) -> [[UInt8]]

    struct State: Sendable {
        var treatment: Treatment = { [$1] }
        var listener: SocketAddress?
        var dialer: SocketAddress?
        var outer: (any Channel)?
        var inner: (any Channel)?
    }

    private let state = Mutex(State())
    /// Every datagram that came in.
    let seen = Journal<(direction: Direction, bytes: [UInt8])>()
    private let group = MultiThreadedEventLoopGroup.singleton

    init(_ treatment: @escaping Treatment = { [$1] }) {
        self.state.withLock { $0.treatment = treatment }
    }

    func treat(_ treatment: @escaping Treatment) { self.state.withLock { $0.treatment = treatment } }

    /// - Returns: Where to dial.
    func start(towards listener: Multiaddr) async throws -> Multiaddr {
        let port = try #require(listener.udpPort)
        let address = try SocketAddress(ipAddress: "127.0.0.1", port: Int(port))
        self.state.withLock { $0.listener = address }
        let inner = try await self.bind(.toListener)
        let outer = try await self.bind(.toDialer)
        self.state.withLock {
            $0.inner = inner
            $0.outer = outer
        }
        return try Multiaddr("/ip4/127.0.0.1/udp/\(inner.localAddress?.port ?? 0)/quic-v1")
    }

    /// The listener sees the dialer at another port from now on.
    func rebind() async throws {
        let outer = try await self.bind(.toDialer)
        let old = self.state.withLock { state in
            defer { state.outer = outer }
            return state.outer
        }
        try await old?.close().get()
    }

    func stop() async throws {
        let channels = self.state.withLock { [$0.inner, $0.outer] }
        for channel in channels { try? await channel?.close().get() }
    }

    private func bind(_ direction: Direction) async throws -> any Channel {
        try await DatagramBootstrap(group: self.group)
            .channelOption(.socketOption(.so_rcvbuf), value: 4 << 20)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Handler(self, direction))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
    }

    private func forward(_ direction: Direction, _ bytes: [UInt8], from sender: SocketAddress) {
        self.seen.write((direction, bytes))
        let (treatment, target, channel) = self.state.withLock { state in
            if direction == .toListener { state.dialer = sender }
            return direction == .toListener
                ? (state.treatment, state.listener, state.outer) : (state.treatment, state.dialer, state.inner)
        }
        guard let target, let channel else { return }
        for datagram in treatment(direction, bytes) {
            channel.writeAndFlush(
                AddressedEnvelope(remoteAddress: target, data: ByteBuffer(bytes: datagram)), promise: nil)
        }
    }

    private final class Handler: ChannelInboundHandler, Sendable {
        typealias InboundIn = AddressedEnvelope<ByteBuffer>
        private let owner: Forwarder
        private let direction: Direction

        init(_ owner: Forwarder, _ direction: Direction) {
            self.owner = owner
            self.direction = direction
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let envelope = self.unwrapInboundIn(data)
            self.owner.forward(self.direction, Array(envelope.data.readableBytesView), from: envelope.remoteAddress)
        }
    }
}

/// A UDP socket without QUIC: the test plays the remote.
final class PlainUDP: ChannelInboundHandler, @unchecked Sendable {
    typealias InboundIn = AddressedEnvelope<ByteBuffer>
    let received = Journal<[UInt8]>()
    private var channel: (any Channel)?

    static func bind() async throws -> PlainUDP {
        let plain = PlainUDP()
        plain.channel = try await DatagramBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(plain) }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        return plain
    }

    var address: Multiaddr {
        get throws { try Multiaddr("/ip4/127.0.0.1/udp/\(self.channel?.localAddress?.port ?? 0)/quic-v1") }
    }

    func send(_ bytes: [UInt8], to address: Multiaddr) async throws {
        let port = try #require(address.udpPort)
        let remote = try SocketAddress(ipAddress: "127.0.0.1", port: Int(port))
        try await self.channel?.writeAndFlush(
            AddressedEnvelope(remoteAddress: remote, data: ByteBuffer(bytes: bytes))
        ).get()
    }

    func close() async throws { try await self.channel?.close().get() }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        self.received.write(Array(self.unwrapInboundIn(data).data.readableBytesView))
    }
}
