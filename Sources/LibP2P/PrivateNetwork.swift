internal import LibP2PConnection
internal import LibP2PCore
internal import LibP2PSwarm
internal import Logging
internal import Multiformats
internal import NIOCore
internal import NIOPosix
internal import PeerIdentity

/// What a pre-shared key makes of a host's transports and addresses: what it cannot protect is not used.
struct PrivateNetwork: Sendable {
    /// The transports for the swarm. One that is not protected refuses everything, and says why.
    let transports: [any Transport]
    /// Where the host listens.
    private let listen: [Multiaddr]
    /// Where it does not, although it was told to.
    private let unprotected: [Multiaddr]

    /// Without a key everything stays as it is.
    init(_ key: PreSharedKey?, transports: [any Transport], listen: [Multiaddr]) {
        guard key != nil else {
            (self.transports, self.listen, self.unprotected) = (transports, listen, [])
            return
        }
        func isUnprotected(_ address: Multiaddr) -> Bool {
            transports.first { $0.canListen(on: address) }?.hasPreSharedKey == false
        }
        self.transports = transports.map { $0.hasPreSharedKey ? $0 : UnprotectedTransport($0) }
        self.listen = listen.filter { !isUnprotected($0) }
        self.unprotected = listen.filter(isUnprotected)
    }

    /// Where to listen. Says once what is left out.
    /// - Throws: ``ListenError`` when nothing is left.
    func addressesToListenOn(logger: Logger) throws(ListenError) -> [Multiaddr] {
        guard let first = self.unprotected.first else { return self.listen }
        guard !self.listen.isEmpty else {
            throw ListenError(address: first, cause: PrivateNetworkError.unprotectedTransport(first))
        }
        logger.warning(
            "a pre-shared key cannot protect these addresses: not listened on",
            metadata: ["addresses": "\(self.unprotected.map(\.description).joined(separator: ", "))"])
        return self.listen
    }
}

/// Stands in for a transport that a private network does not use.
private struct UnprotectedTransport: Transport {
    private let transport: any Transport

    init(_ transport: any Transport) {
        self.transport = transport
    }

    func canDial(_ address: Multiaddr) -> Bool { self.transport.canDial(address) }

    func canListen(on address: Multiaddr) -> Bool { self.transport.canListen(on: address) }

    func dial(_ address: Multiaddr, expecting peer: PeerID, cancellation: EventLoopFuture<Void>)
        -> EventLoopFuture<any Connection>
    {
        cancellation.eventLoop.makeFailedFuture(PrivateNetworkError.unprotectedTransport(address))
    }

    func listen(on address: Multiaddr, accept: @escaping @Sendable (any Connection) -> Void)
        -> EventLoopFuture<any Listener>
    {
        MultiThreadedEventLoopGroup.singleton.next().makeFailedFuture(
            PrivateNetworkError.unprotectedTransport(address))
    }
}
