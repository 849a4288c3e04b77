import Foundation

/// Calls the daemon over its Unix socket, one connection per call, and blocks until the answer is there.
///
/// For the command line: it needs no event loop. Every wait has an end and every answer a limit.
package struct ControlClient: Sendable {
    /// Where the daemon listens.
    package let socketPath: String
    /// The time one whole call may take, and in a stream the longest silence between two lines.
    package var timeout: Duration
    /// The longest body, in bytes.
    package var maximumReplyBytes: Int
    /// The longest line of a stream, in bytes.
    package var maximumLineBytes: Int

    /// A client of the daemon at `socketPath`. Nothing is opened before the first call.
    package init(
        socketPath: String, timeout: Duration = .seconds(10), maximumReplyBytes: Int = 16 << 20,
        maximumLineBytes: Int = 65_536
    ) {
        self.socketPath = socketPath
        self.timeout = timeout
        self.maximumReplyBytes = maximumReplyBytes
        self.maximumLineBytes = maximumLineBytes
    }

    /// Calls an endpoint without a body.
    package func call<Reply: Decodable>(
        _ endpoint: Endpoint, expecting: Reply.Type = Reply.self
    ) throws(ControlError) -> Reply {
        try self.decode(self.fetch(endpoint, body: nil), from: endpoint)
    }

    /// Calls an endpoint with a JSON body.
    package func call<Reply: Decodable>(
        _ endpoint: Endpoint, sending body: some Encodable, expecting: Reply.Type = Reply.self
    ) throws(ControlError) -> Reply {
        try self.decode(self.fetch(endpoint, body: self.encode(body, for: endpoint)), from: endpoint)
    }

    /// Calls an endpoint and hands out the body as it came, after making sure that it is a `Reply`.
    package func json<Reply: Decodable>(
        _ endpoint: Endpoint, matching: Reply.Type
    ) throws(ControlError) -> (reply: Reply, json: [UInt8]) {
        let body = try self.fetch(endpoint, body: nil)
        return (try self.decode(body, from: endpoint), body)
    }

    /// Calls an endpoint that answers with a JSON value per line, and hands out each line as it comes.
    ///
    /// - Parameter receive: Gets the value and its bytes without the line end; `false` ends the call.
    package func stream<Line: Decodable>(
        _ endpoint: Endpoint, sending body: some Encodable, expecting: Line.Type = Line.self,
        receive: (_ line: Line, _ json: [UInt8]) -> Bool
    ) throws(ControlError) {
        let request = try self.encode(body, for: endpoint)
        var line: [UInt8] = []
        try self.exchange(endpoint, body: request, isStream: true) { part throws(ControlError) in
            for byte in part {
                guard byte == UInt8(ascii: "\n") else {
                    guard line.count < self.maximumLineBytes else {
                        throw .replyTooLarge(socket: self.socketPath, limit: self.maximumLineBytes)
                    }
                    line.append(byte)
                    continue
                }
                defer { line.removeAll(keepingCapacity: true) }
                guard !line.isEmpty else { continue }
                guard receive(try self.decode(line, from: endpoint), line) else { return false }
            }
            return true
        }
        guard line.isEmpty else { throw .unreadable(socket: self.socketPath, .truncated) }
    }

    // MARK: One exchange

    private func fetch(_ endpoint: Endpoint, body: [UInt8]?) throws(ControlError) -> [UInt8] {
        var reply: [UInt8] = []
        try self.exchange(endpoint, body: body, isStream: false) { part throws(ControlError) in
            guard part.count <= self.maximumReplyBytes - reply.count else {
                throw .replyTooLarge(socket: self.socketPath, limit: self.maximumReplyBytes)
            }
            reply += part
            return true
        }
        return reply
    }

    /// Sends the request and feeds the body of a success to `receive`, until that returns `false`. The body of a
    /// refusal becomes the error.
    private func exchange(
        _ endpoint: Endpoint, body: [UInt8]?, isStream: Bool, receive: (_ part: [UInt8]) throws(ControlError) -> Bool
    ) throws(ControlError) {
        var deadline = Deadline(in: self.timeout)
        let stream = try UnixStream(connectingTo: self.socketPath, before: deadline)
        try stream.write(Self.request(endpoint, body: body), before: deadline)

        var parser = HTTPResponseParser()
        var status = 0
        var refusal: [UInt8] = []
        while true {
            switch parser.next() {
            case .needMore:
                let bytes = try stream.read(upTo: 65_536, before: deadline)
                if bytes.isEmpty { parser.receiveEnd() } else { parser.receive(bytes) }
            case .head(let code):
                status = code
            case .body(let part) where status < 300:
                if isStream { deadline = Deadline(in: self.timeout) }
                guard try receive(part) else { return }
            case .body(let part):
                guard refusal.count + part.count <= Self.maximumRefusalBytes else {
                    throw .replyTooLarge(socket: self.socketPath, limit: Self.maximumRefusalBytes)
                }
                refusal += part
            case .end where status < 300:
                return
            case .end:
                throw .refused(status: status, try self.decode(refusal, from: endpoint))
            case .fail(let failure):
                throw .unreadable(socket: self.socketPath, failure)
            }
        }
    }

    /// The longest ``ErrorBody`` we read, in bytes.
    private static let maximumRefusalBytes = 65_536

    private static func request(_ endpoint: Endpoint, body: [UInt8]?) -> [UInt8] {
        var head = "\(endpoint.method) \(endpoint.path) HTTP/1.1\r\nHost: warren\r\nConnection: close\r\n"
        if let body {
            head += "Content-Type: application/json\r\nContent-Length: \(body.count)\r\n"
        } else if endpoint.method != "GET" {
            head += "Content-Length: 0\r\n"
        }
        return Array((head + "\r\n").utf8) + (body ?? [])
    }

    // MARK: JSON

    private func encode(_ body: some Encodable, for endpoint: Endpoint) throws(ControlError) -> [UInt8] {
        do { return try ControlJSON.encode(body) } catch { throw self.notUnderstood(endpoint) }
    }

    private func decode<Value: Decodable>(_ json: [UInt8], from endpoint: Endpoint) throws(ControlError) -> Value {
        do { return try ControlJSON.decode(Value.self, from: json) } catch { throw self.notUnderstood(endpoint) }
    }

    private func notUnderstood(_ endpoint: Endpoint) -> ControlError {
        .unexpectedReply(socket: self.socketPath, endpoint: "\(endpoint.method) \(endpoint.path)")
    }
}

/// JSON as both ends of the API write it.
package enum ControlJSON {
    /// One line, keys in alphabetical order, slashes as they are.
    package static func encode(_ value: some Encodable) throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return Array(try encoder.encode(value))
    }

    /// The value in `json`. Keys it does not know are skipped.
    package static func decode<Value: Decodable>(_ type: Value.Type, from json: [UInt8]) throws -> Value {
        try JSONDecoder().decode(type, from: Data(json))
    }
}
