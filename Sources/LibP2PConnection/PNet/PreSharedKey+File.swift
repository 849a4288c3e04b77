internal import Multiformats

extension PreSharedKey {
    /// The longest key file read, in bytes. The longest that makes sense has 101.
    public static let maximumFileBytes = 1024

    /// Reads the contents of a key file, `swarm.key` by custom:
    ///
    /// ```
    /// /key/swarm/psk/1.0.0/
    /// /base16/
    /// 64 hexadecimal digits
    /// ```
    ///
    /// The second line may say `/base64/` as well, with 44 digits on the third, or `/bin/`, with the 32 bytes themselves. Lines end in LF
    /// or CRLF, the last one in nothing, if it likes.
    public init(file: some Collection<UInt8>) throws(PreSharedKeyError) {
        guard file.count <= Self.maximumFileBytes else {
            throw .fileTooLong(bytes: file.count, limit: Self.maximumFileBytes)
        }
        var lines = KeyFileLines(file)
        guard let format = lines.next() else { throw .missingLine(1) }
        guard format == Self.formatLine else { throw .unknownFormat(line: 1) }
        guard let encoding = lines.next() else { throw .missingLine(2) }
        switch encoding {
        case Self.base16Line: try self.init(bytes: Self.digits(of: &lines, .base16, count: 64))
        case Self.base64Line: try self.init(bytes: Self.digits(of: &lines, .base64Pad, count: 44))
        case Self.binaryLine: try self.init(bytes: Self.binary(lines.rest))
        default: throw .unknownEncoding(line: 2)
        }
    }

    /// The contents of a key file that all implementations read.
    public var file: String {
        "/key/swarm/psk/1.0.0/\n/base16/\n\(Multibase.base16.encodeWithoutPrefix(self.bytes))\n"
    }

    private static let formatLine = Array("/key/swarm/psk/1.0.0/".utf8)
    private static let base16Line = Array("/base16/".utf8)
    private static let base64Line = Array("/base64/".utf8)
    private static let binaryLine = Array("/bin/".utf8)

    /// The key on the third line, behind which there is nothing.
    private static func digits(
        of lines: inout KeyFileLines, _ base: Multibase, count: Int
    ) throws(PreSharedKeyError) -> [UInt8] {
        guard let text = lines.next() else { throw .missingLine(3) }
        guard lines.next() == nil else { throw .trailingBytes(line: 4) }
        if let index = text.firstIndex(where: { !Self.isDigit($0, of: base) }) {
            throw .invalidDigit(line: 3, column: index + 1)
        }
        guard text.count == count else { throw .wrongLength(line: 3, found: text.count, expected: count) }
        let key: [UInt8]
        do {
            key = try base.decodeWithoutPrefix(String(decoding: text, as: UTF8.self))
        } catch {
            // The padding begins too early, or bits behind the last byte are set.
            throw .invalidDigit(line: 3, column: count - 1)
        }
        // Digits where the padding belongs.
        guard key.count == Self.byteCount else { throw .invalidDigit(line: 3, column: count) }
        return key
    }

    private static func isDigit(_ byte: UInt8, of base: Multibase) -> Bool {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): true
        case UInt8(ascii: "a")...UInt8(ascii: "f"), UInt8(ascii: "A")...UInt8(ascii: "F"): true
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"): base == .base64Pad
        case UInt8(ascii: "+"), UInt8(ascii: "/"), UInt8(ascii: "="): base == .base64Pad
        default: false
        }
    }

    /// The key itself, and perhaps the end of a line that some editor has added.
    private static func binary(_ rest: ArraySlice<UInt8>) throws(PreSharedKeyError) -> ArraySlice<UInt8> {
        guard rest.count >= Self.byteCount else {
            throw .wrongLength(line: 3, found: rest.count, expected: Self.byteCount)
        }
        let behind = rest.dropFirst(Self.byteCount)
        guard behind.isEmpty || behind.elementsEqual("\n".utf8) || behind.elementsEqual("\r\n".utf8) else {
            throw .wrongLength(line: 3, found: rest.count, expected: Self.byteCount)
        }
        return rest.prefix(Self.byteCount)
    }
}

/// Why a file holds no pre-shared key. What the file says is never repeated: it may be the key.
public enum PreSharedKeyError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The file is longer than any key file.
    case fileTooLong(bytes: Int, limit: Int)
    /// The file ends before this line.
    case missingLine(Int)
    /// The first line is not `/key/swarm/psk/1.0.0/`.
    case unknownFormat(line: Int)
    /// The second line is neither `/base16/` nor `/base64/` nor `/bin/`.
    case unknownEncoding(line: Int)
    /// A character of the key, counted from 1, is no digit of its base, or no digit may be there.
    case invalidDigit(line: Int, column: Int)
    /// The key has too few digits or bytes, or too many.
    case wrongLength(line: Int, found: Int, expected: Int)
    /// Something follows the key.
    case trailingBytes(line: Int)

    /// For people.
    public var description: String {
        switch self {
        case .fileTooLong(let bytes, let limit): "\(bytes) bytes are no key file, which has at most \(limit)"
        case .missingLine(let line): "line \(line) is missing"
        case .unknownFormat(let line): "line \(line) is not '/key/swarm/psk/1.0.0/'"
        case .unknownEncoding(let line): "line \(line) is not '/base16/', '/base64/' or '/bin/'"
        case .invalidDigit(let line, let column): "line \(line): column \(column) is no digit of the key"
        case .wrongLength(0, let found, let expected): "a key of \(found) bytes, not \(expected)"
        case .wrongLength(let line, let found, let expected): "line \(line) has \(found) characters, not \(expected)"
        case .trailingBytes(let line): "line \(line): something follows the key"
        }
    }
}

/// Cuts lines off a file.
private struct KeyFileLines {
    private(set) var rest: ArraySlice<UInt8>

    init(_ file: some Collection<UInt8>) {
        self.rest = Array(file)[...]
    }

    /// The next line without its end; `nil` where the file is over.
    mutating func next() -> [UInt8]? {
        guard !self.rest.isEmpty else { return nil }
        var line = self.rest.prefix { $0 != UInt8(ascii: "\n") }
        self.rest = self.rest.dropFirst(line.count + 1)
        if line.last == UInt8(ascii: "\r") { line.removeLast() }
        return Array(line)
    }
}
