import Multiformats
import Testing

@testable import TunnelDevice

@Suite struct NetworkPlannerTests {
    static let allocation = TableAllocation(table: 41_170, priority: 4_117)
    static let ip4 = IPAddress(ipv4: 0x6440_0102)
    static let ip6 = IPAddress(ipv6High: 0xFD12 << 48, low: 2)

    static func desired(routes: [String] = ["100.64.3.4/32", "fd12::3/128"]) -> DesiredNetwork {
        DesiredNetwork(
            interface: "warren0", mtu: 1280, queueLength: 1000, addresses: [Self.ip4, Self.ip6],
            routes: routes.compactMap { IPPrefix($0) })
    }

    static func kernel(hasIPv6: Bool = true) -> FakeKernel {
        FakeKernel(
            CurrentNetwork(
                interfaces: [
                    NetworkInterface(
                        index: 1, name: "lo", isUp: true, isRunning: true, isLoopback: true,
                        addresses: [InterfaceAddress(IPAddress(ipv4: 0x7F00_0001), prefixLength: 8)]),
                    NetworkInterface(
                        index: 2, name: "eth0", isUp: true, isRunning: true,
                        addresses: [InterfaceAddress(IPAddress(ipv4: 0xC000_0201), prefixLength: 24)]),
                    NetworkInterface(index: 3, name: "warren0", isUp: false, isRunning: false, queueLength: 500),
                ],
                rules: [PolicyRule(family: .ipv4, priority: 32_766, table: 254, mark: 0, mask: 0, isInverted: false)],
                settings: [
                    "net/ipv6/conf/warren0/disable_ipv6": "1", "net/ipv6/conf/warren0/addr_gen_mode": "0",
                    "net/ipv6/conf/warren0/accept_ra": "1",
                ].filter { _ in hasIPv6 },
                hasIPv6: hasIPv6))
    }

