package import LibP2PCore
package import LibP2PSwarm
internal import Multiformats
package import NIOCore
internal import Synchronization

/// `/dg/1`: datagrams of applications, on connections that carry any.
///
/// A flow of datagrams belongs to a control stream. On that stream `/dg/1` is negotiated, then its opener names the application's protocol,
/// length first; what follows there is the application's. Each datagram begins with the number of the control stream, and flows in both
/// directions as long as the sender's side of the stream is open.
///
/// Spec: libp2p/specs PR 680, a draft.
package final class DatagramService: Sendable {
    /// Takes a flow that the remote has opened. Called on the connection's loop; sets ``DatagramFlow/receiver`` in this call.
    package typealias Handler = @Sendable (DatagramFlow) -> Void

    /// The protocol's name.
    package static let protocolID: ProtocolID = "/dg/1"
    /// Flows on one connection, both directions together.
    package static let maximumFlows = 64
    /// Bytes of an application protocol's name.
    package static let maximumNameBytes = 256
    /// How long the remote may take to name the application's protocol.
    static let nameTimeout = TimeAmount.seconds(10)

    private struct State {
        var handlers: [ProtocolID: (admits: ProtocolRegistry.Admission?, handler: Handler)] = [:]
        var routers: [ConnectionID: DatagramRouter] = [:]
    }

    private let state = Mutex(State())

    /// Makes the service.
    package init() {}

    /// Takes control streams from now on.
    package func register(with registry: ProtocolRegistry) {
        let admits: ProtocolRegistry.Admission = { [self] peer in
            self.state.withLock { $0.handlers.values.contains { $0.admits?(peer) ?? true } }
        }
        registry.accept(Self.protocolID, from: admits) { [self] stream in
            guard let router = stream.connection.flatMap({ self.router(of: $0) }) else {
                return stream.reset(.protocolNegotiationFailed)
            }
            InboundControlStream(stream) { name, leftover in
                self.opened(stream, name, leftover, router)
            }.start()
        }
    }

    /// Accepts flows of an application's protocol from now on, from peers that `admits` lets in (all, when `nil`).
    package func accept(
        _ protocolID: ProtocolID, from admits: ProtocolRegistry.Admission? = nil, _ handler: @escaping Handler
    ) {
        self.state.withLock { $0.handlers[protocolID] = (admits, handler) }
    }

    /// Accepts them no longer.
    package func remove(_ protocolID: ProtocolID) { self.state.withLock { $0.handlers[protocolID] = nil } }

    /// Opens a flow. The application may write to the control stream at once; whether the remote takes the flow shows on that stream.
    /// Callable from any thread; completes on the connection's loop.
    package func open(_ protocolID: ProtocolID, on connection: any Connection) -> EventLoopFuture<DatagramFlow> {
        connection.eventLoop.flatSubmit {
            guard let router = self.router(of: connection) else {
                return connection.eventLoop.makeFailedFuture(DatagramServiceError.noDatagrams)
            }
            return connection.openStream([Self.protocolID]).flatMapThrowing { stream in
                guard let flow = router.add(stream, leftover: ByteBuffer()) else {
                    stream.reset(.resourceLimitExceeded)
                    throw DatagramServiceError.tooManyFlows
                }
                let name = Array(protocolID.rawValue.utf8)
                var bytes = Varint.encode(UInt64(name.count))
                bytes += name
                stream.write(ByteBuffer(bytes: bytes))
                stream.flush()
                return flow
            }
        }
    }

    private func opened(_ stream: any Stream, _ name: ProtocolID, _ leftover: ByteBuffer, _ router: DatagramRouter) {
        guard let peer = stream.connection?.remotePeer,
            let entry = self.state.withLock({ $0.handlers[name] }), entry.admits?(peer) ?? true
        else { return stream.reset(.protocolNegotiationFailed) }
        guard let flow = router.add(stream, leftover: leftover) else { return stream.reset(.resourceLimitExceeded) }
        entry.handler(flow)
        if flow.receiver == nil { flow.close(.unspecified) }
    }

    /// The router of a connection that carries datagrams; made when first needed.
    private func router(of connection: any Connection) -> DatagramRouter? {
        guard let carrier = connection as? any DatagramConnection else { return nil }
        let (router, isNew) = self.state.withLock { state in
            if let known = state.routers[connection.id] { return (known, false) }
            let router = DatagramRouter(carrier)
            state.routers[connection.id] = router
            return (router, true)
        }
        if isNew {
            carrier.datagramReceiver = router
            let id = connection.id
            connection.closeFuture.whenComplete { [weak self] _ in
                self?.state.withLock { $0.routers[id] = nil }
            }
        }
        return router
    }
}

/// Why a flow of datagrams cannot be opened.
package enum DatagramServiceError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The connection carries none.
    case noDatagrams
    /// ``DatagramService/maximumFlows`` are open on the connection.
    case tooManyFlows

    package var description: String {
        switch self {
        case .noDatagrams: "the connection carries no datagrams"
        case .tooManyFlows: "too many flows of datagrams on one connection"
        }
    }
}

/// Reads the name of the application's protocol from a control stream that the remote has opened.
private final class InboundControlStream: ByteStreamReceiver {
    private let stream: any Stream
    private let named: (ProtocolID, ByteBuffer) -> Void
    private var bytes = ByteBuffer()
    private var timer: Scheduled<Void>?

    init(_ stream: any Stream, named: @escaping (ProtocolID, ByteBuffer) -> Void) {
        self.stream = stream
        self.named = named
    }

    func start() {
        let stream = self.stream
        self.timer = stream.eventLoop.scheduleTask(in: DatagramService.nameTimeout) { stream.reset(.protocolViolation) }
        stream.receiver = self
        stream.setReading(true)
    }

    func received(_ bytes: ByteBuffer) {
        guard let timer = self.timer else { return }
        self.bytes.writeImmutableBuffer(bytes)
        var at = 0
        let view = Array(self.bytes.readableBytesView.prefix(DatagramService.maximumNameBytes + Varint.maximumBytes))
        let length: UInt64
        do throws(VarintError) {
            length = try Varint.decode(view, at: &at)
        } catch .truncated {
            return
        } catch {
            return self.refuse()
        }
        guard length > 0, length <= UInt64(DatagramService.maximumNameBytes) else { return self.refuse() }
        guard view.count >= at + Int(length) else { return }
        guard let name = String(validating: view[at..<at + Int(length)], as: UTF8.self) else { return self.refuse() }
        timer.cancel()
        self.timer = nil
        self.bytes.moveReaderIndex(forwardBy: at + Int(length))
        self.stream.setReading(false)
        self.named(ProtocolID(rawValue: name), self.bytes)
    }

    func receiveComplete() {}

    func writabilityChanged() {}

    func inputEnded() { self.refuse() }

    func closed(_ error: (any Error)?) { self.timer?.cancel() }

    private func refuse() {
        self.timer?.cancel()
        self.stream.reset(.protocolViolation)
    }
}
