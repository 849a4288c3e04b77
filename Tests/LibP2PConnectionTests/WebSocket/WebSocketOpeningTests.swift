import LibP2PCore
import NIOCore
import NIOEmbedded
import Testing

@testable import LibP2PConnection

/// How an opening ends.
enum Ending<Machine: OpeningMachine>: Equatable {
    case done(Machine.Outcome, leftover: [UInt8])
    case failed(Machine.Failure)
    case open

    /// Feeds `pieces`, and collects what the machine says.
    static func of(_ machine: Machine, _ pieces: [[UInt8]]) -> (ending: Ending, said: [UInt8]) {
        var machine = machine
        var said = machine.start().map { Array($0.readableBytesView) } ?? []
        for (index, piece) in pieces.enumerated() {
            switch machine.receive(ByteBuffer(bytes: piece)) {
            case .wait: break
            case .send(let bytes): said += bytes.readableBytesView
            case .done(let outcome, let reply, let leftover):
                said += reply.map { Array($0.readableBytesView) } ?? []
                let rest = Array(leftover.readableBytesView) + pieces[(index + 1)...].joined()
                return (.done(outcome, leftover: rest), said)
            case .fail(let error, let reply):
                said += reply.map { Array($0.readableBytesView) } ?? []
                return (.failed(error), said)
            }
        }
        return (.open, said)
    }
}

@Suite struct WebSocketOpeningTests {
    /// RFC 6455 § 1.3.
    static let nonce = Array("the sample nonce".utf8)
    static let answer = [
        "HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    ]
    static let request = [
        "GET /chat HTTP/1.1", "Host: server.example.com", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Origin: http://example.com",
        "Sec-WebSocket-Protocol: chat, superchat", "Sec-WebSocket-Version: 13",
    ]
    static let early = Array("\u{13}/multistream/1.0.0\n".utf8)

    static func bytes(_ lines: [String]) -> [UInt8] { Array((lines + ["", ""]).joined(separator: "\r\n").utf8) }

    /// `lines` with the field `name` saying something else, or nothing.
    static func changing(_ name: String, to value: String?, in lines: [String]) -> [String] {
        let rest = lines.filter { !$0.lowercased().hasPrefix(name.lowercased() + ":") }
        return rest + (value.map { ["\(name): \($0)"] } ?? [])
    }

    // MARK: The dialer

    static func dialer() -> WebSocketOpeningDialer {
        WebSocketOpeningDialer(host: "server.example.com:8000", nonce: Self.nonce)
    }

    @Test func theSpecificationsExample() {
        let (ending, said) = Ending.of(Self.dialer(), [Self.bytes(Self.answer) + Self.early])
        #expect(ending == .done(Opened(), leftover: Self.early))
        #expect(
            String(decoding: said, as: UTF8.self) == """
                GET / HTTP/1.1\r
                Host: server.example.com:8000\r
                Upgrade: websocket\r
                Connection: Upgrade\r
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r
                Sec-WebSocket-Version: 13\r
                \r

                """)
    }

    @Test func everyCutOfAnAnswer() {
        let bytes = Self.bytes(Self.answer) + Self.early
        for cut in 0...bytes.count {
            let (ending, _) = Ending.of(Self.dialer(), [Array(bytes[..<cut]), Array(bytes[cut...])])
            #expect(ending == .done(Opened(), leftover: Self.early), "cut at \(cut)")
        }
        #expect(Ending.of(Self.dialer(), bytes.map { [$0] }).ending == .done(Opened(), leftover: Self.early))
        #expect(Ending.of(Self.dialer(), [Self.bytes(Self.answer).dropLast()]).ending == .open)
    }

    static let goodAnswers: [[String]] = [
        changing("Upgrade", to: "WebSocket", in: answer),
        changing("connection", to: "keep-alive, upgrade", in: answer),
        changing("Sec-WebSocket-Accept", to: " \t s3pPLMBiTxaQ9kYGzzhZRbK+xOo= ", in: answer),
        ["HTTP/1.1 101 "] + answer.dropFirst() + ["Server: x", "Date: Mon, 23 Nov 2026 00:00:00 GMT"],
        ["HTTP/1.1 101"] + answer.dropFirst(),
        answer + ["X-Empty:"],
    ]

    @Test(arguments: goodAnswers) func answersThatWillDo(lines: [String]) {
        #expect(Ending.of(Self.dialer(), [Self.bytes(lines)]).ending == .done(Opened(), leftover: []))
    }

