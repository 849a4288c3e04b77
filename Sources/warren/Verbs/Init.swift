import ArgumentParser
import ControlAPI
import Foundation
import OverlayEngine
import PeerIdentity

/// `warren init`: a key and a configuration, both or neither.
struct Init: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Write this machine's key and configuration.",
        discussion: "Existing files are never overwritten. Prints the entry to paste into the other machines' peers.")

    @Option(help: ArgumentHelp("This machine's name. Default: the host name.", valueName: "label"))
    var name: String?

    @OptionGroup var locations: Locations

    func run() throws {
        let name = self.name ?? MachineName.fromHostName()
        guard MachineName.isValid(name) else {
            throw CommandError(
                exitStatus: .usage,
                description: "--name: '\(name)' is not a name: use 1 to 63 of a-z, 0-9 and inner hyphens")
        }
        let config = self.locations.config
        let key = self.locations.identity.path
        for path in [config, key] where NewFile.exists(path) {
            throw CommandError(description: "\(path) exists: it is not overwritten, and nothing was written")
        }

        try NewFile.makeDirectory(NewFile.directory(of: config), mode: 0o755)
        try NewFile.makeDirectory(self.locations.state, mode: 0o700)
        let id = PeerID(try self.locations.identity.create().publicKey)
        let entry = PeerEntry(
            name: name, id: id, addresses: GlobalAddresses.dialable(port: DaemonConfiguration.defaultPort))
        do {
            try NewFile.write(InitialConfiguration.text(name: name, own: entry), to: config, mode: 0o644)
        } catch {
            // A key without its configuration would stop the next init.
            unlink(key)
            throw error
        }
        Console.write(
            """
            # \(config) and \(key) are written. Start the daemon with 'systemctl start warren'.
            # Paste this under networks.home.peers on the other machines:
            \(entry.yaml(indent: 6))

            """)
    }
}
