internal import NIOCore

/// The first line and the fields of an HTTP/1.1 message, without its body.
///
/// Spec: RFC 9112 § 2 to § 5.
struct HTTPHead: Hashable, Sendable {
    /// One line of the header.
    struct Field: Hashable, Sendable {
        /// In lower case.
        var name: String
        /// Without white space around it.
        var value: String
    }

    var startLine: String
    var fields: [Field] = []

    /// What the only field `name` says; `nil` where there is none, or more than one.
    func value(of name: String) -> String? {
        let values = self.fields.filter { $0.name == name }
        return values.count == 1 ? values.first?.value : nil
    }

    /// Whether a field `name` is there.
    func has(_ name: String) -> Bool { self.fields.contains { $0.name == name } }

    /// Whether a list in fields `name` has `token`, in upper or lower case.
    func lists(_ token: String, in name: String) -> Bool {
        self.fields.contains { field in
            field.name == name
                && field.value.split(separator: ",").contains {
                    String($0).trimmingHTTPSpace.lowercased() == token
                }
        }
    }

    /// The status and the reason in the first line of an answer; `nil` where it is none of HTTP/1.x.
    var status: (code: Int, reason: String)? {
        let parts = self.startLine.split(separator: " ", maxSplits: 2, omittingEmptySubsequences: false)
        guard parts.count >= 2, parts[0] == "HTTP/1.1" || parts[0] == "HTTP/1.0", parts[1].utf8.count == 3,
            parts[1].utf8.allSatisfy({ (48...57).contains($0) }), let code = Int(parts[1])
        else { return nil }
        return (code, parts.count > 2 ? String(parts[2]) : "")
    }

    /// The method, the target and the version in the first line of a request.
    var request: (method: String, target: String, version: String)? {
        let parts = self.startLine.split(separator: " ", omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 3, parts.allSatisfy({ !$0.isEmpty }) else { return nil }
        return (parts[0], parts[1], parts[2])
    }
}

/// Collects the head of an HTTP message. Pure.
///
/// It is strict where readers are known to disagree: lines end in CR LF, no field goes on in another line, nothing stands between a
/// field's name and its colon.
struct HTTPHeadReader: Hashable, Sendable {
    /// The longest head accepted, in bytes, with the empty line at its end. Ours.
    static let maximumBytes = 8192

    private var received = ByteBuffer()
    /// Bytes at the beginning of `received` in which the end does not begin.
    private var scanned = 0

    /// Takes bytes; the head, and the bytes behind it, once it is complete.
    mutating func receive(_ bytes: ByteBuffer) throws(HTTPHeadError) -> (head: HTTPHead, leftover: ByteBuffer)? {
        self.received.writeImmutableBuffer(bytes)
        guard let length = self.findEnd() else {
            guard self.received.readableBytes < Self.maximumBytes else { throw .tooLong }
            return nil
        }
        guard let head = self.received.readBytes(length: length) else { return nil }
        let leftover = self.received
        self.received = ByteBuffer()
        self.scanned = 0
        return (try HTTPHead(bytes: head), leftover)
    }

    /// The length of the head, if it ends within the limit.
    private mutating func findEnd() -> Int? {
        let view = self.received.readableBytesView
        let limit = min(view.count, Self.maximumBytes)
        let end: [UInt8] = [13, 10, 13, 10]
        while self.scanned + end.count <= limit {
            let start = view.startIndex + self.scanned
            if view[start..<start + end.count].elementsEqual(end) { return self.scanned + end.count }
            self.scanned += 1
        }
        return nil
    }
}

/// Why the head of an HTTP message cannot be read.
package enum HTTPHeadError: Error, Hashable, Sendable {
    /// Longer than 8192 bytes.
    case tooLong
    /// The first line is empty or has bytes that no first line has.
    case malformedStartLine
    /// This line, counted from 1, is not `name: value`.
    case malformedField(line: Int)
}

extension HTTPHead {
    /// Parses a head, the empty line at its end included.
    fileprivate init(bytes: [UInt8]) throws(HTTPHeadError) {
        var lines = bytes.dropLast(4).split(separator: 10, omittingEmptySubsequences: false)
        // All lines but the last have kept their CR.
        for index in lines.indices.dropLast() {
            guard lines[index].last == 13 else { throw index == 0 ? .malformedStartLine : .malformedField(line: index) }
            lines[index].removeLast()
        }
        guard let first = lines.first, !first.isEmpty, first.allSatisfy({ (0x20...0x7e).contains($0) || $0 >= 0x80 })
        else { throw .malformedStartLine }
        self.init(startLine: String(decoding: first, as: UTF8.self))
        for (index, line) in lines.enumerated().dropFirst() {
            guard let colon = line.firstIndex(of: UInt8(ascii: ":")), colon > line.startIndex,
                line[..<colon].allSatisfy(Self.isTokenByte),
                line[(colon + 1)...].allSatisfy({ $0 == 9 || (0x20...0x7e).contains($0) || $0 >= 0x80 })
            else { throw .malformedField(line: index) }
            self.fields.append(
                Field(
                    name: String(decoding: line[..<colon], as: UTF8.self).lowercased(),
                    value: String(decoding: line[(colon + 1)...], as: UTF8.self).trimmingHTTPSpace))
        }
    }

    private static func isTokenByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        default:
            "!#$%&'*+-.^_`|~".utf8.contains(byte)
        }
    }
}

extension String {
    /// Without blanks and tabs around it.
    fileprivate var trimmingHTTPSpace: String {
        func isSpace(_ byte: UInt8) -> Bool { byte == 9 || byte == 32 }
        let kept = Array(self.utf8.drop(while: isSpace).reversed().drop(while: isSpace).reversed())
        return String(decoding: kept, as: UTF8.self)
    }
}
