/// The header that a TUN opened with `IFF_VNET_HDR` puts before each packet, in both directions.
///
/// It tells the kernel which checksum is still to be computed and how to cut a super-packet. The kernel does what it
/// says without looking, so one must never come from the network: a receiver builds its own with
/// ``init(for:in:metadata:)``.
///
/// Spec: virtio 1.2 § 5.1.6, in the kernel's legacy layout (10 bytes, host byte order).
package struct VirtioNetHeader: Equatable, Sendable {
    /// Length of the encoded header.
    package static let byteCount = 10

    /// Which of the other fields count.
    package var flags: Flags
    /// How the packet is to be segmented.
    package var segmentation: Segmentation
    /// Length of all headers in front of the payload, bytes; a hint.
    package var headerByteCount: UInt16
    /// Payload bytes in each segment but the last.
    package var segmentSize: UInt16
    /// Where the bytes under the pending checksum begin, from the start of the packet.
    package var checksumStart: UInt16
    /// Where the checksum field lies, from `checksumStart`.
    package var checksumOffset: UInt16

    /// `VIRTIO_NET_HDR_F_*`.
    package struct Flags: OptionSet, Hashable, Sendable {
        package let rawValue: UInt8

        package init(rawValue: UInt8) { self.rawValue = rawValue }

        /// A checksum is pending.
        package static let needsChecksum = Flags(rawValue: 1)
        /// The checksum was verified before.
        package static let dataValid = Flags(rawValue: 2)
    }

    /// `VIRTIO_NET_HDR_GSO_*`.
    package struct Segmentation: RawRepresentable, Hashable, Sendable {
        package let rawValue: UInt8

        package init(rawValue: UInt8) { self.rawValue = rawValue }

        package static let none = Segmentation(rawValue: 0)
        package static let tcpv4 = Segmentation(rawValue: 1)
        package static let tcpv6 = Segmentation(rawValue: 4)
        /// UDP datagrams of one size (USO).
        package static let udp = Segmentation(rawValue: 5)

        /// The bit beside a TCP type: CWR is set, and belongs to the first segment only.
        package static let ecnBit: UInt8 = 0x80

        /// Whether ``ecnBit`` is set.
        package var hasECN: Bool { self.rawValue & Self.ecnBit != 0 }
        /// The type without ``ecnBit``.
        package var withoutECN: Segmentation { Segmentation(rawValue: self.rawValue & ~Self.ecnBit) }
        /// The type with ``ecnBit``.
        package var withECN: Segmentation { Segmentation(rawValue: self.rawValue | Self.ecnBit) }
    }

    /// The header of a packet with nothing left to do: ten zero bytes.
    package static let finished = VirtioNetHeader(
        flags: [], segmentation: .none, headerByteCount: 0, segmentSize: 0, checksumStart: 0, checksumOffset: 0)

    package init(
        flags: Flags, segmentation: Segmentation, headerByteCount: UInt16, segmentSize: UInt16, checksumStart: UInt16,
        checksumOffset: UInt16
    ) {
        self.flags = flags
        self.segmentation = segmentation
        self.headerByteCount = headerByteCount
        self.segmentSize = segmentSize
        self.checksumStart = checksumStart
        self.checksumOffset = checksumOffset
    }

    /// Decodes the first ten of `bytes`; `nil` when there are fewer.
    package init?(decoding bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= Self.byteCount else { return nil }
        self.flags = Flags(rawValue: bytes[0])
        self.segmentation = Segmentation(rawValue: bytes[1])
        self.headerByteCount = bytes.loadUnaligned(fromByteOffset: 2, as: UInt16.self)
        self.segmentSize = bytes.loadUnaligned(fromByteOffset: 4, as: UInt16.self)
        self.checksumStart = bytes.loadUnaligned(fromByteOffset: 6, as: UInt16.self)
        self.checksumOffset = bytes.loadUnaligned(fromByteOffset: 8, as: UInt16.self)
    }

    /// Writes the first ten of `bytes`. Returns `false`, and writes nothing, when there are fewer.
    @discardableResult
    package func encode(into bytes: UnsafeMutableRawBufferPointer) -> Bool {
        guard bytes.count >= Self.byteCount else { return false }
        bytes[0] = self.flags.rawValue
        bytes[1] = self.segmentation.rawValue
        bytes.storeBytes(of: self.headerByteCount, toByteOffset: 2, as: UInt16.self)
        bytes.storeBytes(of: self.segmentSize, toByteOffset: 4, as: UInt16.self)
        bytes.storeBytes(of: self.checksumStart, toByteOffset: 6, as: UInt16.self)
        bytes.storeBytes(of: self.checksumOffset, toByteOffset: 8, as: UInt16.self)
        return true
    }

    /// Finishes, in place, the checksum that our own kernel left pending, wherever in the packet it is.
    ///
    /// For what the wire cannot express (``OffloadError/checksumElsewhere``): the packet then travels as finished.
    ///
    /// - Returns: `false`, and nothing is written, if the header asks for segmentation, for a place outside `packet`,
    ///   or for no checksum at all.
    package func completeChecksum(in packet: UnsafeMutableRawBufferPointer) -> Bool {
        let start = Int(self.checksumStart)
        let field = start + Int(self.checksumOffset)
        guard self.flags.contains(.needsChecksum), self.segmentation == .none, field + 2 <= packet.count else {
            return false
        }
        // The field holds the sum of the pseudo-header, which thus is counted with the rest.
        let covered = UnsafeRawBufferPointer(packet).part(from: start, count: packet.count - start)
        let checksum = Checksum.internet(covered)
        // Never zero, as the kernel does it (CSUM_MANGLED_0): whether this is UDP is not known.
        packet.setBigEndian16(checksum == 0 ? 0xffff : checksum, at: field)
        return true
    }
}
