import ControlAPI
package import Multiformats
package import PeerIdentity

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

extension DaemonConfiguration {
    /// What a configuration cannot say about the machine it is read on.
    package struct Context: Sendable {
        /// This machine's peer ID; `nil` before it has a key. Without it, an entry with this machine's name is taken
        /// for its own.
        package var ownPeerID: PeerID?
        /// The name when the file gives none.
        package var defaultName: String
        /// The transports of this build. Addresses of others are skipped with a warning.
        package var transports: Set<AddressKind>
        /// The overlay IPv6 prefix of a network, so that no route overlaps it.
        package var ipv6Prefix: @Sendable (_ network: String, _ secret: NetworkSecret?) -> IPPrefix?

        /// A context.
        package init(
            ownPeerID: PeerID?, defaultName: String, transports: Set<AddressKind> = [.tcp, .quicV1, .ws],
            ipv6Prefix: @escaping @Sendable (_ network: String, _ secret: NetworkSecret?) -> IPPrefix? = { _, _ in nil }
        ) {
            self.ownPeerID = ownPeerID
            self.defaultName = defaultName
            self.transports = transports
            self.ipv6Prefix = ipv6Prefix
        }
    }

    /// A configuration, and what it says that this build skips.
    package struct Parsed: Equatable, Sendable {
        /// The configuration.
        package var configuration: DaemonConfiguration
        /// One line each.
        package var warnings: [ConfigurationWarning]
    }

    /// Reads and parses the file at `path`.
    package static func load(path: String, context: Context) throws(ConfigurationError) -> Parsed {
        let bytes = try Self.read(path: path)
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw ConfigurationError(file: path, line: nil, key: "", fault: .notUTF8)
        }
        return try Self.parse(text, file: path, context: context)
    }

    /// Parses a configuration. The first mistake in it is the error.
    ///
    /// - Parameter file: What errors and warnings call it.
    package static func parse(_ text: String, file: String, context: Context) throws(ConfigurationError) -> Parsed {
        guard text.utf8.count <= Self.maximumFileBytes else {
            throw ConfigurationError(
                file: file, line: nil, key: "", fault: .tooLarge(maximumBytes: Self.maximumFileBytes))
        }
        var parser = ConfigurationParser(context: context)
        let root = try ConfigurationNode.parse(text, file: file)
        let configuration = try parser.daemon(root)
        return Parsed(configuration: configuration, warnings: parser.warnings)
    }

    private static func read(path: String) throws(ConfigurationError) -> [UInt8] {
        func error(_ fault: ConfigurationFault) -> ConfigurationError {
            ConfigurationError(file: path, line: nil, key: "", fault: fault)
        }
        // Non-blocking, as opening a pipe would wait for a writer.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw error(.cannotOpen(errno: errno)) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw error(.cannotOpen(errno: errno)) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw error(.notARegularFile) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65_536)
        while bytes.count <= Self.maximumFileBytes {
            let count = Glibc.read(descriptor, &chunk, chunk.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw error(.cannotOpen(errno: errno)) }
            if count == 0 { return bytes }
            bytes += chunk[..<count]
        }
        throw error(.tooLarge(maximumBytes: Self.maximumFileBytes))
    }
}
