package import NIOCore

/// How a security protocol protects bytes once its handshake is over: it seals what goes out in records, and opens those that come in.
///
/// Bytes in, bytes out; ``RecordStream`` moves them.
package protocol RecordProtection: ~Copyable, SendableMetatype {
    /// Takes the buffers that the next records are made of, in order. Only when nothing of the last batch is left.
    mutating func startSealing(_ batch: [ByteBuffer])

    /// Seals what fits into one outgoing buffer.
    ///
    /// - Returns: What goes out next; `nil` when the batch is done, and its buffers are let go.
    mutating func sealNext(_ outgoing: inout BufferRing) throws -> ByteBuffer?

    /// Opens all records that `bytes` complete, and carries over the rest.
    ///
    /// - Parameter plaintext: Where the buffer comes from that takes what was in them.
    mutating func open(_ bytes: ByteBuffer, _ plaintext: inout BufferRing) -> OpenedRecords

    /// What the protocol itself has to say at the moment: answers, warnings of what is wrong. It goes out before anything else.
    mutating func takeMessages() -> ByteBuffer?

    /// We end our direction: what the remote is to be told, if the protocol has words for that.
    mutating func endOutput() -> ByteBuffer?

    /// The remote's bytes have ended here. Returns what is wrong about that, if something is.
    mutating func endInput() -> (any Error)?

    /// Lets go of memory that is not needed while nothing is sent or received.
    mutating func shrink()
}

/// What came out of input.
package struct OpenedRecords {
    /// The plaintext up to ``end``; may be empty.
    package var plaintext = ByteBuffer()
    /// How the input has ended, if it has.
    package var end: End?

    /// How input ends by itself.
    package enum End {
        /// The remote has said that it will send nothing more.
        case orderly
        /// Nothing that may follow can be trusted.
        case failed(any Error)
    }
}
