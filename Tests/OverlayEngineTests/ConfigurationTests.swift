import Foundation
import Multiformats
import PeerIdentity
import Testing

@testable import OverlayEngine

@Suite struct ConfigurationTests {
    @Test func defaults() throws {
        for yaml in ["", "# nothing\n", "---\n", "networks:\n", "networks: {}\n", "~\n"] {
            let parsed = try Samples.parse(yaml)
            #expect(
                parsed.configuration
                    == DaemonConfiguration(
                        name: "a",
                        listen: try DaemonConfiguration.defaultListen.map { try Multiaddr($0) },
                        relay: .members, operators: ["warren"], tcpCongestion: "bbr", protocolVersion: "ipfs/0.1.0",
                        networks: []))
            #expect(parsed.warnings.isEmpty)
        }
        let network = try #require(Samples.parse("networks: { home: }").configuration.networks.first)
        #expect(
            network
                == NetworkConfiguration(
                    name: "home", interface: "warren0", mtuBytes: 1280,
                    ipv4Prefix: try #require(IPPrefix("100.64.0.0/10")),
                    networkSecret: nil, acceptRoutes: [], own: nil, peers: []))
    }

    @Test func everyValue() throws {
        let parsed = try Samples.parse(
            """
            name: "a"
            listen: [ /ip4/0.0.0.0/tcp/1, /ip6/::1/tcp/0 ]
            relay: off
            operators: [ wheel, wheel, vpn ]
            tcpCongestion: cubic
            protocolVersion: x/1
            networks:
              home:
                interface: tun7
                mtu: 9000
                ipv4Prefix: 10.9.0.0/16
                networkSecret: 007
                peers:
                  - name: b
                    id: \(Samples.id(2))
                    addresses:
                      - /ip4/192.0.2.7/tcp/1/p2p/\(Samples.id(2))
                      - /dns/b.example/tcp/1
                      - /dnsaddr/b.example
                    ipv4: 10.9.0.7
                    routes: [ 192.168.7.0/24, fd77::/64, 192.168.0.0/16 ]
                  - { name: a, id: \(Samples.id(1)), routes: [ 172.16.0.0/12 ] }
            """)
        let configuration = parsed.configuration
        #expect(configuration.listen.map(\.description) == ["/ip4/0.0.0.0/tcp/1", "/ip6/::1/tcp/0"])
        #expect(configuration.relay == .off)
        #expect(configuration.operators == ["wheel", "vpn"])
        #expect(configuration.tcpCongestion == "cubic")
        #expect(configuration.protocolVersion == "x/1")
        let network = try #require(configuration.networks.first)
        #expect(network.interface == "tun7")
        #expect(network.mtuBytes == 9000)
        #expect(network.ipv4Prefix.description == "10.9.0.0/16")
        #expect(network.networkSecret == NetworkSecret("007"))
        #expect(network.own?.routes.map(\.description) == ["172.16.0.0/12"])
        #expect(network.peers.map(\.id) == [Samples.id(2)])
        let peer = try #require(network.peers.first)
        #expect(
            peer.addresses.map(\.description) == ["/ip4/192.0.2.7/tcp/1", "/dns/b.example/tcp/1", "/dnsaddr/b.example"])
        #expect(peer.ipv4 == IPAddress("10.9.0.7"))
        #expect(peer.routes.map(\.description) == ["192.168.7.0/24", "fd77::/64", "192.168.0.0/16"])
        #expect(parsed.warnings.isEmpty)
    }

    /// As the documentation shows it: flow lists, trailing comments, values beside comments.
    @Test func theDocumentedForm() throws {
        let parsed = try Samples.parse(
            """
            name: a                                  # this machine, in every network
            listen: [ /ip4/0.0.0.0/tcp/4117, /ip6/::/tcp/4117, /ip4/0.0.0.0/udp/4117/quic-v1, /ip6/::/udp/4117/quic-v1 ]   # the default
            relay: members                           # members | anyone | off
            operators: [ warren ]                    # groups
            tcpCongestion: bbr                       # what our TCP sockets ask for
            protocolVersion: ipfs/0.1.0              # what identify says
            networks:
              home:
                interface: warren0                   # default: warren0, warren1, …
                mtu: 1280
                ipv4Prefix: 100.64.0.0/10
                networkSecret: …                     # optional
                acceptRoutes: []                     # managed mode
                peers:                               # one list can serve all machines
                  - name: b
                    id: \(Samples.id(2))
                    addresses: [ /ip4/192.0.2.7/tcp/4117 ]   # optional: discovery finds the rest
                    ipv4: 100.64.0.7                 # optional: settles a collision
                    routes: [ 192.168.7.0/24 ]       # prefixes behind b
            """)
        #expect(parsed.configuration.listen.map(\.description) == DaemonConfiguration.defaultListen)
        #expect(parsed.configuration.networks[0].networkSecret == NetworkSecret("…"))
        #expect(parsed.configuration.networks[0].peers[0].routes.map(\.description) == ["192.168.7.0/24"])
        #expect(parsed.warnings.isEmpty)
    }

    @Test func whatThisBuildHasNotGotIsSkippedWithOneWarning() throws {
        let parsed = try Samples.parse(
            """
            listen:
              - /ip4/0.0.0.0/tcp/1
              - /ip4/0.0.0.0/udp/1/quic-v1/webtransport
              - /ip6/::/udp/1/quic-v1/webtransport
            networks:
              home:
                acceptRoutes: [ 10.0.0.0/8 ]
                peers:
                  - name: b
                    id: \(Samples.id(2))
                    addresses: [ /ip4/192.0.2.7/udp/1/quic-v1/webtransport, /ip4/192.0.2.7/udp/1/webrtc-direct ]
            """)
        #expect(parsed.configuration.listen.map(\.description) == ["/ip4/0.0.0.0/tcp/1"])
        #expect(parsed.configuration.networks[0].peers[0].addresses.isEmpty)
        #expect(
            parsed.warnings.map(\.description) == [
                "f.yaml:7: networks.home.acceptRoutes: is for managed mode, which this build has not got: skipped",
                "f.yaml:3: listen[1]: 3 addresses, this the first, are skipped: this build has no webtransport",
                "f.yaml:11: networks.home.peers[0].addresses[1]: this address is skipped: this build has no webrtc-direct",
            ])
        var context = Samples.context
        context.transports = [.tcp]
        // What stands in the default is not the operator's wish: no warning.
        let few = try DaemonConfiguration.parse("", file: "f", context: context)
        #expect(few.configuration.listen.map(\.description) == ["/ip4/0.0.0.0/tcp/4117", "/ip6/::/tcp/4117"])
        #expect(few.warnings.isEmpty)
    }

    @Test(
        arguments: [
            ("/ip4/1.2.3.4/tcp/1", AddressKind.tcp), ("/ip6/::1/tcp/1/p2p/\(Samples.id(2))", .tcp),
            ("/dns4/x/tcp/1", .tcp),
            ("/dnsaddr/x", .tcp), ("/ip6zone/eth0/ip6/fe80::1/tcp/1", .tcp), ("/ip4/1.2.3.4/udp/1/quic-v1", .quicV1),
            ("/ip4/1.2.3.4/tcp/1/ws", .ws), ("/ip4/1.2.3.4/tcp/1/wss", .wss), ("/ip4/1.2.3.4/tcp/1/tls/ws", .wss),
            ("/ip4/1.2.3.4/udp/1/quic-v1/webtransport", .webTransport),
            ("/ip4/1.2.3.4/udp/1/webrtc-direct", .webRTCDirect),
            ("/ip4/1.2.3.4/tcp/1/p2p/\(Samples.id(2))/p2p-circuit", .relayed),
            ("/p2p/\(Samples.id(2))/p2p-circuit/p2p/\(Samples.id(3))", .relayed), ("/ip4/1.2.3.4", nil),
            ("/tcp/1", nil),
            ("/ip4/1.2.3.4/udp/1", nil), ("/ip4/1.2.3.4/tcp/1/http", nil), ("/memory/1", nil),
            ("/ip4/1.2.3.4/udp/1/quic", nil), ("/p2p/\(Samples.id(2))", nil),
        ] as [(String, AddressKind?)])
    func transportsOfAddresses(address: String, kind: AddressKind?) throws {
        #expect(AddressKind(try Multiaddr(address)) == kind)
    }

    @Test func interfacesWithoutANameTakeFreeNumbers() throws {
        let networks = try Samples.parse(
            "networks: { d: , c: { interface: warren1 }, b: {}, a: { interface: x }, e: }"
        ).configuration.networks
        #expect(networks.map(\.name) == ["d", "c", "b", "a", "e"])
        #expect(networks.map(\.interface) == ["warren0", "warren1", "warren2", "x", "warren3"])
    }

    @Test func anchorsShareAList() throws {
        let networks = try Samples.parse(
            """
            networks:
              x:
                peers: &all
                  - { name: b, id: \(Samples.id(2)) }
              y:
                peers: *all
            """
        ).configuration.networks
        #expect(networks.map { $0.peers.map(\.name) } == [["b"], ["b"]])
    }

    @Test func withoutAKeyTheOwnNameTellsTheOwnEntry() throws {
        var context = Samples.context
        context.ownPeerID = nil
        let yaml =
            "name: b\nnetworks: { home: { peers: [ { name: a, id: \(Samples.id(1)) }, { name: b, id: \(Samples.id(2)) } ] } }"
        let network = try DaemonConfiguration.parse(yaml, file: "f", context: context).configuration.networks[0]
        #expect(network.own?.name == "b")
        #expect(network.peers.map(\.name) == ["a"])
    }

    @Test func secretsDoNotShowThemselves() throws {
        let configuration = try Samples.home(network: "networkSecret: hush-hush")
        #expect(!"\(configuration)".contains("hush"))
        #expect(!String(reflecting: configuration).contains("hush"))
        for secret in ["hush-hush-\(String(repeating: "x", count: 1024))", "[ hush-hush ]"] {
            let error = #expect(throws: ConfigurationError.self) {
                try Samples.home(network: "networkSecret: \(secret)")
            }
            #expect(error?.description.contains("hush") == false)
        }
    }

    // MARK: Hostile files

    /// Each must come to an error, and soon, in whatever thread the daemon reads its configuration.
    @Test(arguments: [
        String(repeating: "[", count: 1 << 20), String(repeating: "{a: ", count: 1 << 18),
        String(repeating: "- ", count: 1 << 19), String(repeating: "? ", count: 1 << 19),
        String(repeating: "a: b\n", count: 1 << 14), "name: " + String(repeating: "x", count: 1 << 20 - 6),
        "name: \"" + String(repeating: "\\u2028", count: 100_000) + "\"", "\u{feff}name: a\u{0}b", "%YAML 9.9\n--- a",
        "!<tag:x> a", "name: !!binary aGk=\nname: 1",
    ])
    func hostileTextIsAnError(text: String) {
        let error = #expect(throws: ConfigurationError.self) { try Samples.parse(text) }
        #expect((error?.description.utf8.count ?? 0) < 8192)
    }

    /// Aliases of aliases, as values and as keys, where the parser compares them.
    @Test func aliasesCannotExplode() throws {
        let widths = [2, 9]
        for width in widths {
            var bomb = "a0: &a0 [x]\n"
            for level in 1...30 {
                bomb += "a\(level): &a\(level) [\((0..<width).map { _ in "*a\(level - 1)" }.joined(separator: ", "))]\n"
            }
            #expect(throws: ConfigurationError.self) { try Samples.parse(bomb + "? *a30\n: b\n") }
        }
        // As deep as the limit allows: 7 levels of 2, then a comparison of two keys.
        var deep = "a0: &a0 [x]\n"
        for level in 1...7 { deep += "a\(level): &a\(level) [*a\(level - 1), *a\(level - 1)]\n" }
        let error = #expect(throws: ConfigurationError.self) { try Samples.parse(deep + "? *a7\n: b\n? *a7\n: c\n") }
        #expect(error?.fault == .duplicateKey)
    }

    @Test func manyRoutesAreComparedInTime() throws {
        func peers(_ count: Int) -> String {
            (0..<count).map { index in
                let id = PeerID(
                    uncheckedBytes: [0x00, 0x24, 0x08, 0x01, 0x12, 0x20, UInt8(index >> 8), UInt8(index & 255)]
                        + Array(repeating: 7, count: 30))
                return "      - { name: p\(index), id: \(id), routes: [ 10.\(index >> 8).\(index & 255).0/24 ] }\n"
            }.joined()
        }
        let head = "networks:\n  home:\n    peers:\n"
        #expect(try Samples.parse(head + peers(4096)).configuration.networks[0].peers.count == 4096)
        let error = #expect(throws: ConfigurationError.self) { try Samples.parse(head + peers(4097)) }
        #expect(error?.fault == .tooMany(maximum: 4096))
    }

    @Test func filesThatCannotBeRead() throws {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent("warren-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        func error(_ name: String, _ content: Data?) throws -> String? {
            let path = directory.appendingPathComponent(name).path
            try content?.write(to: URL(fileURLWithPath: path))
            let error = #expect(throws: ConfigurationError.self) {
                try DaemonConfiguration.load(path: path, context: Samples.context)
            }
            return error.map { "\($0)".replacingOccurrences(of: directory.path + "/", with: "") }
        }
        #expect(
            try error("none.yaml", nil)
                == "none.yaml: cannot be read (No such file or directory): write one with 'warren init', or name yours with --config"
        )
        #expect(try error("", nil)?.hasSuffix("is not a regular file: name the configuration with --config") == true)
        #expect(try error("latin1.yaml", Data([0x6E, 0xE4])) == "latin1.yaml: is not UTF-8: save it as UTF-8")
        #expect(
            try error("long.yaml", Data(repeating: 0x20, count: 1 << 20 + 1))
                == "long.yaml: is longer than 1048576 bytes: is it the right file?")
        #expect(mkfifo(directory.appendingPathComponent("pipe").path, 0o600) == 0)
        #expect(try error("pipe", nil) == "pipe: is not a regular file: name the configuration with --config")
    }
}

