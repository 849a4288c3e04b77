import ControlAPI
import Foundation
import PeerIdentity
import Testing

/// The command from outside: arguments in, lines and exit codes out.
@Suite struct CommandTests {
    @Test func initWritesBothOrNeither() throws {
        let command = try Command()
        let first = try command.run("init", "--name", "a")
        #expect(first.status == 0)
        #expect(first.errors == "")
        let id = try command.run("id")
        #expect(id.status == 0)
        #expect(try PeerID(id.output.trimmingCharacters(in: .newlines)).description + "\n" == id.output)
        #expect(first.output.contains("      - name: a\n        id: \(id.output)"))
        let json = try command.run("id", "--json")
        #expect(json.output == "{\"peerID\":\"\(id.output.dropLast())\"}\n")

        let before = try command.snapshot()
        #expect(before.contains { $0.hasPrefix("state/identity.key 68 ") && $0.hasSuffix(" 384") })
        let second = try command.run("init", "--name", "a")
        #expect(
            second
                == .init(
                    status: 1, output: "",
                    errors: "warren: \(command.config) exists: it is not overwritten, and nothing was written\n"))
        #expect(try command.snapshot() == before)

        try FileManager.default.removeItem(atPath: command.config)
        #expect(
            try command.run("init").errors
                == "warren: \(command.key) exists: it is not overwritten, and nothing was written\n")
        #expect(!FileManager.default.fileExists(atPath: command.config))
    }

    @Test func initTakesItsKeyBackWhenTheConfigurationCannotBeWritten() throws {
        let command = try Command()
        let result = try command.runAlone([
            "init", "--config", "/proc/none/w.yaml", "--state", "\(command.directory)/state",
        ])
        #expect(result.status == 1)
        #expect(result.errors.hasPrefix("warren: /proc/none"))
        #expect(!FileManager.default.fileExists(atPath: command.key))
        // A directory that exists but takes no file.
        let other = try command.runAlone(["init", "--config", "/proc/w.yaml", "--state", "\(command.directory)/state"])
        #expect(other.status == 1)
        #expect(!FileManager.default.fileExists(atPath: command.key))
    }

    @Test func whatInitWritesHasNoMistake() throws {
        let command = try Command()
        _ = try command.run("init", "--name", "off")
        let check = try command.run("config", "check")
        #expect(
            check
                == .init(
                    status: 0, output: "\(command.config): good: 1 network, 0 peers besides this machine 'off'\n",
                    errors: ""))
        // The entry it prints fits another machine's list as it is.
        let other = try Command()
        let printed = try other.run("init", "--name", "b").output.split(separator: "\n").filter { !$0.hasPrefix("#") }
        let config =
            try String(contentsOfFile: command.config, encoding: .utf8) + printed.joined(separator: "\n") + "\n"
        try config.write(toFile: command.config, atomically: true, encoding: .utf8)
        #expect(try command.run("config", "check").output.contains("good: 1 network, 1 peer "))
    }

    /// The mistakes a user makes, each in the file of a machine called a. `ID` stands for its own peer ID.
    static let mistakes: [(yaml: String, line: String)] = [
        ("name: a\nlisten: []\nrelai: off\n", ":3: relai: unknown key: did you mean 'relay'?"),
        (
            "listen: [ /ip4/1.2.3/tcp/1 ]\n",
            ":1: listen[0]: not a multiaddr (/ip4/1.2.3: not an IPv4 address): write it like /ip4/192.0.2.7/tcp/4117"
        ),
        (
            "name: a\nnetworks: { home: { peers: [\n{ name: b, id: \(b) },\n{ name: c, id: \(b) } ] } }\n",
            ":4: networks.home.peers[1].id: is already the ID of peer 'b' in line 3: keep one entry per machine"
        ),
        (
            "name: a\nnetworks: { home: { peers: [\n{ name: b, id: \(b) },\n{ name: b, id: \(c) } ] } }\n",
            ":4: networks.home.peers[1].name: 'b' is already the name of the peer in line 3: rename one of them"
        ),
        (
            "name: a\nnetworks: { home: { peers: [\n{ name: b, id: \(b), routes: [ 10.0.0.0/8 ] },\n"
                + "{ name: c, id: \(c), routes: [ 10.1.0.0/16 ] } ] } }\n",
            ":4: networks.home.peers[1].routes[0]: 10.1.0.0/16 overlaps 10.0.0.0/8 of 'b' in line 3: "
                + "let each address lie behind one peer"
        ),
        (
            "name: a\nnetworks: { home: { peers: [\n{ name: x, id: ID } ] } }\n",
            ":3: networks.home.peers[0].name: 'x' has this machine's ID, but this machine's name is 'a': "
                + "write 'name: a' here, or 'name: x' at the top"
        ),
        (
            "name: a\nnetworks: { home: { peers: [\n{ name: a, id: \(b) } ] } }\n",
            ":3: networks.home.peers[0].name: 'a' is this machine's name, but the ID is another's: "
                + "rename one of them, or write this machine's ID ID"
        ),
    ]
    static let b = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
    static let c = "12D3KooWSMEBwucyqhgQuV74Yx2HcBbVd9FGCkwVDVbK85jLXbsS"

    @Test func aMistakeIsOneLineAndExitCodeTwo() throws {
        let command = try Command()
        _ = try command.run("init", "--name", "a")
        let id = try command.run("id").output.trimmingCharacters(in: .newlines)
        for mistake in Self.mistakes {
            try command.write(config: mistake.yaml.replacing("id: ID", with: "id: \(id)"))
            let before = try command.snapshot()
            let line = mistake.line.replacing("machine's ID ID", with: "machine's ID \(id)")
            #expect(
                try command.run("config", "check")
                    == .init(status: 2, output: "", errors: "warren: \(command.config)\(line)\n"))
            #expect(try command.snapshot() == before)
        }
    }

    @Test func aMissingConfigurationIsExitCodeTwo() throws {
        let command = try Command()
        _ = try command.run("init")
        try FileManager.default.removeItem(atPath: command.config)
        #expect(
            try command.run("config", "check")
                == .init(
                    status: 2, output: "",
                    errors: "warren: \(command.config): cannot be read (No such file or directory): "
                        + "write one with 'warren init', or name yours with --config\n"))
    }

    @Test func warningsDoNotFail() throws {
        let command = try Command()
        try command.write(config: "listen: [ /ip4/0.0.0.0/udp/1/quic-v1/webtransport ]\n")
        let result = try command.run("config", "check")
        #expect(result.status == 0)
        #expect(
            result.errors
                == "warren: warning: \(command.key): there is no identity file: this machine's own entry is told by its name alone\n"
                + "warren: warning: \(command.config):1: listen[0]: this address is skipped: this build has no webtransport\n"
        )
    }

    @Test(arguments: [
        ["status"], ["status", "--json"], ["peers"], ["peers", "b", "-v"], ["ping", "b"], ["perf", "b"], ["up"],
        ["up", "home"],
        ["down", "home"], ["route"], ["route", "show"], ["route", "add", "10.0.0.0/8", "b"],
        ["route", "del", "10.0.0.0/8"], ["config", "reload"],
    ])
    func withoutADaemonTheExitCodeIsThree(arguments: [String]) throws {
        let command = try Command()
        #expect(
            try command.runAlone(arguments + command.locations)
                == .init(
                    status: 3, output: "",
                    errors: "warren: no daemon at \(command.socket): start it with 'systemctl start warren', "
                        + "or name its socket with --socket\n"))
    }

    @Test(arguments: [
        ["sideways"], ["status", "--sideways"], ["status", "extra"], ["ping"], ["ping", "b", "--count", "0"],
        ["ping", "b", "--count", "x"], ["perf"], ["perf", "b", "--bytes", "0"], ["perf", "b", "--bytes", "-1"],
        ["perf", "b", "--bytes", "9223372036854775808"], ["perf", "b", "--seconds", "0"],
        ["perf", "b", "--seconds", "nan"],
        ["perf", "b", "--bytes", "1", "--seconds", "1"], ["ping", "b", "--interval", "nan"], ["route", "add"],
        ["route", "add", "10.0.0.1/8", "b"], ["completion"], ["completion", "tcsh"], ["init", "--name", "A B"],
        ["config", "check", "--config"],
    ])
    func wrongUsageIsExitCodeTwo(arguments: [String]) throws {
        let result = try Command().runAlone(arguments)
        #expect(result.status == 2)
        #expect(result.output == "")
        #expect(result.errors.hasPrefix("warren: "))
        #expect(result.errors.split(separator: "\n").count == 1)
    }

    @Test func everyVerbKnowsTheLocationsAndHasHelp() throws {
        let command = try Command()
        let verbs = [
            ["init"], ["id"], ["config", "check"], ["config", "reload"], ["daemon"], ["up"], ["down"], ["status"],
            ["ping"], ["perf"], ["peers"], ["route", "show"], ["route", "add"], ["route", "del"], ["version"],
            ["completion"],
        ]
        for verb in verbs {
            let help = try command.runAlone(verb + ["--help"])
            #expect(help.status == 0 && help.errors == "")
            for option in ["--config", "--state", "--socket"] { #expect(help.output.contains(option), "\(verb)") }
        }
    }

    @Test func versionNeedsNoDaemon() throws {
        let command = try Command()
        #expect(
            try command.run("version") == .init(status: 0, output: "warren \(BuildVersion.version)\n", errors: ""))
        #expect(
            try command.run("version", "--json").output == "{\"daemon\":null,\"version\":\"\(BuildVersion.version)\"}\n"
        )
    }

    @Test(arguments: ["bash", "zsh", "fish"])
    func completion(shell: String) throws {
        let result = try Command().runAlone(["completion", shell])
        #expect(result.status == 0)
        for verb in ["status", "route", "peers"] { #expect(result.output.contains(verb)) }
    }
}
