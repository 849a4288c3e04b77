import Glibc
import LibP2P
import Logging
import NIOCore
import NIOPosix
import OverlayCore
import TunnelDevice

@testable import OverlayEngine

/// A whole node of the VPN in this process: a host on a network in memory, and a TUN that is one end of a socket pair.
final class TestNode {
    let name: String
    let key: PrivateKey
    let host: LibP2P.Host
    let overlay: Overlay
    let group: MultiThreadedEventLoopGroup
    /// The kernel's side of the TUN.
    private var kernel: Int32 = -1

    var peer: PeerID { self.host.peerID }

    /// - Parameter seed: Makes the key, and with it the addresses.
    init(_ name: String, seed: UInt8, on network: MemoryNetwork, number: UInt64) throws {
        self.name = name
        self.key = try PrivateKey(ed25519Seed: [UInt8](repeating: seed, count: 32))
        self.group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let membership = Membership()
        var configuration = HostConfiguration(key: self.key)
        configuration.memoryNetwork = network
        configuration.listen = [Multiaddr(components: [.memory(number)])]
        configuration.limits.perPeer = 64
        configuration.gater = { peer, _, _ in membership.contains(peer) }
        configuration.perf = { membership.contains($0) }
        configuration.logger = Logger(label: name) { _ in SwiftLogNoOpLogHandler() }
        self.host = LibP2P.Host(configuration, group: self.group)
        self.overlay = Overlay(
            host: self.host, membership: membership, eventLoop: self.group.next(), logger: configuration.logger
        ) { _, _ in }
    }

    /// Starts the host and one network with `peers`; `offload` is what the TUN takes.
    func start(peers: [PeerConfiguration], routes: [IPPrefix] = [], offload: OffloadFeatures = .all) async throws {
        try await self.host.start()
        var ends: [Int32] = [0, 0]
        guard socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0, &ends) == 0 else {
            throw POSIXFailure(errno: errno)
        }
        var size: Int32 = 1 << 20
        for end in ends { setsockopt(end, SOL_SOCKET, SO_SNDBUF, &size, 4) }
        self.kernel = ends[1]
        let device = LinuxTUN.standIn(name: "test", descriptor: ends[0], offload: offload)
        let plan = try Self.plan(self, peers: peers, routes: routes)
        let overlay = self.overlay
        try await overlay.eventLoop.submit {
            overlay.start()
            try overlay.add(device: device, plan: plan)
        }.get()
    }

    static func plan(_ node: TestNode, peers: [PeerConfiguration], routes: [IPPrefix] = []) throws -> NetworkPlan {
        var indices: [PeerID: PeerIndex] = [:]
        let own = PeerConfiguration(name: node.name, id: node.peer, addresses: [], ipv4: nil, routes: routes)
        let network = NetworkConfiguration(
            name: "lab", interface: "test", mtuBytes: 1280, ipv4Prefix: AddressPlan.defaultIPv4Prefix,
            networkSecret: nil, acceptRoutes: [], own: own, peers: peers)
        return try NetworkPlan(network, localPeer: node.peer, localName: node.name, indices: &indices)
    }

    func stop() async {
        let overlay = self.overlay
        try? await overlay.eventLoop.submit { overlay.stop() }.get()
        await self.host.shutDown()
        if self.kernel >= 0 { close(self.kernel) }
    }

    // MARK: The kernel's side

    /// Hands a packet with its virtio header to the TUN.
    func inject(_ packet: [UInt8], header: [UInt8] = [UInt8](repeating: 0, count: 10)) throws {
        let bytes = header + packet
        guard write(self.kernel, bytes, bytes.count) == bytes.count else { throw POSIXFailure(errno: errno) }
    }

    /// The next packet that the node writes to its TUN: virtio header and packet.
    func next() async throws -> (header: [UInt8], packet: [UInt8]) {
        let kernel = self.kernel
        return try await NIOThreadPool.singleton.runIfActive {
            var wait = pollfd(fd: kernel, events: Int16(POLLIN), revents: 0)
            guard poll(&wait, 1, 20_000) > 0 else { throw POSIXFailure(errno: ETIMEDOUT) }
            var buffer = [UInt8](repeating: 0, count: PacketDeviceLimits.readBytes)
            let count = read(kernel, &buffer, buffer.count)
            guard count >= 10 else { throw POSIXFailure(errno: errno) }
            return (Array(buffer[..<10]), Array(buffer[10..<count]))
        }
    }

    // MARK: State

    func onLoop<Value: Sendable>(_ body: @escaping @Sendable (Overlay) -> Value) async throws -> Value {
        let overlay = self.overlay
        return try await overlay.eventLoop.submit { body(overlay) }.get()
    }

    /// This node's addresses, IPv4 first.
    func ips() async throws -> [IPAddress] { try await self.onLoop { $0.networks.first?.plan.ownIPs ?? [] } }

    /// Waits until something holds of the tunnel to `peer`. For ever, if it never does: the suite's time limit ends that.
    func until(_ peer: PeerID, _ holds: @escaping @Sendable (PeerTunnel) -> Bool) async throws {
        while try await !self.onLoop({ $0.networks.first?.tunnels[peer].map(holds) ?? false }) {
            try await Task.sleep(for: .milliseconds(2))
        }
    }

    func tunnelIsUp(to peer: PeerID) async throws { try await self.until(peer) { $0.isUp } }
}

struct POSIXFailure: Error {
    var errno: Int32
}

/// How `node` is listed in others' configurations.
func entry(_ node: TestNode, number: UInt64?, routes: [IPPrefix] = []) -> PeerConfiguration {
    PeerConfiguration(
        name: node.name, id: node.peer, addresses: number.map { [Multiaddr(components: [.memory($0)])] } ?? [],
        ipv4: nil,
        routes: routes)
}
