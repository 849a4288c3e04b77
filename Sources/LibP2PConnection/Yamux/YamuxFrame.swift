import NIOCore

/// The 12-byte header of a Yamux frame. A data frame's body follows it on the wire and travels beside it here, uncopied.
///
/// ```
/// version (8) = 0 | type (8) | flags (16) | stream (32) | length (32)      big-endian
/// ```
///
/// Spec: hashicorp/yamux `spec.md` § Framing.
struct YamuxFrame: Hashable {
    /// What a frame is for.
    enum Kind: UInt8 {
        /// A stream's bytes; `length` counts them.
        case data = 0
        /// Lets the other side send `length` more bytes on a stream.
        case windowUpdate = 1
        /// A request (SYN) or an answer (ACK); `length` is an opaque value.
        case ping = 2
        /// The session ends; `length` says why.
        case goAway = 3
    }

    /// Marks on a frame; those the spec does not define are ignored.
    struct Flags: OptionSet, Hashable {
        let rawValue: UInt16

        /// Opens a stream, or asks for an answer to a ping.
        static let syn = Flags(rawValue: 1)
        /// Acknowledges a new stream, or answers a ping.
        static let ack = Flags(rawValue: 2)
        /// Ends the sender's direction of the stream.
        static let fin = Flags(rawValue: 4)
        /// Kills the stream at once.
        static let rst = Flags(rawValue: 8)
    }

    var kind: Kind
    var flags: Flags
    /// 0 is the session itself.
    var streamID: UInt32
    var length: UInt32

    init(_ kind: Kind, _ flags: Flags = [], streamID: UInt32 = 0, length: UInt32 = 0) {
        self.kind = kind
        self.flags = flags
        self.streamID = streamID
        self.length = length
    }

    /// Takes a header apart that was read as two big-endian words.
    init(head: UInt64, length: UInt32) throws(YamuxError) {
        let version = UInt8(truncatingIfNeeded: head >> 56)
        guard version == Self.version else { throw .unknownVersion(version) }
        let type = UInt8(truncatingIfNeeded: head >> 48)
        guard let kind = Kind(rawValue: type) else { throw .unknownFrameType(type) }
        self.kind = kind
        self.flags = Flags(rawValue: UInt16(truncatingIfNeeded: head >> 32))
        self.streamID = UInt32(truncatingIfNeeded: head)
        self.length = length
    }

    /// The first eight bytes as a big-endian word.
    var head: UInt64 {
        UInt64(Self.version) << 56 | UInt64(self.kind.rawValue) << 48 | UInt64(self.flags.rawValue) << 32
            | UInt64(self.streamID)
    }
}

extension YamuxFrame {
    /// The only version there is.
    static let version: UInt8 = 0

    /// Bytes of a header.
    static let headerBytes = 12

    /// What each side may send on a new stream before it is granted more. Spec: § Flow Control.
    static let initialWindowBytes: UInt32 = 256 * 1024

    /// The longest body we send: with its header it fills one Noise record of 65,519 bytes of plaintext.
    static let maximumSentBodyBytes = 65_519 - headerBytes

    /// The longest body we take, the same as rust-yamux; the spec sets no limit.
    static let maximumReceivedBodyBytes: UInt32 = 1024 * 1024

    /// Reasons of a go-away that the spec defines. Spec: § Go Away.
    enum GoAway {
        static let normal: UInt32 = 0
        static let protocolError: UInt32 = 1
    }
}

extension ByteBuffer {
    /// Reads one header; `nil`, and nothing read, when fewer than twelve bytes are at hand.
    mutating func readYamuxFrame() throws(YamuxError) -> YamuxFrame? {
        guard let (head, length) = self.readMultipleIntegers(as: (UInt64, UInt32).self) else { return nil }
        return try YamuxFrame(head: head, length: length)
    }

    /// Appends a header.
    mutating func writeYamuxFrame(_ frame: YamuxFrame) {
        self.writeMultipleIntegers(frame.head, frame.length)
    }
}
