import ArgumentParser
import ControlAPI

/// `warren version`: of this command, and of the daemon when one runs.
struct Version: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Print the version of this command and of the running daemon.")

    @OptionGroup var format: OutputFormat
    @OptionGroup var locations: Locations

    func run() throws {
        var daemon: String?
        do throws(ControlError) {
            daemon = try self.locations.client.call(.version, expecting: VersionReport.self).version
        } catch .daemonNotRunning {
            // The command has a version without it.
        } catch {
            Console.complain("\(error)")
        }
        if self.format.isJSON {
            Console.write(json: try ControlJSON.encode(["version": BuildVersion.version, "daemon": daemon]))
        } else {
            print("warren \(BuildVersion.version)")
            if let daemon { print("daemon \(OperatorText.singleLine(daemon))") }
        }
    }
}
