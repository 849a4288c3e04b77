internal import CLinux
internal import CNgtcp2
internal import DequeModule
internal import LibP2PCore
internal import NIOCore
internal import PeerIdentity

/// One QUIC connection at work: drives the library, which holds the protocol's state, and carries what comes of it to the streams and
/// to whoever owns the connection.
///
/// The library's callbacks only take notes. Those above are called when the library has returned, and what they ask for goes out once
/// for each burst of input.
///
/// Everything happens on the socket's event loop, which is what makes it sendable.
final class QUICSession: @unchecked Sendable {
    /// Where it comes from and what is done with it.
    struct Request {
        var role: Role
        var local: UDPAddress
        var remote: UDPAddress
        /// Who must be there; `nil` when any peer may be.
        var expectedPeer: PeerID?
        /// What the client's first packet says; servers only.
        var initial: Initial?

        /// A client's first packet.
        struct Initial {
            var version: UInt32
            var destination: ngtcp2_cid
            var source: ngtcp2_cid
            /// Where the client has proven its address: the destination of its very first packet, before Retry.
            var original: ngtcp2_cid?
            var token: [UInt8] = []
        }
    }

    enum State {
        case handshaking
        case open
        /// Over for those above; the remote may still have to be told.
        case ended
    }

    let eventLoop: any EventLoop
    let socket: QUICSocket
    let role: Role
    let options: QUICOptions
    let local: UDPAddress
    let remote: UDPAddress
    let expectedPeer: PeerID?

    private(set) var state = State.handshaking
    /// The face that those above hold, once there is one.
    weak var connection: QUICConnection?
    /// Called once: with the proven connection or the reason why there is none.
    private var onOutcome: ((Result<QUICConnection, any Error>) -> Void)?

    // The library's.
    private(set) var library: OpaquePointer?
    private var tls: gnutls_session_t?
    private let reference = UnsafeMutablePointer<ngtcp2_crypto_conn_ref>.allocate(capacity: 1)
    private let credentials: TLSCredentials
    let output: PacketOutput

    // Notes that callbacks take.
    var remotePeer: PeerID?
    /// What went wrong where the library can only be told that something did.
    var recordedFailure: (any Error)?
    var isHandshakeDone = false
    var wasReset = false
    /// Streams that the remote has opened and nobody has been told of.
    private var opened = Deque<QUICStream>()
    /// Streams that the remote has killed, and whose other direction must go, too.
    var toShutDown: [QUICStream] = []
    /// Streams with news.
    private var noted: [QUICStream] = []

    // Streams.
    var streams: [Int64: QUICStream] = [:]
    var sendable = Deque<QUICStream>()
    /// Streams whose owners wait to write, or have just written much.
    var watched: [QUICStream] = []
    /// How much one read from the socket still holds: what a stream's next buffer may have to take.
    var expectedBytes = 0

    // Datagrams.
    var datagrams: DatagramQueue
    var arrived = DatagramBatch()
    var counters = DatagramCounters()
    weak var datagramReceiver: (any DatagramReceiver)?
    var maximumDatagramSize = 0
    /// Somebody has datagrams and was told to wait.
    var hasRefusedDatagrams = false

    // Where in a turn we are.
    var isInBurst = false
    var isWaitingForSocket = false
    /// Counted among the inbound handshakes.
    var isPending = false
    private var isSettling = false
    private var needsSettling = false
    private var timer: Scheduled<Void>?
    private var timerDeadline = UInt64.max

    // Signs of life.
    var probes = Probes()
    var lastRoundTrip: UInt64 = 0

    /// Source connection IDs that the socket sends here.
    var routes: Set<ConnectionKey> = []
    /// What the remote is told until it stops sending.
    private var farewell: [UInt8] = []
    private var farewellsLeft = 0

