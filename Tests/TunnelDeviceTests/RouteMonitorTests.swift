import CNetlink
import Multiformats
import Testing

@testable import TunnelDevice

@Suite struct ChangeCoalescerTests {
    static let start = ContinuousClock.now

    static func at(_ milliseconds: Int) -> ContinuousClock.Instant { Self.start + .milliseconds(milliseconds) }

    @Test func tellsAfterAQuietMoment() {
        var coalescer = ChangeCoalescer()
        #expect(coalescer.deadline == nil)
        coalescer.record([], now: Self.at(0))
        #expect(coalescer.deadline == nil)
        coalescer.record(.links, now: Self.at(0))
        coalescer.record(.addresses, now: Self.at(60))
        #expect(coalescer.deadline == Self.at(160))
        #expect(coalescer.takeIfDue(now: Self.at(159)) == nil)
        #expect(coalescer.takeIfDue(now: Self.at(160)) == [.links, .addresses])
        #expect(coalescer.takeIfDue(now: Self.at(1_000)) == nil)
    }

    @Test func doesNotWaitForeverDuringAFlood() {
        var coalescer = ChangeCoalescer()
        var told: [Int] = []
        for time in stride(from: 0, through: 1_200, by: 10) {
            coalescer.record(.routes, now: Self.at(time))
            if coalescer.takeIfDue(now: Self.at(time)) != nil { told.append(time) }
        }
        #expect(told == [500, 1_010])
    }
}

@Suite struct NetworkChangeTests {
    static let eth0 = NetworkInterface(
        index: 2, name: "eth0", isUp: true, isRunning: true,
        addresses: [InterfaceAddress(IPAddress(ipv4: 0xC000_0201), prefixLength: 24)])
    static let tunnel = NetworkInterface(index: 3, name: "warren0", isUp: true, isRunning: true)

    static func change(
        _ events: NetworkChange.Kinds, _ before: [NetworkInterface]?, _ after: [NetworkInterface]
    ) -> NetworkChange.Kinds {
        NetworkChange(events: events, before: before, after: after, overlays: [3]).kinds
    }

    @Test func refreshedLifetimesAreNoChange() {
        #expect(Self.change([.links, .addresses], [Self.eth0], [Self.eth0]) == [])
    }

    @Test func findsWhatIsDifferent() {
        var changed = Self.eth0
        changed.isRunning = false
        #expect(Self.change(.links, [Self.eth0], [changed]) == .links)
        changed = Self.eth0
        changed.addresses.append(InterfaceAddress(IPAddress(ipv4: 0xC633_6409), prefixLength: 32))
        #expect(Self.change(.addresses, [Self.eth0], [changed]) == .addresses)
        // Also when the event itself was lost.
        #expect(Self.change(.routes, [Self.eth0], [changed]) == [.routes, .addresses])
        #expect(Self.change(.links, [Self.eth0], []) == [.links, .addresses])
        var tentative = changed
        tentative.addresses[1].isTentative = true
        #expect(Self.change(.addresses, [tentative], [changed]) == .addresses)
    }

    @Test func ownTunnelsDoNotCountAsLinks() {
        #expect(Self.change([.overlay], [Self.eth0], [Self.eth0, Self.tunnel]) == .overlay)
        #expect(Self.change([], [Self.eth0, Self.tunnel], [Self.eth0]) == [])
    }

    @Test func believesEventsWhenThereIsNothingToCompareWith() {
        #expect(Self.change([.links, .routes], nil, [Self.eth0]) == [.links, .routes])
    }
}

/// Which messages of the kernel mean what. The interface with index 3 is ours.
@Suite struct NetworkEventTests {
    static let member = IPPrefix(host: IPAddress(ipv4: 0x6440_0304))
    static let rule = PolicyRule.overlay(.ipv4, TableAllocation(table: 41_170, priority: 4_117))
    static let operation = NetworkOperation.addRule(rule)

    @Test func sortsLinksAndAddressesByInterface() throws {
        let address = InterfaceAddress(host: IPAddress(ipv4: 0xC000_0201))
        for (index, link, addresses) in [
            (Int32(2), NetworkChange.Kinds.links, NetworkChange.Kinds.addresses), (3, .overlay, .overlay),
        ] {
            #expect(try Self.kinds(.changeLink(index, for: Self.operation)) == link)
            #expect(try Self.kinds(.addAddress(address, index: index, for: Self.operation)) == addresses)
            #expect(try Self.kinds(.deleteAddress(address, index: index, for: Self.operation)) == addresses)
        }
    }

    @Test func hearsOfOwnRoutesOnlyWhenTheyGo() throws {
        let route = Route(Self.member, interface: "warren0", table: 41_170)
        #expect(try Self.kinds(.addRoute(route, index: 3, for: Self.operation)) == [])
        #expect(try Self.kinds(.deleteRoute(route, index: 3, for: Self.operation)) == .overlay)
        #expect(try Self.kinds(.rule(Self.rule, adding: true, for: Self.operation)) == [])
    }

    @Test func hearsOfOtherRoutesAndRules() throws {
        let request = try Self.route(rtmsg())
        #expect(try Self.kinds(request) == .routes)
        // Without our protocol number it is somebody else's.
        #expect(try Self.kinds(.rule(Self.rule, adding: false, for: Self.operation)) == .routes)
    }

    @Test func ignoresCachedAndLocalRoutes() throws {
        var cached = rtmsg()
        cached.rtm_flags = UInt32(RTM_F_CLONED)
        #expect(try Self.kinds(Self.route(cached)) == [])
        var local = rtmsg()
        local.rtm_table = 255
        #expect(try Self.kinds(Self.route(local)) == [])
    }

    private static func route(_ body: rtmsg) throws -> NetlinkRequest {
        try NetlinkRequest(type: RTM_NEWROUTE, flags: 0, body: body)
    }

    private static func kinds(_ request: consuming NetlinkRequest) throws -> NetworkChange.Kinds {
        let header = try #require(nlmsg_hdr(request.message))
        return NetworkChange.Kinds(NetlinkMessage(header: header), overlays: [3])
    }
}

@Suite struct RouteMonitorTests {
    @Test func startsAndStops() throws {
        let monitor = try RouteMonitor { _ in }
        try monitor.start()
        try monitor.start()
        monitor.stop()
        monitor.stop()
    }
}
