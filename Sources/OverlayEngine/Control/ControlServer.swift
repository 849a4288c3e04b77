internal import ControlAPI
internal import Foundation
internal import Logging
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix

/// The daemon's local API: HTTP/JSON on a Unix socket. Reading is for everybody, changing for root and the operators' groups.
final class ControlServer: Sendable {
    private let channel: any Channel
    private let path: String

    /// Binds the socket. A socket that a dead daemon left is taken over, a live one's is not.
    ///
    /// - Throws: ``ControlServerError``.
    static func start(
        at path: String, service: any ControlService, group: any EventLoopGroup, logger: Logger
    ) async throws -> ControlServer {
        if FileManager.default.fileExists(atPath: path) {
            if (try? await ClientBootstrap(group: group).connect(unixDomainSocketPath: path).get())
                .map({ $0.close(promise: nil) }) != nil
            {
                throw ControlServerError.inUse(path)
            }
            try? FileManager.default.removeItem(atPath: path)
        }
        do {
            try FileManager.default.createDirectory(
                atPath: (path as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
            let channel = try await ServerBootstrap(group: group)
                .serverChannelOption(.backlog, value: 64)
                .childChannelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.configureHTTPServerPipeline(withErrorHandling: true)
                        try channel.pipeline.syncOperations.addHandler(ControlHandler(service: service, logger: logger))
                    }
                }
                .bind(unixDomainSocketPath: path).get()
            chmod(path, 0o666)
            return ControlServer(channel: channel, path: path)
        } catch {
            throw ControlServerError.cannotBind(path, reason: String(describing: error))
        }
    }

    private init(channel: any Channel, path: String) {
        self.channel = channel
        self.path = path
    }

    /// Ends the server and removes the socket.
    func stop() async {
        try? await self.channel.close().get()
        try? FileManager.default.removeItem(atPath: self.path)
    }
}

/// Why the local API cannot be offered.
enum ControlServerError: OperatorError {
    /// Another daemon answers there.
    case inUse(String)
    /// The socket could not be made.
    case cannotBind(String, reason: String)

    var exitStatus: ExitStatus { .failed }

    var description: String {
        switch self {
        case .inUse(let path): "another daemon answers at \(path): stop it, or give this one its own --socket"
        case .cannotBind(let path, let reason):
            "cannot listen on \(path) (\(reason)): check the directory, or name another with --socket"
        }
    }
}

/// What the local API offers.
protocol ControlService: Sendable {
    /// Whether this user may change things.
    func mayChange(user: UInt32) async -> Bool
    func status() async -> StatusReport
    func peers() async -> PeerList
    func routes() async -> RouteList
    func add(_ request: RouteRequest) async throws -> Done
    func delete(_ request: RouteRequest) async throws -> Done
    func setNetwork(_ name: String, up: Bool) async throws -> Done
    func reload() async throws -> ReloadReport
    func ping(_ request: PingRequest, answer: @Sendable (PingReply) async -> Bool) async throws
    func perf(_ request: PerfRequest, answer: @Sendable (PerfReply) async -> Bool) async throws
}

/// A request that cannot be fulfilled, as the client is told.
struct ControlRefusal: Error {
    var status: HTTPResponseStatus
    var body: ErrorBody

    init(_ status: HTTPResponseStatus, _ error: String, fix: String = "") {
        self.status = status
        self.body = ErrorBody(error: error, fix: fix)
    }
}

/// One connection to the socket: one request after the other.
private final class ControlHandler: ChannelInboundHandler, @unchecked Sendable {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let service: any ControlService
    private let logger: Logger
    private var head: HTTPRequestHead?
    private var body = ByteBuffer()
    private var task: Task<Void, Never>?

