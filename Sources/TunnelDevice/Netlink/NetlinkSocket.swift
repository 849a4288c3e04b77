import CNetlink
import Glibc

/// A connection to the kernel's routing socket (rtnetlink): one question at a time, each answered before the next.
///
/// libnl finds, sends and receives messages; acknowledgements are read here, because libnl folds many errnos into one and
/// drops the kernel's own words about the reason (NETLINK_EXT_ACK).
///
/// Sendable because a value owns its libnl handle alone, and libnl ties a handle to no thread.
struct NetlinkSocket: ~Copyable, @unchecked Sendable {
    private let handle: OpaquePointer

    /// The most objects one dump may return. A full Internet table is larger; nothing that we keep is.
    static let maximumDumpedObjects = 65_536
    /// How often a dump is started again when tables changed while the kernel wrote it.
    static let maximumDumpAttempts = 8
    /// How long the kernel may take to answer. It answers within the system call that asks; this only keeps us from hanging.
    static let answerTimeoutSeconds = 10

    init() throws(NetlinkError) {
        self.init(handle: try Self.connect())
    }

    private init(handle: OpaquePointer) { self.handle = handle }

    private static func connect() throws(NetlinkError) -> OpaquePointer {
        guard let handle = nl_socket_alloc() else { throw .outOfMemory }
        let code = nl_connect(handle, NETLINK_ROUTE)
        if code < 0 {
            nl_socket_free(handle)
            throw .unavailable(reason: String(cString: nl_geterror(code)))
        }
        let descriptor = nl_socket_get_fd(handle)
        var yes: Int32 = 1
        let size = socklen_t(MemoryLayout<Int32>.size)
        // Better error messages, and filters in listings. An old kernel may refuse them, and we do without.
        for option in [NETLINK_EXT_ACK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK] {
            setsockopt(descriptor, SOL_NETLINK, option, &yes, size)
        }
        var timeout = timeval(tv_sec: Self.answerTimeoutSeconds, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        return handle
    }

    deinit { nl_socket_free(self.handle) }

    /// Sends a change and waits for the kernel's verdict.
    func perform(_ request: borrowing NetlinkRequest) throws(NetlinkError) {
        let sequence = try self.send(request)
        while true {
            let verdict = try self.receive { message, header -> Verdict? in
                guard header.nlmsg_seq == sequence, message.type == Int(NLMSG_ERROR) else { return nil }
                return Verdict(message)
            }
            guard let verdict = verdict.first else { continue }
            if verdict.errno == 0 { return }
            throw .refused(request.operation, errno: verdict.errno, kernel: verdict.text)
        }
    }

    /// Asks for a listing and returns what `transform` makes of each message; `nil` leaves one out.
    func dump<Element>(
        _ request: borrowing NetlinkRequest, _ transform: (NetlinkMessage) -> Element?
    ) throws(NetlinkError) -> [Element] {
        for _ in 0..<Self.maximumDumpAttempts {
            if let elements = try self.dumpOnce(request, transform) { return elements }
        }
        throw .dumpKeepsChanging
    }

    /// `nil` when the listing is inconsistent, because something changed underneath it.
    private func dumpOnce<Element>(
        _ request: borrowing NetlinkRequest, _ transform: (NetlinkMessage) -> Element?
    ) throws(NetlinkError) -> [Element]? {
        let sequence = try self.send(request)
        var elements: [Element] = []
        var interrupted = false
        var end: Verdict?
        while end == nil {
            let more = try self.receive { message, header -> Element? in
                guard header.nlmsg_seq == sequence else { return nil }
                if Int32(header.nlmsg_flags) & NLM_F_DUMP_INTR != 0 { interrupted = true }
                guard message.type != Int(NLMSG_DONE), message.type != Int(NLMSG_ERROR) else {
                    end = Verdict(message)
                    return nil
                }
                return transform(message)
            }
            // Reading on keeps the socket usable; what is beyond the bound is not kept.
            elements += more.prefix(Self.maximumDumpedObjects + 1 - elements.count)
        }
        if let end, end.errno != 0 { throw .refused(request.operation, errno: end.errno, kernel: end.text) }
        if elements.count > Self.maximumDumpedObjects { throw .tooManyObjects(limit: Self.maximumDumpedObjects) }
        return interrupted ? nil : elements
    }

    /// Sends and returns the sequence number that answers will carry.
    private func send(_ request: borrowing NetlinkRequest) throws(NetlinkError) -> UInt32 {
        guard let header = nlmsg_hdr(request.message) else { throw .outOfMemory }
        // A message that is sent again needs a new number: libnl fills it in only where it is 0.
        header.pointee.nlmsg_seq = 0
        let code = nl_send_auto(self.handle, request.message)
        if code < 0 { throw .unavailable(reason: String(cString: nl_geterror(code))) }
        return header.pointee.nlmsg_seq
    }

    /// Reads one datagram and returns what `transform` makes of its messages.
    private func receive<Element>(
        _ transform: (NetlinkMessage, nlmsghdr) -> Element?
    ) throws(NetlinkError) -> [Element] {
        var sender = sockaddr_nl()
        var buffer: UnsafeMutablePointer<UInt8>?
        let count = nl_recv(self.handle, &sender, &buffer, nil)
        defer { free(buffer) }
        if count < 0 { throw .unavailable(reason: String(cString: nl_geterror(count))) }
        guard let buffer, count > 0 else { throw .unavailable(reason: "the kernel closed the routing socket") }
        // Other processes can send to our port; only port 0 is the kernel.
        guard sender.nl_pid == 0 else { return [] }
        return eachMessage(in: UnsafeMutableRawBufferPointer(start: buffer, count: Int(count))) {
            transform($0, $0.header.pointee)
        }
    }
}

/// What `transform` makes of the messages of one datagram, in order.
func eachMessage<Element>(
    in datagram: UnsafeMutableRawBufferPointer, _ transform: (NetlinkMessage) -> Element?
) -> [Element] {
    var elements: [Element] = []
    var header = datagram.baseAddress?.assumingMemoryBound(to: nlmsghdr.self)
    var remaining = Int32(clamping: datagram.count)
    while let current = header, nlmsg_ok(current, remaining) != 0 {
        if let element = transform(NetlinkMessage(header: current)) { elements.append(element) }
        header = nlmsg_next(current, &remaining)
    }
    return elements
}

/// How the kernel ended an operation or a listing: NLMSG_ERROR and NLMSG_DONE carry the same things.
private struct Verdict {
    /// 0 when all went well.
    let errno: Int32
    /// The kernel's explanation, when it had one.
    let text: String?

