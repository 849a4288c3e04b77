package import LibP2PCore
package import NIOCore

/// Runs multistream-select 1.0 at the beginning of a byte stream.
///
/// Every function is called on the stream's event loop and owns the stream from then on. Its result is a stream to be used in its
/// place, as any other: with a receiver set and reading switched on, it begins with what follows the negotiation. When there is
/// no agreement, a connection's stream is closed with the ``NegotiationError`` and a muxer's stream is reset with
/// ``StreamErrorCode/protocolNegotiationFailed``; the future fails with the error.
///
/// Spec: `connections/README.md` § multistream-select.
package enum StreamNegotiator {
    /// Proposes `protocols` in this order until the listener accepts one: ``NegotiatedByteStream/agreedProtocol``.
    package static func dial(
        _ stream: any ByteStream, protocols: [ProtocolID], timeout: TimeAmount
    ) -> EventLoopFuture<NegotiatedByteStream> {
        let negotiated = NegotiatedByteStream(
            stream, phase: .dialing(MultistreamDialer(proposing: protocols)), timeout: timeout)
        return negotiated.negotiate().map { negotiated }
    }

    /// The same on a muxer's stream, whose ``Stream/protocolID`` is set.
    package static func dialStream(
        _ stream: any Stream, protocols: [ProtocolID], timeout: TimeAmount
    ) -> EventLoopFuture<NegotiatedStream> {
        let negotiated = NegotiatedStream(
            stream, phase: .dialing(MultistreamDialer(proposing: protocols)), timeout: timeout)
        return negotiated.negotiate().map { negotiated }
    }

    /// Proposes one protocol without waiting for the answer: header and proposal go out with whatever is flushed first, at the
    /// latest at the end of the loop's tick in which reading is switched on.
    ///
    /// Input is delivered once both echoes are verified. A refusal, or no answer within `timeout` of the first flush, ends the
    /// stream with a ``NegotiationError``.
    /// - Throws: ``NegotiationError/messageTooLong(bytes:)`` for a name that no remote would read.
    package static func dialOptimistically(
        _ stream: any ByteStream, protocolID: ProtocolID, timeout: TimeAmount
    ) throws(NegotiationError) -> NegotiatedByteStream {
        let negotiated = NegotiatedByteStream(
            stream, phase: .dialing(MultistreamDialer(proposing: [protocolID])), timeout: timeout)
        try negotiated.queueOptimisticHeader()
        return negotiated
    }

    /// The same on a muxer's stream, whose ``Stream/protocolID`` is set at once.
    package static func dialStreamOptimistically(
        _ stream: any Stream, protocolID: ProtocolID, timeout: TimeAmount
    ) throws(NegotiationError) -> NegotiatedStream {
        let negotiated = NegotiatedStream(
            stream, phase: .dialing(MultistreamDialer(proposing: [protocolID])), timeout: timeout)
        try negotiated.queueOptimisticHeader()
        stream.protocolID = protocolID
        return negotiated
    }

    /// Waits for a proposal that `accepts` takes: ``NegotiatedByteStream/agreedProtocol``.
    ///
    /// - Parameters:
    ///   - listed: What `ls` is answered with, as far as one message holds it.
    ///   - accepts: Asked on the event loop, once for each proposal.
    package static func listen(
        _ stream: any ByteStream, listed: [ProtocolID] = [], accepts: @escaping (ProtocolID) -> Bool,
        timeout: TimeAmount
    ) -> EventLoopFuture<NegotiatedByteStream> {
        let negotiated = NegotiatedByteStream(
            stream, phase: .listening(MultistreamListener(listed: listed), accepts: accepts), timeout: timeout)
        return negotiated.negotiate().map { negotiated }
    }

    /// The same on a muxer's stream, whose ``Stream/protocolID`` is set.
    package static func listenStream(
        _ stream: any Stream, listed: [ProtocolID] = [], accepts: @escaping (ProtocolID) -> Bool, timeout: TimeAmount
    ) -> EventLoopFuture<NegotiatedStream> {
        let negotiated = NegotiatedStream(
            stream, phase: .listening(MultistreamListener(listed: listed), accepts: accepts), timeout: timeout)
        return negotiated.negotiate().map { negotiated }
    }
}