/// The key table, the parser and the example file say the same.
@Suite struct ConfigurationKeyTests {
    static let examplePath = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("etc/warren.yaml").path

    @Test func theExampleHasNoMistakeAndNoWarning() throws {
        let parsed = try DaemonConfiguration.load(path: Self.examplePath, context: Samples.context)
        #expect(parsed.warnings.isEmpty)
        #expect(parsed.configuration.networks.first?.peers.first?.name == "b")
    }

    /// The comment above each key says what the table says; no other key is there.
    @Test func theExampleNamesEveryKey() throws {
        let lines = try String(contentsOfFile: Self.examplePath, encoding: .utf8).split(separator: "\n").map(
            String.init)
        for key in ConfigurationKey.all {
            let index = try #require(
                lines.firstIndex { line in
                    let content = line.drop { $0 == " " || $0 == "-" }
                    return content.hasPrefix("\(key.name):") && Self.depth(of: line) == Self.depth(of: key)
                }, "\(key.path)")
            let comment = lines[..<index].reversed().prefix { $0.drop { $0 == " " }.hasPrefix("#") }.joined(
                separator: " ")
            let mark = key.isReloadable ? "[reloadable]" : "[restart]"
            #expect(comment.contains(mark), "\(key.path) is \(mark)")
            if let value = key.defaultValue {
                #expect(comment.contains("Default: \(value)"), "\(key.path): default \(value)")
            } else {
                #expect(comment.contains("Must be given."), "\(key.path)")
            }
        }
    }

    /// The indentation at which a key of this path stands, and at which a line's key does.
    static func depth(of key: ConfigurationKey) -> Int {
        switch key.path.split(separator: ".").count {
        case 1: 0
        case 3: 4
        default: 8
        }
    }
    static func depth(of line: String) -> Int { line.prefix { $0 == " " || $0 == "-" }.count }

    @Test func everyKeyOfTheTableIsRead() throws {
        // With a list where none belongs, each key is missed, refused, or taken for the list it is: never unknown.
        for key in ConfigurationKey.all {
            let yaml: String =
                switch key.path.split(separator: ".").count {
                case 1: "\(key.name): [[]]"
                case 3: "networks: { home: { \(key.name): [[]] } }"
                default:
                    "networks: { home: { peers: [ { name: b, id: \(Samples.id(2)), \(["name", "id"].contains(key.name) ? "routes" : key.name): [[]] } ] } }"
                }
            let error = #expect(throws: ConfigurationError.self) { try Samples.parse(yaml) }
            guard case .wrongShape = error?.fault else {
                Issue.record("\(key.path) is not read: \(String(describing: error))")
                continue
            }
        }
    }
}
