package import Multiformats

/// Where an IP address means something. IPv4-mapped IPv6 addresses count as what they stand for: a socket treats them so, too.
extension IPAddress {
    /// 0.0.0.0 or ::.
    package var isUnspecified: Bool { self.unmapped.high == 0 && self.unmapped.low == 0 }

    /// 127.0.0.0/8 or ::1.
    package var isLoopback: Bool {
        let ip = self.unmapped
        return ip.family == .ipv4 ? ip.low >> 24 == 127 : ip.high == 0 && ip.low == 1
    }

    /// An IPv6 address that means something on one link only: fe80::/10.
    package var isIPv6LinkLocal: Bool { self.family == .ipv6 && self.high >> 54 == 0xfe80 >> 6 }

    /// An address that means something only near by: loopback, RFC 1918, shared with a provider's NAT (RFC 6598), link-local,
    /// unique local.
    package var isPrivate: Bool {
        let ip = self.unmapped
        guard ip.family == .ipv4 else { return ip.isLoopback || ip.isIPv6LinkLocal || ip.high >> 57 == 0xfc >> 1 }
        let octets = (ip.low >> 24 & 0xff, ip.low >> 16 & 0xff)
        return octets.0 == 10 || octets.0 == 127 || octets == (192, 168) || octets == (169, 254)
            || (octets.0 == 172 && (16...31).contains(octets.1)) || (octets.0 == 100 && (64...127).contains(octets.1))
    }

    /// What an IPv4-mapped IPv6 address (`::ffff:a.b.c.d`) stands for; every other address itself.
    package var unmapped: IPAddress {
        guard self.family == .ipv6, self.high == 0, self.low >> 32 == 0xffff else { return self }
        return IPAddress(ipv4: UInt32(truncatingIfNeeded: self.low))
    }
}

extension Multiaddr {
    /// The address with every IPv4-mapped IPv6 address written as the IPv4 address that it stands for: a socket takes both for the same.
    package var unmapped: Multiaddr {
        func plain(_ component: Component) -> Component? {
            guard component.protocol == .ip6, let ip = IPAddress(bytes: component.value), ip.unmapped != ip else {
                return nil
            }
            return .ip(ip.unmapped)
        }
        let components = self.components
        guard components.contains(where: { plain($0) != nil }) else { return self }
        return Multiaddr(components: components.map { plain($0) ?? $0 })
    }

    /// Whether the way leads through a relay.
    package var isRelayed: Bool { self.contains(.p2pCircuit) }
}
