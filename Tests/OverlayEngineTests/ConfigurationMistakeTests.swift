import ControlAPI
import PeerIdentity
import Testing

@testable import OverlayEngine

/// Every mistake is one line: file, line, key, what is wrong, the fix. One row each.
@Suite struct ConfigurationMistakeTests {
    /// IDs of machines, by their first byte.
    static let own = Samples.id(1)
    static let b = Samples.id(2)
    static let c = Samples.id(3)

    struct Mistake: CustomTestStringConvertible {
        var yaml: String
        var line: String
        var testDescription: String { self.line }

        init(_ yaml: String, _ line: String) {
            self.yaml = yaml
            self.line = line
        }

        /// A mistake in the list of peers of network `home`, whose first line is line 5.
        init(peers: String, _ line: String) {
            let lines = peers.split(separator: "\n").map { "      \($0)" }.joined(separator: "\n")
            self.init("name: a\nnetworks:\n  home:\n    peers:\n\(lines)\n", line)
        }

        /// A mistake in network `home`, in line 4.
        init(network: String, _ line: String) { self.init("name: a\nnetworks:\n  home:\n    \(network)\n", line) }
    }

    static let mistakes: [Mistake] = [
        // The file
        Mistake(
            "name: a\n  relay: off\n",
            "f.yaml:2: not YAML (mapping values are not allowed in this context): check indentation, quotes and brackets here and in the line before"
        ),
        Mistake(
            "name: [a\n",
            "f.yaml:2: not YAML (did not find expected ',' or ']'): check indentation, quotes and brackets here and in the line before"
        ),
        Mistake(
            "name: a\nrelay: \u{7}\n",
            "f.yaml:2: not YAML (control characters are not allowed): check indentation, quotes and brackets here and in the line before"
        ),
        Mistake(
            "name: *a\n",
            "f.yaml:1: not YAML (found undefined alias): check indentation, quotes and brackets here and in the line before"
        ),
        Mistake(
            "name: a\n---\nname: b\n",
            "f.yaml:2: not YAML (but found another document): check indentation, quotes and brackets here and in the line before"
        ),
        Mistake("- a\n", "f.yaml:1: is not a mapping of keys to values: see the comments in the example warren.yaml"),
        Mistake(
            "a: [ \(String(repeating: "*a, ", count: 17))]\n", "f.yaml: more than 16 YAML aliases: write the values out"
        ),

        // Keys and shapes
        Mistake(
            "name: a\npeer: x\n",
            "f.yaml:2: peer: unknown key: known here: name, listen, relay, operators, tcpCongestion, protocolVersion, networks"
        ),
        Mistake("nmae: a\n", "f.yaml:1: nmae: unknown key: did you mean 'name'?"),
        Mistake(network: "Peers: []", "f.yaml:4: networks.home.Peers: unknown key: did you mean 'peers'?"),
        Mistake(
            peers: "- name: b\n  id: \(b)\n  address: []",
            "f.yaml:7: networks.home.peers[0].address: unknown key: did you mean 'addresses'?"),
        Mistake(
            "x: &x {name: a}\n<<: *x\n",
            "f.yaml:1: x: unknown key: known here: name, listen, relay, operators, tcpCongestion, protocolVersion, networks"
        ),
        Mistake("name: a\nrelay: off\nname: b\n", "f.yaml:3: name: given twice: keep one"),
        Mistake(peers: "- name: b\n  id: \(b)\n  name: c", "f.yaml:7: name: given twice: keep one"),
        Mistake(
            "? [a]\n: b\n", "f.yaml:1: is not a mapping with plain keys: see the comments in the example warren.yaml"),
        Mistake("name:\n", "f.yaml:1: name: has no value: write one, or remove the key"),
        Mistake("name: [a]\n", "f.yaml:1: name: is not a single value: see the comments in the example warren.yaml"),
        Mistake(
            "listen: /ip4/0.0.0.0/tcp/1\n",
            "f.yaml:1: listen: is not a list: see the comments in the example warren.yaml"),
        Mistake(
            "networks: [home]\n",
            "f.yaml:1: networks: is not a mapping of keys to values: see the comments in the example warren.yaml"),
        Mistake(
            peers: "- b",
            "f.yaml:5: networks.home.peers[0]: is not a mapping of keys to values: see the comments in the example warren.yaml"
        ),
        Mistake(
            peers: "- id: \(b)",
            "f.yaml:5: networks.home.peers[0].name: missing: write 'name: …', as that machine calls itself"),
        Mistake(
            peers: "- name: b",
            "f.yaml:5: networks.home.peers[0].id: missing: paste the output of 'warren id' on that machine"),

        // Single values
        Mistake("name: A.b\n", "f.yaml:1: name: 'A.b' is not a name: use 1 to 63 of a-z, 0-9 and inner hyphens"),
        Mistake("relay: true\n", "f.yaml:1: relay: 'true' is none of members, anyone, off: write one of them"),
        Mistake("operators: [ 'a b' ]\n", "f.yaml:1: operators[0]: 'a b' does not do: write the name of a group"),
        Mistake(
            "tcpCongestion: bbr/../x\n",
            "f.yaml:1: tcpCongestion: 'bbr/../x' does not do: write one that /proc/sys/net/ipv4/tcp_available_congestion_control lists"
        ),
        Mistake(
            "protocolVersion: ''\n", "f.yaml:1: protocolVersion: '' does not do: use 1 to 128 visible ASCII characters"),
        Mistake(
            "networks:\n  Home: {}\n",
            "f.yaml:2: networks.Home: 'Home' is not a name: use 1 to 63 of a-z, 0-9 and inner hyphens"),
        Mistake(
            network: "interface: warren-interface",
            "f.yaml:4: networks.home.interface: 'warren-interface' is not an interface name: use 1 to 15 of a-z, A-Z, 0-9, '-', '_' and '.'"
        ),
        Mistake(
            network: "interface: w%d",
            "f.yaml:4: networks.home.interface: 'w%d' is not an interface name: use 1 to 15 of a-z, A-Z, 0-9, '-', '_' and '.'"
        ),
        Mistake(
            network: "interface: all",
            "f.yaml:4: networks.home.interface: 'all' is not an interface name: use 1 to 15 of a-z, A-Z, 0-9, '-', '_' and '.'"
        ),
        Mistake(
            network: "mtu: 1279", "f.yaml:4: networks.home.mtu: is not in range: write a number from 1280 to 65535"),
        Mistake(
            network: "mtu: 65536", "f.yaml:4: networks.home.mtu: is not in range: write a number from 1280 to 65535"),
        Mistake(
            network: "mtu: 0x500",
            "f.yaml:4: networks.home.mtu: is not a number: see the comments in the example warren.yaml"),
        Mistake(
            network: "mtu: 99999999999999999999",
            "f.yaml:4: networks.home.mtu: is not a number: see the comments in the example warren.yaml"),
        Mistake(
            network: "ipv4Prefix: 100.64.0.0",
            "f.yaml:4: networks.home.ipv4Prefix: '100.64.0.0' is not a prefix: write 100.64.0.0/32"),
        Mistake(
            network: "ipv4Prefix: 100.64.0.1/10",
            "f.yaml:4: networks.home.ipv4Prefix: '100.64.0.1/10' is not a prefix: write 100.64.0.0/10"),
        Mistake(
            network: "ipv4Prefix: fd00::/64",
            "f.yaml:4: networks.home.ipv4Prefix: 'fd00::/64' is not a prefix: write it like 192.168.7.0/24"),
        Mistake(
            network: "ipv4Prefix: 10.0.0.0/31",
            "f.yaml:4: networks.home.ipv4Prefix: a prefix length of 31 does not do: use /8 to /30"),
        Mistake(
            network: "ipv4Prefix: 0.0.0.0/0",
            "f.yaml:4: networks.home.ipv4Prefix: a prefix length of 0 does not do: use /8 to /30"),
        Mistake(
            network: "ipv4Prefix: 127.0.0.0/8",
            "f.yaml:4: networks.home.ipv4Prefix: 127.0.0.0/8 holds loopback, link-local or multicast addresses: remove it"
        ),
        Mistake(
            network: "networkSecret: ''",
            "f.yaml:4: networks.home.networkSecret: is empty or too long: write 1 to 1024 bytes, or remove the key"),
        Mistake(
            network: "networkSecret:",
            "f.yaml:4: networks.home.networkSecret: has no value: write one, or remove the key"),
        Mistake(
            network: "acceptRoutes: [ 0.0.0.0/0 ]",
            "f.yaml:4: networks.home.acceptRoutes[0]: 0.0.0.0/0 is the default route: announce the prefixes you need instead"
        ),

        // Addresses
        Mistake(
            "listen:\n  - /ip4/0.0.0.0/tcp/4117\n  - /ip4/300.0.0.1/tcp/4117\n",
            "f.yaml:3: listen[1]: not a multiaddr (/ip4/300.0.0.1: not an IPv4 address): write it like /ip4/192.0.2.7/tcp/4117"
        ),
        Mistake(
            "listen: [ 0.0.0.0:4117 ]\n",
            "f.yaml:1: listen[0]: not a multiaddr (0.0.0.0:4117: an address begins with a slash): write it like /ip4/192.0.2.7/tcp/4117"
        ),
        Mistake(
            "listen: [ /ip4/0.0.0.0 ]\n",
            "f.yaml:1: listen[0]: cannot be listened on (no transport has this form): write it like /ip4/0.0.0.0/tcp/4117"
        ),
        Mistake(
            "listen: [ /dns4/a.example/tcp/1 ]\n",
            "f.yaml:1: listen[0]: cannot be listened on (it does not begin with an IP address): write it like /ip4/0.0.0.0/tcp/4117"
        ),
        Mistake(
            "listen: [ /ip4/0.0.0.0/tcp/1/p2p/\(b) ]\n",
            "f.yaml:1: listen[0]: cannot be listened on (it names a peer): write it like /ip4/0.0.0.0/tcp/4117"),
        Mistake(
            "listen:\n  - /ip4/0.0.0.0/tcp/1\n  - /ip4/0.0.0.0/tcp/1\n",
            "f.yaml:3: listen[1]: is already in line 2: keep one"),
        Mistake(
            peers: "- name: b\n  id: \(b)\n  addresses: [ /ip4/192.0.2.7/tcp/70000 ]",
            "f.yaml:7: networks.home.peers[0].addresses[0]: not a multiaddr (/tcp/70000: not a port (0 to 65535)): write it like /ip4/192.0.2.7/tcp/4117"
        ),
        Mistake(
            peers: "- name: b\n  id: \(b)\n  addresses: [ /ip4/0.0.0.0/tcp/1 ]",
            "f.yaml:7: networks.home.peers[0].addresses[0]: cannot be dialled (0.0.0.0 is every address and none): write it like /ip4/192.0.2.7/tcp/4117"
        ),
        Mistake(
            peers: "- name: b\n  id: \(b)\n  addresses: [ /ip4/192.0.2.7/tcp/0 ]",
            "f.yaml:7: networks.home.peers[0].addresses[0]: cannot be dialled (the port is 0): write it like /ip4/192.0.2.7/tcp/4117"
        ),
        Mistake(
            peers: "- name: b\n  id: \(b)\n  addresses: [ /unix/tmp/x ]",
            "f.yaml:7: networks.home.peers[0].addresses[0]: cannot be dialled (no transport has this form): write it like /ip4/192.0.2.7/tcp/4117"
        ),
        Mistake(
            peers: "- name: b\n  id: \(b)\n  addresses: [ /ip4/192.0.2.7/tcp/1/p2p/\(c) ]",
            "f.yaml:7: networks.home.peers[0].addresses[0]: is an address of another peer (\(c)): remove the /p2p part, or move the address to that peer"
        ),
        Mistake(
            peers: "- name: b\n  id: \(b)\n  ipv4: fd00::1",
            "f.yaml:7: networks.home.peers[0].ipv4: 'fd00::1' is not an IPv4 address: write it like 100.64.0.7"),
        Mistake(
            peers: "- name: b\n  id: \(b)\n  ipv4: 10.0.0.1",
            "f.yaml:7: networks.home.peers[0].ipv4: 10.0.0.1 is outside the network's ipv4Prefix 100.64.0.0/10: choose one inside, or change ipv4Prefix on all machines"
        ),
        Mistake(
            peers: "- name: b\n  id: \(b)\n  ipv4: 100.127.255.255",
            "f.yaml:7: networks.home.peers[0].ipv4: 100.127.255.255 is the first or last address of 100.64.0.0/10: choose another"
        ),

        // Peers
        Mistake(
            peers: "- name: b\n  id: 12D3Koo",
            "f.yaml:6: networks.home.peers[0].id: not a peer ID (\(Samples.reasonAgainst("12D3Koo"))): paste the output of 'warren id' on that machine"
        ),
        Mistake(
            peers: "- name: b\n  id: \(b)\n- name: b\n  id: \(c)",
            "f.yaml:7: networks.home.peers[1].name: 'b' is already the name of the peer in line 5: rename one of them"),
        Mistake(
            peers: "- name: b\n  id: \(b)\n- name: c\n  id: \(b)",
            "f.yaml:8: networks.home.peers[1].id: is already the ID of peer 'b' in line 6: keep one entry per machine"),
        Mistake(
            peers: "- name: x\n  id: \(own)",
            "f.yaml:5: networks.home.peers[0].name: 'x' has this machine's ID, but this machine's name is 'a': write 'name: a' here, or 'name: x' at the top"
        ),
        Mistake(
            peers: "- name: a\n  id: \(b)",
            "f.yaml:5: networks.home.peers[0].name: 'a' is this machine's name, but the ID is another's: rename one of them, or write this machine's ID \(own)"
        ),
        Mistake(
            peers: "- name: b\n  id: \(b)\n  ipv4: 100.64.0.7\n- name: c\n  id: \(c)\n  ipv4: 100.64.0.7",
            "f.yaml:10: networks.home.peers[1].ipv4: 100.64.0.7 is already the address of 'b' in line 7: give one of them another address"
        ),

        // Routes
        Mistake(
            peers: "- name: b\n  id: \(b)\n  routes: [ 192.168.7.1/24 ]",
            "f.yaml:7: networks.home.peers[0].routes[0]: '192.168.7.1/24' is not a prefix: write 192.168.7.0/24"),
        Mistake(
            peers: "- name: b\n  id: \(b)\n  routes: [ '::/0' ]",
            "f.yaml:7: networks.home.peers[0].routes[0]: ::/0 is the default route: announce the prefixes you need instead"
        ),
        Mistake(
            peers: "- name: b\n  id: \(b)\n  routes: [ fe80::/64 ]",
            "f.yaml:7: networks.home.peers[0].routes[0]: fe80::/64 holds loopback, link-local or multicast addresses: remove it"
        ),
        Mistake(
            peers: "- name: b\n  id: \(b)\n  routes: [ 100.65.0.0/16 ]",
            "f.yaml:7: networks.home.peers[0].routes[0]: 100.65.0.0/16 overlaps 100.64.0.0/10, the overlay addresses of network 'home': remove it, or choose another ipv4Prefix on all machines"
        ),
        Mistake(
            peers: "- name: b\n  id: \(b)\n  routes: [ fd01::/16 ]",
            "f.yaml:7: networks.home.peers[0].routes[0]: fd01::/16 overlaps fd01:203:405::/48, the overlay addresses of network 'home': remove it, or choose another ipv4Prefix on all machines"
        ),
        Mistake(
            peers:
                "- name: b\n  id: \(b)\n  routes: [ 10.0.0.0/8 ]\n- name: c\n  id: \(c)\n  routes:\n  - 192.168.7.0/24\n  - 10.7.0.0/16",
            "f.yaml:12: networks.home.peers[1].routes[1]: 10.7.0.0/16 overlaps 10.0.0.0/8 of 'b' in line 7: let each address lie behind one peer"
        ),
        Mistake(
            peers:
                "- name: b\n  id: \(b)\n  routes: [ 10.7.0.0/16 ]\n- name: a\n  id: \(own)\n  routes: [ 10.0.0.0/8 ]",
            "f.yaml:10: networks.home.peers[1].routes[0]: 10.0.0.0/8 overlaps 10.7.0.0/16 of 'b' in line 7: let each address lie behind one peer"
        ),
        Mistake(
            peers: "- name: b\n  id: \(b)\n  routes: [ 10.0.0.0/8, 10.0.0.0/8 ]",
            "f.yaml:7: networks.home.peers[0].routes[1]: 10.0.0.0/8 is already in line 7: keep one"),

        // Across networks
        Mistake(
            "networks:\n  x:\n    interface: w0\n  y:\n    interface: w0\n",
            "f.yaml:5: networks.y.interface: 'w0' is already the interface of network 'x' in line 3: choose another name, or leave it out"
        ),
        Mistake(
            "networks:\n  x:\n    peers:\n    - { name: b, id: \(b), routes: [ 10.0.0.0/8 ] }\n  y:\n    peers:\n    - { name: b, id: \(b), routes: [ 10.1.0.0/16 ] }\n",
            "f.yaml:7: networks.y.peers[0].routes[0]: 10.1.0.0/16 overlaps 10.0.0.0/8 of 'b' in line 4: let each address lie behind one peer"
        ),
        Mistake(
            "networks:\n  x:\n    peers:\n    - { name: b, id: \(b), routes: [ 10.0.0.0/8 ] }\n  y:\n    ipv4Prefix: 10.1.0.0/16\n",
            "f.yaml:4: networks.x.peers[0].routes[0]: 10.0.0.0/8 overlaps 10.1.0.0/16, the overlay addresses of network 'y': remove it, or choose another ipv4Prefix on all machines"
        ),
        Mistake(
            "networks:\n  x:\n    peers:\n    - { name: b, id: \(b), ipv4: 100.64.0.7 }\n  y:\n    peers:\n    - { name: c, id: \(c), ipv4: 100.64.0.7 }\n",
            "f.yaml:7: networks.y.peers[0].ipv4: 100.64.0.7 is already the address of 'b' in line 4: give one of them another address"
        ),
    ]

    @Test(arguments: mistakes)
    func isOneLineWithTheFix(mistake: Mistake) {
        let error = #expect(throws: ConfigurationError.self) {
            try DaemonConfiguration.parse(mistake.yaml, file: "f.yaml", context: Samples.context)
        }
        #expect(error?.description == mistake.line)
        #expect(error?.exitStatus.rawValue == 2)
        #expect(error?.description.contains { $0.isNewline } == false)
    }
}
