internal import Multiformats
internal import NIOCore
internal import OverlayCore
internal import Synchronization
internal import TunnelDevice

/// The way from the TUN to the peers' queues, on the TUN reader's thread:
///
/// 1. A packet is read into a large slot, its virtio header in the slot's head room.
/// 2. It is parsed, and the destination's longest prefix tells the peer.
/// 3. A small packet moves to a small slot, so that a queue of small packets holds little memory.
/// 4. It joins the burst's list for that peer.
/// 5. At the end of the burst all lists go to the event loop under one lock, with one wake-up.
///
/// Nothing here is allocated, locked or counted atomically per packet.
final class PacketPump: PacketSink, @unchecked Sendable {
    /// Packets for one peer out of one burst.
    struct Delivery {
        var peer: PeerIndex
        var packets: PacketList
    }

    /// Takes deliveries. Called on the event loop.
    typealias Drain = @Sendable () -> Void

    /// Answers to senders in a second, and at once: enough to end a connection attempt, too few to be an amplifier.
    private static let icmpPerSecond = 100
    private static let icmpBurst = 50

    private struct Shared {
        var filter: PacketFilter
        var peerCapacity: Int
        var deliveries: [Delivery] = []
        var drops = DropCounters()
        var isDrainScheduled = false
    }

    private let device: any PacketDevice
    private let pool: PacketPool
    private let eventLoop: any EventLoop
    private let ownAddresses: (ipv4: IPAddress?, ipv6: IPAddress?)
    private let hashSeed = UInt64.random(in: .min ... .max)
    private let drain: Drain
    private let onFailure: @Sendable (PacketReadError) -> Void
    private let shared: Mutex<Shared>

    // Owned by the reader's thread.
    private var cache: PacketCache
    private var slot: PacketRef?
    private let scratch: UnsafeMutableRawBufferPointer
    private let reply: UnsafeMutableRawBufferPointer
    private var filter: PacketFilter
    private var lists: [PacketList] = []
    private var touched: [Int] = []
    private var drops = DropCounters()
    private var isInBurst = false
    private var limiter: ICMPRateLimiter

    init(
        device: any PacketDevice, pool: PacketPool, eventLoop: any EventLoop, filter: PacketFilter, peerCapacity: Int,
        ownAddresses: (ipv4: IPAddress?, ipv6: IPAddress?), drain: @escaping Drain,
        onFailure: @escaping @Sendable (PacketReadError) -> Void
    ) {
        self.device = device
        self.pool = pool
        self.eventLoop = eventLoop
        self.ownAddresses = ownAddresses
        self.drain = drain
        self.onFailure = onFailure
        self.shared = Mutex(Shared(filter: filter, peerCapacity: peerCapacity))
        self.filter = filter
        self.cache = PacketCache(pool: pool)
        self.scratch = .allocate(byteCount: PacketDeviceLimits.readBytes, alignment: 16)
        self.reply = .allocate(byteCount: ICMPError.maximumByteCount, alignment: 16)
        self.limiter = ICMPRateLimiter(
            perSecond: Self.icmpPerSecond, burst: Self.icmpBurst, now: NIODeadline.now().uptimeNanoseconds)
    }

    deinit {
        self.scratch.deallocate()
        self.reply.deallocate()
    }

    // MARK: From other threads

    /// Routes by `filter` from the next burst on. `peerCapacity` is one more than the highest peer index.
    func update(filter: PacketFilter, peerCapacity: Int) {
        self.shared.withLock {
            $0.filter = filter
            $0.peerCapacity = peerCapacity
        }
    }

    /// What has come since the last call. The caller owns the packets.
    func takeDeliveries(into deliveries: inout [Delivery]) {
        self.shared.withLock {
            swap(&$0.deliveries, &deliveries)
            $0.isDrainScheduled = false
        }
    }

    /// Packets that went no further than here.
    var dropCounters: DropCounters { self.shared.withLock { $0.drops } }

    // MARK: PacketSink

    func nextBuffer() -> UnsafeMutableRawBufferPointer {
        if !self.isInBurst { self.beginBurst() }
        if self.slot == nil { self.slot = self.cache.take(.large) }
        guard let slot = self.slot else { return self.scratch }
        slot.reset()
        // The header takes head room: it is gone before the frame's own header needs that.
        guard slot.prepend(PacketDeviceLimits.headerBytes) != nil else { return self.scratch }
        let start = slot.bytes
        let room = start.count + slot.tailRoom.count
        return UnsafeMutableRawBufferPointer(start: start.baseAddress, count: room)
    }

