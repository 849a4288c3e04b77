public import LibP2PCore
public import Multiformats
public import NIOCore
public import PeerIdentity
internal import Synchronization

/// A network inside this process: `/memory/<number>` addresses, joined by pipes. Whole hosts run on it in tests, on a clock of the test's.
public final class MemoryNetwork: Sendable {
    fileprivate struct Place: Sendable {
        var loop: any EventLoop
        var accept: @Sendable (MemoryByteStream) -> Void
    }

    private struct State: Sendable {
        var places: [UInt64: Place] = [:]
        var lastNumber: UInt64 = 0
    }

    private let state = Mutex(State())

    /// Makes an empty network.
    public init() {}

    /// Takes a number, a fresh one for 0.
    fileprivate func bind(_ number: UInt64, _ place: Place) -> UInt64? {
        self.state.withLock { state in
            var number = number
            if number == 0 {
                repeat { state.lastNumber += 1 } while state.places[state.lastNumber] != nil
                number = state.lastNumber
            }
            guard state.places[number] == nil else { return nil }
            state.places[number] = place
            return number
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

    public func canDial(_ address: Multiaddr) -> Bool { address.memoryNumber != nil }

    public func canListen(on address: Multiaddr) -> Bool { address.memoryNumber != nil }

    public func dial(_ address: Multiaddr, expecting peer: PeerID, cancellation: EventLoopFuture<Void>)
        -> EventLoopFuture<any Connection>
    {
        self.eventLoop.flatSubmit {
            guard let number = address.memoryNumber, let place = self.network.place(number) else {
                return self.eventLoop.makeFailedFuture(MemoryTransportError.nobodyListens)
            }
            let (near, far) = MemoryByteStream.pair(on: self.eventLoop, place.loop)
            place.loop.execute { place.accept(far) }
            return self.upgrade(near, role: .dialer, at: address, expecting: peer)
        }
    }

    public func listen(on address: Multiaddr, accept: @escaping @Sendable (any Connection) -> Void)
        -> EventLoopFuture<any Listener>
    {
        self.eventLoop.submit {
            let place = MemoryNetwork.Place(loop: self.eventLoop) { stream in
                self.upgrade(stream, role: .listener, at: address, expecting: nil).whenSuccess(accept)
            }
            guard let wanted = address.memoryNumber, let number = self.network.bind(wanted, place) else {
                throw MemoryTransportError.numberInUse
            }
            return MemoryListener(number: number, network: self.network, eventLoop: self.eventLoop)
        }
    }

    private func upgrade(_ stream: MemoryByteStream, role: Role, at address: Multiaddr, expecting peer: PeerID?)
        -> EventLoopFuture<any Connection>
    {
        self.upgrader.upgrade(
            stream,
            as: ConnectionUpgrader.Request(
                role: role, expectedPeer: peer, localAddress: address.withoutPeerID,
                remoteAddress: address.withoutPeerID, transport: "memory"))
    }
}

/// Why a ``MemoryTransport`` could not do something.
public enum MemoryTransportError: Error, Hashable, Sendable {
    /// No host listens on this number.
    case nobodyListens
    /// Another host listens on this number.
    case numberInUse
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
