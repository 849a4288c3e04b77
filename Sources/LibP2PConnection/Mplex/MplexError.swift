/// Why an mplex session, or a ping on it, failed. All but ``noPings`` end the session.
public enum MplexError: Error, Hashable, Sendable {
    /// The remote sent a header or a length that is no varint.
    case malformedHeader
    /// The remote sent a flag other than 0 to 6.
    case unknownFlag(UInt8)
    /// The remote announced a longer message than any implementation sends (1 MiB).
    case messageTooLong(bytes: UInt64)
    /// The remote opened a stream that is open already.
    case duplicateStream(number: UInt64)
    /// The remote makes us answer but does not read the answers; `bytes` of them are queued.
    case answersNotRead(bytes: Int)
    /// The byte stream beneath ended within a message.
    case cutOff
    /// The byte stream beneath is gone, and nobody said why.
    case connectionLost
    /// mplex has no pings.
    case noPings
}
