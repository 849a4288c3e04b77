/// The daemon's local HTTP API, version 1: JSON over the Unix socket.
///
/// | method | path | request body | reply | who |
/// |---|---|---|---|---|
/// | GET | `/v1/status` | – | ``StatusReport`` | all |
/// | GET | `/v1/peers` | – | ``PeerList`` | all |
/// | POST | `/v1/ping` | ``PingRequest`` | one ``PingReply`` per line, as they happen | all |
/// | POST | `/v1/perf` | ``PerfRequest`` | one ``PerfReply`` per line, as they happen | operators |
/// | GET | `/v1/routes` | – | ``RouteList`` | all |
/// | POST | `/v1/routes` | ``RouteRequest`` | ``Done`` | operators |
/// | DELETE | `/v1/routes` | ``RouteRequest`` | ``Done`` | operators |
/// | POST | `/v1/networks/<name>/up` | – | ``Done`` | operators |
/// | POST | `/v1/networks/<name>/down` | – | ``Done`` | operators |
/// | POST | `/v1/reload` | – | ``ReloadReport`` | operators |
/// | GET | `/v1/version` | – | ``VersionReport`` | all |
///
/// Every refusal is a status of 400 or more with an ``ErrorBody``: 400 a body that does not parse, 403 not an
/// operator, 404 no such path, network, peer or route, 405 another method, 409 a conflict with what is there, 413 a body
/// beyond ``maximumRequestBytes``, 422 a configuration that does not hold (the client's exit code is then 2), 500 anything else.
///
/// The stream of ping or perf replies ends with its last reply: chunked, or by closing the connection.
package enum Endpoint: Hashable, Sendable {
    case status
    case peers
    case ping
    case perf
    case routes
    case addRoute
    case deleteRoute
    case networkUp(String)
    case networkDown(String)
    case reload
    case version

    /// The largest request body a server takes, in bytes.
    package static let maximumRequestBytes = 65_536

    /// The HTTP method.
    package var method: String {
        switch self {
        case .status, .peers, .routes, .version: "GET"
        case .ping, .perf, .addRoute, .networkUp, .networkDown, .reload: "POST"
        case .deleteRoute: "DELETE"
        }
    }

    /// The path. A network name is percent-encoded, so that no name can change the request line.
    package var path: String {
        switch self {
        case .status: "/v1/status"
        case .peers: "/v1/peers"
        case .ping: "/v1/ping"
        case .perf: "/v1/perf"
        case .routes, .addRoute, .deleteRoute: "/v1/routes"
        case .networkUp(let name): "/v1/networks/\(Self.percentEncoded(name))/up"
        case .networkDown(let name): "/v1/networks/\(Self.percentEncoded(name))/down"
        case .reload: "/v1/reload"
        case .version: "/v1/version"
        }
    }

    /// Whether it changes something, or takes all that a line carries: only root and the operator groups may call it.
    package var isChange: Bool {
        switch self {
        case .status, .peers, .ping, .routes, .version: false
        case .perf, .addRoute, .deleteRoute, .networkUp, .networkDown, .reload: true
        }
    }

    /// Why a request names no endpoint.
    package enum LookupError: Error, Equatable {
        /// No endpoint has this path. Answer 404.
        case noSuchPath
        /// The path exists under other methods. Answer 405.
        case methodNotAllowed(allowed: [String])
    }

    /// The endpoint of a request line. `target` is matched byte for byte; a query string makes it unknown.
    package init(method: String, target: String) throws(LookupError) {
        let candidates = Self.endpoints(at: target)
        guard !candidates.isEmpty else { throw .noSuchPath }
        guard let endpoint = candidates.first(where: { $0.method == method }) else {
            throw .methodNotAllowed(allowed: candidates.map(\.method))
        }
        self = endpoint
    }

    private static func endpoints(at target: String) -> [Endpoint] {
        let fixed: [Endpoint] = [.status, .peers, .ping, .perf, .routes, .addRoute, .deleteRoute, .reload, .version]
        let matches = fixed.filter { $0.path == target }
        guard matches.isEmpty else { return matches }
        let parts = target.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 5, parts[0].isEmpty, parts[1] == "v1", parts[2] == "networks", isLabel(parts[3]) else {
            return []
        }
        switch parts[4] {
        case "up": return [.networkUp(parts[3])]
        case "down": return [.networkDown(parts[3])]
        default: return []
        }
    }

    /// Whether `name` may name a machine or a network: a lower-case DNS label of 1…63 letters, digits and inner hyphens.
    package static func isLabel(_ name: String) -> Bool {
        let bytes = name.utf8
        func isWord(_ byte: UInt8) -> Bool {
            (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
                || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
        }
        guard (1...63).contains(bytes.count), let first = bytes.first, let last = bytes.last else { return false }
        return isWord(first) && isWord(last) && bytes.allSatisfy { isWord($0) || $0 == UInt8(ascii: "-") }
    }

    private static func percentEncoded(_ name: String) -> String {
        name.utf8.map { byte in
            isLabel(String(UnicodeScalar(byte))) || byte == UInt8(ascii: "-")
                ? String(UnicodeScalar(byte)) : "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
        }.joined()
    }
}
