internal import CLinux
internal import LibP2PCore
public import LibP2PSwarm
public import Multiformats
internal import NIOPosix
internal import Synchronization

#if canImport(Glibc)
    internal import Glibc
#endif

/// Resolves names as other programs of this machine do: hosts by `getaddrinfo`, TXT records by the system's name servers.
///
/// Both block, so they run on threads of their own. Whoever no longer waits does not free the thread before the system gives up; hence
/// callers that ask the same at the same time share one look-up, and beyond a bound more are refused.
public final class SystemResolver: MultiaddrResolver, Sendable {
    /// The one of this process. It looks up four names at a time.
    public static let shared = SystemResolver()

    /// Look-ups under way and waiting.
    static let maximumLookups = 64
    /// Records of an answer that are looked at, and the room for them.
    private static let maximumRecords: Int32 = 64
    private static let maximumTextBytes = 65_536

    private enum Query: Hashable {
        case addresses(String, IPAddress.Family?)
        case texts(String)
    }

    private enum Answer: Sendable {
        case addresses([IPAddress])
        case texts([String])
    }

    private struct State {
        var waiters: [Query: [UInt64: CheckedContinuation<Answer, any Error>]] = [:]
        var lastNumber: UInt64 = 0
    }

    private let pool = NIOThreadPool(numberOfThreads: 4)
    private let nameServer: (ip: IPAddress, port: UInt16)?
    private let state = Mutex(State())

    /// - Parameter nameServer: An IPv4 server for TXT records, in place of the system's.
    package init(nameServer: (ip: IPAddress, port: UInt16)? = nil) {
        self.nameServer = nameServer
        self.pool.start()
    }

    /// Ends the threads. Not for the shared one.
    package func shutDown() async throws { try await self.pool.shutdownGracefully() }

    /// The IP addresses of a host; see ``MultiaddrResolver/addresses(of:_:)``.
    public func addresses(of name: String, _ family: IPAddress.Family?) async throws -> [IPAddress] {
        guard case .addresses(let addresses) = try await self.ask(.addresses(name, family)) else { return [] }
        return addresses
    }

    /// The TXT records of a name, those that are UTF-8; see ``MultiaddrResolver/texts(of:)``.
    public func texts(of name: String) async throws -> [String] {
        guard case .texts(let texts) = try await self.ask(.texts(name)) else { return [] }
        return texts
    }

    // MARK: Sharing