    init(
        _ request: Request, socket: QUICSocket, credentials: TLSCredentials,
        onOutcome: @escaping (Result<QUICConnection, any Error>) -> Void
    ) throws(QUICError) {
        self.socket = socket
        self.eventLoop = socket.eventLoop
        self.options = socket.options
        self.role = request.role
        self.local = request.local
        self.remote = request.remote
        self.expectedPeer = request.expectedPeer
        self.credentials = credentials
        self.onOutcome = onOutcome
        self.output = PacketOutput()
        self.datagrams = DatagramQueue(patience: socket.options.datagramPatience)
        self.reference.initialize(
            to: ngtcp2_crypto_conn_ref(
                get_conn: { reference in
                    guard let user = reference?.pointee.user_data else { return nil }
                    return Unmanaged<QUICSession>.fromOpaque(user).takeUnretainedValue().library
                }, user_data: Unmanaged.passUnretained(self).toOpaque()))
        let tls = try credentials.makeSession(isServer: request.role == .listener, reference: self.reference)
        self.tls = tls
        let library = try self.makeLibrary(request)
        self.library = library
        ngtcp2_conn_set_tls_native_handle(library, UnsafeMutableRawPointer(tls))
        ngtcp2_conn_set_keep_alive_timeout(library, UInt64(self.options.keepalive.nanoseconds))
    }

    deinit {
        self.freeLibrary()
        self.reference.deallocate()
    }

    private func freeLibrary() {
        if let library = self.library { ngtcp2_conn_del(library) }
        if let tls = self.tls { gnutls_deinit(tls) }
        self.library = nil
        self.tls = nil
    }

    // MARK: What comes in

    /// One UDP datagram. ``settle()`` follows at the end of the burst.
    func receive(_ packet: UnsafeRawBufferPointer, path: UnsafePointer<ngtcp2_path>, ecn: UInt8, now: UInt64) {
        guard let library = self.library else { return self.repeatFarewell() }
        var info = ngtcp2_pkt_info(ecn: UInt32(ecn))
        let result = ngtcp2_conn_read_pkt_versioned(
            library, path, NGTCP2_PKT_INFO_VERSION, &info,
            packet.baseAddress?.assumingMemoryBound(to: UInt8.self), packet.count, now)
        if result != 0 { return self.fail(result) }
        if self.probes.isWaiting { self.checkProbes(now: now) }
    }

    /// Verifies the remote's certificate, within the handshake.
    func judge(_ tls: gnutls_session_t) -> Bool {
        do {
            let peer = try self.credentials.verify(TLSCredentials.remoteChain(of: tls))
            if let expected = self.expectedPeer, peer != expected {
                self.recordedFailure =
                    peer == self.socket.localPeer
                    ? TransportError.ownAddress : TransportError.peerMismatch(expected: expected, found: peer)
                return false
            }
            self.remotePeer = peer
            return true
        } catch {
            self.recordedFailure = QUICError.badCertificate(reason: "\(error)")
            return false
        }
    }

    // MARK: One turn

    /// Does all there is to do: tells those above, then writes, then tells who may write again. A call from within only makes it go round
    /// once more; during a burst of input everything waits for the burst's end.
    func settle() {
        self.needsSettling = true
        guard !self.isSettling, !self.isInBurst else { return }
        self.isSettling = true
        while self.needsSettling {
            self.needsSettling = false
            self.deliver()
            self.pump()
            self.tellWritability()
            self.tellDatagramWritability()
        }
        self.isSettling = false
        self.armTimer()
    }

    private func deliver() {
        if self.isHandshakeDone, self.state == .handshaking { self.completeHandshake() }
        self.shutDownKilled()
        self.acceptStreams()
        while !self.noted.isEmpty {
            let noted = self.noted
            self.noted.removeAll(keepingCapacity: true)
            for stream in noted {
                stream.isNoted = false
                self.deliver(stream)
            }
        }
        self.deliverDatagrams()
    }

    private func shutDownKilled() {
        guard !self.toShutDown.isEmpty else { return }
        let killed = self.toShutDown
        self.toShutDown.removeAll()
        for stream in killed where !stream.isForgotten {
            guard let library = self.library, case .reset(let error as StreamResetError) = stream.ending else {
                continue
            }
            let result = ngtcp2_conn_shutdown_stream(library, stream.number, UInt64(error.code.rawValue))
            if result != 0 { self.fail(result) }
        }
    }

