#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// The end of a wait, and how long the whole wait was meant to be.
struct Deadline: Sendable {
    let instant: ContinuousClock.Instant
    let budget: Duration

    init(in budget: Duration) {
        self.instant = ContinuousClock.now.advanced(by: budget)
        self.budget = budget
    }

    var remaining: Duration { ContinuousClock.now.duration(to: self.instant) }
}

/// A connected Unix stream socket that waits no longer than it is told. Closed when it goes out of scope.
struct UnixStream: ~Copyable {
    private let descriptor: Int32
    private let path: String

    /// Connects to the socket at `path`.
    init(connectingTo path: String, before deadline: Deadline) throws(ControlError) {
        self.descriptor = try Self.openConnection(to: path, before: deadline)
        self.path = path
    }

    deinit { close(self.descriptor) }

    /// Writes all of `bytes`, or as much as the daemon wants to hear: its answer says why it stopped listening.
    func write(_ bytes: [UInt8], before deadline: Deadline) throws(ControlError) {
        var written = 0
        while written < bytes.count {
            let count = bytes[written...].withUnsafeBytes {
                send(self.descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            if count >= 0 {
                written += count
                continue
            }
            switch errno {
            case EINTR: continue
            case EAGAIN: try self.wait(for: POLLOUT, before: deadline)
            case EPIPE, ECONNRESET: return
            case let code: throw .socketFailed(socket: self.path, call: "send", errno: code)
            }
        }
    }

    /// Reads at most `limit` bytes; none at the end of the connection.
    func read(upTo limit: Int, before deadline: Deadline) throws(ControlError) -> [UInt8] {
        while true {
            // Asked first: a daemon that never pauses must not hold us beyond the deadline.
            try self.wait(for: POLLIN, before: deadline)
            var count = 0
            let bytes = [UInt8](unsafeUninitializedCapacity: limit) { buffer, initialized in
                count = recv(self.descriptor, buffer.baseAddress, buffer.count, 0)
                initialized = max(count, 0)
            }
            if count >= 0 { return bytes }
            switch errno {
            case EINTR, EAGAIN: continue
            // The daemon closed with a part of our request unread; what it sent before has been read by now.
            case ECONNRESET: return []
            case let code: throw .socketFailed(socket: self.path, call: "recv", errno: code)
            }
        }
    }

    private func wait(for event: Int32, before deadline: Deadline) throws(ControlError) {
        while true {
            let left = deadline.remaining
            guard left > .zero else { throw .timedOut(socket: self.path, deadline.budget) }
            let milliseconds = min(left / .milliseconds(1), 60_000)
            var entry = pollfd(fd: self.descriptor, events: Int16(event), revents: 0)
            let ready = poll(&entry, 1, Int32(milliseconds.rounded(.up)))
            if ready > 0 { return }
            if ready < 0, case let code = errno, code != EINTR {
                throw .socketFailed(socket: self.path, call: "poll", errno: code)
            }
        }
    }

    private static func openConnection(to path: String, before deadline: Deadline) throws(ControlError) -> Int32 {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let room = MemoryLayout.size(ofValue: address.sun_path)
        guard path.utf8.count < room, !path.utf8.contains(0) else {
            throw .socketPathTooLong(socket: path, limit: room - 1)
        }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }

        let type = Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
        let descriptor = socket(AF_UNIX, type, 0)
        guard descriptor >= 0 else { throw .socketFailed(socket: path, call: "socket", errno: errno) }
        var isConnected = false
        defer { if !isConnected { close(descriptor) } }
        while true {
            let result = withUnsafePointer(to: address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
                }
            }
            if result == 0 {
                isConnected = true
                return descriptor
            }
            switch errno {
            case EINTR: continue
            case EAGAIN:
                // The daemon's backlog is full, and nothing announces when it no longer is.
                guard deadline.remaining > .zero else { throw .timedOut(socket: path, deadline.budget) }
                _ = poll(nil, 0, 20)
            case ENOENT, ECONNREFUSED, ENOTDIR: throw .daemonNotRunning(socket: path)
            case EACCES, EPERM: throw .socketNotPermitted(socket: path)
            case let code: throw .socketFailed(socket: path, call: "connect", errno: code)
            }
        }
    }
}
