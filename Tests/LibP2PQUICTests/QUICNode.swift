import LibP2PCore
import Multiformats
import NIOCore
import NIOPosix
import PeerIdentity
import Synchronization
import TestKit

@testable import LibP2PQUIC

/// A transport, who it belongs to, and what it has accepted.
struct QUICNode {
    let key: PrivateKey
    let transport: QUICTransport
    let accepted = Journal<any Connection>()
    var peerID: PeerID { PeerID(self.key.publicKey) }

    init(key: PrivateKey? = nil, _ configure: (inout QUICOptions) -> Void = { _ in }) throws {
        self.key = try key ?? PrivateKey.generate()
        var options = QUICOptions()
        // Longer than any machine is slow; tests of waiting set their own.
        options.datagramPatience = .minutes(5)
        configure(&options)
        self.transport = QUICTransport(
            group: MultiThreadedEventLoopGroup.singleton, identity: self.key, options: options)
    }

    func listen(on address: String = "/ip4/127.0.0.1/udp/0/quic-v1") async throws -> any Listener {
        try await self.transport.listen(on: try Multiaddr(address)) { self.accepted.write($0) }.get()
    }

    func dial(_ address: Multiaddr, expecting peer: PeerID) async throws -> QUICConnection {
        try Self.quic(try await self.start(address, expecting: peer).get())
    }

    func start(_ address: Multiaddr, expecting peer: PeerID, cancellation: EventLoopFuture<Void>? = nil)
        -> EventLoopFuture<any Connection>
    {
        self.transport.dial(address, expecting: peer, cancellation: cancellation ?? Self.never)
    }

    /// The first connection that came in.
    func connection() async throws -> QUICConnection { try Self.quic(await self.accepted.first { $0 }) }

    /// Nobody cancels.
    static let neverPromise = MultiThreadedEventLoopGroup.singleton.any().makePromise(of: Void.self)
    static var never: EventLoopFuture<Void> { self.neverPromise.futureResult }

    struct NotQUIC: Error {}

    static func quic(_ connection: any Connection) throws -> QUICConnection {
        guard let connection = connection as? QUICConnection else { throw NotQUIC() }
        return connection
    }
}

/// Two nodes and a connection between them, perhaps through somebody in between.
struct QUICPair {
    let dialer: QUICNode
    let listener: QUICNode
    let listening: any Listener
    let outbound: QUICConnection
    let inbound: QUICConnection
    /// Streams that the listener has accepted.
    let acceptor: Acceptor

    init(
        through forwarder: Forwarder? = nil, accepting protocols: Set<ProtocolID> = ["/test"],
        dialer configureDialer: (inout QUICOptions) -> Void = { _ in },
        listener configureListener: (inout QUICOptions) -> Void = { _ in }
    ) async throws {
        self.dialer = try QUICNode(configureDialer)
        self.listener = try QUICNode(configureListener)
        self.listening = try await self.listener.listen()
        var address = self.listening.address
        if let forwarder { address = try await forwarder.start(towards: address) }
        self.outbound = try await self.dialer.dial(address, expecting: self.listener.peerID)
        self.inbound = try await self.listener.connection()
        self.acceptor = Acceptor(protocols)
        let (acceptor, inbound) = (self.acceptor, self.inbound)
        try await inbound.onLoop { $0.delegate = acceptor }
    }

    /// A stream, and the same at the other end, both being read.
    func openStream(_ protocolID: ProtocolID = "/test") async throws -> (near: Side, far: Side) {
        let before = self.acceptor.streams.entries.count
        let stream = try await self.outbound.openStream([protocolID]).get()
        let near = Side(stream, try await stream.read())
        let far = await self.acceptor.streams.wait(forCount: before + 1)[before]
        return (near, Side(far.stream, far.receiver))
    }

    func close() async throws {
        self.outbound.close(.none)
        self.inbound.close(.none)
        try await self.listening.close().get()
    }
}

/// One end of a stream and what it has been told.
struct Side {
    let stream: any LibP2PCore.Stream
    let receiver: Receiver

    init(_ stream: any LibP2PCore.Stream, _ receiver: Receiver) {
        self.stream = stream
        self.receiver = receiver
    }

    func send(_ bytes: [UInt8]) async throws {
        try await self.stream.onLoop {
            $0.write(ByteBuffer(bytes: bytes))
            $0.flush()
        }
    }

    func closeWrite() async throws { try await self.stream.onLoop { $0.closeWrite() } }
}