    func received(byteCount: Int) {
        guard let slot = self.slot else { return self.drops.count(.exhausted) }
        guard slot.setLength(byteCount), let header = VirtioNetHeader(decoding: UnsafeRawBufferPointer(slot.bytes)),
            slot.removePrefix(PacketDeviceLimits.headerBytes)
        else { return self.drops.count(.malformed) }
        do {
            let packet = try IPPacket(parsing: UnsafeRawBufferPointer(slot.bytes))
            switch self.filter.outbound(destination: packet.destination) {
            case .send(let peer): try self.send(slot, packet, header, to: peer)
            case .drop(let reason): self.refuse(slot, packet, reason)
            case .dropQuietly(let reason): self.drops.count(reason)
            }
        } catch {
            self.drops.count(.malformed)
        }
    }

    func burstEnded() {
        let hasPackets = !self.touched.isEmpty
        var mustWake = false
        self.shared.withLock { shared in
            for index in self.touched {
                shared.deliveries.append(
                    Delivery(peer: PeerIndex(rawValue: UInt32(truncatingIfNeeded: index)), packets: self.lists[index]))
            }
            if hasPackets, !shared.isDrainScheduled {
                shared.isDrainScheduled = true
                mustWake = true
            }
            shared.drops += self.drops
        }
        self.isInBurst = false
        for index in self.touched { self.lists[index] = PacketList() }
        self.touched.removeAll(keepingCapacity: true)
        self.drops = DropCounters()
        if mustWake { self.eventLoop.execute(self.drain) }
    }

    func deviceFailed(_ error: PacketReadError) {
        self.onFailure(error)
    }

    // MARK: Details

    /// Learns who owns which address now.
    private func beginBurst() {
        self.isInBurst = true
        self.shared.withLock { shared in
            self.filter = shared.filter
            if self.lists.count < shared.peerCapacity {
                self.lists.append(
                    contentsOf: repeatElement(PacketList(), count: shared.peerCapacity - self.lists.count))
            }
        }
    }

    private func send(_ slot: PacketRef, _ packet: IPPacket, _ header: VirtioNetHeader, to peer: PeerIndex) throws {
        var metadata = OffloadMetadata.finished
        do {
            metadata = try OffloadMetadata(
                local: header, packet: packet, in: UnsafeRawBufferPointer(slot.bytes))
        } catch OffloadError.checksumElsewhere {
            guard header.completeChecksum(in: slot.bytes) else { throw OffloadError.checksumElsewhere }
        }
        let index = Int(peer.rawValue)
        guard index < self.lists.count else { return self.drops.count(.noRoute) }

        var outgoing = slot
        if slot.length <= PacketPool.SlotClass.small.packetBytes, let small = self.cache.take(.small) {
            small.reset()
            small.tailRoom.copyMemory(from: UnsafeRawBufferPointer(slot.bytes))
            guard small.setLength(slot.length) else { return self.cache.give(small) }
            outgoing = small
        } else {
            self.slot = nil
        }
        outgoing.peer = peer
        outgoing.flowHash = UInt32(truncatingIfNeeded: packet.flowHash(seed: self.hashSeed))
        var flags: PacketRef.Flags = []
        if packet.ecn != .notCapable { flags.insert(.ecnCapable) }
        if packet.transportProtocol == .tcp { flags.insert(.tcp) }
        if LaneKind.preferred(for: packet) == .datagram { flags.insert(.prefersDatagrams) }
        outgoing.flags = flags
        outgoing.offload = metadata
        if self.lists[index].isEmpty { self.touched.append(index) }
        self.lists[index].append(outgoing)
    }

    /// Tells the sender that its packet goes nowhere.
    private func refuse(_ slot: PacketRef, _ packet: IPPacket, _ reason: DropReason) {
        self.drops.count(reason)
        guard reason == .noRoute, self.limiter.allows(now: NIODeadline.now().uptimeNanoseconds) else { return }
        let own = packet.family == .ipv4 ? self.ownAddresses.ipv4 : self.ownAddresses.ipv6
        guard let own,
            let count = ICMPError.noRoute.reply(
                to: packet, in: UnsafeRawBufferPointer(slot.bytes), from: own, into: self.reply)
        else { return }
        _ = self.device.writeFinished(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(self.reply)[..<count]))
    }
}

extension PacketDevice {
    /// Writes a packet whose checksums are finished.
    func writeFinished(_ packet: UnsafeRawBufferPointer) -> PacketWriteResult {
        var header: (UInt64, UInt16) = (0, 0)
        return withUnsafeBytes(of: &header) { header in
            guard let start = header.baseAddress else { return .queueFull }
            return self.write(header: start, packet: packet)
        }
    }
}
