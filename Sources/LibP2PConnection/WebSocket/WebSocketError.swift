/// Why a WebSocket could not be opened, or had to end.
package enum WebSocketError: Error, Hashable, Sendable {
    // The opening handshake.

    /// The remote's HTTP message cannot be read.
    case malformedHead(HTTPHeadError)
    /// The request is none for a WebSocket that is served here; the remote was told `status`.
    case badRequest(Request, status: Int)
    /// The server answered with this instead of 101.
    case refused(status: Int, reason: String)
    /// The server's answer lacks this field, or says something else in it than it must.
    case badAnswer(field: String)
    /// The connection ended within the handshake.
    case handshakeCutOff

    // Frames.

    /// Bits that only extensions set, of which none was agreed on.
    case reservedBitsSet
    /// No frame has this opcode.
    case unknownOpcode(UInt8)
    /// A control frame comes in one piece.
    case controlFrameFragmented
    /// A control frame has at most 125 bytes.
    case controlFrameTooLong
    /// A length in more bytes than it needs.
    case lengthNotMinimal
    /// A length beyond 63 bits.
    case lengthOutOfRange
    /// A frame longer than ``WebSocketReader/maximumFrameBytes``.
    case frameTooLong(bytes: Int)
    /// The dialer must mask what it sends.
    case unmaskedFrame
    /// The listener must not.
    case maskedFrame
    /// libp2p is carried in binary frames alone.
    case textFrame
    /// There is no message to go on with.
    case unexpectedContinuation
    /// A new message within an unfinished one.
    case continuationExpected
    /// A close frame whose code or text is not allowed.
    case malformedClose
    /// The remote closed, and says why.
    case closedByRemote(code: UInt16, reason: String)
    /// The connection ended within a frame.
    case frameCutOff

    /// What is wrong with a request.
    package enum Request: Hashable, Sendable {
        /// Only GET opens a WebSocket.
        case method(String)
        /// Not a path.
        case target
        /// Not HTTP/1.1.
        case version
        /// This field is missing, given twice, or not what it must be.
        case field(String)
        /// A body, which no GET of a WebSocket has.
        case body
    }

    /// The code of the close frame that tells the remote.
    var closeCode: UInt16 {
        switch self {
        case .frameTooLong: 1009
        case .textFrame: 1003
        case .closedByRemote(let code, _): code
        default: 1002
        }
    }
}
