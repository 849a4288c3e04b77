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

/// The daemon.
package enum Daemon {
    /// Runs until it is told to end.
    package static func run(_ options: DaemonOptions) async throws {}
}
