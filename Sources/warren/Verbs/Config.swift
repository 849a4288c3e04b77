import ArgumentParser
import ControlAPI
import OverlayEngine
import PeerIdentity

/// `warren config`: the configuration file.
struct Config: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Check the configuration, or let the daemon take it over.", subcommands: [Check.self, Reload.self])

    /// `warren config check`: reads it as the daemon would, and changes nothing.
    struct Check: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Look for mistakes in the configuration.",
            discussion: "A mistake is one line with file, line, key and fix, and exit code 2. Nothing is changed.")

        @OptionGroup var locations: Locations

        func run() throws {
            let context = DaemonConfiguration.Context(
                ownPeerID: try self.ownPeerID(), defaultName: MachineName.fromHostName())
            let parsed = try DaemonConfiguration.load(path: self.locations.config, context: context)
            for warning in parsed.warnings { Console.complain("warning: \(warning)") }
            let networks = parsed.configuration.networks
            let peers = networks.reduce(0) { $0 + $1.peers.count }
            print(
                "\(self.locations.config): good: \(networks.count) \(networks.count == 1 ? "network" : "networks"), "
                    + "\(peers) \(peers == 1 ? "peer" : "peers") besides this machine '\(parsed.configuration.name)'")
        }

        /// Without the key, or without the right to read it, the entry with this machine's name is taken for its own.
        private func ownPeerID() throws(IdentityFileError) -> PeerID? {
            do {
                return PeerID(try self.locations.identity.load().publicKey)
            } catch {
                switch error {
                case .notFound, .system:
                    Console.complain("warning: \(error): this machine's own entry is told by its name alone")
                    return nil
                default: throw error
                }
            }
        }
    }

    /// `warren config reload`: what SIGHUP does, with an answer.
    struct Reload: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Let the running daemon take over the configuration.",
            discussion: "Keys marked [restart] in the example warren.yaml are named and wait for a restart.")

        @OptionGroup var format: OutputFormat
        @OptionGroup var locations: Locations

        func run() throws {
            let (report, json) = try self.locations.patientClient.json(.reload, matching: ReloadReport.self)
            if self.format.isJSON { return Console.write(json: json) }
            for warning in report.warnings { Console.complain("warning: \(warning)") }
            for change in report.changes { print(OperatorText.singleLine(change)) }
            if report.changes.isEmpty { print("nothing changed") }
            for key in report.restartRequired { print("\(OperatorText.singleLine(key)): waits for a restart") }
        }
    }
}
