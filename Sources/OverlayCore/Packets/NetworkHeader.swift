import Multiformats

/// The IPv4 header, or the IPv6 header and the extension headers behind it.
struct NetworkHeader {
    let source: IPAddress
    let destination: IPAddress
    /// Length of all network headers.
    let byteCount: Int
    let transportProtocol: IPProtocol
    /// The protocol number that all fragments of one packet share.
    let flowProtocol: IPProtocol
    let fragment: IPPacket.Fragment
    let trafficClass: UInt8

    /// Parses RFC 791. `bytes` holds at least 20 bytes.
    @inline(__always)
    init(ipv4 bytes: UnsafeRawBufferPointer) throws(IPPacketError) {
        let headerByteCount = Int(bytes[0] & 0x0f) * 4
        guard headerByteCount >= 20, headerByteCount <= bytes.count else { throw .badHeaderLength }
        guard Int(bytes.bigEndian16(at: 2)) == bytes.count else { throw .lengthMismatch }
        if headerByteCount > 20 {
            try Self.checkOptions(bytes.part(from: 20, count: headerByteCount - 20))
        }
        let transportProtocol = IPProtocol(rawValue: bytes[9])
        let fragmentField = bytes.bigEndian16(at: 6)
        self.fragment = try Self.fragment(
            offset: Int(fragmentField & 0x1fff) * 8, moreFollow: fragmentField & 0x2000 != 0,
            byteCount: bytes.count - headerByteCount)
        if self.fragment == .later, transportProtocol == .tcp, fragmentField & 0x1fff < 3 {
            // Would be laid over the TCP header that filters have judged (RFC 1858, RFC 3128).
            throw .malformedFragment
        }
        self.source = IPAddress(ipv4: bytes.bigEndian32(at: 12))
        self.destination = IPAddress(ipv4: bytes.bigEndian32(at: 16))
        self.byteCount = headerByteCount
        self.transportProtocol = transportProtocol
        self.flowProtocol = transportProtocol
        self.trafficClass = bytes[1]
    }

    /// Parses RFC 8200. Options inside extension headers are left to the kernel.
    init(ipv6 bytes: UnsafeRawBufferPointer) throws(IPPacketError) {
        guard bytes.count >= 40 else { throw .truncated }
        guard Int(bytes.bigEndian16(at: 4)) + 40 == bytes.count else { throw .lengthMismatch }
        self.source = IPAddress(ipv6High: bytes.bigEndian64(at: 8), low: bytes.bigEndian64(at: 16))
        self.destination = IPAddress(ipv6High: bytes.bigEndian64(at: 24), low: bytes.bigEndian64(at: 32))
        self.trafficClass = UInt8(truncatingIfNeeded: bytes.bigEndian16(at: 0) >> 4)

        var next = bytes[6]
        var offset = 40
        var fragment = IPPacket.Fragment.none
        var flowProtocol: UInt8?
        var headers = 0
        walk: while true {
            switch next {
            case ExtensionHeader.hopByHop, ExtensionHeader.destinationOptions, ExtensionHeader.routing:
                // Hop-by-hop options may only stand first (RFC 8200 § 4.1).
                guard next != ExtensionHeader.hopByHop || headers == 0 else { throw .malformedExtensionHeader }
                guard bytes.count - offset >= 8 else { throw .malformedExtensionHeader }
                let length = (Int(bytes[offset + 1]) + 1) * 8
                guard length <= bytes.count - offset else { throw .malformedExtensionHeader }
                if next == ExtensionHeader.routing, bytes[offset + 3] != 0 { throw .sourceRouted }
                next = bytes[offset]
                offset += length
            case ExtensionHeader.fragment:
                guard flowProtocol == nil else { throw .malformedFragment }
                guard bytes.count - offset >= 8 else { throw .malformedExtensionHeader }
                let field = bytes.bigEndian16(at: offset + 2)
                next = bytes[offset]
                offset += 8
                flowProtocol = next
                let part = try Self.fragment(
                    offset: Int(field & 0xfff8), moreFollow: field & 1 != 0, byteCount: bytes.count - offset)
                guard part != .later else {
                    fragment = .later
                    break walk
                }
                // Also where no more follow: a packet that says it is a fragment is treated as one.
                fragment = .first
            default:
                break walk
            }
            headers += 1
            guard headers <= IPPacket.maximumExtensionHeaders else { throw .tooManyExtensionHeaders }
        }
        self.byteCount = offset
        self.transportProtocol = IPProtocol(rawValue: next)
        self.flowProtocol = IPProtocol(rawValue: flowProtocol ?? next)
        self.fragment = fragment
    }

    private enum ExtensionHeader {
        static let hopByHop: UInt8 = 0
        static let routing: UInt8 = 43
        static let fragment: UInt8 = 44
        static let destinationOptions: UInt8 = 60
    }

    /// Judges one fragment's place: `offset` and `byteCount` in bytes. A whole packet comes out as `none`.
    @inline(__always)
    private static func fragment(
        offset: Int, moreFollow: Bool, byteCount: Int
    ) throws(IPPacketError) -> IPPacket.Fragment {
        guard offset > 0 || moreFollow else { return .none }
        guard byteCount > 0, offset + byteCount <= 65_535, !moreFollow || byteCount % 8 == 0 else {
            throw .malformedFragment
        }
        return offset > 0 ? .later : .first
    }

    /// Walks IPv4 options (RFC 791 § 3.1).
    private static func checkOptions(_ options: UnsafeRawBufferPointer) throws(IPPacketError) {
        var offset = 0
        while offset < options.count {
            switch options[offset] {
            case 0:
                return
            case 1:
                offset += 1
            case let type:
                guard offset + 2 <= options.count else { throw .malformedOptions }
                let length = Int(options[offset + 1])
                guard length >= 2, length <= options.count - offset else { throw .malformedOptions }
                // Loose and strict source route.
                if type == 131 || type == 137 { throw .sourceRouted }
                offset += length
            }
        }
    }
}
