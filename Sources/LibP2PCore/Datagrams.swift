package import NIOCore

/// A connection that also carries datagrams: whole messages that may be lost, doubled or overtake one another, beneath all streams.
///
/// Everything here belongs to the connection's event loop.
package protocol DatagramConnection: Connection {
    /// The largest payload that one datagram holds on the path as it is proven now; 0 when the remote takes none. It changes.
    var maximumDatagramSize: Int { get }

    /// Who gets the remote's datagrams. They are dropped and counted while there is nobody. Held weakly.
    var datagramReceiver: (any DatagramReceiver)? { get set }

    /// Whether there is room for more datagrams now. Who has seen that there is none is told when there is again.
    var takesDatagrams: Bool { get }

    /// Sends what can be sent now. The rest waits at most 20 ms for its turn, ahead of all streams, and is dropped then.
    func sendDatagrams(_ datagrams: DatagramBatch)

    /// What has become of datagrams so far.
    var datagramCounters: DatagramCounters { get }
}

/// What a ``DatagramConnection`` tells, on the connection's loop.
package protocol DatagramReceiver: AnyObject {
    /// A burst of datagrams, in the order of arrival. The batch is reused when this returns: who keeps it causes a copy.
    func received(_ datagrams: borrowing DatagramBatch)

    /// ``DatagramConnection/maximumDatagramSize`` has changed.
    func maximumDatagramSizeChanged()

    /// ``DatagramConnection/takesDatagrams`` has become true again.
    func datagramsWritable()
}

/// Many datagrams in one buffer. Once it has grown to its usual size, filling and emptying it allocates nothing.
package struct DatagramBatch: Sendable {
    /// The payloads, back to back.
    package private(set) var bytes = ByteBuffer()
    /// The length of each.
    package private(set) var lengths: [UInt16] = []

    /// An empty batch.
    package init() {}

    /// How many datagrams there are.
    package var count: Int { self.lengths.count }
    /// Whether there are none.
    package var isEmpty: Bool { self.lengths.isEmpty }

    /// Adds one made of two pieces, a header and a body say. One longer than 65,535 bytes is not added.
    /// - Returns: Whether it was added.
    @discardableResult
    package mutating func append(_ head: UnsafeRawBufferPointer, _ body: UnsafeRawBufferPointer) -> Bool {
        guard let length = UInt16(exactly: head.count + body.count) else { return false }
        self.bytes.writeBytes(head)
        self.bytes.writeBytes(body)
        self.lengths.append(length)
        return true
    }

    /// Adds one. One longer than 65,535 bytes is not added.
    /// - Returns: Whether it was added.
    @discardableResult
    package mutating func append(_ payload: UnsafeRawBufferPointer) -> Bool {
        self.append(payload, UnsafeRawBufferPointer(start: nil, count: 0))
    }

    /// Adds one. One longer than 65,535 bytes is not added.
    /// - Returns: Whether it was added.
    @discardableResult
    package mutating func append(_ payload: [UInt8]) -> Bool {
        payload.withUnsafeBytes { self.append($0) }
    }

    /// Empties the batch and keeps its memory.
    package mutating func removeAll() {
        self.bytes.clear()
        self.lengths.removeAll(keepingCapacity: true)
    }

    /// Shows each datagram to `body`, for the time of the call.
    package func forEach(_ body: (UnsafeRawBufferPointer) throws -> Void) rethrows {
        try self.bytes.withUnsafeReadableBytes { all in
            var offset = 0
            for length in self.lengths {
                try body(UnsafeRawBufferPointer(rebasing: all[offset..<offset + Int(length)]))
                offset += Int(length)
            }
        }
    }
}

/// What has become of a connection's datagrams.
package struct DatagramCounters: Hashable, Sendable {
    /// Handed to the network.
    package var sent: UInt64 = 0
    /// Sent, and acknowledged by the remote.
    package var acknowledged: UInt64 = 0
    /// Sent, and taken for lost.
    package var lost: UInt64 = 0
    /// Not sent: larger than ``DatagramConnection/maximumDatagramSize``.
    package var tooLarge: UInt64 = 0
    /// Not sent: waited too long for their turn.
    package var expired: UInt64 = 0
    /// Not sent: too many waited already.
    package var overflowed: UInt64 = 0
    /// Received and handed on.
    package var received: UInt64 = 0
    /// Received while nobody wanted them.
    package var unwanted: UInt64 = 0

    /// All zero.
    package init() {}
}
