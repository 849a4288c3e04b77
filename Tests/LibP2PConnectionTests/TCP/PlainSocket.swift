import Glibc
import Multiformats
import NIOCore

@testable import LibP2PConnection

/// A TCP socket without NIO, for what only the system calls themselves bring about.
struct PlainSocket {
    struct Failure: Error {
        let call: String
        let code: CInt
    }

    let descriptor: CInt

    /// A socket bound to a port of `ip`, which others may share.
    init(bindingTo ip: String, port: UInt16 = 0) throws {
        let address = try SocketAddress(ipAddress: ip, port: Int(port))
        self.descriptor = socket(CInt(address.protocol.rawValue), CInt(SOCK_STREAM.rawValue), 0)
        guard self.descriptor >= 0 else { throw Failure(call: "socket", code: errno) }
        for option in [SO_REUSEADDR, SO_REUSEPORT] { try self.set(option, to: CInt(1)) }
        try Self.check("bind", address.withSockAddr { Glibc.bind(self.descriptor, $0, socklen_t($1)) })
    }

    /// Where it is bound.
    func address() throws -> Multiaddr {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        try withUnsafeMutablePointer(to: &storage) { pointer in
            try pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                try Self.check("getsockname", getsockname(self.descriptor, $0, &length))
            }
        }
        let address: SocketAddress = try withUnsafePointer(to: &storage) { pointer in
            switch Int32(pointer.pointee.ss_family) {
            case AF_INET: pointer.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { SocketAddress($0.pointee) }
            case AF_INET6: pointer.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) { SocketAddress($0.pointee) }
            default: throw NotTCP()
            }
        }
        guard let result = Multiaddr(tcp: address) else { throw NotTCP() }
        return result
    }

    /// Listens, and drops whatever arrives as if it had been lost on the way.
    func listenDeaf() throws {
        // One instruction of a classic packet filter: return 0, that is, accept no byte.
        var instruction = (code: UInt16(0x06), jumpTrue: UInt8(0), jumpFalse: UInt8(0), k: UInt32(0))
        try withUnsafeMutablePointer(to: &instruction) { pointer in
            try self.set(26 /* SO_ATTACH_FILTER */, to: (length: UInt16(1), filter: UnsafeMutableRawPointer(pointer)))
        }
        try Self.check("listen", listen(self.descriptor, 1))
    }

    /// Starts to connect; the end of it is not waited for.
    func startConnecting(to address: Multiaddr) throws {
        let flags = fcntl(self.descriptor, F_GETFL)
        try Self.check("fcntl", fcntl(self.descriptor, F_SETFL, flags | O_NONBLOCK))
        let result = try address.socketAddress().withSockAddr { Glibc.connect(self.descriptor, $0, socklen_t($1)) }
        guard result == 0 || errno == EINPROGRESS else { throw Failure(call: "connect", code: errno) }
    }

    /// Waits until it is connected.
    func finishConnecting() throws {
        var waiting = pollfd(fd: self.descriptor, events: Int16(POLLOUT), revents: 0)
        try Self.check("poll", poll(&waiting, 1, 10_000) == 1 ? 0 : -1)
        var code = CInt(0)
        var length = socklen_t(MemoryLayout<CInt>.size)
        try Self.check("getsockopt", getsockopt(self.descriptor, SOL_SOCKET, SO_ERROR, &code, &length))
        guard code == 0 else { throw Failure(call: "connect", code: code) }
    }

    func close() { _ = Glibc.close(self.descriptor) }

    private func set<Value: BitwiseCopyable>(_ option: CInt, to value: Value) throws {
        var value = value
        try Self.check(
            "setsockopt",
            setsockopt(self.descriptor, SOL_SOCKET, option, &value, socklen_t(MemoryLayout<Value>.size)))
    }

    private static func check(_ call: String, _ result: CInt) throws {
        guard result == 0 else { throw Failure(call: call, code: errno) }
    }
}
