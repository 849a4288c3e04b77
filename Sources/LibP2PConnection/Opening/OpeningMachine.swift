internal import NIOCore

/// What is said on a stream before the bytes of libp2p flow on it: with a proxy, with a web server.
///
/// Pure: bytes in, ``OpeningAction`` out. After `done` or `fail` it is used no more.
protocol OpeningMachine: Sendable {
    associatedtype Outcome: Hashable & Sendable
    associatedtype Failure: Error & Hashable

    /// What this side says without being asked.
    mutating func start() -> ByteBuffer?
    /// Takes what the remote says. However it is cut, the outcome is the same.
    mutating func receive(_ bytes: ByteBuffer) -> OpeningAction<Outcome, Failure>
    /// Why it is no success when the remote says nothing more.
    func cutOff() -> Failure
}

/// What an ``OpeningMachine`` wants done.
enum OpeningAction<Outcome: Hashable & Sendable, Failure: Error & Hashable>: Hashable {
    /// More input is needed.
    case wait
    /// Send this, then wait.
    case send(ByteBuffer)
    /// Send `reply`; what came behind the remote's last word belongs to those who come next.
    case done(Outcome, reply: ByteBuffer?, leftover: ByteBuffer)
    /// Send `reply`, and close.
    case fail(Failure, reply: ByteBuffer?)
}

/// There is nothing to know but that it went well.
struct Opened: Hashable, Sendable {}
