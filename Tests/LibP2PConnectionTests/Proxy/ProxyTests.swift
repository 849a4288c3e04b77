import Multiformats
import Testing

@testable import LibP2PConnection

@Suite struct ProxyTests {
    static let urls: [(String, Proxy, shown: String)] = [
        (
            "http://proxy.example:3128", Proxy(kind: .http, host: "proxy.example", port: 3128),
            "http://proxy.example:3128"
        ),
        ("http://proxy.example", Proxy(kind: .http, host: "proxy.example", port: 80), "http://proxy.example:80"),
        ("http://192.0.2.1:8080/", Proxy(kind: .http, host: "192.0.2.1", port: 8080), "http://192.0.2.1:8080"),
        ("proxy:3128", Proxy(kind: .http, host: "proxy", port: 3128), "http://proxy:3128"),
        ("HTTP://proxy", Proxy(kind: .http, host: "proxy", port: 80), "http://proxy:80"),
        (
            "socks5://[2001:db8::1]", Proxy(kind: .socks5, host: "2001:db8::1", port: 1080),
            "socks5://[2001:db8::1]:1080"
        ),
        ("socks5h://proxy:1", Proxy(kind: .socks5, host: "proxy", port: 1), "socks5://proxy:1"),
        (
            "http://me:secret@proxy:3128",
            Proxy(kind: .http, host: "proxy", port: 3128, credentials: .init(user: "me", password: "secret")),
            "http://me@proxy:3128"
        ),
        (
            "socks5://m%65:%40%3A%2f@proxy",
            Proxy(kind: .socks5, host: "proxy", port: 1080, credentials: .init(user: "me", password: "@:/")),
            "socks5://me@proxy:1080"
        ),
        (
            "http://me@proxy:1",
            Proxy(kind: .http, host: "proxy", port: 1, credentials: .init(user: "me", password: "")),
            "http://me@proxy:1"
        ),
    ]

    @Test(arguments: urls.indices) func parses(index: Int) throws {
        let (url, proxy, shown) = Self.urls[index]
        #expect(try Proxy(url) == proxy)
        #expect(proxy.description == shown)
    }

    static let noURLs: [(String, ProxyError)] = [
        ("", .invalidHost("")), ("http://", .invalidHost("")), ("https://proxy:443", .unsupportedScheme("https")),
        ("socks4://proxy", .unsupportedScheme("socks4")), ("ftp://proxy", .unsupportedScheme("ftp")),
        ("http://proxy:port", .invalidHost("proxy:port")), ("http://proxy:65536", .invalidHost("proxy:65536")),
        ("http://proxy:0", .invalidHost("proxy:0")), ("http://proxy:+1", .invalidHost("proxy:+1")),
        ("http://[::1", .invalidHost("[::1")), ("http://[192.0.2.1]:1", .invalidHost("[192.0.2.1]:1")),
        ("http://pro xy", .invalidURL), ("http://proxy/path", .invalidURL), ("http://proxy?query", .invalidURL),
        ("http://proxy\r\nHost: x", .invalidURL), ("http://prö", .invalidURL),
        ("http://pr!xy", .invalidHost("pr!xy")),
        ("http://:secret@proxy", .invalidCredentials), ("http://a%3ab:secret@proxy", .invalidCredentials),
        ("http://me:%zz@proxy", .invalidCredentials), ("http://me:%4@proxy", .invalidCredentials),
        ("http://me:%ff@proxy", .invalidCredentials),
        ("http://me:\(String(repeating: "a", count: 256))@proxy", .invalidCredentials),
        ("http://\(String(repeating: "a", count: 3_000))", .invalidURL),
    ]

    @Test(arguments: noURLs) func refuses(url: String, error: ProxyError) {
        #expect(throws: error) { try Proxy(url) }
        #expect(!error.description.contains("secret"))
    }

    // MARK: Exceptions

