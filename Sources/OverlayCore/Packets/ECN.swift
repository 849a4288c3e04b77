/// Explicit congestion notification, the lower two bits of the traffic class (RFC 3168 § 5).
package enum ECN: UInt8, Hashable, Sendable {
    /// The sender does not know ECN: congestion is told by dropping.
    case notCapable = 0
    /// ECT(1).
    case capable1 = 1
    /// ECT(0).
    case capable0 = 2
    /// Congestion was experienced on the way.
    case congestionExperienced = 3

    /// From TOS byte or traffic class.
    package init(trafficClass: UInt8) {
        switch trafficClass & 3 {
        case 0: self = .notCapable
        case 1: self = .capable1
        case 2: self = .capable0
        default: self = .congestionExperienced
        }
    }

    /// Marks a packet "congestion experienced" in place, if its sender knows ECN.
    ///
    /// Looks at the first bytes only, so it suits packets that were parsed long before. The IPv4 header checksum is
    /// updated; no transport checksum covers these bits. A marked super-packet marks all its segments.
    ///
    /// - Returns: Whether the packet now carries the mark. If not, drop it instead.
    package static func markCongestionExperienced(_ packet: UnsafeMutableRawBufferPointer) -> Bool {
        guard packet.count >= 20 else { return false }
        let bytes = UnsafeRawBufferPointer(packet)
        let old = bytes.bigEndian16(at: 0)
        // Version, header length and TOS in IPv4; version, traffic class and part of the flow label in IPv6.
        let shift: UInt16
        switch old >> 12 {
        case 4: shift = 0
        case 6 where packet.count >= 40: shift = 4
        default: return false
        }
        switch ECN(trafficClass: UInt8(truncatingIfNeeded: old >> shift)) {
        case .notCapable: return false
        case .congestionExperienced: return true
        case .capable0, .capable1: break
        }
        let new = old | 3 << shift
        packet.setBigEndian16(new, at: 0)
        if shift == 0 {
            packet.setBigEndian16(Checksum.updated(bytes.bigEndian16(at: 10), from: old, to: new), at: 10)
        }
        return true
    }
}
