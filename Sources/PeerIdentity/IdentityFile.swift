#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// The file that holds this node's private key in its libp2p encoding.
///
/// Only its owner may have access (mode 0600 or less). It is created whole or not at all, and never overwritten: whoever
/// wants another identity removes it first.
public struct IdentityFile: Hashable, Sendable {
    /// Where it is.
    public let path: String

    /// Names a file; nothing is opened yet.
    public init(path: String) {
        self.path = path
    }

    /// Reads the key, of whatever type it is.
    public func load() throws(IdentityFileError) -> PrivateKey {
        // O_NONBLOCK: opening a FIFO must not wait for a writer.
        let descriptor = open(self.path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)
        guard descriptor >= 0 else {
            throw errno == ENOENT ? .notFound(path: self.path) : self.failure("open")
        }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw self.failure("stat") }
        guard status.st_mode & S_IFMT == S_IFREG else { throw .notRegularFile(path: self.path) }
        guard status.st_mode & 0o077 == 0 else {
            throw .accessibleToOthers(path: self.path, mode: UInt16(truncatingIfNeeded: status.st_mode & 0o7777))
        }

        let maximum = PrivateKey.maximumEncodedBytes + 1
        var bytes: [UInt8] = []
        while bytes.count < maximum {
            var part = [UInt8](repeating: 0, count: maximum - bytes.count)
            let count = read(descriptor, &part, part.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw self.failure("read") }
            guard count > 0 else { break }
            bytes += part[..<count]
        }
        do {
            return try PrivateKey(encoded: bytes)
        } catch {
            throw .malformed(path: self.path, error)
        }
    }

    /// Makes a new Ed25519 key and its file, in a directory that exists.
    ///
    /// The key is on disk when this returns.
    public func create() throws(IdentityFileError) -> PrivateKey {
        let key: PrivateKey
        do {
            key = try PrivateKey.generate(.ed25519)
        } catch {
            throw .keyNotGenerated(error)
        }
        try self.store(key)
        return key
    }

    /// Reads the key, or makes one where there is no file. Safe when several processes do so at once: all get the same key.
    public func loadOrCreate() throws(IdentityFileError) -> (key: PrivateKey, isNew: Bool) {
        do throws(IdentityFileError) {
            return (try self.load(), false)
        } catch .notFound {
            do throws(IdentityFileError) {
                return (try self.create(), true)
            } catch .alreadyExists {
                return (try self.load(), false)
            }
        }
    }

    /// Writes `key` to a file of its own first and then links that to its name, which fails when the name is taken.
    func store(_ key: PrivateKey) throws(IdentityFileError) {
        let temporary = "\(self.path).\(String(UInt64.random(in: .min ... .max), radix: 36)).new"
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw self.failure("create") }
        defer { unlink(temporary) }
        do throws(IdentityFileError) {
            try self.write(key.encoded, to: descriptor)
        } catch {
            close(descriptor)
            throw error
        }
        guard close(descriptor) == 0 else { throw self.failure("close") }
        guard link(temporary, self.path) == 0 else {
            throw errno == EEXIST ? .alreadyExists(path: self.path) : self.failure("link")
        }
        try self.syncDirectory()
    }

    private func write(_ bytes: [UInt8], to descriptor: Int32) throws(IdentityFileError) {
        // The umask may have taken bits away.
        guard fchmod(descriptor, 0o600) == 0 else { throw self.failure("chmod") }
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Self.systemWrite(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw self.failure("write") }
            rest = rest.dropFirst(count)
        }
        guard fsync(descriptor) == 0 else { throw self.failure("fsync") }
    }

    /// A new name is durable only when its directory is.
    private func syncDirectory() throws(IdentityFileError) {
        let slash = self.path.lastIndex(of: "/")
        let directory = slash.map { $0 == self.path.startIndex ? "/" : String(self.path[..<$0]) } ?? "."
        let descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw self.failure("open the directory") }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw self.failure("fsync the directory") }
    }

    private func failure(_ operation: String) -> IdentityFileError {
        .system(path: self.path, operation: operation, errno: errno)
    }

    #if canImport(Glibc)
        private static let systemWrite = Glibc.write
    #elseif canImport(Musl)
        private static let systemWrite = Musl.write
    #endif
}

/// Why an identity file could not be read or made.
public enum IdentityFileError: Error, Hashable, Sendable, CustomStringConvertible {
    /// There is no such file.
    case notFound(path: String)
    /// There is a file already, which is never overwritten.
    case alreadyExists(path: String)
    /// It is a directory, a device or the like.
    case notRegularFile(path: String)
    /// Others than the owner have access to it.
    case accessibleToOthers(path: String, mode: UInt16)
    /// It does not hold a key.
    case malformed(path: String, KeyError)
    /// No key could be made.
    case keyNotGenerated(KeyError)
    /// A system call failed.
    case system(path: String, operation: String, errno: Int32)

    /// The fact in words, and what to do about it where that is not obvious.
    public var description: String {
        switch self {
        case .notFound(let path): "\(path): there is no identity file"
        case .alreadyExists(let path): "\(path): exists already, and an identity is never overwritten"
        case .notRegularFile(let path): "\(path): not a regular file"
        case .accessibleToOthers(let path, let mode):
            "\(path): holds a secret, but its mode is \(String(mode, radix: 8)): chmod 600 it"
        case .malformed(let path, let error): "\(path): not an identity file: \(error)"
        case .keyNotGenerated(let error): "no new identity: \(error)"
        case .system(let path, let operation, let errno):
            "\(path): cannot \(operation): \(String(cString: strerror(errno)))"
        }
    }
}
