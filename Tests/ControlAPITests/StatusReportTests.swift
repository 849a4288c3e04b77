import Foundation
import Testing

@testable import ControlAPI

/// The status report's JSON is a contract: written out by hand here, so that a renamed property cannot pass.
@Suite struct StatusReportTests {
    static let contract = """
        { "peerID": "12D3KooA", "version": "0.1.0", "agent": "warren/0.1.0", "uptimeSeconds": 12.5,
          "listen": ["/ip4/192.0.2.1/tcp/4117"], "observed": ["/ip4/198.51.100.1/tcp/4117"], "reachability": "private",
          "relays": ["12D3KooR"],
          "networks": [ { "name": "home", "id": "ab12", "interface": "warren0", "ips": ["100.64.1.2", "fd00::1"],
            "mtu": 1280, "dropped": { "noRoute": 0, "stranger": 3 },
            "peers": [ { "id": "12D3KooB", "name": "b", "ips": ["100.64.3.4", "fd00::2"], "routes": ["192.168.7.0/24"],
              "state": "direct", "reason": "",
              "paths": [ { "address": "/ip4/192.0.2.7/udp/4117/quic-v1", "transport": "quic-v1", "security": "tls",
                           "muxer": "quic", "congestion": "bbr", "relay": null, "limited": false, "sending": true,
                           "receiving": true, "lanes": ["stream", "datagram"], "rttMilliseconds": 0.4,
                           "since": "2026-01-02T03:04:05Z" } ],
              "sentBytes": 18446744073709551615, "receivedBytes": 2, "sentPackets": 3, "receivedPackets": 4, "reorderedPackets": 5,
              "dropped": { "wrongSource": 0, "queueFull": 9 } } ] } ] }
        """

    static let report = StatusReport(
        peerID: "12D3KooA", version: "0.1.0", agent: "warren/0.1.0", uptimeSeconds: 12.5,
        listen: ["/ip4/192.0.2.1/tcp/4117"], observed: ["/ip4/198.51.100.1/tcp/4117"], reachability: .private,
        relays: ["12D3KooR"],
        networks: [
            NetworkReport(
                name: "home", id: "ab12", interface: "warren0", ips: ["100.64.1.2", "fd00::1"], mtu: 1280,
                dropped: ["noRoute": 0, "stranger": 3],
                peers: [
                    PeerReport(
                        id: "12D3KooB", name: "b", ips: ["100.64.3.4", "fd00::2"], routes: ["192.168.7.0/24"],
                        state: .direct, reason: "",
                        paths: [
                            PathReport(
                                address: "/ip4/192.0.2.7/udp/4117/quic-v1", transport: "quic-v1", security: "tls",
                                muxer: "quic", congestion: "bbr", relay: nil, limited: false, sending: true,
                                receiving: true, lanes: ["stream", "datagram"], rttMilliseconds: 0.4,
                                since: "2026-01-02T03:04:05Z")
                        ],
                        sentBytes: .max, receivedBytes: 2, sentPackets: 3, receivedPackets: 4, reorderedPackets: 5,
                        dropped: ["wrongSource": 0, "queueFull": 9])
                ])
        ])

    @Test func readsTheContract() throws {
        #expect(try ControlJSON.decode(StatusReport.self, from: Array(Self.contract.utf8)) == Self.report)
    }

    @Test func writesTheContract() throws {
        let written = try JSONSerialization.jsonObject(with: Data(ControlJSON.encode(Self.report)))
        let wanted = try JSONSerialization.jsonObject(with: Data(Self.contract.utf8))
        #expect((written as? NSDictionary) == (wanted as? NSDictionary))
    }

    @Test func skipsKeysOfALaterVersion() throws {
        let extended = Self.contract.replacingOccurrences(of: "\"mtu\"", with: "\"later\": [1], \"mtu\"")
        #expect(try ControlJSON.decode(StatusReport.self, from: Array(extended.utf8)) == Self.report)
    }

    @Test func writesAbsentValuesAsNull() throws {
        var path = try #require(Self.report.networks.first?.peers.first?.paths.first)
        path.congestion = nil
        path.rttMilliseconds = nil
        let json = String(decoding: try ControlJSON.encode(path), as: UTF8.self)
        for key in ["congestion", "relay", "rttMilliseconds"] { #expect(json.contains("\"\(key)\":null")) }
        let reply = PingReply(sequence: 1, peer: "p", name: "b", ip: "100.64.0.1")
        #expect(
            String(decoding: try ControlJSON.encode(reply), as: UTF8.self)
                == #"{"address":null,"error":null,"ip":"100.64.0.1","lane":null,"name":"b","peer":"p","relay":null,"rttMilliseconds":null,"sequence":1,"transport":null}"#
        )
    }

    @Test func perfRepliesSayTheRate() throws {
        let reply = PerfReply(peer: "p", name: "b", direction: "upload", bytes: 1000, seconds: 0.5, done: true)
        let json = try ControlJSON.encode(reply)
        #expect(
            String(decoding: json, as: UTF8.self)
                == #"{"address":null,"bitsPerSecond":16000,"bytes":1000,"direction":"upload","done":true,"error":null,"name":"b","peer":"p","relay":null,"seconds":0.5,"transport":null}"#
        )
        #expect(try ControlJSON.decode(PerfReply.self, from: json) == reply)
        #expect(PerfReply(peer: "p", name: "b", direction: "download").bitsPerSecond == 0)
        let request = PerfRequest(peer: "b", bytes: PerfRequest.maximumBytes)
        #expect(try ControlJSON.decode(PerfRequest.self, from: ControlJSON.encode(request)) == request)
    }

    @Test func writesWhatIsKnownOfAddresses() throws {
        let peer = try #require(Self.report.networks.first?.peers.first)
        var address = PeerDetail.KnownAddress(address: "/a", source: "identify", lastError: nil)
        #expect(
            String(decoding: try ControlJSON.encode(address), as: UTF8.self)
                == #"{"address":"/a","failedAt":null,"failures":0,"handshakeMilliseconds":null,"lastError":null,"name":null,"reachedAt":null,"retryInSeconds":null,"source":"identify"}"#
        )
        address.name = "/dns4/a.example/tcp/1"
        (address.reachedAt, address.handshakeMilliseconds) = ("2026-01-02T03:04:05Z", 1.5)
        (address.failures, address.lastError, address.failedAt) = (2, "refused", "2026-01-02T03:04:06Z")
        address.retryInSeconds = 3.25
        let detail = PeerDetail(network: "n", peer: peer, agent: "", protocols: [], addresses: [address])
        var list = PeerList(peers: [detail])
        #expect(String(decoding: try ControlJSON.encode(list), as: UTF8.self).hasPrefix(#"{"dialling":null,"#))
        #expect(try ControlJSON.decode(PeerList.self, from: ControlJSON.encode(list)) == list)
        list.dialling = PeerList.Dialling(
            underWay: 1, waiting: 2, blackHoles: [.init(name: "UDP", blocked: true, successes: 1, dials: 100)])
        #expect(try ControlJSON.decode(PeerList.self, from: ControlJSON.encode(list)) == list)
    }

    @Test(arguments: PeerReport.State.allCases)
    func statesAreTheContractsWords(state: PeerReport.State) {
        #expect(["direct", "relayed", "connecting", "unreachable", "idle"].contains(state.rawValue))
    }
}