    private func completeHandshake() {
        guard let peer = self.remotePeer, let tls = self.tls, TLSCredentials.hasAgreedProtocol(tls) else {
            let failure = QUICError.badCertificate(reason: "none was shown, or another protocol was agreed on")
            return self.end(.locally(.protocolViolation, failure))
        }
        self.state = .open
        self.updateMaximumDatagramSize()
        let connection = QUICConnection(session: self, remotePeer: peer)
        self.connection = connection
        self.socket.handshakeEnded(self)
        self.onOutcome.take()?(.success(connection))
    }

    /// Streams are given out from the moment there is somebody to take them.
    private func acceptStreams() {
        guard let connection = self.connection, connection.delegate != nil else { return }
        while let stream = self.opened.popFirst() {
            guard !stream.isOver else { continue }
            connection.accept(stream)
            if stream.receiver == nil { stream.reset(.unspecified) }
        }
    }

    // MARK: Notes

    /// From within the library.
    func noteOpened(_ number: Int64) -> QUICStream {
        let stream = QUICStream(number, role: .listener, session: self)
        self.streams[number] = stream
        self.opened.append(stream)
        return stream
    }

    /// From within the library.
    func note(_ stream: QUICStream) {
        guard !stream.isNoted else { return }
        stream.isNoted = true
        self.noted.append(stream)
    }

    // MARK: Time

    private func armTimer() {
        guard let library = self.library else { return }
        let expiry = ngtcp2_conn_get_expiry(library)
        guard expiry < self.timerDeadline else { return }
        self.timer?.cancel()
        self.timerDeadline = expiry
        let deadline = NIODeadline.uptimeNanoseconds(min(expiry, UInt64(Int64.max)))
        self.timer = self.eventLoop.scheduleTask(deadline: deadline) { [weak self] in self?.timerFired() }
    }

    private func timerFired() {
        self.timerDeadline = UInt64.max
        guard let library = self.library else { return }
        let now = QUICClock.now()
        if ngtcp2_conn_get_expiry(library) <= now {
            let result = ngtcp2_conn_handle_expiry(library, now)
            if result != 0 { self.fail(result) }
        }
        self.settle()
    }

    // MARK: The end

    /// How a session ends.
    enum Ending {
        /// We say so. The error is what those above learn; `nil` after an orderly end.
        case locally(ConnectionErrorCode, (any Error)?)
        /// The library cannot go on, and the remote is told why.
        case failed(Int32, any Error)
        /// There is nobody to tell.
        case silently((any Error)?)
    }

    func close(_ code: ConnectionErrorCode) {
        let error = ConnectionClosedError(code: code, byRemote: false)
        self.end(.locally(code, code == .none && self.state == .open ? nil : error))
    }

    /// What the library returned, other than 0.
    func fail(_ result: Int32) {
        switch result {
        case NGTCP2_ERR_DRAINING: self.end(.silently(self.remoteReason()))
        case NGTCP2_ERR_CLOSING: break
        case NGTCP2_ERR_IDLE_CLOSE: self.end(.silently(QUICError.idle))
        case NGTCP2_ERR_HANDSHAKE_TIMEOUT: self.end(.failed(result, TransportError.timedOut))
        case NGTCP2_ERR_RECV_VERSION_NEGOTIATION: self.end(.silently(QUICError.noCommonVersion))
        case NGTCP2_ERR_DROP_CONN, NGTCP2_ERR_RETRY: self.end(.silently(QUICError.failed(reason: "dropped")))
        case NGTCP2_ERR_CRYPTO:
            let alert = self.library.map { ngtcp2_conn_get_tls_alert($0) } ?? 0
            self.end(.failed(result, self.recordedFailure ?? QUICError.handshakeFailed(alert: alert)))
        default:
            let reason = ngtcp2_strerror(result).map { String(cString: $0) } ?? "\(result)"
            self.end(.failed(result, self.recordedFailure ?? QUICError.failed(reason: reason)))
        }
    }