    @Test func bringsUpInOrder() {
        let plan = NetworkPlanner.install(Self.desired(), Self.allocation, recorded: [], current: Self.kernel().state)
        #expect(
            plan.map(\.description) == [
                "set net/ipv6/conf/warren0/disable_ipv6 to 0",
                "set net/ipv6/conf/warren0/addr_gen_mode to 1",
                "set net/ipv6/conf/warren0/accept_ra to 0",
                "set the MTU of warren0 to 1280",
                "set the queue length of warren0 to 1000",
                "set warren0 up",
                "add address 100.64.1.2/32 to warren0",
                "add address fd12::2/128 to warren0",
                "add route 100.64.3.4/32 dev warren0 table 41170 src 100.64.1.2",
                "add route fd12::3/128 dev warren0 table 41170 src fd12::2",
                "add IPv4 rule 4117: not fwmark 0x2057 lookup 41170",
                "add IPv6 rule 4117: not fwmark 0x2057 lookup 41170",
            ])
    }

    @Test func asksForNoIPv6WhereThereIsNone() {
        let kernel = Self.kernel(hasIPv6: false)
        let plan = NetworkPlanner.install(Self.desired(), Self.allocation, recorded: [], current: kernel.state)
        #expect(!plan.contains { "\($0)".contains("v6") || "\($0)".contains("fd12") })
        #expect(plan.contains(.addAddress(InterfaceAddress(host: Self.ip4), interface: "warren0")))
    }

    @Test func takesDownWithRulesFirst() {
        var kernel = Self.kernel()
        kernel.install(Self.desired(), Self.allocation, recorded: [])
        let plan = NetworkPlanner.remove(
            interface: "warren0", Self.allocation, recorded: [Self.ip4, Self.ip6], current: kernel.state)
        #expect(
            plan.map(\.description) == [
                "delete IPv4 rule 4117: not fwmark 0x2057 lookup 41170",
                "delete IPv6 rule 4117: not fwmark 0x2057 lookup 41170",
                "delete route 100.64.3.4/32 dev warren0 table 41170 src 100.64.1.2",
                "delete route fd12::3/128 dev warren0 table 41170 src fd12::2",
                "delete address 100.64.1.2/32 from warren0",
                "delete address fd12::2/128 from warren0",
                "set warren0 down",
            ])
    }

    /// A killed daemon's TUN vanishes with its addresses and routes; rules stay.
    @Test func sweepsRulesWhenTheInterfaceIsGone() {
        var kernel = Self.kernel()
        kernel.install(Self.desired(), Self.allocation, recorded: [])
        kernel.deleteInterface("warren0")
        let plan = NetworkPlanner.remove(
            interface: "warren0", Self.allocation, recorded: [Self.ip4, Self.ip6], current: kernel.state)
        #expect(plan == [.deleteRule(.overlay(.ipv4, Self.allocation)), .deleteRule(.overlay(.ipv6, Self.allocation))])
    }

    @Test func sweepsRulesWithAnOlderMarkButNotForeignOnes() {
        var old = PolicyRule.overlay(.ipv4, Self.allocation)
        old.mark = 0x99
        var foreign = old
        foreign.isForeign = true
        let neighbour = PolicyRule.overlay(.ipv4, TableAllocation(table: 41_171, priority: 4_118))
        let moved = PolicyRule.overlay(.ipv4, TableAllocation(table: 41_170, priority: 100))
        let plan = NetworkPlanner.remove(
            interface: "warren0", Self.allocation, recorded: [],
            current: CurrentNetwork(rules: [old, foreign, neighbour, moved]))
        #expect(plan == [.deleteRule(old)])
    }

    @Test func leavesAloneWhatItDidNotMake() {
        var kernel = Self.kernel()
        kernel.install(Self.desired(), Self.allocation, recorded: [])
        let manual = InterfaceAddress(IPAddress(ipv4: 0x0A00_0001), prefixLength: 24)
        kernel.perform(.addAddress(manual, interface: "warren0"))
        kernel.state.routes.append(Route(IPPrefix(host: manual.address), interface: "eth0", table: 254))
        let again = NetworkPlanner.install(
            Self.desired(), Self.allocation, recorded: [Self.ip4, Self.ip6], current: kernel.state)
        #expect(again.isEmpty)
        kernel.remove("warren0", Self.allocation, recorded: [Self.ip4, Self.ip6])
        #expect(kernel.state.interfaces.last?.addresses == [manual])
        #expect(kernel.state.routes.map(\.table) == [254])
    }

    @Test func changesAddressesBeforeDroppingOldOnes() {
        var kernel = Self.kernel()
        kernel.install(Self.desired(), Self.allocation, recorded: [])
        var next = Self.desired()
        next.addresses = [IPAddress(ipv4: 0x6440_0109), Self.ip6]
        let plan = NetworkPlanner.install(
            next, Self.allocation, recorded: [Self.ip4, Self.ip6], current: kernel.state)
        #expect(
            plan.map(\.description) == [
                "add address 100.64.1.9/32 to warren0",
                "add route 100.64.3.4/32 dev warren0 table 41170 src 100.64.1.9",
                "delete address 100.64.1.2/32 from warren0",
            ])
    }

    /// From any state of the kernel one plan is enough, nothing of ours is left after removing, and nothing of others is touched.
    @Test func anyWishComesTrueInOneStepAndGoesWithoutTrace() {
        var random = SeededGenerator(seed: 7)
        for _ in 0..<500 {
            var kernel = Self.kernel(hasIPv6: Bool.random(using: &random))
            let untouched = kernel
            var recorded: Set<IPAddress> = []
            for _ in 0..<4 {
                let wish = DesiredNetwork(
                    interface: "warren0", mtu: Int.random(in: 1280...1290, using: &random),
                    queueLength: Bool.random(using: &random) ? 1000 : nil,
                    addresses: [
                        IPAddress(ipv4: 0x6440_0000 + UInt32.random(in: 1...3, using: &random)),
                        IPAddress(ipv6High: 0xFD12 << 48, low: UInt64.random(in: 1...3, using: &random)),
                    ],
                    routes: (0..<Int.random(in: 0...6, using: &random)).compactMap { _ in
                        let low = UInt32.random(in: 16...20, using: &random)
                        return Bool.random(using: &random)
                            ? IPPrefix(IPAddress(ipv4: 0x6440_0000 + low), length: .random(in: 24...32, using: &random))
                            : IPPrefix(host: IPAddress(ipv6High: 0xFD12 << 48, low: UInt64(low)))
                    })
                let before = Array(recorded)
                recorded.formUnion(wish.addresses)
                kernel.install(wish, Self.allocation, recorded: before)
                let again = NetworkPlanner.install(
                    wish, Self.allocation, recorded: Array(recorded), current: kernel.state)
                #expect(again.isEmpty)
                #expect(Set(kernel.state.routes.map(\.prefix)).isSubset(of: wish.routes))
                // Others meddle between two wishes.
                switch Int.random(in: 0..<4, using: &random) {
                case 0: kernel.state.rules.removeAll { $0.priority == Self.allocation.priority }
                case 1: kernel.perform(.setLink("warren0", up: false))
                case 2: kernel.state.routes.removeAll { _ in Bool.random(using: &random) }
                default: break
                }
            }
            if Bool.random(using: &random) { kernel.deleteInterface("warren0") }
            kernel.remove("warren0", Self.allocation, recorded: Array(recorded))
            #expect(kernel.state.rules == untouched.state.rules)
            #expect(kernel.state.routes.isEmpty)
            #expect(kernel.state.interfaces.allSatisfy { $0.name != "warren0" || $0.addresses.isEmpty })
            #expect(kernel.state.interfaces.prefix(2) == untouched.state.interfaces.prefix(2))
            #expect(kernel.operationsRefused == 0)
        }
    }

    // Reverse path filter

    struct Filter: Sendable, CustomTestStringConvertible {
        let all: String
        let eth0: String
        let routes: [String]
        var overlays: Set<String> = ["warren0"]
        let loosened: [String]

        var testDescription: String { "all \(self.all) eth0 \(self.eth0) routes \(self.routes)" }
    }

    static let filters: [Filter] = [
        Filter(all: "1", eth0: "0", routes: ["192.168.7.0/24"], loosened: ["eth0"]),
        Filter(all: "0", eth0: "1", routes: ["192.168.7.0/24"], loosened: ["eth0"]),
        Filter(all: "1", eth0: "1", routes: ["192.168.7.0/24"], loosened: ["eth0"]),
        Filter(all: "0", eth0: "0", routes: ["192.168.7.0/24"], loosened: []),
        Filter(all: "2", eth0: "1", routes: ["192.168.7.0/24"], loosened: []),
        Filter(all: "1", eth0: "2", routes: ["192.168.7.0/24"], loosened: []),
        Filter(all: "1", eth0: "1", routes: ["100.64.3.4/32"], loosened: []),
        Filter(all: "1", eth0: "1", routes: ["2001:db8:7::/48"], loosened: []),
        Filter(all: "1", eth0: "1", routes: ["192.168.7.0/24"], overlays: ["warren0", "eth0"], loosened: []),
    ]

    @Test(arguments: Self.filters) func loosensStrictInterfacesOnlyWhereAPrefixNeedsIt(filter: Filter) {
        var current = Self.kernel().state
        current.interfaces[2].isUp = true
        current.interfaces[2].addresses = [InterfaceAddress(host: Self.ip4)]
        current.interfaces.append(NetworkInterface(index: 4, name: "eth1", isUp: true, isRunning: true))
        for (name, value) in [("all", filter.all), ("eth0", filter.eth0), ("lo", "1"), ("warren0", "1"), ("eth1", "1")]
        {
            current.settings[NetworkPlanner.reversePathFilter(name)] = value
        }
        let found = NetworkPlanner.interfacesToLoosen(
            for: Self.desired(routes: filter.routes), overlays: filter.overlays, current: current)
        #expect(found == filter.loosened.map { Loosening(interface: $0, original: filter.eth0) })
    }

    @Test func restoresOnlyWhatIsStillLoose() {
        let loosenings = ["eth0", "eth1", "eth2"].map { Loosening(interface: $0, original: "1") }
        let plan = NetworkPlanner.restore(
            loosenings,
            settings: [
                NetworkPlanner.reversePathFilter("eth0"): "2", NetworkPlanner.reversePathFilter("eth1"): "0",
            ])
        #expect(plan == [.set(path: "net/ipv4/conf/eth0/rp_filter", value: "1")])
    }
}

