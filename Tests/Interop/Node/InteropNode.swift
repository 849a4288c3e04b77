import ArgumentParser
import Foundation
import LibP2P
import LibP2PCore
import Logging
import Multiformats
import PeerIdentity
import TestKit

/// A peer for interoperability tests: runs a ``Host`` and obeys commands, one JSON object per line on standard input, one answer per
/// line on standard output. The first line it prints says who and where it is.
@main
struct InteropNode: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "interop-node")

    @Option(help: "Seed of the Ed25519 key: 32 bytes, the number in the last ones.")
    var seed: UInt64 = 0

    @Option(help: "Where to listen.")
    var listen: [String] = []

    @Option(help: "What identify says of the family of protocols.")
    var protocolVersion = "ipfs/0.1.0"

    @Option(help: "A muxer it speaks, in order of preference: yamux or mplex.")
    var muxer: [Muxer] = [.yamux]

    @Option(
        help:
            "What secures connections, in order of preference: tls and noise, or plaintext alone. As the library likes, when none is said."
    )
    var security: [Security] = []

    @Option(
        help: "A file with the key of a private network. LIBP2P_FORCE_PNET=1 in the environment makes it necessary.")
    var swarmKey: String?

    enum Muxer: String, ExpressibleByArgument, CaseIterable {
        case yamux, mplex
    }

    enum Security: String, ExpressibleByArgument, CaseIterable {
        case tls, noise, plaintext
    }

    @Flag(help: "Log everything to standard error.")
    var debug = false

    func run() async throws {
        let level: Logger.Level = self.debug ? .trace : .error
        LoggingSystem.bootstrap { label in
            var handler = StreamLogHandler.standardError(label: label)
            handler.logLevel = level
            return handler
        }
        var seedBytes = [UInt8](repeating: 0, count: 24)
        seedBytes += withUnsafeBytes(of: self.seed.bigEndian) { Array($0) }
        var configuration = HostConfiguration(key: try PrivateKey(ed25519Seed: seedBytes))
        configuration.listen = try self.listen.map { try Multiaddr($0) }
        configuration.protocolVersion = self.protocolVersion
        configuration.agentVersion = "warren-interop"
        configuration.muxers = self.muxer.map { $0 == .mplex ? MplexMuxer() as any MuxerUpgrader : YamuxMuxer() }
        if self.security.contains(.plaintext) {
            configuration.testSecurities = [PlaintextUpgrader(key: configuration.key.publicKey)]
        } else if !self.security.isEmpty {
            configuration.securities = self.security.map { $0 == .tls ? .tls : .noise }
        }
        configuration.preSharedKey = try self.preSharedKey()
        configuration.perf = { _ in true }
        let host = Host(configuration)
        let commands = Commands(host: host)
        try await host.start()

        Self.answer([
            "event": .string("ready"), "peer_id": .string(host.peerID.description),
            "addrs": .array(host.addresses.map { .string($0.description) }),
        ])
        for await line in Self.inputLines() {
            var reply: [String: JSON]
            do {
                let request = try JSONDecoder().decode([String: JSON].self, from: Data(line.utf8))
                reply = ["ok": .bool(true), "result": try await commands.perform(request)]
            } catch {
                reply = ["ok": .bool(false), "error": .string(String(describing: error))]
            }
            Self.answer(reply)
        }
        await host.shutDown()
    }

    private func preSharedKey() throws -> PreSharedKey? {
        guard let swarmKey else {
            guard ProcessInfo.processInfo.environment["LIBP2P_FORCE_PNET"] != "1" else {
                throw PrivateNetworkError.keyRequired
            }
            return nil
        }
        return try PreSharedKey(file: Data(contentsOf: URL(fileURLWithPath: swarmKey)))
    }

    /// Standard input line by line, read on a thread of its own.
    private static func inputLines() -> AsyncStream<String> {
        AsyncStream { continuation in
            let thread = Thread {
                while let line = readLine() { continuation.yield(line) }
                continuation.finish()
            }
            thread.start()
        }
    }

    private static func answer(_ object: [String: JSON]) {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(object) else { return }
        FileHandle.standardOutput.write(data + Data("\n".utf8))
    }
}

/// Any JSON value.
enum JSON: Codable, Sendable {
    case null
    case bool(Bool)
    case number(Double)
    case string(String)
    case array([JSON])
    case object([String: JSON])

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(Bool.self) {
            self = .bool(value)
        } else if let value = try? container.decode(Double.self) {
            self = .number(value)
        } else if let value = try? container.decode(String.self) {
            self = .string(value)
        } else if let value = try? container.decode([JSON].self) {
            self = .array(value)
        } else {
            self = .object(try container.decode([String: JSON].self))
        }
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .null: try container.encodeNil()
        case .bool(let value): try container.encode(value)
        case .number(let value): try container.encode(value)
        case .string(let value): try container.encode(value)
        case .array(let value): try container.encode(value)
        case .object(let value): try container.encode(value)
        }
    }

    var text: String? { if case .string(let value) = self { value } else { nil } }
    var integer: Int? { if case .number(let value) = self { Int(exactly: value) } else { nil } }
}
