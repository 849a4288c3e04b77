public import NIOCore

/// Why a Yamux session, or a ping on it, failed.
///
/// All but ``pingTimedOut`` and ``tooManyPings`` end the session. Those that tell of a broken protocol are preceded by a
/// go-away with the code 1.
public enum YamuxError: Error, Hashable, Sendable {
    /// The remote sent a frame of a version other than 0.
    case unknownVersion(UInt8)
    /// The remote sent a frame of a type other than 0 to 3.
    case unknownFrameType(UInt8)
    /// The remote announced a longer body than any implementation sends (1 MiB).
    case bodyTooLarge(streamID: UInt32, bytes: UInt32)
    /// The remote opened a stream with a number that only this side may use, or with 0.
    case wrongStreamParity(streamID: UInt32)
    /// The remote opened a stream that is open already.
    case duplicateStream(streamID: UInt32)
    /// The remote sent `bytes` where it was allowed to send `window`.
    case receiveWindowExceeded(streamID: UInt32, bytes: UInt32, window: UInt32)
    /// The remote enlarged `window` by so much that it no longer fits 32 bits.
    case sendWindowOverflow(streamID: UInt32, window: UInt32, increment: UInt32)
    /// The remote makes us answer but does not read the answers; `bytes` of them are queued.
    case answersNotRead(bytes: Int)
    /// Nothing was heard since a ping was sent, `after` ago.
    case keepaliveTimedOut(after: TimeAmount)
    /// A ping was not answered, though other bytes were heard since.
    case pingTimedOut(after: TimeAmount)
    /// As many pings as allowed wait for their answers.
    case tooManyPings
    /// The byte stream beneath ended, and no go-away came before: somebody may have cut it.
    case endedWithoutGoAway
}
