internal import Multiformats
internal import NIOCore
internal import OverlayCore
internal import TunnelDevice

/// The way from a peer's frames to the TUN, on the connection's event loop: parse strictly, check who may send what to whom, build the
/// offload header ourselves, write.
///
/// What comes on streams is written at once. What comes in datagrams is checked packet by packet and then merged, as far as the device
/// takes super-packets; at the end of a burst nothing is left here.
///
/// Nothing is allocated or locked per packet.
final class InboundGate {
    /// What one peer has delivered, and what of it was dropped. Owned by the event loop.
    final class Counters {
        var packets: UInt64 = 0
        var bytes: UInt64 = 0
        var drops = DropCounters()
    }

    /// Who owns which address. Replaced when members or routes change.
    var filter: PacketFilter

    private let device: any PacketDevice
    private var coalescer: Coalescer
    /// Those whose datagrams have come since the last ``endDatagrams()``; rarely more than one.
    private var senders: [(peer: PeerIndex, counters: Counters)] = []

    init(device: any PacketDevice, filter: PacketFilter) {
        self.device = device
        self.filter = filter
        self.coalescer = Coalescer(Coalescer.Kinds(device.offload))
    }

    /// Takes one packet of `peer`. Borrows `bytes`, of which two change when a checksum is pending.
    @inline(__always)
    func admit(
        _ bytes: UnsafeMutableRawBufferPointer, _ metadata: OffloadMetadata, from peer: PeerIndex,
        counting counters: Counters
    ) {
        do {
            let packet = try IPPacket(parsing: UnsafeRawBufferPointer(bytes))
            switch self.filter.inbound(from: peer, source: packet.source, destination: packet.destination) {
            case .accept: break
            case .drop(let reason): return counters.drops.count(reason)
            }
            let header = try VirtioNetHeader(for: packet, in: bytes, metadata: metadata)
            let result = self.write(header, UnsafeRawBufferPointer(bytes))
            counters.count(result, packets: 1, bytes: bytes.count)
        } catch {
            counters.drops.count(.malformed)
        }
    }

    /// Takes one packet that came in a datagram: complete, with finished checksums. Borrows `bytes` until it returns.
    ///
    /// The packet, or others that came before it, are written now or by ``endDatagrams()``, which must be called when the burst of
    /// datagrams is over. Packets of several peers may come in turn.
    @inline(__always)
    func admitDatagram(_ bytes: UnsafeRawBufferPointer, from peer: PeerIndex, counting counters: Counters) {
        do {
            let packet = try IPPacket(parsing: bytes)
            switch self.filter.inbound(from: peer, source: packet.source, destination: packet.destination) {
            case .accept: break
            case .drop(let reason): return counters.drops.count(reason)
            }
            self.remember(peer, counters)
            self.coalescer.add(packet, bytes, from: peer) { self.write($0) }
        } catch {
            counters.drops.count(.malformed)
        }
    }

    /// Writes what the burst's packets were merged to.
    func endDatagrams() {
        self.coalescer.flush { self.write($0) }
        self.senders.removeAll(keepingCapacity: true)
    }

    /// Lets go of memory that is not in use. To be called now and then.
    func trim() { self.coalescer.trim() }

    // MARK: Details

    @inline(__always)
    private func remember(_ peer: PeerIndex, _ counters: Counters) {
        if let last = self.senders.last, last.peer == peer { return }
        if !self.senders.contains(where: { $0.peer == peer }) { self.senders.append((peer, counters)) }
    }

    private func write(_ output: Coalescer.Output) {
        let result = self.write(output.header, output.bytes)
        guard let sender = self.senders.last(where: { $0.peer == output.peer }) else { return }
        sender.counters.count(result, packets: UInt64(output.packetCount), bytes: output.receivedByteCount)
    }

    @inline(__always)
    private func write(_ header: VirtioNetHeader, _ packet: UnsafeRawBufferPointer) -> PacketWriteResult {
        var encoded: (UInt64, UInt16) = (0, 0)
        return withUnsafeMutableBytes(of: &encoded) { room in
            header.encode(into: room)
            guard let start = room.baseAddress else { return PacketWriteResult.queueFull }
            return self.device.write(header: start, packet: packet)
        }
    }
}

extension InboundGate.Counters {
    /// Counts what became of packets, which had `bytes` bytes in all.
    @inline(__always)
    fileprivate func count(_ result: PacketWriteResult, packets: UInt64, bytes: Int) {
        switch result {
        case .written:
            self.packets &+= packets
            self.bytes &+= UInt64(bytes)
        case .queueFull: self.drops.count(.queueFull, packets: packets)
        case .linkDown, .deviceGone: self.drops.count(.networkDown, packets: packets)
        case .rejected: self.drops.count(.malformed, packets: packets)
        }
    }
}

extension Coalescer.Kinds {
    /// What a device takes that has `offload`.
    ///
    /// Writing TCP super-packets works on any TUN, UDP's only where the kernel knows them. A device without offload is left without
    /// either, because somebody wanted that.
    init(_ offload: OffloadFeatures) {
        self = []
        if offload.contains(.tcp4) { self.insert(.tcpv4) }
        if offload.contains(.tcp6) { self.insert(.tcpv6) }
        if offload.contains(.udp4) { self.insert(.udpv4) }
        if offload.contains(.udp6) { self.insert(.udpv6) }
    }
}
