import ControlAPI
import Multiformats
import Testing

@testable import warren

/// What people see.
@Suite struct TextTests {
    static let relay = "12D3KooWSMEBwucyqhgQuV74Yx2HcBbVd9FGCkwVDVbK85jLXbsS"

    static func path(_ address: String, relay: String? = nil, sending: Bool = true) -> PathReport {
        PathReport(
            address: address, transport: "tcp", security: "noise", muxer: "yamux",
            congestion: relay == nil ? "bbr" : nil,
            relay: relay, limited: relay != nil, sending: sending, receiving: true, lanes: ["stream"],
            rttMilliseconds: 0.417, since: "2026-01-02T03:04:05Z")
    }

    static func peer(_ name: String, _ state: PeerReport.State, reason: String = "", paths: [PathReport] = [])
        -> PeerReport
    {
        PeerReport(
            id: "12D3Koo\(name)", name: name, ips: ["100.64.3.4", "fd00::2"], routes: [], state: state, reason: reason,
            paths: paths, sentBytes: 1_234_567, receivedBytes: 12, sentPackets: 3, receivedPackets: 1,
            reorderedPackets: 0,
            dropped: ["wrongSource": 0, "queueFull": name == "c" ? 7 : 0])
    }

    @Test func status() {
        let report = StatusReport(
            peerID: "12D3KooA", version: "0.1.0", agent: "warren/0.1.0", uptimeSeconds: 3725.4,
            listen: ["/ip4/192.0.2.1/tcp/4117"], observed: [], reachability: .unknown, relays: [],
            networks: [
                NetworkReport(
                    name: "home", id: "ab", interface: "warren0", ips: ["100.64.1.2", "fd00::1"], mtu: 1280,
                    dropped: ["stranger": 2, "noRoute": 0],
                    peers: [
                        Self.peer(
                            "b", .direct,
                            paths: [
                                Self.path("/ip4/192.0.2.8/tcp/1", sending: false), Self.path("/ip4/192.0.2.7/tcp/4117"),
                            ]),
                        Self.peer(
                            "c", .relayed, reason: "no way\nin\u{1b}[2J", paths: [Self.path("/x", relay: Self.relay)]),
                        Self.peer("dora", .idle, reason: "nothing to send"),
                    ]),
                NetworkReport(
                    name: "empty", id: "cd", interface: "warren1", ips: [], mtu: 1280, dropped: [:], peers: []),
            ])
        #expect(
            StatusText.render(report) == """
                12D3KooA  warren/0.1.0, up 1 h 2 min
                listening  /ip4/192.0.2.1/tcp/4117
                reachable  unknown

                home  warren0  100.64.1.2  fd00::1  mtu 1280  dropped: stranger 2
                PEER  IP          STATE    PATH                       RTT      SENT    RECEIVED
                b     100.64.3.4  direct   /ip4/192.0.2.7/tcp/4117    0.42 ms  1.2 MB  12 B
                c     100.64.3.4  relayed  via 12D3…jLXbsS (limited)  0.42 ms  1.2 MB  12 B
                  no way in [2J
                  dropped: queueFull 7
                dora  100.64.3.4  idle     -                          -        1.2 MB  12 B
                  nothing to send

                empty  warren1  mtu 1280
                no peer: add one under networks.empty.peers

                """)
    }

    @Test func peers() {
        let detail = PeerDetail(
            network: "home",
            peer: Self.peer("c", .unreachable, reason: "refused", paths: [Self.path("/x", relay: "R")]),
            agent: "warren/0.1.0", protocols: ["/a/1", "/b/1"],
            addresses: [
                .init(address: "/ip4/192.0.2.7/tcp/1", source: "configuration", lastError: "connection refused"),
                .init(address: "/ip4/192.0.2.8/tcp/1", source: "mdns", lastError: nil),
                .init(
                    address: "/ip4/192.0.2.9/tcp/1", source: "name", name: "/dns4/c.example/tcp/1",
                    reachedAt: "2026-01-02T03:04:05Z", handshakeMilliseconds: 31.04, failures: 3,
                    lastError: "no answer in time", failedAt: "2026-01-02T03:05:00Z", retryInSeconds: 9.4),
                .init(
                    address: "/ip4/192.0.2.10/tcp/1", source: "last good", reachedAt: "2026-01-02T03:04:05Z",
                    lastError: nil),
            ])
        #expect(
            PeerText.render([detail], isVerbose: false) == """
                NETWORK  PEER  IP          STATE        ID
                home     c     100.64.3.4  unreachable  12D3Kooc

                """)
        #expect(
            PeerText.render([detail], isVerbose: true) == """
                c in home
                  id        12D3Kooc
                  ips       100.64.3.4, fd00::2
                  state     unreachable (refused)
                  agent     warren/0.1.0
                  protocols /a/1, /b/1
                  path      /x, noise, yamux, relay R, limited, lanes stream, in use, 0.42 ms, since 2026-01-02T03:04:05Z
                  address   /ip4/192.0.2.7/tcp/1 (configuration): connection refused
                  address   /ip4/192.0.2.8/tcp/1 (mdns)
                  address   /ip4/192.0.2.9/tcp/1 (name /dns4/c.example/tcp/1): no answer in time, 3 times, last at 2026-01-02T03:05:00Z; left alone for 9 s; reached in 31.0 ms at 2026-01-02T03:04:05Z
                  address   /ip4/192.0.2.10/tcp/1 (last good): reached at 2026-01-02T03:04:05Z
                  sent      1.2 MB in 3 packets
                  received  12 B in 1 packets
                  dropped   queueFull 7

                """)
        #expect(PeerText.render([], isVerbose: true) == "no peer\n")
        let dialling = PeerList.Dialling(
            underWay: 2, waiting: 0,
            blackHoles: [
                .init(name: "UDP", blocked: true, successes: 1, dials: 100),
                .init(name: "IPv6", blocked: false, successes: 0, dials: 3),
            ])
        let last = PeerText.render([detail], dialling: dialling, isVerbose: true).split(separator: "\n").last
        #expect(
            last
                == "dialling  2 under way, 0 waiting, UDP blocked (1 of 100 dials succeeded), IPv6 open (0 of 3 dials succeeded)"
        )
        #expect(!PeerText.render([detail], dialling: dialling, isVerbose: false).contains("dialling"))
    }

    @Test func ping() {
        var reply = PingReply(
            sequence: 1, peer: "p", name: "b", ip: "100.64.3.4", address: "/ip4/192.0.2.7/tcp/1", transport: "tcp",
            lane: "stream", rttMilliseconds: 12.34)
        #expect(
            PingText.line(reply)
                == "answer from b (100.64.3.4): seq=1 time=12.3 ms direct /ip4/192.0.2.7/tcp/1, stream")
        reply.relay = "R"
        #expect(PingText.line(reply).contains(" relayed by R "))
        reply.rttMilliseconds = nil
        reply.error = "no answer within 5 s"
        #expect(PingText.line(reply) == "no answer from b (100.64.3.4): seq=1 no answer within 5 s")
        #expect(PingText.summary(sent: 2, received: []) == "2 sent, 0 answered")
        #expect(
            PingText.summary(sent: 3, received: [1, 2])
                == "3 sent, 2 answered, min 1.00 ms, mean 1.50 ms, max 2.00 ms")
    }

    @Test func perf() {
        var reply = PerfReply(
            peer: "p", name: "b", address: "/ip4/192.0.2.7/tcp/1", transport: "tcp", direction: "upload",
            bytes: 1_250_000_000, seconds: 2)
        #expect(PerfText.line(reply) == "to b: 1.3 GB in 2.00 s, 5.0 Gbit/s")
        reply.done = true
        #expect(PerfText.line(reply) == "to b, all: 1.3 GB in 2.00 s, 5.0 Gbit/s, direct /ip4/192.0.2.7/tcp/1")
        reply.relay = "R"
        reply.direction = "download"
        #expect(PerfText.line(reply).hasSuffix(", relayed by R /ip4/192.0.2.7/tcp/1"))
        reply.error = "a\nb"
        #expect(PerfText.line(reply) == "from b: failed: a b")
    }

    @Test(
        arguments: [
            (0, "0 bit/s"), (999.4, "999 bit/s"), (999.96, "1.0 kbit/s"), (12_340_000, "12.3 Mbit/s"),
            (5.6e9, "5.6 Gbit/s"), (-1, "-"), (.infinity, "-"), (.nan, "-"),
        ] as [(Double, String)])
    func bitRates(rate: Double, text: String) { #expect(Quantity.bitRate(rate) == text) }

    @Test(
        arguments: [(0, "0.00 s"), (0.004, "0.00 s"), (12.344, "12.34 s"), (61, "61.00 s"), (.nan, "-")]
            as [(Double, String)])
    func seconds(value: Double, text: String) { #expect(Quantity.seconds(value) == text) }

    @Test(arguments: [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1949, "1.9 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"),
        (1_234_567, "1.2 MB"), (UInt64.max, "18.4 EB"),
    ])
    func bytes(count: UInt64, text: String) { #expect(Quantity.bytes(count) == text) }

    @Test(
        arguments: [
            (0.0, "0.00 ms"), (0.417, "0.42 ms"), (9.994, "9.99 ms"), (31, "31.0 ms"), (1234.56, "1234.6 ms"),
            (-1, "-"),
            (.infinity, "-"), (.nan, "-"),
        ] as [(Double, String)])
    func milliseconds(value: Double, text: String) { #expect(Quantity.milliseconds(value) == text) }

    @Test(
        arguments: [
            (0.0, "0 s"), (59.9, "59 s"), (61, "1 min 1 s"), (7384, "2 h 3 min"), (450_000, "5 d 5 h"), (-1, "-"),
            (1e300, "-"),
        ] as [(Double, String)])
    func spans(seconds: Double, text: String) { #expect(Quantity.span(seconds: seconds) == text) }

    @Test(arguments: [
        ("Box.example.org", "box"), ("my_box", "my-box"), ("--", "warren"), ("", "warren"), ("é1", "1"),
        ("a--b-", "a-b"),
        (String(repeating: "x", count: 62) + "-y", String(repeating: "x", count: 62)),
    ])
    func hostNamesBecomeNames(host: String, name: String) {
        #expect(MachineName.sanitised(host) == name)
        #expect(MachineName.isValid(name))
    }

    @Test(arguments: [("a", "a"), ("off", "'off'"), ("null", "'null'"), ("1e3", "'1e3'"), ("0", "'0'")])
    func namesAreQuotedWhereYAMLWouldReadAnotherValue(name: String, yaml: String) {
        #expect(MachineName.yaml(name) == yaml)
    }

    @Test(arguments: [
        ("192.0.2.7", true), ("10.0.0.1", true), ("2001:db8::1", true), ("fd00::1", true), ("127.0.0.1", false),
        ("169.254.1.1", false), ("::1", false), ("::", false), ("fe80::1", false), ("ff02::1", false),
        ("0.0.0.0", false), ("224.0.0.1", false), ("255.255.255.255", false),
    ])
    func addressesWorthTelling(address: String, isGlobal: Bool) throws {
        #expect(GlobalAddresses.isGlobal(try #require(IPAddress(address))) == isGlobal)
    }
}
