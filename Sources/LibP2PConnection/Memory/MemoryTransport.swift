public import LibP2PCore
public import Multiformats
public import NIOCore
public import PeerIdentity
internal import Synchronization

/// A network inside this process: `/memory/<number>` addresses, joined by pipes. Whole hosts run on it in tests, on a clock of the test's.
public final class MemoryNetwork: Sendable {
    fileprivate struct Place: Sendable {
        var loop: any EventLoop
        /// Takes the far end of a dial, and the number it comes from.
        var accept: @Sendable (MemoryByteStream, UInt64) -> Void
    }

    private struct State: Sendable {
        var places: [UInt64: Place] = [:]
        var lastNumber: UInt64 = 0
    }

    private let state = Mutex(State())

    /// Makes an empty network.
    public init() {}

    /// A number that nobody listens on and no dial has come from.
    fileprivate func freshNumber() -> UInt64 {
        self.state.withLock { state in
            repeat { state.lastNumber += 1 } while state.places[state.lastNumber] != nil
            return state.lastNumber
        }
    }

    /// Whether the number was free.
    fileprivate func bind(_ number: UInt64, _ place: Place) -> Bool {
        self.state.withLock { state in
            guard state.places[number] == nil else { return false }
            state.places[number] = place
            return true
        }
    }

    fileprivate func unbind(_ number: UInt64) {
        self.state.withLock { $0.places[number] = nil }
    }

    fileprivate func place(_ number: UInt64) -> Place? {
        self.state.withLock { $0.places[number] }
    }
}

/// Connections on a ``MemoryNetwork``, secured and multiplexed as any others.
public final class MemoryTransport: Transport {
    private let network: MemoryNetwork
    private let eventLoop: any EventLoop
    private let upgrader: ConnectionUpgrader

    /// All connections of this transport live on `eventLoop`.
    public init(network: MemoryNetwork, eventLoop: any EventLoop, upgrader: ConnectionUpgrader) {
        self.network = network
        self.eventLoop = eventLoop
        self.upgrader = upgrader
    }

    /// Whether its upgrader has one.
    public var hasPreSharedKey: Bool { self.upgrader.hasPreSharedKey }

    /// `/memory/<number>`.
    public func canDial(_ address: Multiaddr) -> Bool { address.memoryNumber != nil }

    /// `/memory/<number>`; 0 asks for a fresh number.
    public func canListen(on address: Multiaddr) -> Bool { address.memoryNumber != nil }

    /// Dials; see ``Transport/dial(_:expecting:cancellation:)``.
    public func dial(_ address: Multiaddr, expecting peer: PeerID, cancellation: EventLoopFuture<Void>)
        -> EventLoopFuture<any Connection>
    {
        self.eventLoop.flatSubmit {
            guard let number = address.memoryNumber, let place = self.network.place(number) else {
                return self.eventLoop.makeFailedFuture(MemoryTransportError.nobodyListens)
            }
            let (near, far) = MemoryByteStream.pair(on: self.eventLoop, place.loop)
            let source = self.network.freshNumber()
            place.loop.execute { place.accept(far, source) }
            let isDone = Atomic<Bool>(false)
            cancellation.hop(to: self.eventLoop).whenSuccess {
                if !isDone.load(ordering: .relaxed) { near.close(TransportError.cancelled) }
            }
            return self.upgrade(near, role: .dialer, from: source, to: number, expecting: peer).always { _ in
                isDone.store(true, ordering: .relaxed)
            }
        }
    }

    /// Takes a number. Taken by another, it fails with ``TransportError/portBusy``.
    public func listen(on address: Multiaddr, accept: @escaping @Sendable (any Connection) -> Void)
        -> EventLoopFuture<any Listener>
    {
        self.eventLoop.submit {
            guard let wanted = address.memoryNumber else { throw TransportError.unsupportedAddress(address) }
            let number = wanted == 0 ? self.network.freshNumber() : wanted
            let place = MemoryNetwork.Place(loop: self.eventLoop) { stream, source in
                self.upgrade(stream, role: .listener, from: number, to: source, expecting: nil).whenSuccess(accept)
            }
            guard self.network.bind(number, place) else { throw TransportError.portBusy }
            return MemoryListener(number: number, network: self.network, eventLoop: self.eventLoop)
        }
    }

    private func upgrade(
        _ stream: MemoryByteStream, role: Role, from local: UInt64, to remote: UInt64, expecting peer: PeerID?
    ) -> EventLoopFuture<any Connection> {
        self.upgrader.upgrade(
            stream,
            as: ConnectionUpgrader.Request(
                role: role, expectedPeer: peer, localAddress: Multiaddr(components: [.memory(local)]),
                remoteAddress: Multiaddr(components: [.memory(remote)]), transport: "memory"))
    }
}

/// Why a ``MemoryTransport`` could not do something.
public enum MemoryTransportError: Error, Hashable, Sendable {
    /// No host listens on this number.
    case nobodyListens
}

private final class MemoryListener: Listener {
    let address: Multiaddr
    private let number: UInt64
    private let network: MemoryNetwork
    private let eventLoop: any EventLoop

    init(number: UInt64, network: MemoryNetwork, eventLoop: any EventLoop) {
        self.address = Multiaddr(components: [.memory(number)])
        self.number = number
        self.network = network
        self.eventLoop = eventLoop
    }

    func close() -> EventLoopFuture<Void> {
        self.network.unbind(self.number)
        return self.eventLoop.makeSucceededVoidFuture()
    }
}

extension Multiaddr {
    /// The number of a `/memory` address.
    fileprivate var memoryNumber: UInt64? {
        let components = self.withoutPeerID.components
        guard components.count == 1, let only = components.first, only.protocol == .memory, only.value.count == 8 else {
            return nil
        }
        return only.value.reduce(0) { $0 << 8 | UInt64($1) }
    }
}
