internal import NIOCore

/// What a listening port is for. Several share one, as the first bytes of whoever connects tell them apart.
enum PortService: Hashable, Sendable, CaseIterable {
    /// libp2p as it is: multistream-select, or the noise of a private network.
    case plain
    /// A WebSocket: HTTP.
    case webSocket
    /// A WebSocket within TLS.
    case secureWebSocket
}

/// Tells from the first bytes of a connection which of a port's services it is for. Pure.
///
/// `GET ` begins a WebSocket, a TLS record with a ClientHello a WebSocket within TLS. Everything else is plain: that begins with the length
/// of multistream-select's first message (0x13), in a private network with random bytes. No more bytes are waited for than it takes.
struct PortServiceReader: OpeningMachine {
    private static let get: [UInt8?] = Array("GET ".utf8)
    /// A handshake record of version 3.x whose length is anything, with a ClientHello in it.
    private static let clientHello: [UInt8?] = [0x16, 0x03, nil, nil, nil, 0x01]

    private let served: Set<PortService>
    private var received = ByteBuffer()

    /// - Parameter served: What the port is for.
    init(served: Set<PortService>) {
        self.served = served
    }

    func start() -> ByteBuffer? { nil }

    mutating func receive(_ bytes: ByteBuffer) -> OpeningAction<PortService, PortServiceError> {
        self.received.writeImmutableBuffer(bytes)
        let first = self.received.readableBytesView
        let service: PortService
        switch (Self.match(first, Self.get), Self.match(first, Self.clientHello)) {
        case (.full, _): service = .webSocket
        case (_, .full): service = .secureWebSocket
        case (.partial, _), (_, .partial): return .wait
        case (.none, .none): service = .plain
        }
        guard self.served.contains(service) else { return .fail(.notServed(service), reply: nil) }
        return .done(service, reply: nil, leftover: self.received)
    }

    func cutOff() -> PortServiceError { .silent }

    private enum Match { case none, partial, full }

    private static func match(_ bytes: ByteBufferView, _ pattern: [UInt8?]) -> Match {
        for (byte, wanted) in zip(bytes, pattern) where wanted != nil && byte != wanted { return .none }
        return bytes.count < pattern.count ? .partial : .full
    }
}

/// Why a connection to a port is for none of its services.
enum PortServiceError: Error, Hashable {
    /// The remote wants what nobody listens for here.
    case notServed(PortService)
    /// The remote left before it had said what it wants.
    case silent
}
