package import Multiformats

/// Cryptokey routing: which peer a packet goes to, and whether a peer may send it.
///
/// Pure. Applies to every packet on every lane; never optional.
package struct PacketFilter: Sendable {
    /// What to do with a packet from the TUN.
    package enum Outbound: Equatable, Sendable {
        /// Send it to this peer.
        case send(PeerIndex)
        /// Drop and count it, and answer with ICMP unreachable where the reason is `noRoute`.
        case drop(DropReason)
        /// Drop and count it. Nobody expects an answer: the kernel sends such packets to every interface.
        case dropQuietly(DropReason)
    }

    /// What to do with a packet from a peer.
    package enum Inbound: Equatable, Sendable {
        /// Write it to the TUN.
        case accept
        /// Drop and count it.
        case drop(DropReason)
    }

    /// Whose the addresses are.
    package let routes: RouteTable

    @inline(__always)
    package init(routes: RouteTable) { self.routes = routes }

    /// Judges a packet from the TUN.
    @inline(__always)
    package func outbound(destination: IPAddress) -> Outbound {
        guard Self.isUnicast(destination) else { return .dropQuietly(.noRoute) }
        switch self.routes.lookup(destination) {
        case .peer(let index): return .send(index)
        case .local: return .drop(.loop)
        case .none: return .drop(.noRoute)
        }
    }

    /// Judges a packet that `peer`, whom the connection has authenticated, sent.
    ///
    /// The source must route back to `peer`; the destination must be ours or in a prefix that we announce.
    @inline(__always)
    package func inbound(from peer: PeerIndex, source: IPAddress, destination: IPAddress) -> Inbound {
        guard Self.isUnicast(source), self.routes.lookup(source) == .peer(peer) else { return .drop(.wrongSource) }
        guard Self.isUnicast(destination), self.routes.lookup(destination) == .local else {
            return .drop(.wrongDestination)
        }
        return .accept
    }

    /// Whether packets of `address` may cross from one machine to another: not unspecified, loopback, link-local, multicast or broadcast.
    ///
    /// IPv4-mapped IPv6 addresses never appear on a wire and are refused as well. A route for everything (`0.0.0.0/0`) does not open these.
    @inline(__always)
    package static func isUnicast(_ address: IPAddress) -> Bool {
        switch address.family {
        case .ipv4:
            let bits = UInt32(truncatingIfNeeded: address.low)
            // 224.0.0.0/4 and 240.0.0.0/4, with the broadcast address; 127.0.0.0/8; 0.0.0.0/8; 169.254.0.0/16.
            return bits < 0xe000_0000 && bits &>> 24 != 127 && bits &>> 24 != 0 && bits &>> 16 != 0xa9fe
        case .ipv6:
            let high = address.high
            // ff00::/8; fe80::/10; ::/64 holds the unspecified, the loopback and the mapped addresses.
            return high &>> 56 != 0xff && high &>> 54 != 0xfe80 &>> 6 && high != 0
        }
    }
}