/// The kernel, as far as plans depend on it: what they say is done, and what makes no sense is refused.
struct FakeKernel {
    var state: CurrentNetwork
    private(set) var operationsRefused = 0

    init(_ state: CurrentNetwork) { self.state = state }

    mutating func install(_ desired: DesiredNetwork, _ allocation: TableAllocation, recorded: [IPAddress]) {
        NetworkPlanner.install(desired, allocation, recorded: recorded, current: self.state)
            .forEach { self.perform($0) }
    }

    mutating func remove(_ interface: String, _ allocation: TableAllocation, recorded: [IPAddress]) {
        NetworkPlanner.remove(interface: interface, allocation, recorded: recorded, current: self.state)
            .forEach { self.perform($0) }
    }

    mutating func deleteInterface(_ name: String) {
        self.state.interfaces.removeAll { $0.name == name }
        self.state.routes.removeAll { $0.interface == name }
    }

    mutating func perform(_ operation: NetworkOperation) {
        switch operation {
        case .set(let path, let value):
            self.demand(self.state.settings[path] != nil)
            self.state.settings[path] = value
        case .setLink(let name, let up):
            // Routes need a link that is up, and go with it; so do IPv6 addresses.
            if !up {
                self.state.routes.removeAll { $0.interface == name }
                self.change(name) { $0.addresses.removeAll { $0.address.family == .ipv6 } }
            }
            self.change(name) { $0.isUp = up }
        case .setMTU(let name, let bytes): self.change(name) { $0.mtu = bytes }
        case .setQueueLength(let name, let packets): self.change(name) { $0.queueLength = packets }
        case .addAddress(let address, let name):
            self.demand(address.address.family == .ipv4 || self.state.hasIPv6)
            self.change(name) { $0.addresses.append(address) }
        case .deleteAddress(let address, let name):
            self.change(name) { $0.addresses.removeAll { $0 == address } }
        case .addRoute(let route):
            let link = self.state.interfaces.first { $0.name == route.interface }
            self.demand(link?.isUp == true)
            self.demand(
                route.source.map { source in link?.addresses.contains { $0.address == source } == true } ?? true)
            self.state.routes.removeAll { $0.prefix == route.prefix && $0.table == route.table }
            self.state.routes.append(route)
        case .deleteRoute(let route):
            self.demand(self.state.routes.contains(route))
            self.state.routes.removeAll { $0 == route }
        case .addRule(let rule):
            self.demand(!self.state.rules.contains(rule))
            self.state.rules.append(rule)
        case .deleteRule(let rule):
            self.demand(self.state.rules.contains(rule))
            self.state.rules.removeAll { $0 == rule }
        }
    }

    private mutating func change(_ name: String, _ body: (inout NetworkInterface) -> Void) {
        guard let index = self.state.interfaces.firstIndex(where: { $0.name == name }) else {
            return self.demand(false)
        }
        body(&self.state.interfaces[index])
    }

    private mutating func demand(_ condition: Bool) {
        if !condition { self.operationsRefused += 1 }
    }
}

/// A small generator with a fixed seed (SplitMix64), so that a failure comes again.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { self.state = seed }

    mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var z = self.state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