    static let badAnswers: [([String], WebSocketError)] = [
        (["HTTP/1.1 404 Not Found"], .refused(status: 404, reason: "Not Found")),
        (["HTTP/1.1 200 OK"] + answer.dropFirst(), .refused(status: 200, reason: "OK")),
        (["HTTP/2 101 Switching"] + answer.dropFirst(), .malformedHead(.malformedStartLine)),
        (["HTTP/1.1 1010 Switching"] + answer.dropFirst(), .malformedHead(.malformedStartLine)),
        (["GET / HTTP/1.1"] + answer.dropFirst(), .malformedHead(.malformedStartLine)),
        (changing("Upgrade", to: nil, in: answer), .badAnswer(field: "upgrade")),
        (changing("Upgrade", to: "h2c", in: answer), .badAnswer(field: "upgrade")),
        (changing("Connection", to: "close", in: answer), .badAnswer(field: "connection")),
        (changing("Connection", to: nil, in: answer), .badAnswer(field: "connection")),
        (changing("Sec-WebSocket-Accept", to: nil, in: answer), .badAnswer(field: "sec-websocket-accept")),
        (
            changing("Sec-WebSocket-Accept", to: "s3pPLMBiTxaQ9kYGzzhZRbK+xOp=", in: answer),
            .badAnswer(field: "sec-websocket-accept")
        ),
        (answer + [answer[3]], .badAnswer(field: "sec-websocket-accept")),
        (answer + ["Sec-WebSocket-Protocol: chat"], .badAnswer(field: "sec-websocket-protocol")),
        (
            answer + ["Sec-WebSocket-Extensions: permessage-deflate"], .badAnswer(field: "sec-websocket-extensions")
        ),
        ([""], .malformedHead(.malformedStartLine)),
        (answer + ["No colon"], .malformedHead(.malformedField(line: 4))),
        (answer + [": no name"], .malformedHead(.malformedField(line: 4))),
        (answer + ["A name : x"], .malformedHead(.malformedField(line: 4))),
        (answer + [" folded"], .malformedHead(.malformedField(line: 4))),
        (answer + ["Field: a\u{0}b"], .malformedHead(.malformedField(line: 4))),
        (answer + ["Field: a\rb"], .malformedHead(.malformedField(line: 4))),
        (answer + ["Field: a\nb: c"], .malformedHead(.malformedField(line: 4))),
        (["HTTP/1.1 101\u{7f}"], .malformedHead(.malformedStartLine)),
        (["HTTP/1.1 101 A\nUpgrade: websocket"], .malformedHead(.malformedStartLine)),
    ]

    @Test(arguments: badAnswers.indices) func answersThatWillNotDo(index: Int) {
        let (lines, error) = Self.badAnswers[index]
        let bytes = Self.bytes(lines)
        #expect(Ending.of(Self.dialer(), [bytes]).ending == .failed(error))
        #expect(Ending.of(Self.dialer(), bytes.map { [$0] }).ending == .failed(error))
    }

    // MARK: The listener

    @Test func everyCutOfARequest() {
        let bytes = Self.bytes(Self.request) + Self.early
        for cut in 0...bytes.count {
            let (ending, said) = Ending.of(WebSocketOpeningListener(), [Array(bytes[..<cut]), Array(bytes[cut...])])
            #expect(ending == .done(Opened(), leftover: Self.early), "cut at \(cut)")
            #expect(said == Self.bytes(Self.answer))
        }
        let (ending, said) = Ending.of(WebSocketOpeningListener(), bytes.map { [$0] })
        #expect(ending == .done(Opened(), leftover: Self.early) && said == Self.bytes(Self.answer))
    }

    /// As libraries and browsers ask.
    static let goodRequests: [[String]] = [
        changing("Connection", to: "keep-alive, Upgrade", in: request),
        changing("Upgrade", to: "WebSocket", in: request),
        request + ["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits", "Content-Length: 0"],
        ["GET / HTTP/1.1"] + request.dropFirst() + ["User-Agent: Go-http-client/1.1", "Cookie: a=b"],
    ]

    @Test(arguments: goodRequests) func requestsThatWillDo(lines: [String]) {
        let (ending, said) = Ending.of(WebSocketOpeningListener(), [Self.bytes(lines)])
        #expect(ending == .done(Opened(), leftover: []) && said == Self.bytes(Self.answer))
    }

