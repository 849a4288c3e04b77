internal import LibP2PCore
public import Multiformats

/// A proxy that TCP connections leave the network through, and where it is not used.
///
/// Loopback is reached without it, unless ``includesLoopback`` says otherwise.
public struct Proxy: Hashable, Sendable, CustomStringConvertible {
    /// How the proxy is asked for a connection.
    public enum Kind: String, Hashable, Sendable {
        /// HTTP's CONNECT (RFC 9110 § 9.3.6).
        case http
        /// SOCKS version 5 (RFC 1928).
        case socks5
    }

    /// What proves to the proxy who asks: Basic authentication (RFC 7617), or SOCKS5's own (RFC 1929).
    public struct Credentials: Hashable, Sendable {
        /// 1 to 255 bytes, without a colon.
        public var user: String
        /// At most 255 bytes.
        public var password: String

        /// Makes credentials.
        public init(user: String, password: String) {
            self.user = user
            self.password = password
        }
    }

    /// How it is asked.
    public var kind: Kind
    /// Its name or IP address.
    public var host: String
    /// Its port.
    public var port: UInt16
    /// What it is told of us, if it asks.
    public var credentials: Credentials?
    /// Destinations that are reached without it.
    public var exceptions: [ProxyException]
    /// Whether it is used for destinations on this machine, too.
    public var includesLoopback: Bool

    /// Makes a proxy.
    public init(
        kind: Kind, host: String, port: UInt16, credentials: Credentials? = nil, exceptions: [ProxyException] = [],
        includesLoopback: Bool = false
    ) {
        self.kind = kind
        self.host = host
        self.port = port
        self.credentials = credentials
        self.exceptions = exceptions
        self.includesLoopback = includesLoopback
    }

    /// Parses `http://user:password@host:port`, `socks5://…` or `socks5h://…`. Without a port it is 80 or 1080; without a scheme it is
    /// `http`. User and password may be percent-encoded.
    ///
    /// - Throws: ``ProxyError``, which never shows the password.
    public init(_ url: String, exceptions: [ProxyException] = []) throws(ProxyError) {
        guard url.utf8.count <= Self.maximumURLBytes, url.utf8.allSatisfy({ (0x21...0x7e).contains($0) }) else {
            throw .invalidURL
        }
        var rest = url[...]
        var kind = Kind.http
        if let separator = rest.firstRange(of: "://") {
            let scheme = rest[..<separator.lowerBound].lowercased()
            switch scheme {
            case "http": kind = .http
            // Names are always left to the proxy to resolve, where an address has one.
            case "socks5", "socks5h": kind = .socks5
            default: throw .unsupportedScheme(scheme)
            }
            rest = rest[separator.upperBound...]
        }
        if rest.hasSuffix("/") { rest = rest.dropLast() }
        var credentials: Credentials?
        if let at = rest.lastIndex(of: "@") {
            credentials = try Self.parseCredentials(rest[..<at])
            rest = rest[rest.index(after: at)...]
        }
        guard !rest.contains(where: { "/?#@".contains($0) }) else { throw .invalidURL }
        guard let (host, port) = HostAndPort.split(rest) else { throw .invalidHost(String(rest)) }
        guard !host.isEmpty, HostAndPort.isHost(host) else { throw .invalidHost(host) }
        self.init(
            kind: kind, host: host, port: port ?? (kind == .http ? 80 : 1080), credentials: credentials,
            exceptions: exceptions)
        guard self.port != 0 else { throw .invalidHost(String(rest)) }
    }

    /// The proxy that the environment names: `https_proxy` or else `all_proxy`, in lower or upper case, except for what `no_proxy` lists.
    /// `nil` where neither is set, or to nothing.
    public static func fromEnvironment(_ environment: [String: String]) throws(ProxyError) -> Proxy? {
        func value(_ name: String) -> String? {
            let values = [environment[name], environment[name.uppercased()]].compactMap { $0 }
            return values.first { !$0.isEmpty }
        }
        guard let url = value("https_proxy") ?? value("all_proxy") else { return nil }
        return try Proxy(url, exceptions: try ProxyException.list(value("no_proxy") ?? ""))
    }