    static let destinations: [(exceptions: String, ip: String, port: UInt16, name: String?, isUsed: Bool)] = [
        ("", "192.0.2.1", 1, nil, true),
        ("", "127.0.0.1", 1, nil, false), ("", "::1", 1, nil, false), ("", "::ffff:127.0.0.1", 1, nil, false),
        ("*", "192.0.2.1", 1, nil, false),
        ("192.0.2.1", "192.0.2.1", 1, nil, false), ("192.0.2.1", "192.0.2.2", 1, nil, true),
        ("192.0.2.1:5", "192.0.2.1", 5, nil, false), ("192.0.2.1:5", "192.0.2.1", 6, nil, true),
        ("10.1.2.3/8", "10.9.9.9", 1, nil, false), ("10.0.0.0/8", "11.0.0.1", 1, nil, true),
        ("2001:db8::/32", "2001:db8::7", 1, nil, false), ("2001:db8::7", "2001:db8::7", 1, nil, false),
        ("[2001:db8::7]:5", "2001:db8::7", 5, nil, false), ("[2001:db8::7]:5", "2001:db8::7", 6, nil, true),
        ("a.example", "192.0.2.1", 1, "a.example", false), ("a.example", "192.0.2.1", 1, "b.A.Example", false),
        ("a.example", "192.0.2.1", 1, "ba.example", true), ("a.example", "192.0.2.1", 1, nil, true),
        (".a.example", "192.0.2.1", 1, "b.a.example", false), ("*.a.example", "192.0.2.1", 1, "b.a.example", false),
        ("a.example:5", "192.0.2.1", 5, "a.example", false), ("a.example:5", "192.0.2.1", 6, "a.example", true),
        ("localhost, b.example\t198.51.100.0/24,,", "198.51.100.9", 1, nil, false),
    ]

    @Test(arguments: destinations.indices) func knowsWhatItIsFor(index: Int) throws {
        let row = Self.destinations[index]
        let proxy = try Proxy("http://proxy", exceptions: try ProxyException.list(row.exceptions))
        let ip = try #require(IPAddress(row.ip))
        #expect(proxy.isUsed(for: ip, port: row.port, name: row.name) == row.isUsed)
    }

    @Test func loopbackCanBeAskedFor() throws {
        var proxy = try Proxy("http://proxy")
        proxy.includesLoopback = true
        #expect(proxy.isUsed(for: try #require(IPAddress("127.0.0.1")), port: 1))
    }

    @Test(arguments: ["10.0.0.0/33", "10.0.0/8", "a.example/8", "a.example:x", "[::1", "a!b", "."])
    func refusesExceptions(text: String) {
        #expect(throws: ProxyError.invalidException(text)) { try ProxyException.list("ok.example,\(text)") }
    }

    // MARK: The environment

    static let environments: [([String: String], String?)] = [
        ([:], nil), (["HTTPS_PROXY": "", "all_proxy": ""], nil), (["HTTP_PROXY": "http://a"], nil),
        (["HTTPS_PROXY": "http://a"], "http://a:80"), (["https_proxy": "http://b"], "http://b:80"),
        (["HTTPS_PROXY": "http://a", "https_proxy": "http://b"], "http://b:80"),
        (["HTTPS_PROXY": "http://a", "https_proxy": ""], "http://a:80"),
        (["ALL_PROXY": "socks5://c"], "socks5://c:1080"),
        (["all_proxy": "socks5://c", "HTTPS_PROXY": "http://a"], "http://a:80"),
    ]

    @Test(arguments: environments) func readsTheEnvironment(environment: [String: String], shown: String?) throws {
        #expect(try Proxy.fromEnvironment(environment)?.description == shown)
    }

    @Test(arguments: ["no_proxy", "NO_PROXY"]) func readsTheExceptionsToo(name: String) throws {
        let proxy = try #require(try Proxy.fromEnvironment(["ALL_PROXY": "http://a", name: "10.0.0.0/8,b.example"]))
        #expect(
            proxy.exceptions == [
                .addresses(try #require(IPPrefix("10.0.0.0/8")), port: nil), .name("b.example", port: nil),
            ])
        #expect(throws: ProxyError.invalidException("a!")) {
            try Proxy.fromEnvironment(["ALL_PROXY": "http://a", name: "a!"])
        }
        #expect(throws: ProxyError.unsupportedScheme("https")) {
            try Proxy.fromEnvironment(["ALL_PROXY": "https://a"])
        }
    }
}
