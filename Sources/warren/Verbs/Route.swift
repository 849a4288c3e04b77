import ArgumentParser
import ControlAPI
import Multiformats

/// `warren route`: prefixes behind peers.
struct Route: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show overlay routes, or change them until the daemon ends.",
        subcommands: [Show.self, Add.self, Delete.self], defaultSubcommand: Show.self)

    /// `warren route show`
    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show the overlay routes of every network.")

        @OptionGroup var format: OutputFormat
        @OptionGroup var locations: Locations

        func run() throws {
            let (list, json) = try self.locations.client.json(.routes, matching: RouteList.self)
            if self.format.isJSON { return Console.write(json: json) }
            let rows = list.routes.map { [$0.network, $0.route, $0.name, $0.source.rawValue] }
            Console.write(TextTable.render(header: ["NETWORK", "ROUTE", "PEER", "FROM"], rows: rows))
        }
    }

    /// `warren route add`
    struct Add: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Route a prefix to a peer until the daemon ends.",
            discussion: "To keep it, write it under that peer's routes in the configuration.")

        @Argument(help: "The prefix, 192.168.7.0/24.", transform: PrefixArgument.parse) var route: IPPrefix
        @Argument(help: "The peer it lies behind.") var peer: String
        @Option(help: "The network, when there are several.") var network: String?
        @OptionGroup var locations: Locations

        func run() throws {
            let request = RouteRequest(route: self.route.description, peer: self.peer, network: self.network)
            let done: Done = try self.locations.patientClient.call(.addRoute, sending: request)
            if !done.message.isEmpty { print(OperatorText.singleLine(done.message)) }
        }
    }

    /// `warren route del`
    struct Delete: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "del", abstract: "Take a route away until the daemon ends.")

        @Argument(help: "The prefix, 192.168.7.0/24.", transform: PrefixArgument.parse) var route: IPPrefix
        @Argument(help: "The peer it lies behind, to be sure.") var peer: String?
        @Option(help: "The network, when there are several.") var network: String?
        @OptionGroup var locations: Locations

        func run() throws {
            let request = RouteRequest(route: self.route.description, peer: self.peer, network: self.network)
            let done: Done = try self.locations.patientClient.call(.deleteRoute, sending: request)
            if !done.message.isEmpty { print(OperatorText.singleLine(done.message)) }
        }
    }
}

/// A prefix on the command line.
private enum PrefixArgument {
    @Sendable static func parse(_ text: String) throws -> IPPrefix {
        guard let prefix = IPPrefix(text) else {
            throw ValidationError(
                "'\(text)' is not a prefix: write it like 192.168.7.0/24, with no bit set behind its length")
        }
        return prefix
    }
}
