import ArgumentParser
import ControlAPI
import Foundation

/// The command line. Every verb has a file of its own.
struct Warren: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "warren",
        abstract: "Joins machines into a virtual LAN. A machine is its peer ID.",
        discussion: """
            A peer is named by its name, its peer ID, or a prefix of either that fits one peer only.
            Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 daemon not running.
            """,
        subcommands: [
            Init.self, ID.self, Up.self, Down.self, RunDaemon.self, Status.self, Ping.self, Perf.self, Peers.self,
            Route.self, Config.self, Version.self, Completion.self,
        ])
}

@main enum Main {
    /// Runs the verb. Every error is one line on standard error and an exit code of ours: the parser's own says 64 for
    /// wrong usage.
    static func main() async {
        do {
            var command = try Warren.parseAsRoot()
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch let error as any OperatorError {
            fail(error.description, error.exitStatus)
        } catch let end as SilentExit {
            exit(end.status.rawValue)
        } catch {
            let message = Warren.fullMessage(for: error)
            if Warren.exitCode(for: error) == .success {
                print(message)
                exit(ExitStatus.done.rawValue)
            }
            let isUsage = Warren.exitCode(for: error) == .validationFailure
            let text = Warren.message(for: error).split(separator: "\n").joined(separator: " ")
            fail(isUsage ? "\(text) (see 'warren help')" : text, isUsage ? .usage : .failed)
        }
    }

    private static func fail(_ line: String, _ status: ExitStatus) -> Never {
        Console.complain(line)
        exit(status.rawValue)
    }
}

/// Ends a verb whose output has already said why.
struct SilentExit: Error {
    var status: ExitStatus
}

/// A failure of a verb itself.
struct CommandError: OperatorError {
    var exitStatus = ExitStatus.failed
    var description: String
}

/// Where a verb writes.
enum Console {
    /// One line on standard error.
    static func complain(_ line: String) {
        FileHandle.standardError.write(Data("warren: \(OperatorText.singleLine(line, limit: 4096))\n".utf8))
    }

    /// Text on standard output, at once.
    static func write(_ text: String) { FileHandle.standardOutput.write(Data(text.utf8)) }

    /// JSON as the daemon sent it, one line.
    static func write(json: [UInt8]) { FileHandle.standardOutput.write(Data(json) + Data("\n".utf8)) }
}
