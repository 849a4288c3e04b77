internal import Multiformats
internal import NIOCore
internal import OverlayCore
internal import TunnelDevice

/// The way from a peer's frames to the TUN, on the connection's event loop: parse strictly, check who may send what to whom, build the
/// offload header ourselves, write.
///
/// Nothing is allocated or locked per packet.
final class InboundGate {
    /// What one peer has delivered, and what of it was dropped.
    struct Counters {
        var packets: UInt64 = 0
        var bytes: UInt64 = 0
        var drops = DropCounters()
    }

    /// Who owns which address. Replaced when members or routes change.
    var filter: PacketFilter

    private let device: any PacketDevice

    init(device: any PacketDevice, filter: PacketFilter) {
        self.device = device
        self.filter = filter
    }

    /// Takes one packet of `peer`. Borrows `bytes`, of which two change when a checksum is pending.
    @inline(__always)
    func admit(
        _ bytes: UnsafeMutableRawBufferPointer, _ metadata: OffloadMetadata, from peer: PeerIndex,
        counting counters: inout Counters
    ) {
        do {
            let packet = try IPPacket(parsing: UnsafeRawBufferPointer(bytes))
            switch self.filter.inbound(from: peer, source: packet.source, destination: packet.destination) {
            case .accept: break
            case .drop(let reason): return counters.drops.count(reason)
            }
            let header = try VirtioNetHeader(for: packet, in: bytes, metadata: metadata)
            var encoded: (UInt64, UInt16) = (0, 0)
            let result = withUnsafeMutableBytes(of: &encoded) { room in
                header.encode(into: room)
                guard let start = room.baseAddress else { return PacketWriteResult.queueFull }
                return self.device.write(header: start, packet: UnsafeRawBufferPointer(bytes))
            }
            switch result {
            case .written:
                counters.packets &+= 1
                counters.bytes &+= UInt64(bytes.count)
            case .queueFull: counters.drops.count(.queueFull)
            case .linkDown, .deviceGone: counters.drops.count(.networkDown)
            case .rejected: counters.drops.count(.malformed)
            }
        } catch {
            counters.drops.count(.malformed)
        }
    }
}
