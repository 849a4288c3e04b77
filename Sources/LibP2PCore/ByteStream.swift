public import NIOCore

/// A reliable, ordered pipe of bytes in both directions: a TCP connection, a secured one, a muxer's stream, a relayed circuit.
///
/// An event loop owns it: every method and property but `eventLoop` is used on that loop only. There is no copy of input and
/// no thread hop between a socket and the protocol on top of it.
///
/// Order of use: create, set `receiver`, `setReading(true)`; bytes that arrived earlier are then delivered, from a later tick of
/// the loop or from within `setReading`. Exactly one `closed` ends it.
public protocol ByteStream: AnyObject, Sendable {
    /// The loop that owns the stream.
    var eventLoop: any EventLoop { get }

    /// Who is told about input and the end. Held weakly or strongly as the stream likes; set to `nil` by nobody but its owner.
    /// Changing it hands the stream over: the next byte goes to the new receiver.
    var receiver: (any ByteStreamReceiver)? { get set }

    /// False while more than the stream's bound is queued; ``ByteStreamReceiver/writabilityChanged()`` tells when that ends.
    /// Writing all the same is allowed, and is how a bounded overshoot of one burst happens.
    var isWritable: Bool { get }

    /// Queues `bytes`, which the stream owns from now on. Nothing goes out before ``flush()``. Ignored after a close.
    func write(_ bytes: ByteBuffer)

    /// Sends what is queued.
    func flush()

    /// Whether input is wanted. Off at first, and the way to push back: while off, at most one read's worth is buffered.
    func setReading(_ wanted: Bool)

    /// Ends our direction after what is queued. The other direction lives on.
    func closeWrite()

    /// Ends both directions at once; what is queued is lost. `error` is our reason, `nil` for an orderly end.
    /// The receiver gets `closed` once, from within this call or later.
    func close(_ error: (any Error)?)
}

/// What a ``ByteStream`` tells its owner, always on the stream's event loop.
public protocol ByteStreamReceiver: AnyObject {
    /// Bytes have arrived. The receiver owns them.
    func received(_ bytes: ByteBuffer)

    /// The burst is over: nothing more was at hand. A good moment to flush.
    func receiveComplete()

    /// ``ByteStream/isWritable`` has changed.
    func writabilityChanged()

    /// The remote has ended its direction. Our own may go on.
    func inputEnded()

    /// The stream is gone, and every further call on it is ignored. `error` is `nil` after an orderly end of both directions.
    func closed(_ error: (any Error)?)
}
