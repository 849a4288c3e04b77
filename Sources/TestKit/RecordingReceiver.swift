package import LibP2PCore
package import NIOCore

/// Writes down what a byte stream tells its owner.
package final class RecordingReceiver: ByteStreamReceiver, Sendable {
    /// One call.
    package enum Call: Sendable {
        /// Bytes came.
        case bytes([UInt8])
        /// The burst is over.
        case complete
        /// Writability changed.
        case writability
        /// The remote ended its direction.
        case inputEnd
        /// All is over.
        case closed((any Error)?)
    }

    /// What was told.
    package let calls = Journal<Call>()

    /// Makes a receiver; it belongs to no stream yet.
    package init() {}

    /// All bytes so far.
    package var bytes: [UInt8] {
        self.calls.entries.flatMap { if case .bytes(let bytes) = $0 { bytes } else { [UInt8]() } }
    }

    /// Why the stream closed, once it has.
    package func closed() async -> (any Error)? {
        await self.calls.first { if case .closed(let error) = $0 { .some(error) } else { (any Error)??.none } }
    }

    /// Returns once at least `count` bytes have come.
    package func bytes(atLeast count: Int) async -> [UInt8] {
        await self.calls.wait { calls in
            calls.reduce(0) { if case .bytes(let bytes) = $1 { $0 + bytes.count } else { $0 } } >= count
        }
        return self.bytes
    }

    package func received(_ bytes: ByteBuffer) { self.calls.write(.bytes(Array(bytes.readableBytesView))) }
    package func receiveComplete() { self.calls.write(.complete) }
    package func writabilityChanged() { self.calls.write(.writability) }
    package func inputEnded() { self.calls.write(.inputEnd) }
    package func closed(_ error: (any Error)?) { self.calls.write(.closed(error)) }
}

extension ByteStream {
    /// Takes the stream over with a new receiver and starts to read. From any thread.
    package func record() async throws -> RecordingReceiver {
        try await self.eventLoop.submit {
            let receiver = RecordingReceiver()
            self.receiver = receiver
            self.setReading(true)
            return receiver
        }.get()
    }

    /// Does something on the stream's loop.
    package func onLoop<Value: Sendable>(_ body: @escaping @Sendable (Self) throws -> Value) async throws -> Value {
        try await self.eventLoop.submit { try body(self) }.get()
    }
}
