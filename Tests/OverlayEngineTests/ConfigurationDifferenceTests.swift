import Multiformats
import Testing

@testable import OverlayEngine

@Suite struct ConfigurationDifferenceTests {
    static func b(_ more: String = "") -> String { "name: b, id: \(Samples.id(2))\(more)" }
    static func c(_ more: String = "") -> String { "name: c, id: \(Samples.id(3))\(more)" }
    static func own(_ more: String = "") -> String { "name: a, id: \(Samples.id(1))\(more)" }

    @Test func nothingChanged() throws {
        let configuration = try Samples.home(Self.b(", routes: [ 10.0.0.0/8 ]"), Self.own())
        let difference = configuration.difference(to: configuration)
        #expect(difference.isEmpty)
        #expect(difference == ConfigurationDifference(restartRequired: [], operators: nil, networks: []))
        #expect(difference.lines.isEmpty)
        #expect(configuration.reloaded(with: configuration) == configuration)
    }

    @Test func peersAndRoutes() throws {
        let old = try Samples.home(
            Self.b(", routes: [ 10.0.0.0/8, 192.168.1.0/24 ]"), Self.c(), Self.own(", routes: [ 172.16.0.0/12 ]"))
        let new = try Samples.home(
            "name: d, id: \(Samples.id(4)), routes: [ 192.168.1.0/24 ]", Self.b(", routes: [ 10.0.0.0/8 ]"),
            Self.own(", routes: [ 172.16.0.0/16 ]"))
        let difference = old.difference(to: new)
        #expect(difference.restartRequired.isEmpty)
        let network = try #require(difference.networks.first)
        #expect(network.addedPeers.map(\.name) == ["d"])
        #expect(network.removedPeers.map(\.name) == ["c"])
        #expect(network.changedPeers.map(\.new.name) == ["b"])
        let moved = try #require(IPPrefix("192.168.1.0/24"))
        #expect(network.addedRoutes == [.init(prefix: moved, peer: Samples.id(4))])
        #expect(network.removedRoutes == [.init(prefix: moved, peer: Samples.id(2))])
        #expect(
            difference.lines == [
                "home: peer d added", "home: peer c removed", "home: peer b changed",
                "home: route 192.168.1.0/24 via b removed", "home: route 192.168.1.0/24 via d added",
                "home: 172.16.0.0/12 no longer announced", "home: 172.16.0.0/16 announced",
            ])
        #expect(old.reloaded(with: new) == new)
    }

    @Test func aPeerIsWhoItsIDSays() throws {
        let old = try Samples.home(Self.b())
        #expect(
            old.difference(to: try Samples.home("name: e, id: \(Samples.id(2))")).lines == ["home: peer b is now e"])
        #expect(
            old.difference(to: try Samples.home("name: b, id: \(Samples.id(4))")).lines
                == ["home: peer b added", "home: peer b removed"])
        #expect(
            old.difference(to: try Samples.home(Self.b(), network: "acceptRoutes: [ 10.0.0.0/8 ]")).lines
                == ["home: acceptRoutes: [ 10.0.0.0/8 ]"])
        #expect(old.difference(to: try Samples.home(Self.b(), rest: "operators: [ x ]")).lines == ["operators: [ x ]"])
    }

    @Test(arguments: [
        ("name: z", "", "name"), ("listen: []", "", "listen"), ("relay: off", "", "relay"),
        ("tcpCongestion: cubic", "", "tcpCongestion"), ("protocolVersion: x", "", "protocolVersion"),
        ("", "interface: x", "networks.home.interface"), ("", "mtu: 1400", "networks.home.mtu"),
        ("", "networkSecret: x", "networks.home.networkSecret"),
    ])
    func theRestWaitsForARestart(rest: String, network: String, key: String) throws {
        let old = try Samples.home(Self.b())
        let new = try Samples.home(Self.b(), Self.c(), network: network, rest: rest)
        let difference = old.difference(to: new)
        #expect(difference.restartRequired == [key])
        // What need not wait does not.
        #expect(difference.lines == ["home: peer c added"])
        #expect(old.reloaded(with: new) == (try Samples.home(Self.b(), Self.c())))
        let path = key.replacing("networks.home", with: "networks.<name>")
        #expect(ConfigurationKey.all.contains { $0.path == path && !$0.isReloadable })
    }

    @Test func networksComeAndGoWithARestart() throws {
        let old = try Samples.parse("networks: { x: , y: }").configuration
        let new = try Samples.parse("networks: { y: , z: }").configuration
        let difference = old.difference(to: new)
        // y would be called warren0 now.
        #expect(difference.restartRequired == ["networks.x", "networks.y.interface", "networks.z"])
        #expect(difference.isEmpty)
        #expect(old.reloaded(with: new) == old)
    }

    @Test func aNewPrefixKeepsThePeersUntilTheRestart() throws {
        let old = try Samples.home(Self.b())
        let new = try Samples.home(Self.b(), Self.c(", ipv4: 10.9.0.1"), network: "ipv4Prefix: 10.9.0.0/16")
        #expect(old.difference(to: new).restartRequired == ["networks.home.ipv4Prefix"])
        #expect(old.difference(to: new).isEmpty)
        #expect(old.reloaded(with: new) == old)
    }

    @Test func thisMachinesOwnAddressWaits() throws {
        let old = try Samples.home(Self.own())
        let new = try Samples.home(Self.own(", ipv4: 100.64.0.9, routes: [ 10.0.0.0/8 ]"))
        #expect(old.difference(to: new).restartRequired == ["networks.home.peers (this machine's ipv4)"])
        #expect(old.difference(to: new).lines == ["home: 10.0.0.0/8 announced"])
        #expect(old.reloaded(with: new) == (try Samples.home(Self.own(", routes: [ 10.0.0.0/8 ]"))))
    }
}
