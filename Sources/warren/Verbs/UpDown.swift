import ArgumentParser
import ControlAPI

/// `warren up`: interface, addresses and routes come.
struct Up: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Bring a network up: its interface, addresses and routes.", discussion: NetworkSwitch.discussion)

    @Argument(help: "The network. Default: all.") var network: String?
    @OptionGroup var locations: Locations

    func run() throws { try NetworkSwitch.apply(Endpoint.networkUp, to: self.network, self.locations.patientClient) }
}

/// `warren down`: they go; daemon and connections stay.
struct Down: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Take a network down: its interface, addresses and routes.", discussion: NetworkSwitch.discussion)

    @Argument(help: "The network. Default: all.") var network: String?
    @OptionGroup var locations: Locations

    func run() throws { try NetworkSwitch.apply(Endpoint.networkDown, to: self.network, self.locations.patientClient) }
}

private enum NetworkSwitch {
    static let discussion = "The daemon and its connections stay. The choice outlasts a restart of the daemon."

    static func apply(_ endpoint: (String) -> Endpoint, to network: String?, _ client: ControlClient) throws {
        let networks =
            try network.map { [$0] } ?? client.call(.status, expecting: StatusReport.self).networks.map(\.name)
        guard !networks.isEmpty else {
            throw CommandError(description: "the daemon has no network: name one in the configuration")
        }
        for network in networks {
            let done: Done = try client.call(endpoint(network))
            if !done.message.isEmpty { print(OperatorText.singleLine(done.message)) }
        }
    }
}
