import Multiformats

/// The maximum segment size that the two ends of a TCP connection tell each other in their SYN (RFC 9293 § 3.7.1).
package enum TCPMaximumSegmentSize {
    /// Lowers, in place, the MSS of a SYN so that the segments it asks for fit a path.
    ///
    /// For connections we forward: their ends do not know our MTU, and the packet-too-big that would tell them is often
    /// lost. The option is never raised and never added (an end without it is sent 536 or 1,220 bytes at most).
    ///
    /// - Parameters:
    ///   - packet: What `bytes` parsed to.
    ///   - bytes: The packet; its checksum is updated with the option.
    ///   - mtuBytes: The largest packet the path carries. Nothing is changed for less than 68 (IPv4) or 1,280 (IPv6).
    ///   - checksumPending: Whether the checksum is still to be computed. Its field is then left alone: the sum of the
    ///     pseudo-header does not depend on the option.
    /// - Returns: Whether the packet was changed.
    @discardableResult
    package static func clamp(
        _ packet: IPPacket, in bytes: UnsafeMutableRawBufferPointer, mtuBytes: Int, checksumPending: Bool
    ) -> Bool {
        guard case .tcp(_, _, let flags) = packet.transport, flags.contains(.syn), packet.fragment == .none,
            packet.byteCount == bytes.count, mtuBytes >= packet.family.minimumMTUBytes
        else { return false }
        // Fixed headers, as RFC 9293 counts it: who adds options subtracts them.
        let limit = mtuBytes - (packet.family == .ipv4 ? 20 : 40) - 20
        let packetBytes = UnsafeRawBufferPointer(bytes)
        guard let field = self.option(of: packet, in: packetBytes) else { return false }
        let old = packetBytes.bigEndian16(at: field)
        guard Int(old) > limit else { return false }
        let new = UInt16(limit)
        bytes.setBigEndian16(new, at: field)
        if !checksumPending {
            let checksumField = packet.transportOffset + 16
            let checksum = packetBytes.bigEndian16(at: checksumField)
            // An option may stand at any offset; at an odd one its bytes belong to the other halves of their words.
            let isOdd = (field - packet.transportOffset) % 2 == 1
            bytes.setBigEndian16(
                Checksum.updated(checksum, from: isOdd ? old.byteSwapped : old, to: isOdd ? new.byteSwapped : new),
                at: checksumField)
        }
        return true
    }

    /// Where the value of the MSS option lies, from the start of the packet.
    private static func option(of packet: IPPacket, in bytes: UnsafeRawBufferPointer) -> Int? {
        var offset = packet.transportOffset + 20
        let end = packet.payloadOffset
        while offset < end {
            switch bytes[offset] {
            case 0:
                return nil
            case 1:
                offset += 1
            case let kind:
                guard offset + 2 <= end else { return nil }
                let length = Int(bytes[offset + 1])
                guard length >= 2, length <= end - offset else { return nil }
                if kind == 2 { return length == 4 ? offset + 2 : nil }
                offset += length
            }
        }
        return nil
    }
}

extension IPAddress.Family {
    /// The least MTU a link may have: 68 (RFC 791) or 1,280 (RFC 8200 § 5).
    var minimumMTUBytes: Int { self == .ipv4 ? 68 : 1_280 }
}
