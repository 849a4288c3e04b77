import ArgumentParser
import ControlAPI

/// `warren ping`: probes through the tunnel, and which path each took.
struct Ping: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Send probes to a peer through the tunnel and say which path they took.",
        discussion: "Exit code 1 when none comes back.")

    @Argument(help: "The peer.") var peer: String
    @Option(name: .shortAndLong, help: "How many probes.") var count = 4
    @Option(name: .shortAndLong, help: "Seconds from one probe to the next, 0.01 to 60.") var interval = 1.0
    @Option(name: [.customShort("W"), .long], help: "Seconds to wait for each answer, 0.01 to 60.") var timeout = 5.0
    @Option(help: "The network, when the peer is in several.") var network: String?
    @OptionGroup var format: OutputFormat
    @OptionGroup var locations: Locations

    func validate() throws {
        guard (1...PingRequest.maximumCount).contains(self.count) else {
            throw ValidationError("--count must be 1 to \(PingRequest.maximumCount)")
        }
        guard (0.01...60).contains(self.interval) else {
            throw ValidationError("--interval must be 0.01 to 60 seconds")
        }
        guard (0.01...60).contains(self.timeout) else { throw ValidationError("--timeout must be 0.01 to 60 seconds") }
    }

    func run() throws {
        let request = PingRequest(
            peer: self.peer, network: self.network, count: self.count,
            intervalMilliseconds: Int((self.interval * 1000).rounded()),
            timeoutMilliseconds: Int((self.timeout * 1000).rounded()))
        var client = self.locations.client
        // Between two lines lie an interval and a wait; a dial may come before the first.
        client.timeout = .seconds(self.interval + self.timeout + 30)

        var received: [Double] = []
        var sent = 0
        try client.stream(.ping, sending: request, expecting: PingReply.self) { reply, json in
            sent += 1
            if let rtt = reply.rttMilliseconds { received.append(rtt) }
            if self.format.isJSON { Console.write(json: json) } else { Console.write(PingText.line(reply) + "\n") }
            return sent < self.count
        }
        if !self.format.isJSON { Console.write(PingText.summary(sent: sent, received: received) + "\n") }
        if received.isEmpty { throw SilentExit(status: .failed) }
    }
}
