internal import CLinux
internal import CNgtcp2
internal import LibP2PCore
internal import NIOCore
internal import NIOPosix
internal import PeerIdentity

#if canImport(Glibc)
    internal import Glibc
#endif

/// One UDP socket and all connections on it, inbound and outbound.
///
/// The event loop's channel owns the descriptor, says when there is something to read, and reads the first message of a burst. What else
/// is there is read in one call for many messages, and everything is sent, through the descriptor itself: the channel can neither
/// choose the address that a datagram leaves from nor survive every error of sending, and allocates for each message.
///
/// Everything but `bound` belongs to the event loop.
final class QUICSocket: ChannelInboundHandler, @unchecked Sendable {
    typealias InboundIn = AddressedEnvelope<ByteBuffer>

    let eventLoop: any EventLoop
    /// Where it is bound, with the real port.
    let bound: UDPAddress
    let options: QUICOptions
    let localPeer: PeerID
    let secrets: StatelessSecrets
    let credentials: TLSCredentials

    /// Who takes inbound connections. `nil`: nobody.
    var accept: (@Sendable (any Connection) -> Void)?
    /// Called once, when the socket is gone.
    var onClose: (() -> Void)?

    private let descriptor: CInt
    private var channel: (any Channel)?
    private var isClosed = false
    /// How long after the last connection the socket closes; `nil` while it is listened on.
    private var closesWhenUnused: TimeAmount?
    private var unusedTimer: Scheduled<Void>?
    private var hasSegmentation: Bool

    // Connections.
    private var routes: [ConnectionKey: QUICSession] = [:]
    /// Most messages belong to the connection that the one before belonged to.
    private var lastRoute: (key: ConnectionKey, session: QUICSession)?
    private var touched: [QUICSession] = []
    var handshakes = PendingHandshakes()
    var stateless = StatelessReplies()

