import Testing

@testable import ControlAPI

@Suite struct EndpointTests {
    static let all: [(Endpoint, String, String)] = [
        (.status, "GET", "/v1/status"), (.peers, "GET", "/v1/peers"), (.ping, "POST", "/v1/ping"),
        (.perf, "POST", "/v1/perf"), (.routes, "GET", "/v1/routes"), (.addRoute, "POST", "/v1/routes"),
        (.deleteRoute, "DELETE", "/v1/routes"),
        (.networkUp("home"), "POST", "/v1/networks/home/up"), (.networkDown("a-1"), "POST", "/v1/networks/a-1/down"),
        (.reload, "POST", "/v1/reload"), (.version, "GET", "/v1/version"),
    ]

    @Test(arguments: all)
    func methodAndPathLeadBack(endpoint: Endpoint, method: String, path: String) throws {
        #expect(endpoint.method == method)
        #expect(endpoint.path == path)
        #expect(try Endpoint(method: method, target: path) == endpoint)
        #expect(endpoint.isChange == (method != "GET" && endpoint != .ping))
    }

    @Test(arguments: [
        "", "/", "/v1", "/v1/", "/v1/status/", "/v1/status?x", "/v2/status", "//v1/status", "/v1/networks/home",
        "/v1/networks//up", "/v1/networks/a/b/up", "/v1/networks/A/up", "/v1/networks/%61/up", "/v1/networks/-a/up",
        "/v1/networks/home/sideways", "/v1/networks/home/up/",
    ])
    func otherPathsAreUnknown(target: String) {
        for method in ["GET", "POST", "DELETE"] {
            #expect(throws: Endpoint.LookupError.noSuchPath) { try Endpoint(method: method, target: target) }
        }
    }

    @Test(arguments: [
        ("PUT", "/v1/routes", ["GET", "POST", "DELETE"]), ("get", "/v1/status", ["GET"]),
        ("GET", "/v1/networks/home/up", ["POST"]), ("", "/v1/ping", ["POST"]),
    ])
    func otherMethodsAreNamed(method: String, target: String, allowed: [String]) {
        #expect(throws: Endpoint.LookupError.methodNotAllowed(allowed: allowed)) {
            try Endpoint(method: method, target: target)
        }
    }

    @Test func aNetworkNameCannotChangeTheRequest() {
        #expect(
            Endpoint.networkUp("a b\r\nX: y/../é").path == "/v1/networks/a%20b%0D%0A%58%3A%20y%2F%2E%2E%2F%C3%A9/up")
    }

    @Test func labels() {
        for good in ["a", "0", "a-b", String(repeating: "x", count: 63)] { #expect(Endpoint.isLabel(good)) }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "é", "a\0", String(repeating: "x", count: 64)] {
            #expect(!Endpoint.isLabel(bad))
        }
    }
}

@Suite struct PeerSelectionTests {
    static let candidates: [PeerSelection.Candidate] = [
        .init(id: "12D3KooWAAx1", name: "anna"), .init(id: "12D3KooWAAy2", name: "ann"),
        .init(id: "12D3KooWBBz3", name: "bob"), .init(id: "12D3KooWBBz3", name: "bob-at-work"),
    ]

    @Test(arguments: [
        ("ann", "12D3KooWAAy2"), ("anna", "12D3KooWAAx1"), ("b", "12D3KooWBBz3"), ("12D3KooWAAy2", "12D3KooWAAy2"),
        ("12D3KooWAAx", "12D3KooWAAx1"), ("bob", "12D3KooWBBz3"),
    ])
    func findsTheOneMeant(text: String, id: String) throws {
        #expect(try PeerSelection.resolve(text, among: Self.candidates).id == id)
    }

    @Test func refusesWhatFitsNoneOrSeveral() {
        for text in ["", "c", "Ann", "12D3KooWBBz3x"] {
            #expect(throws: PeerSelection.SelectionError.unknownPeer(text)) {
                try PeerSelection.resolve(text, among: Self.candidates)
            }
        }
        #expect(
            throws: PeerSelection.SelectionError.ambiguousPeer(
                "12D3KooWAA", candidates: ["ann (12D3KooWAAy2)", "anna (12D3KooWAAx1)"])
        ) { try PeerSelection.resolve("12D3KooWAA", among: Self.candidates) }
    }

    @Test func whatComesFromElsewhereStaysOnOneLine() {
        #expect(OperatorText.singleLine("a\r\nb\u{1b}[31m\u{202e}c\u{2028}d") == "a  b [31m c d")
        #expect(OperatorText.singleLine(String(repeating: "x", count: 9), limit: 3) == "xxx…")
        #expect(
            PeerSelection.SelectionError.unknownPeer("x\ny").description == "no peer 'x y': 'warren peers' lists them")
    }
}
