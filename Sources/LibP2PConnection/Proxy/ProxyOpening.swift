internal import Multiformats
internal import NIOCore

/// Where a proxy is to connect to.
struct ProxyTarget: Hashable, Sendable {
    var ip: IPAddress
    var port: UInt16
    /// Given to the proxy instead of the address: its rules may be about names.
    var name: String?

    /// `host:port` (RFC 9112 § 3.2.3).
    var authority: String { HostAndPort.join(self.name ?? self.ip.description, self.port) }
}

/// Asks an HTTP proxy for a tunnel. Pure.
///
/// Spec: RFC 9110 § 9.3.6.
struct HTTPConnectOpening: OpeningMachine {
    private let target: ProxyTarget
    private let credentials: Proxy.Credentials?
    private var head = HTTPHeadReader()

    init(_ target: ProxyTarget, _ credentials: Proxy.Credentials?) {
        self.target = target
        self.credentials = credentials
    }

    func start() -> ByteBuffer? {
        var request = "CONNECT \(self.target.authority) HTTP/1.1\r\nHost: \(self.target.authority)\r\n"
        if let credentials = self.credentials {
            let text = Multibase.base64Pad.encodeWithoutPrefix(
                Array("\(credentials.user):\(credentials.password)".utf8))
            request += "Proxy-Authorization: Basic \(text)\r\n"
        }
        return ByteBuffer(string: request + "\r\n")
    }

    mutating func receive(_ bytes: ByteBuffer) -> OpeningAction<Opened, ProxyError> {
        let (head, leftover): (HTTPHead, ByteBuffer)
        do throws(HTTPHeadError) {
            guard let read = try self.head.receive(bytes) else { return .wait }
            (head, leftover) = read
        } catch {
            return .fail(.malformedReply, reply: nil)
        }
        guard let status = head.status else { return .fail(.malformedReply, reply: nil) }
        switch status.code {
        // Fields of such an answer that speak of a body mean nothing.
        case 200...299: return .done(Opened(), reply: nil, leftover: leftover)
        case 407: return .fail(.authenticationFailed, reply: nil)
        default: return .fail(.refused(status: status.code, reason: status.reason), reply: nil)
        }
    }

    func cutOff() -> ProxyError { .cutOff }
}

/// Asks a SOCKS5 proxy for a connection. Pure.
///
/// 1. We list the ways to authenticate: none, and user with password where there are any; the proxy chooses.
/// 2. User and password, where chosen.
/// 3. The request, and the proxy's answer, behind which the remote's bytes begin.
///
/// Spec: RFC 1928, RFC 1929.
struct SOCKS5Opening: OpeningMachine {
    private enum State: Hashable {
        case method
        case authentication
        case reply
    }

    private static let version: UInt8 = 5
    private static let noAuthentication: UInt8 = 0
    private static let password: UInt8 = 2

    private let target: ProxyTarget
    private let credentials: Proxy.Credentials?
    private var state = State.method
    private var received = ByteBuffer()

    init(_ target: ProxyTarget, _ credentials: Proxy.Credentials?) {
        self.target = target
        self.credentials = credentials
    }

    func start() -> ByteBuffer? {
        let methods = [Self.noAuthentication] + (self.credentials == nil ? [] : [Self.password])
        return ByteBuffer(bytes: [Self.version, UInt8(methods.count)] + methods)
    }

    mutating func receive(_ bytes: ByteBuffer) -> OpeningAction<Opened, ProxyError> {
        self.received.writeImmutableBuffer(bytes)
        var sent = ByteBuffer()
        func wait() -> OpeningAction<Opened, ProxyError> { sent.readableBytes > 0 ? .send(sent) : .wait }
        func fail(_ error: ProxyError) -> OpeningAction<Opened, ProxyError> {
            .fail(error, reply: sent.readableBytes > 0 ? sent : nil)
        }
        while true {
            var rest = self.received
            guard let version = rest.readInteger(as: UInt8.self) else { return wait() }
            guard version == (self.state == .authentication ? 1 : Self.version) else { return fail(.malformedReply) }
            guard let code = rest.readInteger(as: UInt8.self) else { return wait() }
            switch self.state {
            case .method:
                switch code {
                case Self.noAuthentication:
                    self.state = .reply
                    sent.writeBytes(self.request)
                case Self.password:
                    guard let credentials = self.credentials else { return fail(.malformedReply) }
                    self.state = .authentication
                    sent.writeBytes(Self.login(credentials))
                case 0xff:
                    return fail(.authenticationFailed)
                default:
                    return fail(.malformedReply)
                }
            case .authentication:
                guard code == 0 else { return fail(.authenticationFailed) }
                self.state = .reply
                sent.writeBytes(self.request)
            case .reply:
                guard code == 0 else { return fail(.refusedBySOCKS(code: code)) }
                // A reserved byte, then the address that the proxy connects from, which is nobody's business.
                guard let type = rest.readMultipleIntegers(as: (UInt8, UInt8).self)?.1 else { return wait() }
                let length: Int
                switch type {
                case 1: length = 4
                case 3:
                    guard let count = rest.readInteger(as: UInt8.self) else { return wait() }
                    length = Int(count)
                case 4: length = 16
                default: return fail(.malformedReply)
                }
                guard rest.readSlice(length: length + 2) != nil else { return wait() }
                return .done(Opened(), reply: sent.readableBytes > 0 ? sent : nil, leftover: rest)
            }
            self.received = rest
        }
    }

    func cutOff() -> ProxyError { .cutOff }

    private static func login(_ credentials: Proxy.Credentials) -> [UInt8] {
        let (user, password) = (credentials.user.utf8.prefix(255), credentials.password.utf8.prefix(255))
        return [1, UInt8(user.count)] + user + [UInt8(password.count)] + password
    }

    /// CONNECT to an IPv4 address (1), a name (3) or an IPv6 address (4).
    private var request: [UInt8] {
        let address: [UInt8]
        if let name = self.target.name?.utf8.prefix(255) {
            address = [3, UInt8(name.count)] + name
        } else {
            address = [self.target.ip.family == .ipv4 ? 1 : 4] + self.target.ip.bytes
        }
        return [Self.version, 1, 0] + address + [UInt8(self.target.port >> 8), UInt8(self.target.port & 0xff)]
    }
}