    init(service: any ControlService, logger: Logger) {
        self.service = service
        self.logger = logger
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch self.unwrapInboundIn(data) {
        case .head(let head):
            self.head = head
            self.body = ByteBuffer()
        case .body(var part):
            guard self.body.readableBytes + part.readableBytes <= Endpoint.maximumRequestBytes else {
                return context.close(promise: nil)
            }
            self.body.writeBuffer(&part)
        case .end:
            guard let head = self.head else { return context.close(promise: nil) }
            let channel = context.channel
            let body = Array(self.body.readableBytesView)
            self.task = Task { await self.answer(head, body, on: channel) }
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        self.task?.cancel()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        context.close(promise: nil)
    }

    private func answer(_ head: HTTPRequestHead, _ body: [UInt8], on channel: any Channel) async {
        do {
            let endpoint: Endpoint
            do {
                endpoint = try Endpoint(method: head.method.rawValue, target: head.uri)
            } catch .noSuchPath {
                throw ControlRefusal(.notFound, "no such path: \(OperatorText.quoted(head.uri))")
            } catch .methodNotAllowed(let allowed) {
                throw ControlRefusal(.methodNotAllowed, "this path takes \(allowed.joined(separator: ", "))")
            }
            if endpoint.isChange { try await self.authorise(channel) }
            switch endpoint {
            case .ping:
                let request: PingRequest = try self.decode(body)
                return try await self.stream(on: channel) { try await self.service.ping(request, answer: $0) }
            case .perf:
                let request: PerfRequest = try self.decode(body)
                return try await self.stream(on: channel) { try await self.service.perf(request, answer: $0) }
            default: break
            }
            let reply = try await self.perform(endpoint, body)
            try await self.send(.ok, reply, on: channel)
        } catch let refusal as ControlRefusal {
            try? await self.send(refusal.status, (try? ControlJSON.encode(refusal.body)) ?? [], on: channel)
        } catch {
            let text = (error as? any OperatorError)?.description ?? String(describing: error)
            let status: HTTPResponseStatus =
                (error as? any OperatorError)?.exitStatus == .usage ? .unprocessableEntity : .internalServerError
            try? await self.send(
                status, (try? ControlJSON.encode(ErrorBody(error: text, fix: ""))) ?? [], on: channel)
        }
    }

    private func perform(_ endpoint: Endpoint, _ body: [UInt8]) async throws -> [UInt8] {
        switch endpoint {
        case .status: try ControlJSON.encode(await self.service.status())
        case .peers: try ControlJSON.encode(await self.service.peers())
        case .routes: try ControlJSON.encode(await self.service.routes())
        case .addRoute: try ControlJSON.encode(try await self.service.add(try self.decode(body)))
        case .deleteRoute: try ControlJSON.encode(try await self.service.delete(try self.decode(body)))
        case .networkUp(let name): try ControlJSON.encode(try await self.service.setNetwork(name, up: true))
        case .networkDown(let name): try ControlJSON.encode(try await self.service.setNetwork(name, up: false))
        case .reload: try ControlJSON.encode(try await self.service.reload())
        case .version: try ControlJSON.encode(VersionReport())
        case .ping, .perf: []
        }
    }

    /// One line for each reply, as it comes.
    private func stream<Reply: Encodable & Sendable>(
        on channel: any Channel, _ body: (@Sendable (Reply) async -> Bool) async throws -> Void
    ) async throws {
        let hasBegun = BeganFlag()
        try await body { reply in
            guard channel.isActive, let json = try? ControlJSON.encode(reply) else { return false }
            if await hasBegun.begin() {
                let head = HTTPResponseHead(
                    version: .http1_1, status: .ok,
                    headers: ["Content-Type": "application/x-ndjson", "Connection": "close"])
                try? await channel.writeAndFlush(HTTPServerResponsePart.head(head)).get()
            }
            var line = ByteBuffer(bytes: json)
            line.writeInteger(UInt8(ascii: "\n"))
            do {
                try await channel.writeAndFlush(HTTPServerResponsePart.body(.byteBuffer(line))).get()
                return true
            } catch {
                return false
            }
        }
        try? await channel.writeAndFlush(HTTPServerResponsePart.end(nil)).get()
        try? await channel.close().get()
    }

    private func send(_ status: HTTPResponseStatus, _ json: [UInt8], on channel: any Channel) async throws {
        let head = HTTPResponseHead(
            version: .http1_1, status: status,
            headers: [
                "Content-Type": "application/json", "Content-Length": String(json.count), "Connection": "close",
            ])
        channel.write(HTTPServerResponsePart.head(head), promise: nil)
        channel.write(HTTPServerResponsePart.body(.byteBuffer(ByteBuffer(bytes: json))), promise: nil)
        try await channel.writeAndFlush(HTTPServerResponsePart.end(nil)).get()
        try await channel.close().get()
    }

    private func decode<Value: Decodable>(_ body: [UInt8]) throws -> Value {
        do {
            return try ControlJSON.decode(Value.self, from: body)
        } catch {
            throw ControlRefusal(.badRequest, "the body is not what this path takes")
        }
    }

    /// Who is at the other end is known to the kernel.
    private func authorise(_ channel: any Channel) async throws {
        let credentials: PeerCredentials? = try? await (channel as? any SocketOptionProvider)?
            .unsafeGetSocketOption(level: SocketOptionLevel(SOL_SOCKET), name: SocketOptionName(SO_PEERCRED)).get()
        if let user = credentials?.user, await self.service.mayChange(user: user) { return }
        throw ControlRefusal(
            .forbidden, "changing things is for root and the operators' groups",
            fix: "run this as root, or join one of the groups that 'operators' in the configuration names")
    }
}

/// Lets the first caller through.
private actor BeganFlag {
    private var hasBegun = false

    func begin() -> Bool {
        defer { self.hasBegun = true }
        return !self.hasBegun
    }
}

/// The kernel's `struct ucred`, which Glibc's module does not show.
private struct PeerCredentials: Sendable {
    var process: Int32 = 0
    var user: UInt32 = 0
    var group: UInt32 = 0
}