    private func ask(_ query: Query) async throws -> Answer {
        let number = self.state.withLock { state in
            state.lastNumber += 1
            return state.lastNumber
        }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                if Task.isCancelled { return continuation.resume(throwing: CancellationError()) }
                let isFirst: Bool? = self.state.withLock { state in
                    let isFirst = state.waiters[query] == nil
                    guard !isFirst || state.waiters.count < Self.maximumLookups else { return nil }
                    state.waiters[query, default: [:]][number] = continuation
                    return isFirst
                }
                switch isFirst {
                case true?: self.start(query)
                case false?: break
                case nil: continuation.resume(throwing: NameError.busy(limit: Self.maximumLookups))
                }
                // Cancelled between the first look and now: the handler has found nothing to cancel.
                if Task.isCancelled { self.cancel(query, number) }
            }
        } onCancel: {
            self.cancel(query, number)
        }
    }

    /// The entry of the query stays, though nobody may wait: the thread is at work still.
    private func cancel(_ query: Query, _ number: UInt64) {
        let continuation = self.state.withLock { $0.waiters[query]?.removeValue(forKey: number) }
        continuation?.resume(throwing: CancellationError())
    }

    private func start(_ query: Query) {
        self.pool.submit { [nameServer] state in
            let result: Result<Answer, any Error> =
                state == .active
                ? Result { try Self.answer(query, nameServer) } : .failure(NameError.failed("the resolver has ended"))
            let waiters = self.state.withLock { $0.waiters.removeValue(forKey: query) }
            for waiter in (waiters ?? [:]).values { waiter.resume(with: result) }
        }
    }

    // MARK: On a thread of the pool

    private static func answer(_ query: Query, _ nameServer: (ip: IPAddress, port: UInt16)?) throws -> Answer {
        switch query {
        case .addresses(let name, let family): .addresses(try Self.hostAddresses(name, family))
        case .texts(let name): .texts(try Self.texts(name, nameServer))
        }
    }

    private static func hostAddresses(_ name: String, _ family: IPAddress.Family?) throws -> [IPAddress] {
        guard !name.utf8.contains(0) else { throw NameError.notFound }
        var hints = addrinfo()
        // One kind of socket, so that each address comes once.
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        switch family {
        case .ipv4: hints.ai_family = AF_INET
        case .ipv6: hints.ai_family = AF_INET6
        case nil: hints.ai_family = AF_UNSPEC
        }
        var list: UnsafeMutablePointer<addrinfo>?
        let code = getaddrinfo(name, nil, &hints, &list)
        guard code == 0 else { throw Self.error(code) }
        defer { freeaddrinfo(list) }
        var addresses: [IPAddress] = []
        var next = list
        while let entry = next, addresses.count < Int(Self.maximumRecords) {
            if let ip = Self.ip(entry.pointee), !addresses.contains(ip) { addresses.append(ip) }
            next = entry.pointee.ai_next
        }
        guard !addresses.isEmpty else { throw NameError.notFound }
        return addresses
    }

    /// A link-local address means nothing without its zone, which a multiaddr would not carry.
    private static func ip(_ entry: addrinfo) -> IPAddress? {
        guard let address = entry.ai_addr else { return nil }
        switch entry.ai_family {
        case AF_INET where Int(entry.ai_addrlen) >= MemoryLayout<sockaddr_in>.size:
            return address.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { pointer in
                IPAddress(bytes: withUnsafeBytes(of: pointer.pointee.sin_addr) { Array($0) })
            }
        case AF_INET6 where Int(entry.ai_addrlen) >= MemoryLayout<sockaddr_in6>.size:
            let ip = address.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) { pointer in
                IPAddress(bytes: withUnsafeBytes(of: pointer.pointee.sin6_addr) { Array($0) })
            }
            return ip?.isIPv6LinkLocal == true ? nil : ip
        default: return nil
        }
    }

    /// EAI_NODATA and EAI_ADDRFAMILY: nothing of this family. Both are hidden behind _GNU_SOURCE.
    private static let nothingOfThisKind: [Int32] = [-5, -9]

    private static func error(_ code: Int32) -> NameError {
        switch code {
        case EAI_NONAME: .notFound
        case _ where Self.nothingOfThisKind.contains(code): .notFound
        case EAI_AGAIN: .noAnswer
        default: .failed(String(cString: gai_strerror(code)))
        }
    }

    private static func texts(_ name: String, _ nameServer: (ip: IPAddress, port: UInt16)?) throws -> [String] {
        guard !name.utf8.contains(0) else { throw NameError.notFound }
        var code = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: Self.maximumTextBytes) { buffer, count in
            if let nameServer {
                var server = clinux_name_server(
                    ipv4: UInt32(truncatingIfNeeded: nameServer.ip.low), port: nameServer.port)
                code = clinux_dns_texts(name, &server, Self.maximumRecords, buffer.baseAddress, buffer.count)
            } else {
                code = clinux_dns_texts(name, nil, Self.maximumRecords, buffer.baseAddress, buffer.count)
            }
            count = max(code, 0)
        }
        switch -code {
        case Int(ENOENT), Int(ENODATA): throw NameError.notFound
        case Int(EAGAIN): throw NameError.noAnswer
        case Int(EBADMSG), Int(EMSGSIZE): throw NameError.malformed
        case 1...: throw NameError.failed("the system's resolver has failed")
        default: return Self.split(bytes)
        }
    }

    /// Lengths of two bytes, each before its text.
    private static func split(_ bytes: [UInt8]) -> [String] {
        var rest = bytes[...]
        var texts: [String] = []
        while let high = rest.popFirst(), let low = rest.popFirst() {
            let length = Int(high) << 8 | Int(low)
            if let text = String(validating: rest.prefix(length), as: UTF8.self) { texts.append(text) }
            rest = rest.dropFirst(length)
        }
        return texts
    }
}
