import ArgumentParser
import ControlAPI

/// `warren status`: a table of peers, or the report as JSON.
struct Status: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show this machine, its networks and how each peer is reached.")

    @OptionGroup var format: OutputFormat
    @OptionGroup var locations: Locations

    func run() throws {
        let (report, json) = try self.locations.client.json(.status, matching: StatusReport.self)
        if self.format.isJSON { Console.write(json: json) } else { Console.write(StatusText.render(report)) }
    }
}
