internal import ControlAPI
internal import LibP2P
internal import Logging
internal import NIOCore
internal import NIOPosix
internal import UnixSignals

/// Where a daemon finds what it needs.
package struct DaemonOptions: Sendable {
    /// The configuration file.
    package var configPath: String
    /// The directory of the key and of what must survive a restart.
    package var statePath: String
    /// The socket of the local API.
    package var socketPath: String

    /// Creates options.
    package init(configPath: String, statePath: String, socketPath: String) {
        self.configPath = configPath
        self.statePath = statePath
        self.socketPath = socketPath
    }
}

/// The daemon: puts everything together, in an order that changes the machine last, and takes it apart again.
package enum Daemon {
    /// Runs until SIGTERM or SIGINT, or until an interface is lost. SIGHUP reloads the configuration.
    ///
    /// - Throws: ``ConfigurationError`` and other ``OperatorError``s, before anything on the machine has changed.
    package static func run(_ options: DaemonOptions) async throws {
        LoggingSystem.bootstrap { label in
            var handler = StreamLogHandler.standardError(label: label)
            handler.logLevel = LogLevel.fromEnvironment
            return handler
        }
        let logger = Logger(label: "warren")
        // Packets have a loop of their own: nothing else delays them.
        let packetGroup = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let controlGroup = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        // The loops end with the process: a task that is late may still want to say something on one.
        try await self.run(options, packetGroup: packetGroup, controlGroup: controlGroup, logger: logger)
    }

    private static func run(
        _ options: DaemonOptions, packetGroup: MultiThreadedEventLoopGroup, controlGroup: MultiThreadedEventLoopGroup,
        logger: Logger
    ) async throws {
        let (endings, ending) = AsyncStream.makeStream(of: String.self, bufferingPolicy: .bufferingOldest(1))
        let core = try await DaemonCore.start(options, group: packetGroup, logger: logger) { ending.yield($0) }
        let server: ControlServer
        do {
            server = try await ControlServer.start(
                at: options.socketPath, service: core, group: controlGroup, logger: logger)
        } catch {
            await core.stop()
            throw error
        }
        ServiceNotifier.ready("\(core.host.peerID)")
        logger.notice(
            "ready",
            metadata: ["peer": "\(core.host.peerID)", "listen": "\(core.host.addresses.map(\.description))"])

        let failure = await withTaskGroup(of: String?.self) { group in
            group.addTask {
                for await signal in await UnixSignalsSequence(trapping: .sigterm, .sigint, .sighup) {
                    guard signal == .sighup else { return nil }
                    ServiceNotifier.reloading()
                    do {
                        let report = try await core.reload()
                        logger.notice("reloaded", metadata: ["changes": "\(report.changes)"])
                    } catch {
                        logger.error("reload failed", metadata: ["reason": "\(error)"])
                    }
                    ServiceNotifier.ready("\(core.host.peerID)")
                }
                return nil
            }
            group.addTask {
                for await reason in endings { return reason }
                return nil
            }
            let first = await group.next() ?? nil
            group.cancelAll()
            ending.finish()
            return first
        }
        ServiceNotifier.stopping()
        logger.notice("stopping")
        await server.stop()
        await core.stop()
        if let failure { throw DaemonError.interfaceLost(failure) }
    }
}

/// Why a daemon cannot start, or had to end.
enum DaemonError: OperatorError, Equatable {
    /// There is no key yet, or it cannot be read.
    case noIdentity(String)
    /// The TUN, the kernel's configuration or its records failed.
    case system(String)
    /// An interface was deleted beneath us.
    case interfaceLost(String)

    var exitStatus: ExitStatus { .failed }

    var description: String {
        switch self {
        case .noIdentity(let reason): reason
        case .system(let reason): reason
        case .interfaceLost(let reason): "\(reason): somebody deleted the interface; start the daemon again"
        }
    }
}

/// How much is logged.
enum LogLevel {
    /// What `WARREN_LOG` says: `trace`, `debug`, `info` (the default), `notice`, `warning`, `error`.
    static var fromEnvironment: Logger.Level {
        Environment.value(of: "WARREN_LOG").flatMap { Logger.Level(rawValue: $0) } ?? .info
    }
}
