internal import CLinux
internal import CNgtcp2
internal import LibP2PCore
internal import Multiformats
internal import NIOCore

#if canImport(Glibc)
    internal import Glibc
#endif

/// The address of a UDP socket as the kernel takes it.
typealias UDPAddress = clinux_udp_address

extension UDPAddress {
    init(_ ip: IPAddress, port: UInt16) {
        self.init()
        let bytes = ip.bytes
        switch ip.family {
        case .ipv4:
            var four = sockaddr_in()
            four.sin_family = sa_family_t(AF_INET)
            four.sin_port = port.bigEndian
            withUnsafeMutableBytes(of: &four.sin_addr) { $0.copyBytes(from: bytes) }
            withUnsafeMutableBytes(of: &self.socket) { raw in withUnsafeBytes(of: &four) { raw.copyMemory(from: $0) } }
            self.length = UInt32(MemoryLayout<sockaddr_in>.size)
        case .ipv6:
            self.socket.sin6_family = sa_family_t(AF_INET6)
            self.socket.sin6_port = port.bigEndian
            withUnsafeMutableBytes(of: &self.socket.sin6_addr) { $0.copyBytes(from: bytes) }
            self.length = UInt32(MemoryLayout<sockaddr_in6>.size)
        }
    }

    /// The same as the event loop's library has it; `nil` for what is no IP address.
    init?(_ address: SocketAddress) {
        self.init()
        let length = address.withSockAddr { pointer, length in
            guard length <= MemoryLayout<sockaddr_in6>.size else { return 0 }
            withUnsafeMutableBytes(of: &self.socket) {
                $0.copyMemory(from: UnsafeRawBufferPointer(start: pointer, count: length))
            }
            return length
        }
        guard length > 0 else { return nil }
        self.length = UInt32(length)
    }

    var isIPv6: Bool { Int32(self.socket.sin6_family) == AF_INET6 }

    /// Both families have the port in the same place.
    var port: UInt16 {
        get { UInt16(bigEndian: self.socket.sin6_port) }
        set { self.socket.sin6_port = newValue.bigEndian }
    }

    var ip: IPAddress {
        let (offset, count) = self.isIPv6 ? (8, 16) : (4, 4)
        return withUnsafeBytes(of: self.socket) { IPAddress(bytes: $0[offset..<offset + count]) } ?? IPAddress(ipv4: 0)
    }

    /// What one customer of a provider usually has: an IPv4 /24, an IPv6 /56.
    var prefix: UInt64 {
        let ip = self.ip
        return ip.family == .ipv4 ? ip.low >> 8 : ip.high >> 8 | 1 << 63
    }

    var multiaddr: Multiaddr { Multiaddr.udp(self.ip, port: self.port).appending(.quicV1) }

    /// Whether family, port and IP address are the same. Asked for each packet, so it looks at the bytes.
    func isEqual(to other: UDPAddress) -> Bool {
        withUnsafeBytes(of: self.socket) { mine in
            withUnsafeBytes(of: other.socket) { theirs in
                func same<Word: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, _: Word.Type) -> Bool {
                    mine.loadUnaligned(fromByteOffset: offset, as: Word.self)
                        == theirs.loadUnaligned(fromByteOffset: offset, as: Word.self)
                }
                // Family and port; then the IPv4 address, or, behind the flow label, the IPv6 address.
                guard same(0, UInt32.self) else { return false }
                return self.isIPv6 ? same(8, UInt64.self) && same(16, UInt64.self) : same(4, UInt32.self)
            }
        }
    }
}

extension Multiaddr {
    /// `/ip4|ip6/…/udp/…/quic-v1`, with or without `/p2p/…` behind; `nil` for every other address.
    var quicAddress: UDPAddress? {
        let components = self.withoutPeerID.components
        guard components.count == 3, components[1].protocol == .udp, components[2].protocol == .quicV1,
            let ip = self.ipAddress, let port = self.udpPort
        else { return nil }
        return UDPAddress(ip, port: port)
    }
}