    static let badRequests: [([String], WebSocketError.Request, Int)] = [
        (["POST / HTTP/1.1"] + request.dropFirst(), .method("POST"), 405),
        (["GET / HTTP/1.0"] + request.dropFirst(), .version, 505),
        (["GET chat HTTP/1.1"] + request.dropFirst(), .target, 400),
        (["GET HTTP/1.1"] + request.dropFirst(), .target, 400),
        (["GET  / HTTP/1.1"] + request.dropFirst(), .target, 400),
        (changing("Host", to: nil, in: request), .field("host"), 400),
        (request + ["Host: other"], .field("host"), 400),
        (changing("Upgrade", to: nil, in: request), .field("upgrade"), 426),
        (changing("Connection", to: "close", in: request), .field("connection"), 426),
        (changing("Sec-WebSocket-Version", to: "8", in: request), .field("sec-websocket-version"), 426),
        (changing("Sec-WebSocket-Key", to: nil, in: request), .field("sec-websocket-key"), 400),
        (changing("Sec-WebSocket-Key", to: "dGhl", in: request), .field("sec-websocket-key"), 400),
        (
            changing("Sec-WebSocket-Key", to: "!GhlIHNhbXBsZSBub25jZQ==", in: request),
            .field("sec-websocket-key"), 400
        ),
        (request + ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="], .field("sec-websocket-key"), 400),
        (request + ["Content-Length: 5"], .body, 400),
        (request + ["Transfer-Encoding: chunked"], .body, 400),
    ]

    @Test(arguments: badRequests.indices) func requestsThatWillNotDo(index: Int) {
        let (lines, fault, status) = Self.badRequests[index]
        let bytes = Self.bytes(lines)
        for pieces in [[bytes], bytes.map { [$0] }] {
            let (ending, said) = Ending.of(WebSocketOpeningListener(), pieces)
            #expect(ending == .failed(.badRequest(fault, status: status)))
            let text = String(decoding: said, as: UTF8.self)
            #expect(text.hasPrefix("HTTP/1.1 \(status) ") && text.hasSuffix("\r\n\r\n"))
            #expect(text.contains("Connection: close\r\n"))
        }
    }

    @Test func aHeadHasItsBound() {
        let maximum = HTTPHeadReader.maximumBytes
        let room = maximum - Self.bytes(Self.request + ["X: "]).count
        let longest = Self.bytes(Self.request + ["X: " + String(repeating: "a", count: room)])
        #expect(longest.count == maximum)
        let tooLong = Self.bytes(Self.request + ["X: " + String(repeating: "a", count: room + 1)])
        for size in [1, 7, 4_096, maximum, .max] {
            func pieces(_ bytes: [UInt8]) -> [[UInt8]] {
                stride(from: 0, to: bytes.count, by: min(size, bytes.count)).map {
                    Array(bytes[$0..<min(bytes.count, $0 + min(size, bytes.count))])
                }
            }
            #expect(Ending.of(WebSocketOpeningListener(), pieces(longest)).ending == .done(Opened(), leftover: []))
            let (ending, said) = Ending.of(WebSocketOpeningListener(), pieces(tooLong))
            #expect(ending == .failed(.malformedHead(.tooLong)))
            #expect(said.starts(with: Array("HTTP/1.1 431 ".utf8)))
        }
    }

    // MARK: Both, on a stream

    @Test(arguments: [1, 2, 7, 100, Int.max]) func bothHalvesAgree(piece: Int) throws {
        let pipe = Pipe()
        let dial = OpeningDriver.run(Self.dialer(), on: pipe.dialer, timeout: .seconds(10))
        let listen = OpeningDriver.run(WebSocketOpeningListener(), on: pipe.listener, timeout: .seconds(10))
        pipe.run { piece }
        for result in [outcome(dial), outcome(listen)] {
            #expect(try #require(result).get().leftover.readableBytes == 0)
        }
        #expect(!pipe.dialer.isReading && !pipe.listener.isReading)
        #expect(pipe.dialer.receiver == nil && pipe.listener.receiver == nil)
        // Nothing is left that would close the stream.
        pipe.loop.advanceTime(by: .seconds(60))
        #expect(!pipe.dialer.isClosed && !pipe.listener.isClosed)
    }

    @Test(arguments: [[], Array("GET / HT".utf8)]) func whoSaysTooLittleIsNotWaitedForLong(bytes: [UInt8]) {
        let pipe = Pipe()
        let listen = OpeningDriver.run(WebSocketOpeningListener(), on: pipe.listener, timeout: .seconds(10))
        pipe.listener.inject(bytes)
        pipe.run { 1 }
        pipe.loop.advanceTime(by: .milliseconds(9_999))
        #expect(outcome(listen) == nil && !pipe.listener.isClosed)
        pipe.loop.advanceTime(by: .milliseconds(1))
        #expect(outcome(listen)?.failed() == TransportError.timedOut)
        #expect(pipe.listener.isClosed)
    }

    @Test func aRefusalIsSaidBeforeTheEnd() {
        let pipe = Pipe()
        let listen = OpeningDriver.run(WebSocketOpeningListener(), on: pipe.listener, timeout: .seconds(10))
        pipe.listener.inject(Self.bytes(["PUT / HTTP/1.1", "Host: x"]))
        pipe.run()
        #expect(outcome(listen)?.failed() == WebSocketError.badRequest(.method("PUT"), status: 405))
        #expect(pipe.listener.isClosed && pipe.dialer.takeInbox().starts(with: Array("HTTP/1.1 405 ".utf8)))
    }

    @Test(arguments: [true, false]) func anEndWithinIsNamed(isOrderly: Bool) {
        let pipe = Pipe()
        let dial = OpeningDriver.run(Self.dialer(), on: pipe.dialer, timeout: .seconds(10))
        pipe.dialer.inject(Array("HTTP/1.1 101".utf8))
        if isOrderly { pipe.listener.closeWrite() } else { pipe.listener.close(BrokenPipe()) }
        pipe.run()
        if isOrderly {
            #expect(outcome(dial)?.failed() == WebSocketError.handshakeCutOff)
        } else {
            #expect(outcome(dial)?.failed() == BrokenPipe())
        }
        #expect(pipe.dialer.isClosed)
    }
}
