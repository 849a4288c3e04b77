import ArgumentParser
import OverlayEngine

/// `warren daemon`: the VPN itself, in the foreground.
struct RunDaemon: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "daemon", abstract: "Run the daemon in the foreground; systemd does so.",
        discussion: "SIGHUP reloads the configuration, SIGTERM and SIGINT end it.")

    @OptionGroup var locations: Locations

    func run() async throws {
        try await Daemon.run(
            DaemonOptions(
                configPath: self.locations.config, statePath: self.locations.state, socketPath: self.locations.socket))
    }
}
