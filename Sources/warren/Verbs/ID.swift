import ArgumentParser
import ControlAPI
import Foundation
import PeerIdentity

/// `warren id`: who this machine is.
struct ID: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "id", abstract: "Print this machine's peer ID.")

    @OptionGroup var format: OutputFormat
    @OptionGroup var locations: Locations

    func run() throws {
        let key: PrivateKey
        do throws(IdentityFileError) {
            key = try self.locations.identity.load()
        } catch .notFound(let path) {
            throw CommandError(description: "\(path): there is no key yet: run 'warren init'")
        }
        let id = PeerID(key.publicKey)
        if self.format.isJSON {
            Console.write(json: try ControlJSON.encode(["peerID": id.description]))
        } else {
            print(id)
        }
    }
}
