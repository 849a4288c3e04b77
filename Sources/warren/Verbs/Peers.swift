import ArgumentParser
import ControlAPI

/// `warren peers`: who is in the networks, and how each could be reached.
struct Peers: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "List the peers of every network.")

    @Argument(help: "Only this peer.") var peer: String?
    @Flag(name: .shortAndLong, help: "Show IDs, paths, known addresses and protocols too.") var verbose = false
    @OptionGroup var format: OutputFormat
    @OptionGroup var locations: Locations

    func run() throws {
        let (list, json) = try self.locations.client.json(.peers, matching: PeerList.self)
        guard let peer = self.peer else {
            if self.format.isJSON { return Console.write(json: json) }
            return Console.write(
                PeerText.render(list.peers, dialling: list.dialling, isVerbose: self.verbose))
        }
        let candidates = list.peers.map { PeerSelection.Candidate(id: $0.peer.id, name: $0.peer.name) }
        let id = try PeerSelection.resolve(peer, among: candidates).id
        let chosen = list.peers.filter { $0.peer.id == id }
        if self.format.isJSON {
            return Console.write(json: try ControlJSON.encode(PeerList(peers: chosen, dialling: list.dialling)))
        }
        Console.write(PeerText.render(chosen, dialling: list.dialling, isVerbose: self.verbose))
    }
}
