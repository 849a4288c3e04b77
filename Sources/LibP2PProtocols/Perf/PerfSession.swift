public import NIOCore

/// The server's course of one stream: the wanted number of bytes, the upload, and when that has ended, the download.
///
/// Spec: `perf/perf.md` § Protocol.
struct PerfServerSession: Equatable {
    /// Bytes of the number that comes first.
    static let headerBytes = 8

    /// Bytes of the upload so far.
    private(set) var uploaded: UInt64 = 0
    private var header: UInt64 = 0
    private var headerLength = 0

    /// Takes input, whatever it says.
    mutating func receive(_ bytes: ByteBuffer) {
        var bytes = bytes
        while self.headerLength < Self.headerBytes, let byte: UInt8 = bytes.readInteger() {
            self.header = self.header << 8 | UInt64(byte)
            self.headerLength += 1
        }
        self.uploaded &+= UInt64(bytes.readableBytes)
    }

    /// The upload has ended.
    /// - Returns: How many bytes are to be sent now.
    /// - Throws: ``PerfError/requestCutOff(bytes:)`` when not even the number has come.
    func inputEnded() throws(PerfError) -> UInt64 {
        guard self.headerLength == Self.headerBytes else { throw .requestCutOff(bytes: self.headerLength) }
        return self.header
    }
}

/// The client's course of one stream: it says how much it wants, uploads, and counts what comes back.
struct PerfClientSession: Equatable {
    /// How many bytes the server is asked for.
    let wanted: UInt64
    /// How many have come.
    private(set) var downloaded: UInt64 = 0
    private var hasUploaded = false

    init(wanted: UInt64) {
        self.wanted = wanted
    }

    /// What goes out first.
    var request: ByteBuffer { ByteBuffer(integer: self.wanted) }

    /// All of the upload has been written.
    mutating func uploadEnded() {
        self.hasUploaded = true
    }

    /// Bytes have come.
    /// - Throws: ``PerfError/answeredTooEarly``, ``PerfError/answeredTooMuch(wanted:)``.
    mutating func received(bytes: Int) throws(PerfError) {
        guard self.hasUploaded else { throw .answeredTooEarly }
        let (sum, overflow) = self.downloaded.addingReportingOverflow(UInt64(bytes))
        guard !overflow, sum <= self.wanted else { throw .answeredTooMuch(wanted: self.wanted) }
        self.downloaded = sum
    }

    /// The server has ended its direction, which completes the course.
    /// - Throws: ``PerfError/answeredTooEarly``, ``PerfError/answeredTooLittle(bytes:wanted:)``.
    func inputEnded() throws(PerfError) {
        guard self.hasUploaded else { throw .answeredTooEarly }
        guard self.downloaded == self.wanted else {
            throw .answeredTooLittle(bytes: self.downloaded, wanted: self.wanted)
        }
    }
}

/// Why a measurement failed, where the stream itself did not.
public enum PerfError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The client ended its direction before it had said how much it wants.
    case requestCutOff(bytes: Int)
    /// The server answered before the upload had ended.
    case answeredTooEarly
    /// The server sent more than was wanted.
    case answeredTooMuch(wanted: UInt64)
    /// The server ended its direction before it had sent what was wanted.
    case answeredTooLittle(bytes: UInt64, wanted: UInt64)
    /// Not a byte went either way for this long.
    case stalled(TimeAmount)

    /// For people.
    public var description: String {
        switch self {
        case .requestCutOff(let bytes): "the request ends after \(bytes) bytes"
        case .answeredTooEarly: "the remote answered before all was sent"
        case .answeredTooMuch(let wanted): "the remote sent more than the \(wanted) bytes that were wanted"
        case .answeredTooLittle(let bytes, let wanted): "the remote sent \(bytes) bytes of \(wanted)"
        case .stalled(let time): "nothing moved for \(time.nanoseconds / 1_000_000_000) s"
        }
    }
}
