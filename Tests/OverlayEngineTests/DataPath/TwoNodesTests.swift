import ControlAPI
import LibP2P
import NIOCore
import OverlayCore
import Synchronization
import Testing
import TunnelDevice

@testable import OverlayEngine

/// Two whole nodes in one process.
@Suite(.timeLimit(.minutes(2))) struct TwoNodesTests {
    /// a lists b with its address; b lists a without one, so that a dials.
    private func withPair(
        routesBehindB: [IPPrefix] = [], offloadOfB: OffloadFeatures = .all,
        _ body: (TestNode, TestNode) async throws -> Void
    ) async throws {
        let network = MemoryNetwork()
        let a = try TestNode("a", seed: 1, on: network, number: 1)
        let b = try TestNode("b", seed: 2, on: network, number: 2)
        try await b.start(peers: [entry(a, number: nil)], routes: routesBehindB, offload: offloadOfB)
        try await a.start(peers: [entry(b, number: 2, routes: routesBehindB)])
        do {
            try await a.tunnelIsUp(to: b.peer)
            try await b.tunnelIsUp(to: a.peer)
            try await body(a, b)
        } catch {
            await a.stop()
            await b.stop()
            throw error
        }
        await a.stop()
        await b.stop()
    }

    @Test func carriesPacketsBothWaysOverBothFamilies() async throws {
        try await self.withPair { a, b in
            for family in [0, 1] {
                let (from, to) = (try await a.ips()[family], try await b.ips()[family])
                let there = Packets.udp(from: from, to: to, payload: Array("there".utf8))
                try a.inject(there)
                #expect(try await b.next() == (VirtioNetHeaderBytes.finished, there))
                let back = Packets.udp(from: to, to: from, payload: Array("back".utf8))
                try b.inject(back)
                #expect(try await a.next() == (VirtioNetHeaderBytes.finished, back))
            }
        }
    }

    @Test func carriesASuperPacketWhole() async throws {
        try await self.withPair { a, b in
            let (from, to) = (try await a.ips()[0], try await b.ips()[0])
            let (packet, header) = Packets.superTCP(from: from, to: to, payloadBytes: 60_000, segmentBytes: 1_200)
            try a.inject(packet, header: header)
            let (arrivedHeader, arrived) = try await b.next()
            #expect(arrived.count == packet.count && arrived.suffix(60_000) == packet.suffix(60_000))
            // needs checksum, TCPv4, 1,200 bytes per segment, checksum at byte 16 of the TCP header
            #expect(arrivedHeader[0] == 1 && arrivedHeader[1] == 1)
            #expect(arrivedHeader[4...9].elementsEqual([0xb0, 0x04, 20, 0, 16, 0]))
        }
    }

    @Test func cutsASuperPacketForAPeerWithoutOffload() async throws {
        try await self.withPair(offloadOfB: []) { a, b in
            let (from, to) = (try await a.ips()[0], try await b.ips()[0])
            let (packet, header) = Packets.superTCP(from: from, to: to, payloadBytes: 5_000, segmentBytes: 1_200)
            try a.inject(packet, header: header)
            var payload: [UInt8] = []
            for bytes in [1_200, 1_200, 1_200, 1_200, 200] {
                let (header, segment) = try await b.next()
                #expect(header == VirtioNetHeaderBytes.finished && segment.count == 40 + bytes)
                let isValid = try segment.withUnsafeBytes { bytes in
                    try Checksum.isTransportValid(IPPacket(parsing: bytes), in: bytes)
                }
                #expect(isValid)
                payload += segment.suffix(bytes)
            }
            #expect(payload == Array(packet.suffix(5_000)))
        }
    }

    @Test func refusesAWrongSourceAndAWrongDestination() async throws {
        try await self.withPair { a, b in
            let (from, to) = (try await a.ips()[0], try await b.ips()[0])
            // b believes that a owns a's addresses only.
            try a.inject(Packets.udp(from: IPAddress(ipv4: 0x6401_0203), to: to, payload: [1]))
            try await b.until(a.peer) { $0.drops[.wrongSource] == 1 }
            try a.inject(Packets.udp(from: to, to: to, payload: [1]))
            try await b.until(a.peer) { $0.drops[.wrongSource] == 2 }
            let good = Packets.udp(from: from, to: to, payload: [2])
            try a.inject(good)
            #expect(try await b.next().packet == good)
        }
    }

    @Test func reachesAPrefixBehindAPeer() async throws {
        let prefix = try #require(IPPrefix("192.168.7.0/24"))
        try await self.withPair(routesBehindB: [prefix]) { a, b in
            let from = try await a.ips()[0]
            let inside = Packets.udp(from: from, to: try #require(IPAddress("192.168.7.9")), payload: [1])
            try a.inject(inside)
            #expect(try await b.next().packet == inside)
            let answer = Packets.udp(from: try #require(IPAddress("192.168.7.9")), to: from, payload: [2])
            try b.inject(answer)
            #expect(try await a.next().packet == answer)
        }
    }

    @Test func answersForAnAddressThatNobodyHas() async throws {
        try await self.withPair { a, _ in
            let packet = Packets.udp(from: try await a.ips()[0], to: IPAddress(ipv4: 0x6440_0001), payload: [1])
            try a.inject(packet)
            let (_, reply) = try await a.next()
            // ICMP destination unreachable, no route to the network, quoting the packet.
            #expect(reply[9] == 1 && reply[20] == 3 && reply[21] == 0)
            #expect(Array(reply[28...]).starts(with: packet.prefix(28)))
        }
    }

    @Test func measuresARoundTripWithAProbe() async throws {
        try await self.withPair { a, b in
            let overlay = a.overlay
            let peer = b.peer
            let answer = try await overlay.eventLoop.flatSubmit { () -> EventLoopFuture<PeerTunnel.PingAnswer> in
                guard let tunnel = overlay.networks.first?.tunnels[peer] else {
                    return overlay.eventLoop.makeFailedFuture(TunnelError.timedOut)
                }
                return tunnel.ping(timeout: .seconds(10))
            }.get()
            #expect(answer.nanoseconds > 0 && answer.connection.remotePeer == peer)
        }
    }

    /// Both ends replace their connection again and again while packets flow both ways: none is lost, none overtakes another.
    @Test func movesToNewConnectionsInOrder() async throws {
        try await self.withPair { a, b in
            let (from, to) = (try await a.ips()[0], try await b.ips()[0])
            let (first, second) = (a.peer, b.peer)
            for round in 0..<20 {
                // One end, the other, both.
                let moving = [(a, second), (b, first)].enumerated().filter { round % 3 != 1 - $0.offset }.map(\.element)
                var used: Set<ConnectionID> = []
                for (node, peer) in moving {
                    used.formUnion(
                        try await node.onLoop { overlay in
                            overlay.links[peer]?.retireOldConnections(KeyLifetime(bytes: .max, nanoseconds: 0))
                            return overlay.links[peer]?.entries.map(\.connection.id) ?? []
                        })
                }
                let left = used
                var burstsAfterTheMove = 0
                while burstsAfterTheMove < 2 {
                    for number in 0..<UInt8(8) {
                        try a.inject(Packets.udp(from: from, to: to, payload: [UInt8(round), number]))
                        try b.inject(Packets.udp(from: to, to: from, payload: [UInt8(round), number]))
                    }
                    for number in 0..<UInt8(8) {
                        #expect(try await b.next().packet.suffix(2) == [UInt8(round), number])
                        #expect(try await a.next().packet.suffix(2) == [UInt8(round), number])
                    }
                    var haveMoved = true
                    for (node, peer) in moving {
                        let hasMoved = try await node.onLoop { overlay in
                            guard let tunnel = overlay.networks.first?.tunnels[peer], tunnel.isUp else { return false }
                            return tunnel.openRoutes.first.map { !left.contains($0.lane.connection.id) } ?? false
                        }
                        haveMoved = haveMoved && hasMoved
                    }
                    if haveMoved { burstsAfterTheMove += 1 }
                }
            }
            for (node, peer) in [(a, second), (b, first)] {
                try await node.until(peer) { $0.inbound.reorderedPackets == 0 && $0.drops.total == 0 && $0.isUp }
            }
        }
    }

    @Test(arguments: [PerfAmount.bytes(3_000_000), .time(.milliseconds(50))])
    func measuresThroughputBothWays(amount: PerfAmount) async throws {
        try await self.withPair { a, b in
            let connection = try #require(await a.host.swarm.connections(to: b.peer).last)
            let measurement = Measurement(
                peer: entry(b, number: nil), connection: connection, amount: amount, service: a.host.perf)
            let replies = Mutex<[PerfReply]>([])
            await measurement.run { reply in
                replies.withLock { $0.append(reply) }
                return true
            }
            let ends = replies.withLock { $0 }.filter(\.done)
            #expect(ends.map(\.direction) == ["upload", "download"])
            for end in ends {
                #expect(end.error == nil && end.bytes > 0 && end.seconds > 0)
                #expect(end.name == "b" && end.peer == b.peer.description && end.transport == "memory")
                if case .bytes(let count) = amount { #expect(end.bytes == count) }
            }
            // Nobody listens any more after the first line.
            replies.withLock { $0 = [] }
            await measurement.run { reply in
                replies.withLock { $0.append(reply) }
                return false
            }
            #expect(replies.withLock { $0.count } == 1)
        }
    }

    @Test func saysWhyThroughputCannotBeMeasured() async throws {
        try await self.withPair { a, b in
            b.host.swarm.registry.remove(PerfService.protocolID)
            let connection = try #require(await a.host.swarm.connections(to: b.peer).last)
            let replies = Mutex<[PerfReply]>([])
            await Measurement(
                peer: entry(b, number: nil), connection: connection, amount: .bytes(1), service: a.host.perf
            ).run { reply in
                replies.withLock { $0.append(reply) }
                return true
            }
            #expect(replies.withLock { $0.map(\.error) } == ["it does not let this machine measure"])
        }
    }

    @Test(
        arguments: [
            (nil, nil), (1, 1000), (0, nil), (PerfRequest.maximumBytes + 1, nil), (nil, 99), (nil, 3_600_001),
            (nil, -1),
        ] as [(UInt64?, Int?)])
    func refusesToMeasureNothing(bytes: UInt64?, milliseconds: Int?) throws {
        let request = PerfRequest(peer: "b", bytes: bytes, milliseconds: milliseconds)
        #expect(throws: ControlRefusal.self) { try Measurement.amount(of: request) }
        #expect(try Measurement.amount(of: PerfRequest(peer: "b", bytes: 1)) == .bytes(1))
        #expect(try Measurement.amount(of: PerfRequest(peer: "b", milliseconds: 100)) == .time(.milliseconds(100)))
    }

    @Test func saysWhenThePeerDoesNotListUs() async throws {
        let network = MemoryNetwork()
        let a = try TestNode("a", seed: 1, on: network, number: 1)
        let b = try TestNode("b", seed: 2, on: network, number: 2)
        let c = try TestNode("c", seed: 3, on: network, number: 3)
        try await b.start(peers: [entry(c, number: nil)])
        try await a.start(peers: [entry(b, number: 2)])
        try await a.until(b.peer) { tunnel in tunnel.refusal?.contains("does not list this machine") ?? false }
        await a.stop()
        await b.stop()
        await c.stop()
    }

    @Test func comesBackAfterThePeerRestarts() async throws {
        let network = MemoryNetwork()
        let a = try TestNode("a", seed: 1, on: network, number: 1)
        var b = try TestNode("b", seed: 2, on: network, number: 2)
        try await b.start(peers: [entry(a, number: nil)])
        try await a.start(peers: [entry(b, number: 2)])
        try await a.tunnelIsUp(to: b.peer)
        await b.stop()
        try await a.until(b.peer) { !$0.isUp }
        b = try TestNode("b", seed: 2, on: network, number: 2)
        try await b.start(peers: [entry(a, number: nil)])
        try await a.tunnelIsUp(to: b.peer)
        let packet = Packets.udp(from: try await a.ips()[1], to: try await b.ips()[1], payload: [7])
        try a.inject(packet)
        #expect(try await b.next().packet == packet)
        await a.stop()
        await b.stop()
    }
}

enum VirtioNetHeaderBytes {
    /// Nothing left to do.
    static let finished = [UInt8](repeating: 0, count: 10)
}

/// Packets as a kernel would make them.
enum Packets {
    /// A UDP packet with finished checksums.
    static func udp(from source: IPAddress, to destination: IPAddress, payload: [UInt8]) -> [UInt8] {
        let length = 8 + payload.count
        let udp = Self.big(4000) + Self.big(5000) + Self.big(length) + [0, 0] + payload
        var packet = Self.header(source, destination, transport: 17, payloadBytes: udp.count) + udp
        packet.withUnsafeMutableBytes { bytes in
            guard let parsed = try? IPPacket(parsing: UnsafeRawBufferPointer(bytes)) else { return }
            _ = Checksum.complete(parsed, in: bytes)
        }
        return packet
    }

    /// A TCP super-packet over IPv4 and its virtio header, as a TUN hands it out.
    static func superTCP(
        from source: IPAddress, to destination: IPAddress, payloadBytes: Int, segmentBytes: UInt16
    ) -> ([UInt8], header: [UInt8]) {
        let payload = (0..<payloadBytes).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        let tcp =
            Self.big(4000) + Self.big(5000) + [0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10] + Self.big(1000) + [0, 0, 0, 0]
        let packet =
            Self.header(source, destination, transport: 6, payloadBytes: tcp.count + payload.count) + tcp + payload
        let size = [UInt8(truncatingIfNeeded: segmentBytes), UInt8(truncatingIfNeeded: segmentBytes >> 8)]
        return (packet, [1, 1, 40, 0] + size + [20, 0, 16, 0])
    }

    private static func header(
        _ source: IPAddress, _ destination: IPAddress, transport: UInt8, payloadBytes: Int
    ) -> [UInt8] {
        switch source.family {
        case .ipv4:
            var header: [UInt8] = [0x45, 0] + Self.big(20 + payloadBytes) + [0, 1, 0x40, 0, 64, transport, 0, 0]
            header += source.bytes + destination.bytes
            var sum = stride(from: 0, to: 20, by: 2).reduce(0) { $0 + Int(header[$1]) << 8 + Int(header[$1 + 1]) }
            while sum > 0xffff { sum = sum & 0xffff + sum >> 16 }
            header.replaceSubrange(10..<12, with: Self.big(~sum & 0xffff))
            return header
        case .ipv6:
            return [0x60, 0, 0, 0] + Self.big(payloadBytes) + [transport, 64] + source.bytes + destination.bytes
        }
    }

    private static func big(_ value: Int) -> [UInt8] {
        [UInt8(truncatingIfNeeded: value >> 8), UInt8(truncatingIfNeeded: value)]
    }
}
