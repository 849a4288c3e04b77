import Multiformats
import NIOCore
import Testing

@testable import LibP2PConnection

@Suite struct ProxyOpeningTests {
    static let ipv4 = ProxyTarget(ip: IPAddress(ipv4: 0xc000_0207), port: 4117)
    static let ipv6 = ProxyTarget(ip: IPAddress(ipv6High: 0x2001_0db8_0000_0000, low: 1), port: 443)
    static let named = ProxyTarget(ip: IPAddress(ipv4: 0xc000_0207), port: 443, name: "a.example")
    static let credentials = Proxy.Credentials(user: "Aladdin", password: "open sesame")
    static let early = Array("\u{13}/multistream/1.0.0\n".utf8)

    /// Every way to cut `bytes` in two, and into single bytes.
    static func cuts(_ bytes: [UInt8]) -> [[[UInt8]]] {
        [bytes.map { [$0] }] + (0...bytes.count).map { [Array(bytes[..<$0]), Array(bytes[$0...])] }
    }

    // MARK: HTTP

    static let requests: [(ProxyTarget, Proxy.Credentials?, String)] = [
        (ipv4, nil, "CONNECT 192.0.2.7:4117 HTTP/1.1\r\nHost: 192.0.2.7:4117\r\n\r\n"),
        (ipv6, nil, "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n"),
        (
            named, credentials,
            "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n"
                // RFC 7617 § 2.
                + "Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"
        ),
    ]

    @Test(arguments: requests.indices) func asksAnHTTPProxy(index: Int) throws {
        let (target, credentials, text) = Self.requests[index]
        let request = HTTPConnectOpening(target, credentials).start()
        #expect(request == ByteBuffer(string: text))
    }

    static let answers: [(String, Ending<HTTPConnectOpening>)] = [
        ("HTTP/1.1 200 Connection established\r\n\r\n", .done(Opened(), leftover: early)),
        ("HTTP/1.0 200 OK\r\nProxy-Agent: x\r\nContent-Length: 5\r\n\r\n", .done(Opened(), leftover: early)),
        ("HTTP/1.1 204\r\n\r\n", .done(Opened(), leftover: early)),
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", .failed(.authenticationFailed)),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", .failed(.refused(status: 403, reason: "Forbidden"))),
        ("HTTP/1.1 101 Switching\r\n\r\n", .failed(.refused(status: 101, reason: "Switching"))),
        ("SSH-2.0-x\r\n\r\n", .failed(.malformedReply)),
        ("HTTP/1.1 200 OK\r\nbad line\r\n\r\n", .failed(.malformedReply)),
        ("HTTP/1.1 200 OK\r\n" + String(repeating: "a", count: 9_000), .failed(.malformedReply)),
        ("HTTP/1.1 200 OK\r\n", .open),
    ]

    @Test(arguments: answers.indices) func understandsAnHTTPProxy(index: Int) {
        let (text, ending) = Self.answers[index]
        var bytes = Array(text.utf8)
        if case .done = ending { bytes += Self.early }
        for pieces in bytes.count < 1_000 ? Self.cuts(bytes) : [[bytes], bytes.map { [$0] }] {
            #expect(Ending.of(HTTPConnectOpening(Self.ipv4, nil), pieces).ending == ending)
        }
    }

    // MARK: SOCKS

    static let ipv4Request: [UInt8] = [5, 1, 0, 1, 192, 0, 2, 7, 0x10, 0x15]
    static let ipv6Request: [UInt8] = [5, 1, 0, 4, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0xbb]
    static let nameRequest: [UInt8] = [5, 1, 0, 3, 9] + Array("a.example".utf8) + [1, 0xbb]
    static let login: [UInt8] = [1, 7] + Array("Aladdin".utf8) + [11] + Array("open sesame".utf8)
    static let ok: [UInt8] = [5, 0, 0, 1, 10, 0, 0, 1, 0x04, 0x38]

    /// What a proxy says and what it has been told by then.
    static let conversations:
        [(
            target: ProxyTarget, credentials: Proxy.Credentials?, says: [UInt8], ending: Ending<SOCKS5Opening>,
            said: [UInt8]
        )] = [
            (ipv4, nil, [5, 0] + ok, .done(Opened(), leftover: early), [5, 1, 0] + ipv4Request),
            (ipv6, nil, [5, 0] + ok, .done(Opened(), leftover: early), [5, 1, 0] + ipv6Request),
            (named, nil, [5, 0] + ok, .done(Opened(), leftover: early), [5, 1, 0] + nameRequest),
            (
                ipv4, nil, [5, 0, 5, 0, 0, 4] + [UInt8](repeating: 7, count: 18), .done(Opened(), leftover: early),
                [5, 1, 0] + ipv4Request
            ),
            (
                ipv4, nil, [5, 0, 5, 0, 0, 3, 3] + [UInt8](repeating: 7, count: 5), .done(Opened(), leftover: early),
                [5, 1, 0] + ipv4Request
            ),
            (ipv4, nil, [5, 0, 5, 0, 0, 3, 0, 1, 2], .done(Opened(), leftover: early), [5, 1, 0] + ipv4Request),
            (
                ipv4, credentials, [5, 2, 1, 0] + ok, .done(Opened(), leftover: early),
                [5, 2, 0, 2] + login + ipv4Request
            ),
            (ipv4, credentials, [5, 0] + ok, .done(Opened(), leftover: early), [5, 2, 0, 2] + ipv4Request),
            (ipv4, credentials, [5, 2, 1, 1], .failed(.authenticationFailed), [5, 2, 0, 2] + login),
            (ipv4, credentials, [5, 2, 5, 0], .failed(.malformedReply), [5, 2, 0, 2] + login),
            (ipv4, nil, [5, 0xff], .failed(.authenticationFailed), [5, 1, 0]),
            (ipv4, nil, [5, 2], .failed(.malformedReply), [5, 1, 0]),
            (ipv4, credentials, [5, 1], .failed(.malformedReply), [5, 2, 0, 2]),
            (ipv4, nil, [4], .failed(.malformedReply), [5, 1, 0]),
            (ipv4, nil, Array("HTTP/1.1 400".utf8), .failed(.malformedReply), [5, 1, 0]),
            (ipv4, nil, [5, 0, 5, 5], .failed(.refusedBySOCKS(code: 5)), [5, 1, 0] + ipv4Request),
            (ipv4, nil, [5, 0, 5, 200], .failed(.refusedBySOCKS(code: 200)), [5, 1, 0] + ipv4Request),
            (ipv4, nil, [5, 0, 4], .failed(.malformedReply), [5, 1, 0] + ipv4Request),
            (ipv4, nil, [5, 0, 5, 0, 0, 2], .failed(.malformedReply), [5, 1, 0] + ipv4Request),
            (ipv4, nil, [5, 0] + ok.dropLast(), .open, [5, 1, 0] + ipv4Request),
        ]

    @Test(arguments: conversations.indices) func talksToASOCKSProxy(index: Int) {
        let row = Self.conversations[index]
        var bytes = row.says
        if case .done = row.ending { bytes += Self.early }
        for pieces in Self.cuts(bytes) {
            let (ending, said) = Ending.of(SOCKS5Opening(row.target, row.credentials), pieces)
            #expect(ending == row.ending && said == row.said)
        }
    }

    @Test func everyRefusalHasWords() {
        for code in UInt8.min ... .max { #expect(!ProxyError.refusedBySOCKS(code: code).description.isEmpty) }
        #expect(ProxyError.refusedBySOCKS(code: 5).description == "the proxy refuses: connection refused")
    }
}
