import Testing

@testable import ControlAPI

@Suite struct HTTPResponseParserTests {
    /// What a response comes to: its status and whole body, or the failure.
    enum Outcome: Equatable {
        case response(Int, String)
        case failure(HTTPResponseParser.Failure)
        case waiting
    }

    struct Case: CustomTestStringConvertible {
        var name: String
        var bytes: String
        var closes = true
        var outcome: Outcome
        var testDescription: String { self.name }
    }

    static let head = "HTTP/1.1 200 OK\r\n"
    static let chunked = head + "Transfer-Encoding: chunked\r\n\r\n"
    static let cases: [Case] = [
        Case(
            name: "length", bytes: head + "Content-Length: 5\r\n\r\nhello", closes: false,
            outcome: .response(200, "hello")),
        Case(name: "empty body", bytes: head + "content-length:0\r\n\r\n", closes: false, outcome: .response(200, "")),
        Case(name: "until close", bytes: head + "\r\nhello\r\n", outcome: .response(200, "hello\r\n")),
        Case(name: "still open", bytes: head + "\r\nhello", closes: false, outcome: .waiting),
        Case(name: "no reason phrase", bytes: "HTTP/1.1 404\r\n\r\n", outcome: .response(404, "")),
        Case(
            name: "204 has no body", bytes: "HTTP/1.1 204 No Content\r\n\r\n", closes: false,
            outcome: .response(204, "")),
        Case(
            name: "surplus is ignored", bytes: head + "Content-Length: 2\r\n\r\nokHTTP/1.1 500",
            outcome: .response(200, "ok")),
        Case(
            name: "chunks", bytes: chunked + "5\r\nhello\r\nA;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\n", closes: false,
            outcome: .response(200, "hello0123456789")),
        Case(name: "no chunk", bytes: chunked + "0\r\n\r\n", closes: false, outcome: .response(200, "")),
        Case(name: "nothing", bytes: "", outcome: .failure(.truncated)),
        Case(name: "half a head", bytes: head + "Content-Le", outcome: .failure(.truncated)),
        Case(name: "half a body", bytes: head + "Content-Length: 5\r\n\r\nhell", outcome: .failure(.truncated)),
        Case(name: "half a chunk", bytes: chunked + "5\r\nhel", outcome: .failure(.truncated)),
        Case(name: "no last chunk", bytes: chunked + "5\r\nhello\r\n", outcome: .failure(.truncated)),
        Case(name: "no end of trailer", bytes: chunked + "0\r\n", outcome: .failure(.truncated)),
        Case(name: "not HTTP", bytes: "SSH-2.0-OpenSSH\r\n\r\n", outcome: .failure(.malformedStatusLine)),
        Case(name: "HTTP/1.0", bytes: "HTTP/1.0 200 OK\r\n\r\n", outcome: .failure(.malformedStatusLine)),
        Case(name: "status 100", bytes: "HTTP/1.1 100 Continue\r\n\r\n", outcome: .failure(.malformedStatusLine)),
        Case(name: "status 2000", bytes: "HTTP/1.1 2000 OK\r\n\r\n", outcome: .failure(.malformedStatusLine)),
        Case(name: "status +20", bytes: "HTTP/1.1 +20 OK\r\n\r\n", outcome: .failure(.malformedStatusLine)),
        Case(
            name: "bare line feed", bytes: "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
            outcome: .failure(.malformedHeader)),
        Case(name: "folded header", bytes: head + "A: b\r\n c: d\r\n\r\n", outcome: .failure(.malformedHeader)),
        Case(name: "header without colon", bytes: head + "hello\r\n\r\n", outcome: .failure(.malformedHeader)),
        Case(name: "header without name", bytes: head + ": x\r\n\r\n", outcome: .failure(.malformedHeader)),
        Case(
            name: "two lengths", bytes: head + "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
            outcome: .failure(.malformedHeader)),
        Case(
            name: "length and chunks", bytes: head + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            outcome: .failure(.malformedHeader)),
        Case(name: "negative length", bytes: head + "Content-Length: -1\r\n\r\n", outcome: .failure(.malformedHeader)),
        Case(
            name: "endless length", bytes: head + "Content-Length: 9999999999999999999\r\n\r\n",
            outcome: .failure(.malformedHeader)),
        Case(
            name: "gzip", bytes: head + "Transfer-Encoding: gzip, chunked\r\n\r\n", outcome: .failure(.malformedHeader)),
        Case(name: "chunk size empty", bytes: chunked + "\r\n", outcome: .failure(.malformedChunk)),
        Case(name: "chunk size no number", bytes: chunked + "0x5\r\nhello\r\n", outcome: .failure(.malformedChunk)),
        Case(name: "chunk size signed", bytes: chunked + "+5\r\nhello\r\n", outcome: .failure(.malformedChunk)),
        Case(name: "chunk size huge", bytes: chunked + "FFFFFFFFFFFFFFFF\r\n", outcome: .failure(.malformedChunk)),
        Case(name: "chunk longer than said", bytes: chunked + "2\r\nhello\r\n", outcome: .failure(.malformedChunk)),
        Case(
            name: "head too large", bytes: head + String(repeating: "a", count: 16_384), closes: false,
            outcome: .failure(.headTooLarge)),
        Case(
            name: "chunk line too long", bytes: chunked + "1;" + String(repeating: "a", count: 16_384), closes: false,
            outcome: .failure(.headTooLarge)),
        Case(
            name: "trailer too long", bytes: chunked + "0\r\n" + String(repeating: "a: b\r\n", count: 3000),
            closes: false, outcome: .failure(.headTooLarge)),
    ]

