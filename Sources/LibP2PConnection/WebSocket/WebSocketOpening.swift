internal import Crypto
internal import Multiformats
internal import NIOCore

/// The dialer's half of the opening handshake: asks a web server for a WebSocket, and checks its answer. Pure.
///
/// Spec: RFC 6455 § 4.1.
struct WebSocketOpeningDialer: OpeningMachine {
    private let host: String
    private let key: String
    private var head = HTTPHeadReader()

    /// - Parameters:
    ///   - host: The server's name or address, with its port where that is not the usual one.
    ///   - nonce: 16 random bytes.
    init(host: String, nonce: [UInt8]) {
        self.host = host
        self.key = Multibase.base64Pad.encodeWithoutPrefix(nonce)
    }

    func start() -> ByteBuffer? {
        ByteBuffer(
            string: """
                GET / HTTP/1.1\r
                Host: \(self.host)\r
                Upgrade: websocket\r
                Connection: Upgrade\r
                Sec-WebSocket-Key: \(self.key)\r
                Sec-WebSocket-Version: 13\r
                \r

                """)
    }

    mutating func receive(_ bytes: ByteBuffer) -> OpeningAction<Opened, WebSocketError> {
        do throws(HTTPHeadError) {
            guard let (head, leftover) = try self.head.receive(bytes) else { return .wait }
            if let error = self.fault(in: head) { return .fail(error, reply: nil) }
            return .done(Opened(), reply: nil, leftover: leftover)
        } catch {
            return .fail(.malformedHead(error), reply: nil)
        }
    }

    func cutOff() -> WebSocketError { .handshakeCutOff }

    private func fault(in head: HTTPHead) -> WebSocketError? {
        guard let status = head.status else { return .malformedHead(.malformedStartLine) }
        guard status.code == 101 else { return .refused(status: status.code, reason: status.reason) }
        guard head.lists("websocket", in: "upgrade") else { return .badAnswer(field: "upgrade") }
        guard head.lists("upgrade", in: "connection") else { return .badAnswer(field: "connection") }
        let accept = "sec-websocket-accept"
        guard head.value(of: accept) == WebSocketKey.answer(to: self.key) else { return .badAnswer(field: accept) }
        // None was asked for.
        for name in ["sec-websocket-extensions", "sec-websocket-protocol"] where head.has(name) {
            return .badAnswer(field: name)
        }
        return nil
    }
}

/// The listener's half of the opening handshake: checks a request, and answers it. Pure.
///
/// Any path will do, as proxies in front of a server rewrite it; so will any origin. Extensions and subprotocols that the dialer offers are not
/// taken up.
///
/// Spec: RFC 6455 § 4.2.
struct WebSocketOpeningListener: OpeningMachine {
    private var head = HTTPHeadReader()

    func start() -> ByteBuffer? { nil }

    mutating func receive(_ bytes: ByteBuffer) -> OpeningAction<Opened, WebSocketError> {
        let (head, leftover): (HTTPHead, ByteBuffer)
        do throws(HTTPHeadError) {
            guard let read = try self.head.receive(bytes) else { return .wait }
            (head, leftover) = read
        } catch {
            let status = error == .tooLong ? 431 : 400
            return .fail(.malformedHead(error), reply: Self.refusal(status))
        }
        if let (fault, status) = Self.fault(in: head) {
            return .fail(.badRequest(fault, status: status), reply: Self.refusal(status))
        }
        let key = head.value(of: WebSocketKey.field) ?? ""
        let reply = ByteBuffer(
            string: """
                HTTP/1.1 101 Switching Protocols\r
                Upgrade: websocket\r
                Connection: Upgrade\r
                Sec-WebSocket-Accept: \(WebSocketKey.answer(to: key))\r
                \r

                """)
        return .done(Opened(), reply: reply, leftover: leftover)
    }

    func cutOff() -> WebSocketError { .handshakeCutOff }

    private static func fault(in head: HTTPHead) -> (WebSocketError.Request, status: Int)? {
        guard let request = head.request else { return (.target, 400) }
        guard request.version == "HTTP/1.1" else { return (.version, 505) }
        guard request.method == "GET" else { return (.method(request.method), 405) }
        guard request.target.hasPrefix("/") else { return (.target, 400) }
        guard head.value(of: "host")?.isEmpty == false else { return (.field("host"), 400) }
        if head.has("transfer-encoding") || head.has("content-length") && head.value(of: "content-length") != "0" {
            return (.body, 400)
        }
        guard head.lists("websocket", in: "upgrade") else { return (.field("upgrade"), 426) }
        guard head.lists("upgrade", in: "connection") else { return (.field("connection"), 426) }
        let version = "sec-websocket-version"
        guard head.value(of: version) == "13" else { return (.field(version), 426) }
        guard let key = head.value(of: WebSocketKey.field), WebSocketKey.isValid(key) else {
            return (.field(WebSocketKey.field), 400)
        }
        return nil
    }

    private static func refusal(_ status: Int) -> ByteBuffer {
        let reason =
            switch status {
            case 405: "Method Not Allowed"
            case 426: "Upgrade Required"
            case 431: "Request Header Fields Too Large"
            case 505: "HTTP Version Not Supported"
            default: "Bad Request"
            }
        let fields =
            switch status {
            case 405: "Allow: GET\r\n"
            case 426: "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            default: ""
            }
        return ByteBuffer(
            string: "HTTP/1.1 \(status) \(reason)\r\n\(fields)Connection: close\r\nContent-Length: 0\r\n\r\n")
    }
}

/// The key of a request, and what proves that a server has understood it.
enum WebSocketKey {
    static let field = "sec-websocket-key"

    /// Whether it is 16 bytes in base64.
    static func isValid(_ key: String) -> Bool {
        key.utf8.count == 24 && (try? Multibase.base64Pad.decodeWithoutPrefix(key))?.count == 16
    }

    /// What `Sec-WebSocket-Accept` says.
    static func answer(to key: String) -> String {
        // SHA-1 protects nothing here: it shows that the server speaks this protocol.
        let digest = Insecure.SHA1.hash(data: Array((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").utf8))
        return Multibase.base64Pad.encodeWithoutPrefix(Array(digest))
    }
}