    /// Why the remote ended the connection.
    private func remoteReason() -> (any Error)? {
        if self.wasReset { return QUICError.reset }
        var reason = ngtcp2_connection_close_error()
        ngtcp2_conn_get_connection_close_error(self.library, &reason)
        if reason.type == NGTCP2_CONNECTION_CLOSE_ERROR_CODE_TYPE_APPLICATION {
            let code = ConnectionErrorCode(rawValue: UInt32(clamping: reason.error_code))
            return ConnectionClosedError(code: code, byRemote: true)
        }
        let text = String(
            decoding: UnsafeBufferPointer(start: reason.reason, count: min(reason.reasonlen, 256)), as: UTF8.self)
        return QUICError.closedByRemote(code: reason.error_code, reason: text)
    }

    func end(_ ending: Ending) {
        guard self.state != .ended else { return }
        let wasOpen = self.state == .open
        self.state = .ended
        let error: (any Error)?
        switch ending {
        case .locally(let code, let reason):
            error = reason
            self.sayFarewell { ngtcp2_connection_close_error_set_application_error(&$0, UInt64(code.rawValue), nil, 0) }
        case .failed(let result, let reason):
            error = reason
            let alert = self.library.map { ngtcp2_conn_get_tls_alert($0) } ?? 0
            self.sayFarewell {
                if result == NGTCP2_ERR_CRYPTO, alert != 0 {
                    ngtcp2_connection_close_error_set_transport_error_tls_alert(&$0, alert, nil, 0)
                } else {
                    ngtcp2_connection_close_error_set_transport_error_liberr(&$0, result, nil, 0)
                }
            }
        case .silently(let reason):
            error = reason
        }
        self.timer?.cancel()
        self.timer = nil
        self.leave(lingering: wasOpen || self.role == .dialer)
        self.socket.handshakeEnded(self)
        self.tellEnd(error, wasOpen: wasOpen)
    }

    /// The remote may go on sending for a while: until then the socket must know whose packets these are. Of strangers that came to
    /// nothing there may be many, and nothing is kept.
    private func leave(lingering: Bool) {
        let pto = self.library.map { ngtcp2_conn_get_pto($0) } ?? 0
        let time = TimeAmount.nanoseconds(Int64(min(3 * pto, 3_000_000_000)))
        self.freeLibrary()
        self.farewellsLeft = 8
        if lingering {
            self.eventLoop.scheduleTask(in: time) { self.socket.forget(self) }
        } else {
            self.socket.forget(self)
        }
    }

    private func tellEnd(_ error: (any Error)?, wasOpen: Bool) {
        let streamError = error ?? ConnectionClosedError(code: .none, byRemote: false)
        let streams = self.streams.values
        self.streams = [:]
        self.opened = []
        self.noted = []
        self.sendable = []
        for stream in streams { stream.end(streamError) }
        self.probes.fail(streamError)
        if let outcome = self.onOutcome.take() {
            outcome(.failure(error ?? ConnectionClosedError(code: .none, byRemote: false)))
        }
        self.connection?.ended(error)
    }

    private func sayFarewell(_ fill: (inout ngtcp2_connection_close_error) -> Void) {
        guard let library = self.library else { return }
        var reason = ngtcp2_connection_close_error()
        ngtcp2_connection_close_error_default(&reason)
        fill(&reason)
        let written = self.output.writeClose(library, &reason, into: self.socket.sendBuffer, now: QUICClock.now())
        guard written > 0 else { return }
        self.farewell = [UInt8](UnsafeRawBufferPointer(rebasing: self.socket.sendBuffer[..<written]))
        self.repeatFarewell(always: true)
    }

    /// Whoever still sends has not heard: it is told again, ever more rarely.
    private func repeatFarewell(always: Bool = false) {
        guard !self.farewell.isEmpty, always || self.farewellsLeft > 0 else { return }
        if !always { self.farewellsLeft -= 1 }
        self.farewell.withUnsafeBytes {
            self.socket.send($0, local: self.output.local, remote: self.output.remote, ecn: 0, segment: 0)
        }
    }
}

/// The clock of the library: nanoseconds that only go forward.
enum QUICClock {
    static func now() -> UInt64 { NIODeadline.now().uptimeNanoseconds }
}