    @Test(arguments: cases)
    func readsInOnePiece(testCase: Case) {
        #expect(Self.outcome(of: [Array(testCase.bytes.utf8)], closes: testCase.closes) == testCase.outcome)
    }

    /// Two pieces, cut anywhere, and single bytes come to the same.
    @Test(arguments: cases.filter { $0.bytes.utf8.count < 200 })
    func readsAnySplit(testCase: Case) {
        let bytes = Array(testCase.bytes.utf8)
        for split in 0...bytes.count {
            let parts = [Array(bytes[..<split]), Array(bytes[split...])]
            #expect(Self.outcome(of: parts, closes: testCase.closes) == testCase.outcome, "cut at \(split)")
        }
        #expect(Self.outcome(of: bytes.map { [$0] }, closes: testCase.closes) == testCase.outcome)
    }

    @Test func randomBytesNeverEndInAResponse() {
        var generator = SplitMix64(state: 9112)
        for _ in 0..<2000 {
            let length = Int.random(in: 0...64, using: &generator)
            let noise = (0..<length).map { _ in UInt8.random(in: 0...255, using: &generator) }
            if case .response = Self.outcome(of: [noise], closes: true) { Issue.record("noise was read: \(noise)") }
            // Behind a good head, anything must come to an end all the same.
            _ = Self.outcome(of: [Array(Self.chunked.utf8), noise], closes: true)
        }
    }

    static func outcome(of parts: [[UInt8]], closes: Bool) -> Outcome {
        var parser = HTTPResponseParser()
        var status = 0
        var body: [UInt8] = []
        var parts = parts[...]
        var isClosed = false
        while true {
            switch parser.next() {
            case .needMore:
                if let part = parts.popFirst() {
                    parser.receive(part)
                } else if closes && !isClosed {
                    isClosed = true
                    parser.receiveEnd()
                } else {
                    return .waiting
                }
            case .head(let code): status = code
            case .body(let part): body += part
            case .end: return .response(status, String(decoding: body, as: UTF8.self))
            case .fail(let failure): return .failure(failure)
            }
        }
    }
}

/// Steele, Lea and Flood 2014: the same noise on every run.
private struct SplitMix64: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var z = self.state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