    // Buffers, used again and again.
    private static let messageBytes = 65_536
    private static let messageCount = 8
    private let slab: UnsafeMutableRawBufferPointer
    private let messages: UnsafeMutableBufferPointer<clinux_udp_message>
    /// A packet's or a whole batch's bytes; whoever fills it sends it at once.
    let sendBuffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 65_000, alignment: 64)

    // Sending.
    /// The kernel takes no more for now.
    private(set) var isBlocked = false
    private var backlog: [Backlog] = []
    private var waiting: [QUICSession] = []
    /// Why the kernel refused a packet last; for those who ask.
    private(set) var lastSendError: CInt = 0

    private struct Backlog {
        var bytes: [UInt8]
        var local: UDPAddress
        var remote: UDPAddress
        var ecn: UInt8
        var segment: Int
    }

    private init(
        eventLoop: any EventLoop, made: clinux_udp_socket, options: QUICOptions, localPeer: PeerID,
        secrets: StatelessSecrets, credentials: TLSCredentials
    ) {
        self.eventLoop = eventLoop
        self.descriptor = made.fd
        self.bound = made.bound
        self.hasSegmentation = made.has_gso
        self.options = options
        self.localPeer = localPeer
        self.secrets = secrets
        self.credentials = credentials
        self.slab = .allocate(byteCount: Self.messageBytes * Self.messageCount, alignment: 64)
        self.messages = .allocate(capacity: Self.messageCount)
        self.messages.initialize(repeating: clinux_udp_message())
        for index in self.messages.indices {
            self.messages[index].buffer = self.slab.baseAddress.map { $0 + index * Self.messageBytes }
            self.messages[index].capacity = UInt32(Self.messageBytes)
        }
    }

    deinit {
        self.slab.deallocate()
        self.messages.deallocate()
        self.sendBuffer.deallocate()
    }

    /// Binds a socket. Taken by another, it fails with ``TransportError/portBusy``.
    static func bind(
        to address: UDPAddress, on eventLoop: any EventLoop, options: QUICOptions, localPeer: PeerID,
        secrets: StatelessSecrets, credentials: TLSCredentials
    ) -> EventLoopFuture<QUICSocket> {
        var (address, made) = (address, clinux_udp_socket())
        let result = clinux_udp_open(&address, options.mark, options.socketBufferBytes, &made)
        guard result == 0 else {
            return eventLoop.makeFailedFuture(
                -result == EADDRINUSE ? TransportError.portBusy : QUICError.system(call: "bind", errno: -result))
        }
        let socket = QUICSocket(
            eventLoop: eventLoop, made: made, options: options, localPeer: localPeer, secrets: secrets,
            credentials: credentials)
        return DatagramBootstrap(group: eventLoop)
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: Self.messageBytes))
            .channelOption(.maxMessagesPerRead, value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(socket) }
            }
            .withBoundSocket(made.fd)
            .flatMap { channel in
                // What the channel's own reads are to tell; the descriptor has all of it switched on already.
                channel.setOption(.explicitCongestionNotification, value: true)
                    .flatMap { channel.setOption(.receivePacketInfo, value: true) }
                    .flatMap { channel.setOption(.datagramReceiveSegmentSize, value: true) }
                    .map { socket }
            }
    }

    func close() -> EventLoopFuture<Void> {
        self.channel?.close() ?? self.eventLoop.makeSucceededVoidFuture()
    }

    var isOpen: Bool { !self.isClosed }

    // MARK: ChannelInboundHandler

    func handlerAdded(context: ChannelHandlerContext) {
        self.channel = context.channel
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let envelope = self.unwrapInboundIn(data)
        guard let remote = UDPAddress(envelope.remoteAddress) else { return }
        var message = clinux_udp_message()
        message.remote = remote
        if let info = envelope.metadata?.packetInfo, let local = UDPAddress(info.destinationAddress) {
            message.local = local
        }
        message.segment = UInt16(clamping: envelope.metadata?.segmentSize ?? 0)
        message.ecn = envelope.metadata?.ecnState.bits ?? 0
        message.length = UInt32(clamping: envelope.data.readableBytes)
        envelope.data.withUnsafeReadableBytes { bytes in
            message.buffer = UnsafeMutableRawPointer(mutating: bytes.baseAddress)
            self.take(&message)
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        self.drain()
        let touched = self.touched
        self.touched.removeAll(keepingCapacity: true)
        for session in touched {
            session.isInBurst = false
            session.settle()
        }
        self.lastRoute = nil
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // One refused packet says nothing of the others.
    }

    func channelInactive(context: ChannelHandlerContext) {
        self.isClosed = true
        self.channel = nil
        for session in self.sessions { session.end(.silently(QUICError.socketClosed)) }
        self.routes = [:]
        self.lastRoute = nil
        self.waiting = []
        self.backlog = []
        self.onClose.take()?()
    }

    // MARK: Input

    /// One round: if there is more, others on this loop want their turn, too.
    private func drain() {
        guard !self.isClosed else { return }
        let count = clinux_udp_receive(self.descriptor, self.messages.baseAddress, UInt32(Self.messageCount))
        guard count > 0 else { return }
        for index in 0..<Int(count) { self.take(&self.messages[index]) }
    }

    /// Takes a message apart into the datagrams it was joined from.
    private func take(_ message: inout clinux_udp_message) {
        guard message.length > 0, let buffer = message.buffer else { return }
        if message.local.length == 0 { message.local = self.bound }
        message.local.port = self.bound.port
        let bytes = UnsafeRawBufferPointer(start: buffer, count: Int(message.length))
        let segment = message.segment == 0 ? bytes.count : Int(message.segment)
        let now = QUICClock.now()
        let ecn = message.ecn
        var (local, remote) = (message.local, message.remote)
        withUnsafeMutablePointer(to: &local) { local in
            withUnsafeMutablePointer(to: &remote) { remote in
                var path = ngtcp2_path(local: local.libraryAddress, remote: remote.libraryAddress, user_data: nil)
                var offset = 0
                while offset < bytes.count {
                    let end = min(offset + segment, bytes.count)
                    self.take(
                        UnsafeRawBufferPointer(rebasing: bytes[offset..<end]), path: &path, local: local.pointee,
                        remote: remote.pointee, ecn: ecn, left: bytes.count - offset, now: now)
                    offset = end
                }
            }
        }
    }

    private func take(
        _ packet: UnsafeRawBufferPointer, path: UnsafePointer<ngtcp2_path>, local: UDPAddress, remote: UDPAddress,
        ecn: UInt8, left: Int, now: UInt64
    ) {
        guard let first = packet.first else { return }
        guard first & 0x80 == 0 else {
            return self.takeLong(packet, path: path, local: local, remote: remote, ecn: ecn, left: left, now: now)
        }
        guard packet.count > Self.ownIDLength,
            let key = ConnectionKey(UnsafeRawBufferPointer(rebasing: packet[1...Self.ownIDLength]))
        else { return }
        if let session = self.session(for: key) {
            self.hand(packet, to: session, path: path, ecn: ecn, left: left, now: now)
        } else {
            self.replyWithReset(to: packet, local: local, remote: remote, now: now)
        }
    }

    private func takeLong(
        _ packet: UnsafeRawBufferPointer, path: UnsafePointer<ngtcp2_path>, local: UDPAddress, remote: UDPAddress,
        ecn: UInt8, left: Int, now: UInt64
    ) {
        var header = ngtcp2_version_cid()
        let result = ngtcp2_pkt_decode_version_cid(
            &header, packet.baseAddress?.assumingMemoryBound(to: UInt8.self), packet.count, Self.ownIDLength)
        switch result {
        case 0:
            guard let key = ConnectionKey(UnsafeRawBufferPointer(start: header.dcid, count: header.dcidlen)) else {
                return
            }
            if self.session(for: key) == nil {
                self.begin(packet, local: local, remote: remote, now: now)
            }
            guard let session = self.session(for: key) else { return }
            self.hand(packet, to: session, path: path, ecn: ecn, left: left, now: now)
        case NGTCP2_ERR_VERSION_NEGOTIATION:
            self.replyWithVersions(to: packet, header, local: local, remote: remote, now: now)
        default:
            break
        }
    }

    private func session(for key: ConnectionKey) -> QUICSession? {
        if let last = self.lastRoute, last.key == key { return last.session }
        guard let session = self.routes[key] else { return nil }
        self.lastRoute = (key, session)
        return session
    }

    private func hand(
        _ packet: UnsafeRawBufferPointer, to session: QUICSession, path: UnsafePointer<ngtcp2_path>, ecn: UInt8,
        left: Int, now: UInt64
    ) {
        if !session.isInBurst {
            session.isInBurst = true
            self.touched.append(session)
        }
        session.expectedBytes = left
        session.receive(packet, path: path, ecn: ecn, now: now)
    }

    // MARK: Connection IDs

    /// All IDs that we choose have this length: short headers do not say.
    static let ownIDLength = 8

    static func randomConnectionID(length: Int) -> ngtcp2_cid {
        var id = ngtcp2_cid()
        id.datalen = min(length, Int(NGTCP2_MAX_CIDLEN))
        var generator = SystemRandomNumberGenerator()
        withUnsafeMutableBytes(of: &id.data) { bytes in
            for index in bytes.indices where index < length { bytes[index] = generator.next() }
        }
        return id
    }

    func newConnectionID() -> ngtcp2_cid {
        while true {
            let id = Self.randomConnectionID(length: Self.ownIDLength)
            if self.routes[ConnectionKey(id)] == nil { return id }
        }
    }

    func register(_ id: ngtcp2_cid, for session: QUICSession) {
        let key = ConnectionKey(id)
        self.routes[key] = session
        session.routes.insert(key)
    }

    /// The library wants one more for a connection.
    func issue(
        _ id: UnsafeMutablePointer<ngtcp2_cid>, token: UnsafeMutablePointer<UInt8>, length: Int,
        for session: QUICSession
    ) -> Bool {
        guard length == Self.ownIDLength else { return false }
        id.pointee = self.newConnectionID()
        self.secrets.writeResetToken(
            for: id.pointee,
            into: UnsafeMutableRawBufferPointer(start: token, count: Int(NGTCP2_STATELESS_RESET_TOKENLEN)))
        self.register(id.pointee, for: session)
        return true
    }

    func retire(_ id: ngtcp2_cid, of session: QUICSession) {
        let key = ConnectionKey(id)
        guard session.routes.remove(key) != nil else { return }
        self.routes[key] = nil
        if self.lastRoute?.key == key { self.lastRoute = nil }
    }

    /// The session is over, and nobody sends to it any more.
    func forget(_ session: QUICSession) {
        for key in session.routes where self.routes[key] === session { self.routes[key] = nil }
        session.routes = []
        self.lastRoute = nil
        if self.routes.isEmpty { self.closeIfUnused() }
    }

    // MARK: The end

    /// No inbound connection from now on. The port is free as soon as no connection is left.
    func stopAccepting() -> EventLoopFuture<Void> {
        self.accept = nil
        for session in self.sessions where session.isPending { session.close(.shutdown) }
        self.closesWhenUnused = .zero
        self.closeIfUnused()
        return self.eventLoop.makeSucceededVoidFuture()
    }

    /// For a socket that nobody listens on.
    func closeWhenUnused(after time: TimeAmount, _ onClose: @escaping () -> Void) {
        self.closesWhenUnused = time
        self.onClose = onClose
        self.closeIfUnused()
    }

    private func closeIfUnused() {
        guard let time = self.closesWhenUnused, !self.isClosed, self.routes.isEmpty else { return }
        guard time > .zero else {
            self.channel?.close(promise: nil)
            return
        }
        self.unusedTimer?.cancel()
        self.unusedTimer = self.eventLoop.scheduleTask(in: time) { [weak self] in
            guard let self, self.routes.isEmpty else { return }
            self.channel?.close(promise: nil)
        }
    }

    private var sessions: [QUICSession] {
        var seen = Set<ObjectIdentifier>()
        return self.routes.values.filter { seen.insert(ObjectIdentifier($0)).inserted }
    }

    /// See ``QUICTransport/localAddressesChanged()``.
    func migrateAll() {
        for session in self.sessions { _ = session.migrate() }
    }

    // MARK: Output

    /// Sends datagrams of `segment` bytes each, the last may be shorter; one when `segment` is 0. What the network refuses is lost, as
    /// it could be further on.
    func send(_ bytes: UnsafeRawBufferPointer, local: UDPAddress, remote: UDPAddress, ecn: UInt8, segment: Int) {
        guard !self.isClosed else { return }
        guard self.backlog.isEmpty else {
            return self.keep(bytes, local: local, remote: remote, ecn: ecn, segment: segment)
        }
        let isSegmented = segment > 0 && bytes.count > segment
        if isSegmented, !self.hasSegmentation {
            return self.sendSingly(bytes, local: local, remote: remote, ecn: ecn, segment: segment)
        }
        switch self.system(bytes, local, remote, ecn, segment) {
        case 0:
            break
        case EAGAIN, ENOBUFS:
            self.keep(bytes, local: local, remote: remote, ecn: ecn, segment: segment)
        case EIO where isSegmented, EINVAL where isSegmented, EMSGSIZE where isSegmented:
            // A device without checksum offload cannot segment (EIO); a smaller MTU refuses the first segment, not all.
            self.sendSingly(bytes, local: local, remote: remote, ecn: ecn, segment: segment)
        case let error:
            self.lastSendError = error
        }
    }

    private func system(
        _ bytes: UnsafeRawBufferPointer, _ local: UDPAddress, _ remote: UDPAddress, _ ecn: UInt8, _ segment: Int
    ) -> CInt {
        var (local, remote) = (local, remote)
        return -clinux_udp_send(
            self.descriptor, &local, &remote, ecn, bytes.baseAddress, bytes.count, UInt16(clamping: segment))
    }

    private func sendSingly(
        _ bytes: UnsafeRawBufferPointer, local: UDPAddress, remote: UDPAddress, ecn: UInt8, segment: Int
    ) {
        var offset = 0
        while offset < bytes.count {
            let end = min(offset + segment, bytes.count)
            self.send(
                UnsafeRawBufferPointer(rebasing: bytes[offset..<end]), local: local, remote: remote, ecn: ecn,
                segment: 0)
            offset = end
        }
    }

    /// One batch may wait for the kernel; whoever would send more is told when it has gone.
    private func keep(_ bytes: UnsafeRawBufferPointer, local: UDPAddress, remote: UDPAddress, ecn: UInt8, segment: Int)
    {
        guard self.backlog.count < 64 else { return }
        self.backlog.append(
            Backlog(bytes: [UInt8](bytes), local: local, remote: remote, ecn: ecn, segment: segment))
        guard !self.isBlocked else { return }
        self.isBlocked = true
        self.retryLater()
    }

    private func retryLater() {
        self.eventLoop.scheduleTask(in: .milliseconds(1)) { [weak self] in self?.retry() }
    }

    private func retry() {
        guard self.isBlocked, !self.isClosed else { return }
        while let next = self.backlog.first {
            let error = next.bytes.withUnsafeBytes { self.system($0, next.local, next.remote, next.ecn, next.segment) }
            if error == EAGAIN || error == ENOBUFS { return self.retryLater() }
            self.backlog.removeFirst()
        }
        self.isBlocked = false
        let waiting = self.waiting
        self.waiting = []
        for session in waiting {
            session.isWaitingForSocket = false
            session.settle()
        }
    }

    func wait(_ session: QUICSession) {
        guard !session.isWaitingForSocket else { return }
        session.isWaitingForSocket = true
        self.waiting.append(session)
    }
}

extension NIOExplicitCongestionNotificationState {
    /// As in the IP header.
    fileprivate var bits: UInt8 {
        switch self {
        case .transportNotCapable: 0
        case .transportCapableFlag1: 1
        case .transportCapableFlag0: 2
        case .congestionExperienced: 3
        }
    }
}
