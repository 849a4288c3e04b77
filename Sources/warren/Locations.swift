import ArgumentParser
package import ControlAPI
import OverlayEngine
package import PeerIdentity

/// Where configuration, state and socket are. Moving all three lets several daemons run on one machine.
struct Locations: ParsableArguments {
    @Option(help: ArgumentHelp("The configuration file.", valueName: "path"), completion: .file())
    var config = "/etc/warren/warren.yaml"

    @Option(
        help: ArgumentHelp("The directory of the key and of what outlasts a restart.", valueName: "path"),
        completion: .directory)
    var state = "/var/lib/warren"

    @Option(help: ArgumentHelp("The daemon's socket.", valueName: "path"), completion: .file())
    var socket = "/run/warren/warren.sock"

    /// The key of this machine.
    var identity: IdentityFile { IdentityFile(path: "\(self.state)/identity.key") }

    /// The daemon at the socket.
    var client: ControlClient { ControlClient(socketPath: self.socket) }

    /// For calls that dial, or set up interfaces.
    var patientClient: ControlClient { ControlClient(socketPath: self.socket, timeout: .seconds(60)) }
}

/// `--json`, for verbs that read.
struct OutputFormat: ParsableArguments {
    @Flag(name: .customLong("json"), help: "Print JSON.")
    var isJSON = false
}

extension IdentityFileError: OperatorError {
    /// The command failed; its usage was right.
    package var exitStatus: ExitStatus { .failed }
}