    /// Whether connections to this destination go through the proxy.
    /// - Parameter name: The destination's name, where it is known.
    public func isUsed(for ip: IPAddress, port: UInt16, name: String? = nil) -> Bool {
        if ip.isLoopback, !self.includesLoopback { return false }
        return !self.exceptions.contains { $0.matches(ip, port: port, name: name?.lowercased()) }
    }

    /// The URL, without the password.
    public var description: String {
        let user = self.credentials.map { "\($0.user)@" } ?? ""
        return "\(self.kind.rawValue)://\(user)\(self.endpoint)"
    }

    /// `host:port`.
    var endpoint: String { HostAndPort.join(self.host, self.port) }

    private static let maximumURLBytes = 2048

    private static func parseCredentials(_ text: Substring) throws(ProxyError) -> Credentials {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        guard let user = parts.first.flatMap(self.percentDecoded), (1...255).contains(user.utf8.count),
            !user.contains(":"), let password = parts.count > 1 ? self.percentDecoded(parts[1]) : "",
            password.utf8.count <= 255
        else { throw .invalidCredentials }
        return Credentials(user: user, password: password)
    }

    private static func percentDecoded(_ text: Substring) -> String? {
        var bytes: [UInt8] = []
        var rest = text.utf8
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard let high = rest.popFirst().flatMap(Self.hexValue), let low = rest.popFirst().flatMap(Self.hexValue)
            else { return nil }
            bytes.append(high << 4 | low)
        }
        return String(validating: bytes, as: UTF8.self)
    }

    private static func hexValue(_ digit: UInt8) -> UInt8? {
        Character(Unicode.Scalar(digit)).hexDigitValue.map { UInt8(truncatingIfNeeded: $0) }
    }
}

/// A destination that is reached without a proxy.
public enum ProxyException: Hashable, Sendable {
    /// Every destination.
    case everything
    /// Addresses in a prefix; on one port, where that is given.
    case addresses(IPPrefix, port: UInt16?)
    /// A name, in lower case, and all below it; on one port, where that is given.
    case name(String, port: UInt16?)

    /// Parses a list as in `NO_PROXY`: names, addresses and prefixes, separated by commas or blanks, each with or without `:port`; `*` is
    /// everything.
    public static func list(_ text: String) throws(ProxyError) -> [ProxyException] {
        guard text.utf8.count <= 65_536 else { throw .invalidException(String(text.prefix(40))) }
        var exceptions: [ProxyException] = []
        for item in text.split(whereSeparator: { ", \t".contains($0) }) { exceptions.append(try Self.parse(item)) }
        return exceptions
    }

    private static func parse(_ item: Substring) throws(ProxyError) -> ProxyException {
        if item == "*" { return .everything }
        if let slash = item.lastIndex(of: "/") {
            // Bits beyond the length are common in such lists, and mean nothing.
            guard let address = IPAddress(String(item[..<slash])), let length = Int(item[item.index(after: slash)...]),
                let prefix = IPPrefix(address, length: length)
            else { throw .invalidException(String(item)) }
            return .addresses(prefix, port: nil)
        }
        guard let (host, port) = HostAndPort.split(item) else { throw .invalidException(String(item)) }
        if let address = IPAddress(host) { return .addresses(IPPrefix(host: address), port: port) }
        var name = host.lowercased()[...]
        if name.hasPrefix("*.") { name = name.dropFirst() }
        if name.hasPrefix(".") { name = name.dropFirst() }
        guard !name.isEmpty, HostAndPort.isHost(String(name)) else { throw .invalidException(String(item)) }
        return .name(String(name), port: port)
    }

    func matches(_ ip: IPAddress, port: UInt16, name: String?) -> Bool {
        switch self {
        case .everything: true
        case .addresses(let prefix, let only): prefix.contains(ip) && (only == nil || only == port)
        case .name(let below, let only):
            name.map { $0 == below || $0.hasSuffix("." + below) } ?? false && (only == nil || only == port)
        }
    }
}

