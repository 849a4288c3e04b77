package import LibP2PCore
internal import Multiformats
internal import NIOCore
internal import PeerIdentity
internal import Synchronization

/// A connection made of a byte stream, a security protocol and a muxer. Negotiates the protocol of each of its streams.
final class MultiplexedConnection: Connection, MuxerSessionDelegate, @unchecked Sendable {
    /// How long a stream's protocol may take to settle.
    private static let negotiationTimeout = TimeAmount.seconds(15)

    let id: ConnectionID
    let eventLoop: any EventLoop
    let role: Role
    let remotePeer: PeerID
    let localAddress: Multiaddr
    let remoteAddress: Multiaddr
    let details: ConnectionDetails
    let closeFuture: EventLoopFuture<Void>

    private let session: any MuxerSession
    private let sealed: (any SealedByteStream)?
    private let closePromise: EventLoopPromise<Void>
    /// The reason that this side gave, if it closed.
    private var ownCode: ConnectionErrorCode?
    private var hasStarted = false
    private var hasEnded = false

    init(
        session: any MuxerSession, eventLoop: any EventLoop, sealed: (any SealedByteStream)?, remotePeer: PeerID,
        request: ConnectionUpgrader.Request, details: ConnectionDetails
    ) {
        self.id = ConnectionIDs.next()
        self.eventLoop = eventLoop
        self.role = request.role
        self.remotePeer = remotePeer
        self.localAddress = request.localAddress
        self.remoteAddress = request.remoteAddress
        self.details = details
        self.session = session
        self.sealed = sealed
        self.closePromise = eventLoop.makePromise()
        self.closeFuture = self.closePromise.futureResult
        session.delegate = self
    }

    /// A connection that nobody holds has nobody to close it.
    deinit {
        guard !self.hasEnded else { return }
        self.closePromise.fail(ConnectionClosedError(code: .garbageCollected, byRemote: false))
        let session = self.session
        self.eventLoop.execute { session.close(.garbageCollected) }
    }

    /// Streams are taken from the moment there is somebody to take them.
    var delegate: (any ConnectionDelegate)? {
        didSet {
            guard self.delegate != nil, !self.hasStarted else { return }
            self.hasStarted = true
            self.session.start()
        }
    }

    var streamCount: Int { self.session.streamCount }

    var roundTripTime: TimeAmount? { self.session.roundTripTime }

    var bytesSealed: UInt64 { self.sealed?.bytesSealed ?? 0 }

    func probe() -> EventLoopFuture<TimeAmount> { self.eventLoop.flatSubmit { self.session.ping() } }

    func openStream(_ protocols: [ProtocolID]) -> EventLoopFuture<any Stream> {
        self.eventLoop.flatSubmit { self.openStreamOnLoop(protocols) }
    }

    func close(_ code: ConnectionErrorCode) {
        if self.eventLoop.inEventLoop {
            if self.ownCode == nil { self.ownCode = code }
            self.session.close(code)
        } else {
            self.eventLoop.execute { self.close(code) }
        }
    }

    func abort() {
        if self.eventLoop.inEventLoop { self.session.abort() } else { self.eventLoop.execute { self.session.abort() } }
    }

    // MARK: MuxerSessionDelegate

    func session(_ session: any MuxerSession, accepted stream: any MuxedStream) {
        stream.connection = self
        let registered = self.delegate
        StreamNegotiator.listenStream(
            stream, accepts: { registered?.connection(self, accepts: $0) ?? false }, timeout: Self.negotiationTimeout
        ).whenSuccess { negotiated in
            guard let delegate = self.delegate else { return negotiated.reset(.protocolNegotiationFailed) }
            delegate.connection(self, accepted: negotiated)
        }
    }

    func session(_ session: any MuxerSession, closed error: (any Error)?) {
        self.hasEnded = true
        self.delegate = nil
        if let code = self.ownCode, code != .none {
            self.closePromise.fail(ConnectionClosedError(code: code, byRemote: false))
        } else if let error, self.ownCode == nil {
            self.closePromise.fail(error)
        } else {
            self.closePromise.succeed()
        }
    }

    // MARK: Details

    private func openStreamOnLoop(_ protocols: [ProtocolID]) -> EventLoopFuture<any Stream> {
        guard let first = protocols.first else {
            return self.eventLoop.makeFailedFuture(NegotiationError.noProtocolsProposed)
        }
        do {
            let stream = try self.session.openStream()
            stream.connection = self
            if protocols.count == 1 {
                let negotiated = try StreamNegotiator.dialStreamOptimistically(
                    stream, protocolID: first, timeout: Self.negotiationTimeout)
                return self.eventLoop.makeSucceededFuture(negotiated)
            }
            return StreamNegotiator.dialStream(stream, protocols: protocols, timeout: Self.negotiationTimeout)
                .map { $0 }
        } catch {
            return self.eventLoop.makeFailedFuture(error)
        }
    }
}

/// Numbers connections of this process.
package enum ConnectionIDs {
    private static let last = Atomic<UInt64>(0)

    package static func next() -> ConnectionID {
        ConnectionID(rawValue: Self.last.add(1, ordering: .relaxed).newValue)
    }
}
