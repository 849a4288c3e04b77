/// Reads one HTTP/1.1 response: bytes in, ``Event`` out.
///
/// Pure: it holds no socket and no clock. The body may be delimited by `Content-Length`, by chunks, or by the end of
/// the connection. Whatever is not plainly one of these is refused, as a peer that disagrees with us about where a
/// message ends cannot be read.
///
/// Spec: RFC 9112 § 6 and § 7.1.
package struct HTTPResponseParser: Equatable, Sendable {
    /// What the next bytes mean.
    package enum Event: Equatable, Sendable {
        /// More bytes, or the end of the connection, must be reported first.
        case needMore
        /// The status line and the header are complete.
        case head(status: Int)
        /// A part of the body, never empty.
        case body([UInt8])
        /// The response is complete. Nothing follows.
        case end
        /// The response cannot be read. Nothing follows.
        case fail(Failure)
    }

    /// Why a response cannot be read.
    package enum Failure: Error, Equatable, Sendable {
        /// The connection ended inside the response.
        case truncated
        /// The first line is not `HTTP/1.1 NNN …`, or its status is not 200…599.
        case malformedStatusLine
        /// A header line is not `name: value`, or says two things about the length.
        case malformedHeader
        /// A chunk's size line, or the line end after a chunk, is wrong.
        case malformedChunk
        /// A line or the whole header is longer than ``maximumHeadBytes``.
        case headTooLarge
    }

    /// The longest status line plus header, and the longest trailer, in bytes. Ours.
    package static let maximumHeadBytes = 16_384

    private enum State: Equatable {
        case head
        case body(remaining: Int)
        case bodyUntilClose
        case chunkSize
        case chunk(remaining: Int)
        case chunkEnd
        case trailer(bytes: Int)
        case ended
        case failed(Failure)
    }

    private var state = State.head
    private var received: [UInt8] = []
    private var consumed = 0
    private var isClosed = false

    /// A parser at the start of a response.
    package init() {}

    /// Takes bytes from the connection. Call ``next()`` until it needs more before the next call: so at most one
    /// incomplete line is ever held.
    package mutating func receive(_ bytes: some Collection<UInt8>) {
        self.received.removeFirst(self.consumed)
        self.consumed = 0
        self.received.append(contentsOf: bytes)
    }

    /// The connection has ended.
    package mutating func receiveEnd() { self.isClosed = true }

    /// The next event. ``Event/end`` and ``Event/fail(_:)`` repeat.
    package mutating func next() -> Event {
        while true {
            switch self.state {
            case .ended: return .end
            case .failed(let failure): return .fail(failure)
            case .head:
                guard let head = self.takeHead() else { return self.starved(limit: Self.maximumHeadBytes) }
                do {
                    let (status, next) = try Self.parse(head: head)
                    self.state = next
                    return .head(status: status)
                } catch {
                    self.state = .failed(error)
                }
            case .body(let remaining):
                guard remaining > 0 else {
                    self.state = .ended
                    continue
                }
                guard let part = self.take(upTo: remaining) else { return self.starved(limit: 1) }
                self.state = .body(remaining: remaining - part.count)
                return .body(part)
            case .bodyUntilClose:
                if let part = self.take(upTo: .max) { return .body(part) }
                guard self.isClosed else { return .needMore }
                self.state = .ended
            case .chunkSize:
                guard let line = self.takeLine() else { return self.starved(limit: Self.maximumHeadBytes) }
                if let size = Self.parse(chunkSize: line) {
                    self.state = size == 0 ? .trailer(bytes: 0) : .chunk(remaining: size)
                } else {
                    self.state = .failed(.malformedChunk)
                }
            case .chunk(let remaining):
                guard let part = self.take(upTo: remaining) else { return self.starved(limit: 1) }
                self.state = part.count == remaining ? .chunkEnd : .chunk(remaining: remaining - part.count)
                return .body(part)
            case .chunkEnd:
                guard let line = self.takeLine() else { return self.starved(limit: Self.maximumHeadBytes) }
                self.state = line.isEmpty ? .chunkSize : .failed(.malformedChunk)
            case .trailer(let bytes):
                guard let line = self.takeLine() else { return self.starved(limit: Self.maximumHeadBytes) }
                let total = bytes + line.count + 2
                self.state =
                    line.isEmpty
                    ? .ended : total > Self.maximumHeadBytes ? .failed(.headTooLarge) : .trailer(bytes: total)
            }
        }
    }

    // MARK: Grammar

    private static func parse(head: [UInt8]) throws(Failure) -> (status: Int, State) {
        var lines = head.split(separator: Self.newline, omittingEmptySubsequences: false)[...]
        for index in lines.indices {
            guard lines[index].last == Self.carriageReturn else { throw .malformedHeader }
            lines[index].removeLast()
        }
        guard let statusLine = lines.popFirst(), statusLine.starts(with: "HTTP/1.1 ".utf8),
            case let code = statusLine.dropFirst(9).prefix(3), code.count == 3, code.allSatisfy(Self.isDigit),
            case let rest = statusLine.dropFirst(12), rest.isEmpty || rest.first == UInt8(ascii: " "),
            let status = Int(String(decoding: code, as: UTF8.self)), (200...599).contains(status)
        else { throw .malformedStatusLine }

        var length: Int?
        var isChunked = false
        for line in lines {
            guard let colon = line.firstIndex(of: UInt8(ascii: ":")), colon > line.startIndex,
                line[..<colon].allSatisfy({ $0 > 0x20 && $0 < 0x7F })
            else { throw .malformedHeader }
            let name = String(decoding: line[..<colon], as: UTF8.self).lowercased()
            let value = Self.trimmed(line[(colon + 1)...])
            switch name {
            case "content-length":
                guard length == nil, (1...15).contains(value.count), value.allSatisfy(Self.isDigit),
                    let bytes = Int(String(decoding: value, as: UTF8.self))
                else { throw .malformedHeader }
                length = bytes
            case "transfer-encoding":
                guard !isChunked, String(decoding: value, as: UTF8.self).lowercased() == "chunked" else {
                    throw .malformedHeader
                }
                isChunked = true
            default: break
            }
        }
        if status == 204 || status == 304 { return (status, .ended) }
        switch (isChunked, length) {
        case (true, nil): return (status, .chunkSize)
        case (false, let bytes?): return (status, .body(remaining: bytes))
        case (false, nil): return (status, .bodyUntilClose)
        case (true, .some): throw .malformedHeader
        }
    }

    /// Hexadecimal digits, then perhaps `;` and extensions, which are skipped.
    private static func parse(chunkSize line: [UInt8]) -> Int? {
        let digits = line.prefix { $0 != UInt8(ascii: ";") && $0 != UInt8(ascii: " ") }
        guard (1...7).contains(digits.count), digits.allSatisfy({ UnicodeScalar($0).properties.isASCIIHexDigit }) else {
            return nil
        }
        return Int(String(decoding: digits, as: UTF8.self), radix: 16)
    }

    private static let newline = UInt8(ascii: "\n")
    private static let carriageReturn = UInt8(ascii: "\r")
    private static func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }
    private static func trimmed(_ value: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }
        var value = value.drop(while: isBlank)
        while let last = value.last, isBlank(last) { value.removeLast() }
        return value
    }

    // MARK: Input

    private var pending: ArraySlice<UInt8> { self.received[self.consumed...] }

    /// What to answer when `pending` does not hold what the state waits for.
    private mutating func starved(limit: Int) -> Event {
        if self.pending.count > limit {
            self.state = .failed(.headTooLarge)
            return .fail(.headTooLarge)
        }
        guard self.isClosed else { return .needMore }
        self.state = .failed(.truncated)
        return .fail(.truncated)
    }

    /// The header without its empty line, the last line's end cut off too.
    private mutating func takeHead() -> [UInt8]? {
        let end: [UInt8] = [Self.carriageReturn, Self.newline, Self.carriageReturn, Self.newline]
        let pending = self.pending.prefix(Self.maximumHeadBytes)
        guard pending.count >= end.count else { return nil }
        for start in pending.startIndex...(pending.endIndex - end.count) where pending[start...].starts(with: end) {
            self.consumed = start + end.count
            return Array(pending[..<(start + 1)])
        }
        return nil
    }

    /// One line without its CR LF. A bare LF ends the line too but is kept, so that no grammar accepts it.
    private mutating func takeLine() -> [UInt8]? {
        guard let end = self.pending.prefix(Self.maximumHeadBytes).firstIndex(of: Self.newline) else { return nil }
        let line = self.pending[...end]
        self.consumed = end + 1
        return Array(line.count >= 2 && line[end - 1] == Self.carriageReturn ? line.dropLast(2) : line)
    }

    private mutating func take(upTo limit: Int) -> [UInt8]? {
        let part = Array(self.pending.prefix(limit))
        guard !part.isEmpty else { return nil }
        self.consumed += part.count
        return part
    }
}
