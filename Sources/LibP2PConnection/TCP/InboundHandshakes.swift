internal import NIOCore
internal import Synchronization

/// The inbound connections of a transport that are in their handshake: a bound on their number, and where they come from.
final class InboundHandshakes: Sendable {
    private struct Handshake: Sendable {
        var channel: any Channel
        var remote: SocketAddress
        var outcome: EventLoopPromise<Void>
    }

    private let limit: Int
    private let handshakes = Mutex<[ObjectIdentifier: Handshake]>([:])

    init(limit: Int) {
        self.limit = limit
    }

    /// Counts a new one, unless there are as many as allowed. It ends with ``end(_:_:)`` or with its channel.
    func begin(_ channel: any Channel, from remote: SocketAddress) -> Bool {
        let promise = channel.eventLoop.makePromise(of: Void.self)
        let hasRoom = self.handshakes.withLock { handshakes in
            guard handshakes.count < self.limit else { return false }
            handshakes[ObjectIdentifier(channel)] = Handshake(channel: channel, remote: remote, outcome: promise)
            return true
        }
        guard hasRoom else {
            promise.fail(ChannelError.ioOnClosedChannel)
            return false
        }
        channel.closeFuture.whenComplete { _ in self.end(channel, .failure(ChannelError.ioOnClosedChannel)) }
        return true
    }

    /// The handshake is done, or has failed. Only the first call counts.
    func end(_ channel: any Channel, _ result: Result<Void, any Error>) {
        let ended = self.handshakes.withLock { $0.removeValue(forKey: ObjectIdentifier(channel)) }
        ended?.outcome.completeWith(result)
    }

    /// What will become of the handshake that `remote` has begun with us; `nil` where there is none.
    func outcome(from remote: SocketAddress) -> EventLoopFuture<Void>? {
        self.handshakes.withLock { handshakes in handshakes.values.first { $0.remote == remote }?.outcome.futureResult }
    }

    /// Ends those that came in through `port`.
    func close(through port: Int?) {
        let handshakes = self.handshakes.withLock { Array($0.values) }
        for handshake in handshakes where handshake.channel.localAddress?.port == port {
            handshake.channel.close(promise: nil)
        }
    }

    /// How many there are.
    var count: Int { self.handshakes.withLock { $0.count } }
}