    init(_ message: NetlinkMessage) {
        let flags = Int32(message.header.pointee.nlmsg_flags)
        if message.type == Int(NLMSG_DONE) {
            let code: Int32 = message.body() ?? 0
            self.errno = code < 0 ? -code : 0
            self.text = nil
            return
        }
        guard let error: nlmsgerr = message.body() else {
            self.errno = EBADMSG
            self.text = nil
            return
        }
        self.errno = error.error < 0 ? -error.error : 0
        // Without NLM_F_CAPPED the whole request stands between the structure and the attributes.
        let hasText = flags & NLM_F_ACK_TLVS != 0 && flags & NLM_F_CAPPED != 0
        self.text = hasText ? message.text(Int(NLMSGERR_ATTR_MSG.rawValue), after: nlmsgerr.self) : nil
    }
}

/// Why the kernel's network configuration could not be read or changed.
package enum NetlinkError: Error, Hashable, Sendable, CustomStringConvertible {
    /// No memory, for us or for libnl.
    case outOfMemory
    /// The routing socket cannot be opened or used.
    case unavailable(reason: String)
    /// The kernel said no. `operation` is absent when we only asked for a listing; `kernel` is its own explanation.
    case refused(NetworkOperation?, errno: Int32, kernel: String?)
    /// There is no such interface.
    case noInterface(String)
    /// A listing is longer than we would ever need.
    case tooManyObjects(limit: Int)
    /// Tables changed each time they were listed.
    case dumpKeepsChanging
    /// A kernel setting under /proc/sys cannot be read or written.
    case setting(path: String, value: String?, errno: Int32)

    /// The errno behind the error, where there is one.
    package var errno: Int32? {
        switch self {
        case .refused(_, let code, _), .setting(_, _, let code): code
        case .outOfMemory, .unavailable, .noInterface, .tooManyObjects, .dumpKeepsChanging: nil
        }
    }

    package var description: String {
        switch self {
        case .outOfMemory: return "out of memory"
        case .unavailable(let reason): return "cannot talk to the kernel's routing socket: \(reason)"
        case .refused(let operation, let code, let kernel):
            let what = operation.map { "cannot \($0)" } ?? "cannot list the network configuration"
            let detail = kernel.map { " (\($0))" } ?? ""
            let fix = code == EPERM ? ": run as root or with CAP_NET_ADMIN" : ""
            return "\(what): \(errnoText(code))\(detail)\(fix)"
        case .noInterface(let name): return "there is no interface \(name)"
        case .tooManyObjects(let limit): return "the kernel lists more than \(limit) objects"
        case .dumpKeepsChanging: return "the network configuration changes faster than it can be read"
        case .setting(let path, let value, let code):
            let what = value.map { "write \"\($0)\" to" } ?? "read"
            let fix = code == EROFS ? ": /proc/sys is read-only here, set it on the host" : ""
            return "cannot \(what) \(path): \(errnoText(code))\(fix)"
        }
    }
}
