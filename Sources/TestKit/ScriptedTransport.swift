package import LibP2PCore
package import Multiformats
package import NIOCore
package import PeerIdentity
internal import Synchronization

/// A transport whose every dial waits until the test says what comes of it. Takes all addresses with TCP, and QUIC where told so.
package final class ScriptedTransport: Transport {
    /// One dial.
    package struct Dial: Sendable {
        /// Where.
        package let address: Multiaddr
        /// Who is expected there.
        package let peer: PeerID
        /// What the test completes.
        package let promise: EventLoopPromise<any Connection>
        /// Completes when nobody waits any more.
        package let cancellation: EventLoopFuture<Void>
        /// Tells the dialler how far it has come.
        package let progress: @Sendable (DialProgress) -> Void
    }

    /// Every dial so far.
    package let dials = Journal<Dial>()
    private let eventLoop: any EventLoop
    private let accepting = Mutex<(@Sendable (any Connection) -> Void)?>(nil)

    private let obeysCancellation: Bool
    private let hasQUIC: Bool

    /// Dials complete on `eventLoop`; a cancelled one at once, or, as on a slow network, when the test says so.
    package init(eventLoop: any EventLoop, obeysCancellation: Bool = true, hasQUIC: Bool = false) {
        self.eventLoop = eventLoop
        self.obeysCancellation = obeysCancellation
        self.hasQUIC = hasQUIC
    }

    /// As if `connection` had come in.
    package func accept(_ connection: any Connection) { self.accepting.withLock { $0 }?(connection) }

    package func canDial(_ address: Multiaddr) -> Bool {
        address.contains(.tcp) || (self.hasQUIC && address.contains(.quicV1))
    }

    package func canListen(on address: Multiaddr) -> Bool { address.contains(.tcp) }

    package func dial(_ address: Multiaddr, expecting peer: PeerID, cancellation: EventLoopFuture<Void>)
        -> EventLoopFuture<any Connection>
    {
        self.dial(address, expecting: peer, cancellation: cancellation) { _ in }
    }

    package func dial(
        _ address: Multiaddr, expecting peer: PeerID, cancellation: EventLoopFuture<Void>,
        progress: @escaping @Sendable (DialProgress) -> Void
    ) -> EventLoopFuture<any Connection> {
        let promise = self.eventLoop.makePromise(of: (any Connection).self)
        if self.obeysCancellation { cancellation.whenSuccess { promise.fail(TransportError.cancelled) } }
        self.dials.write(
            Dial(address: address, peer: peer, promise: promise, cancellation: cancellation, progress: progress))
        return promise.futureResult
    }

    package func listen(on address: Multiaddr, accept: @escaping @Sendable (any Connection) -> Void)
        -> EventLoopFuture<any Listener>
    {
        self.accepting.withLock { $0 = accept }
        return self.eventLoop.makeSucceededFuture(ScriptedListener(address: address, eventLoop: self.eventLoop))
    }
}

private final class ScriptedListener: Listener {
    let address: Multiaddr
    private let eventLoop: any EventLoop

    init(address: Multiaddr, eventLoop: any EventLoop) {
        self.address = address
        self.eventLoop = eventLoop
    }

    func close() -> EventLoopFuture<Void> { self.eventLoop.makeSucceededVoidFuture() }
}

/// A connection that carries nothing: it is there, and it ends.
package final class ScriptedConnection: Connection, @unchecked Sendable {
    package let id: ConnectionID
    package let eventLoop: any EventLoop
    package let role: Role
    package let remotePeer: PeerID
    package let localAddress: Multiaddr
    package let remoteAddress: Multiaddr
    package let details = ConnectionDetails(transport: "scripted", security: "/none", muxer: "/none")
    package let closeFuture: EventLoopFuture<Void>
    /// With which codes this side has closed it.
    package let closes = Journal<ConnectionErrorCode>()
    /// Has an entry as soon as streams may come in.
    package let starts = Journal<Void>()
    private let closePromise: EventLoopPromise<Void>
    private static let lastID = Atomic<UInt64>(1 << 32)

    /// A live connection to `peer`.
    package init(to peer: PeerID, at address: Multiaddr, role: Role = .dialer, eventLoop: any EventLoop) {
        self.id = ConnectionID(rawValue: Self.lastID.add(1, ordering: .relaxed).newValue)
        self.eventLoop = eventLoop
        self.role = role
        self.remotePeer = peer
        self.localAddress = Multiaddr(components: [])
        self.remoteAddress = address
        self.closePromise = eventLoop.makePromise()
        self.closeFuture = self.closePromise.futureResult
    }

    deinit { self.closePromise.succeed() }

    package var delegate: (any ConnectionDelegate)? { didSet { if self.delegate != nil { self.starts.write(()) } } }
    package var streamCount: Int { 0 }
    package var roundTripTime: TimeAmount? { nil }

    package func probe() -> EventLoopFuture<TimeAmount> { self.eventLoop.makeFailedFuture(MuxerError.sessionClosed) }

    package func openStream(_ protocols: [ProtocolID]) -> EventLoopFuture<any LibP2PCore.Stream> {
        self.eventLoop.makeFailedFuture(NegotiationError.unsupported(protocols))
    }

    package func close(_ code: ConnectionErrorCode) {
        self.closes.write(code)
        self.closePromise.succeed()
    }

    /// As if the remote, or the network, had ended it.
    package func lose(_ error: any Error) { self.closePromise.fail(error) }
}
