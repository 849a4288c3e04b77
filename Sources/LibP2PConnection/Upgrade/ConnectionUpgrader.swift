public import LibP2PCore
public import Multiformats
public import NIOCore
public import PeerIdentity

/// Turns a plain byte stream into a ``Connection``:
///
/// 1. where there is a pre-shared key, everything from here on is encrypted with it (``ProtectedByteStream``),
/// 2. multistream-select settles the security protocol,
/// 3. its handshake proves the remote and, when both can, settles the muxer,
/// 4. otherwise multistream-select settles the muxer,
/// 5. the muxer starts when the connection gets a delegate.
///
/// Spec: `connections/README.md` § Upgrading Connections.
public struct ConnectionUpgrader: Sendable {
    private let securities: [any SecurityUpgrader]
    private let muxers: [any MuxerUpgrader]
    private let preSharedKey: PreSharedKey?

    /// Both lists in order of preference; neither may be empty.
    ///
    /// - Parameter preSharedKey: The private network's key. Connections with whoever does not have it fail with
    ///   ``PrivateNetworkError``.
    public init(
        securities: [any SecurityUpgrader], muxers: [any MuxerUpgrader], preSharedKey: PreSharedKey? = nil
    ) {
        self.securities = securities
        self.muxers = muxers
        self.preSharedKey = preSharedKey
    }

    /// Whether every connection is protected by a pre-shared key.
    public var hasPreSharedKey: Bool { self.preSharedKey != nil }

    /// What is known of the stream to upgrade.
    public struct Request: Sendable {
        /// Who dialled.
        public var role: Role
        /// Who must be at the far end; `nil` when any peer may be.
        public var expectedPeer: PeerID?
        /// This end.
        public var localAddress: Multiaddr
        /// The far end.
        public var remoteAddress: Multiaddr
        /// `tcp`, `ws`, …
        public var transport: String
        /// What the kernel reads back for TCP's congestion control.
        public var congestion: String?
        /// For all steps together.
        public var timeout: TimeAmount

        /// Makes a request.
        public init(
            role: Role, expectedPeer: PeerID?, localAddress: Multiaddr, remoteAddress: Multiaddr, transport: String,
            congestion: String? = nil, timeout: TimeAmount = .seconds(10)
        ) {
            self.role = role
            self.expectedPeer = expectedPeer
            self.localAddress = localAddress
            self.remoteAddress = remoteAddress
            self.transport = transport
            self.congestion = congestion
            self.timeout = timeout
        }
    }

    /// Upgrades `stream`, which the upgrader owns from now on; on failure it is closed. Called on the stream's loop.
    ///
    /// Fails with ``TransportError/timedOut``, ``TransportError/peerMismatch(expected:found:)``, ``NegotiationError``, the security
    /// protocol's own error, or why the stream closed; in a private network with ``PrivateNetworkError``, when the remote may not have
    /// the key.
    public func upgrade(_ stream: any ByteStream, as request: Request) -> EventLoopFuture<any Connection> {
        guard let preSharedKey = self.preSharedKey else { return self.upgradePlain(stream, request) }
        do {
            let protected = try ProtectedByteStream(stream, key: preSharedKey)
            return self.upgradePlain(protected, request).flatMapErrorThrowing { throw protected.explain($0) }
        } catch {
            stream.close(error)
            return stream.eventLoop.makeFailedFuture(error)
        }
    }

    private func upgradePlain(_ stream: any ByteStream, _ request: Request) -> EventLoopFuture<any Connection> {
        let timer = stream.eventLoop.scheduleTask(in: request.timeout) { stream.close(TransportError.timedOut) }
        let result = self.negotiateSecurity(stream, request).flatMap { security, negotiated in
            security.secure(
                negotiated, role: request.role, expecting: request.expectedPeer, muxers: self.muxers.map(\.protocolID)
            ).flatMap { secured in
                self.negotiateMuxer(secured, request).map { muxer, stream in
                    MultiplexedConnection(
                        session: muxer.multiplex(stream, role: request.role), eventLoop: stream.eventLoop,
                        sealed: secured.stream as? any SealedByteStream, remotePeer: secured.remotePeer,
                        request: request,
                        details: ConnectionDetails(
                            transport: request.transport, security: security.protocolID, muxer: muxer.protocolID,
                            hasEarlyMuxer: secured.muxer == muxer.protocolID, congestion: request.congestion))
                        as any Connection
                }
            }
        }
        result.whenComplete { outcome in
            timer.cancel()
            if case .failure(let error) = outcome { stream.close(error) }
        }
        return result
    }

    private func negotiateSecurity(_ stream: any ByteStream, _ request: Request)
        -> EventLoopFuture<(any SecurityUpgrader, any ByteStream)>
    {
        if request.role == .dialer, self.securities.count == 1, let only = self.securities.first {
            // Nothing to choose: the proposal travels with the handshake's first message.
            do {
                let negotiated = try StreamNegotiator.dialOptimistically(
                    stream, protocolID: only.protocolID, timeout: request.timeout)
                return stream.eventLoop.makeSucceededFuture((only, negotiated))
            } catch {
                return stream.eventLoop.makeFailedFuture(error)
            }
        }
        return self.negotiate(stream, self.securities.map(\.protocolID), request).flatMapThrowing { negotiated in
            guard let chosen = self.securities.first(where: { $0.protocolID == negotiated.agreedProtocol }) else {
                throw NegotiationError.unsupported([])
            }
            return (chosen, negotiated)
        }
    }

    private func negotiateMuxer(_ secured: SecuredStream, _ request: Request)
        -> EventLoopFuture<(any MuxerUpgrader, any ByteStream)>
    {
        if let early = self.muxers.first(where: { $0.protocolID == secured.muxer }) {
            return secured.stream.eventLoop.makeSucceededFuture((early, secured.stream))
        }
        return self.negotiate(secured.stream, self.muxers.map(\.protocolID), request).flatMapThrowing { negotiated in
            guard let chosen = self.muxers.first(where: { $0.protocolID == negotiated.agreedProtocol }) else {
                throw NegotiationError.unsupported([])
            }
            return (chosen, negotiated)
        }
    }

    private func negotiate(_ stream: any ByteStream, _ protocols: [ProtocolID], _ request: Request)
        -> EventLoopFuture<NegotiatedByteStream>
    {
        switch request.role {
        case .dialer:
            StreamNegotiator.dial(stream, protocols: protocols, timeout: request.timeout)
        case .listener:
            StreamNegotiator.listen(
                stream, listed: protocols, accepts: { protocols.contains($0) }, timeout: request.timeout)
        }
    }
}