/// Accepts streams, and reads them.
final class Acceptor: ConnectionDelegate, @unchecked Sendable {
    let streams = Journal<Side>()
    private let protocols: Set<ProtocolID>
    /// Called for each stream in place of reading it. Event loop only.
    var take: ((any LibP2PCore.Stream) -> Void)?

    init(_ protocols: Set<ProtocolID>) {
        self.protocols = protocols
    }

    func connection(_ connection: any Connection, accepts protocolID: ProtocolID) -> Bool {
        self.protocols.contains(protocolID)
    }

    func connection(_ connection: any Connection, accepted stream: any LibP2PCore.Stream) {
        if let take = self.take { return take(stream) }
        let receiver = Receiver()
        stream.receiver = receiver
        stream.setReading(true)
        self.streams.write(Side(stream, receiver))
    }
}

/// Sends back what it gets, and ends when the remote does.
final class Echo: ByteStreamReceiver {
    private let stream: any LibP2PCore.Stream

    init(_ stream: any LibP2PCore.Stream) { self.stream = stream }

    func received(_ bytes: ByteBuffer) {
        self.stream.write(bytes)
        self.stream.setReading(self.stream.isWritable)
    }
    func receiveComplete() { self.stream.flush() }
    func writabilityChanged() { self.stream.setReading(self.stream.isWritable) }
    func inputEnded() { self.stream.closeWrite() }
    func closed(_ error: (any Error)?) {}
}

extension QUICConnection {
    /// Does something on the connection's loop.
    func onLoop<Value: Sendable>(_ body: @escaping @Sendable (QUICConnection) throws -> Value) async throws -> Value {
        try await self.eventLoop.submit { try body(self) }.get()
    }

    /// Why it closed; `nil` after an orderly end.
    func ending() async -> (any Error)? {
        do {
            try await self.closeFuture.get()
            return nil
        } catch {
            return error
        }
    }
}

/// Bytes that tell where they are from.
func pattern(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
    var state = seed &* 0x9e37_79b9_7f4a_7c15 | 1
    let words = (count + 7) / 8
    return [UInt8](unsafeUninitializedCapacity: words * 8) { buffer, filled in
        let raw = UnsafeMutableRawBufferPointer(buffer)
        for index in 0..<words {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            raw.storeBytes(of: state, toByteOffset: index * 8, as: UInt64.self)
        }
        filled = count
    }
}

/// Keeps what a stream delivers, much of it as cheaply as little, and notes the rest of what it tells.
final class Receiver: ByteStreamReceiver, Sendable {
    enum Event: Sendable {
        case inputEnd
        case closed((any Error)?)
        /// So many bytes have come as somebody waits for.
        case enough
    }

    private struct State {
        var bytes: [UInt8] = []
        var wanted = Int.max
    }

    private let state = Mutex(State())
    let events = Journal<Event>()

    var bytes: [UInt8] { self.state.withLock { $0.bytes } }

    /// Returns once at least `count` bytes have come. One wait at a time.
    @discardableResult
    func bytes(atLeast count: Int) async -> [UInt8] {
        let before = self.events.entries.count
        let isThere = self.state.withLock { state in
            state.wanted = state.bytes.count >= count ? Int.max : count
            return state.bytes.count >= count
        }
        if !isThere {
            await self.events.wait { $0.dropFirst(before).contains { if case .enough = $0 { true } else { false } } }
        }
        return self.bytes
    }

    /// Returns once the remote has ended its direction.
    func inputEnd() async { await self.events.wait { $0.contains { if case .inputEnd = $0 { true } else { false } } } }

    /// Why the stream closed, once it has.
    func closed() async -> (any Error)? {
        let events = await self.events.wait { $0.contains { if case .closed = $0 { true } else { false } } }
        for event in events { if case .closed(let error) = event { return error } }
        return NeverClosed()
    }

    struct NeverClosed: Error {}

    func received(_ bytes: ByteBuffer) {
        let isEnough = self.state.withLock { state in
            state.bytes.append(contentsOf: bytes.readableBytesView)
            guard state.bytes.count >= state.wanted else { return false }
            state.wanted = Int.max
            return true
        }
        if isEnough { self.events.write(.enough) }
    }
    func receiveComplete() {}
    func writabilityChanged() {}
    func inputEnded() { self.events.write(.inputEnd) }
    func closed(_ error: (any Error)?) { self.events.write(.closed(error)) }
}

extension LibP2PCore.Stream {
    /// Takes the stream over with a new receiver and starts to read. From any thread.
    func read() async throws -> Receiver {
        try await self.eventLoop.submit {
            let receiver = Receiver()
            self.receiver = receiver
            self.setReading(true)
            return receiver
        }.get()
    }
}