/// Why a proxy cannot be used.
public enum ProxyError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The text is not `scheme://[user[:password]@]host[:port]`.
    case invalidURL
    /// Only `http`, `socks5` and `socks5h` are known.
    case unsupportedScheme(String)
    /// Not a host and a port.
    case invalidHost(String)
    /// User or password are empty, too long, or wrongly encoded.
    case invalidCredentials
    /// Not a name, an address or a prefix.
    case invalidException(String)
    /// The proxy itself cannot be reached.
    case unreachable(proxy: String, reason: String)
    /// The proxy wants credentials, or others.
    case authenticationFailed
    /// An HTTP proxy refuses.
    case refused(status: Int, reason: String)
    /// A SOCKS proxy refuses, with a code of RFC 1928 § 6.
    case refusedBySOCKS(code: UInt8)
    /// What the proxy says is not of its protocol.
    case malformedReply
    /// The proxy ended the connection instead of an answer.
    case cutOff

    /// For people.
    public var description: String {
        switch self {
        case .invalidURL: "a proxy is given as http://host:port or socks5://host:port"
        case .unsupportedScheme(let scheme): "proxies of the scheme \(scheme) are not supported"
        case .invalidHost(let host): "\(host) is no host and port of a proxy"
        case .invalidCredentials: "user or password of the proxy cannot be used"
        case .invalidException(let text): "\(text) is no destination that a proxy can be left out for"
        case .unreachable(let proxy, let reason): "the proxy \(proxy) cannot be reached: \(reason)"
        case .authenticationFailed: "the proxy wants credentials, or others"
        case .refused(let status, let reason): "the proxy refuses: \(status) \(reason)"
        case .refusedBySOCKS(let code): "the proxy refuses: \(Self.meaning(ofSOCKS: code))"
        case .malformedReply: "the proxy does not speak the protocol it should"
        case .cutOff: "the proxy ended the connection"
        }
    }

    private static func meaning(ofSOCKS code: UInt8) -> String {
        switch code {
        case 1: "general failure"
        case 2: "not allowed"
        case 3: "network unreachable"
        case 4: "host unreachable"
        case 5: "connection refused"
        case 6: "time to live expired"
        case 7: "it makes no connections"
        case 8: "this kind of address is not supported"
        default: "code \(code)"
        }
    }
}

/// Hosts and ports as URLs write them.
enum HostAndPort {
    /// Takes `host`, `host:port`, `[ip6]:port`, `[ip6]` or `ip6` apart; `nil` when the port is none.
    static func split(_ text: Substring) -> (host: String, port: UInt16?)? {
        if text.hasPrefix("[") {
            guard let end = text.firstIndex(of: "]"),
                let ip = IPAddress(String(text[text.index(after: text.startIndex)..<end])), ip.family == .ipv6
            else { return nil }
            let behind = text[text.index(after: end)...]
            if behind.isEmpty { return (ip.description, nil) }
            guard behind.hasPrefix(":"), let port = self.port(behind.dropFirst()) else { return nil }
            return (ip.description, port)
        }
        guard let colon = text.firstIndex(of: ":") else { return (String(text), nil) }
        if let ip = IPAddress(String(text)) { return (ip.description, nil) }
        guard let port = self.port(text[text.index(after: colon)...]) else { return nil }
        return (String(text[..<colon]), port)
    }

    /// `host:port`, with an IPv6 address in brackets.
    static func join(_ host: String, _ port: UInt16) -> String {
        host.utf8.contains(UInt8(ascii: ":")) ? "[\(host)]:\(port)" : "\(host):\(port)"
    }

    /// Whether it is an address, or could be a name.
    static func isHost(_ text: String) -> Bool {
        if IPAddress(text) != nil { return true }
        return (1...253).contains(text.utf8.count)
            && text.utf8.allSatisfy {
                switch $0 {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"):
                    true
                default: false
                }
            }
    }

    private static func port(_ text: Substring) -> UInt16? {
        guard (1...5).contains(text.utf8.count), text.utf8.allSatisfy({ (48...57).contains($0) }) else { return nil }
        return UInt16(text)
    }
}
