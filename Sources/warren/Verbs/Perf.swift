import ArgumentParser
import ControlAPI

/// `warren perf`: how much a connection carries, each way.
struct Perf: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure the throughput to a peer and from it.",
        discussion: """
            Bytes go over the connection that the peer's packets take, on a stream of their own: first to the peer, then from it. Both \
            machines work as hard as they can meanwhile. Exit code 1 when a way fails.
            """)

    @Argument(help: "The peer.") var peer: String
    @Option(name: .shortAndLong, help: "How many bytes go each way.") var bytes: UInt64?
    @Option(name: .shortAndLong, help: "How long each way is measured, 0.1 to 3600 seconds; 5 when neither is said.")
    var seconds: Double?
    @Option(help: "The network, when the peer is in several.") var network: String?
    @OptionGroup var format: OutputFormat
    @OptionGroup var locations: Locations

    func validate() throws {
        guard self.bytes == nil || self.seconds == nil else {
            throw ValidationError("--bytes and --seconds exclude each other")
        }
        if let bytes, !(1...PerfRequest.maximumBytes).contains(bytes) {
            throw ValidationError("--bytes must be 1 to \(PerfRequest.maximumBytes)")
        }
        if let seconds, !(0.1...3600).contains(seconds) {
            throw ValidationError("--seconds must be 0.1 to 3600")
        }
    }

    func run() throws {
        let milliseconds = self.bytes == nil ? Int(((self.seconds ?? 5) * 1000).rounded()) : nil
        let request = PerfRequest(
            peer: self.peer, network: self.network, bytes: self.bytes, milliseconds: milliseconds)
        var client = self.locations.client
        // A report comes every second; a dial may come before the first.
        client.timeout = .seconds(60)

        var ended = 0
        var hasFailed = false
        try client.stream(.perf, sending: request, expecting: PerfReply.self) { reply, json in
            if self.format.isJSON { Console.write(json: json) } else { Console.write(PerfText.line(reply) + "\n") }
            if reply.done { ended += 1 }
            if reply.error != nil { hasFailed = true }
            return !hasFailed && ended < 2
        }
        if hasFailed || ended < 2 { throw SilentExit(status: .failed) }
    }
}
