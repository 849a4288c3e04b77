/// The 10 bytes in front of every packet of a TUN device: what is unfinished about it.
///
/// Integers are in the host's byte order, as a TUN expects unless told otherwise. Encoding never fails; a header from the local kernel is
/// believed, one from anywhere else must not reach this type.
///
/// Spec: Virtual I/O Device 1.1 § 5.1.6, `struct virtio_net_hdr` of `<linux/virtio_net.h>`.
package struct VirtioNetHeader: Hashable, Sendable {
    /// How a super-packet is to be cut.
    package enum Segmentation: UInt8, Hashable, Sendable {
        case none = 0
        case tcp4 = 1
        case tcp6 = 4
        /// UDP of either IP version, each segment a datagram (Linux 6.2).
        case udp = 5
    }

    /// The header's size.
    package static let byteCount = 10

    /// Whether the transport checksum is pending: it holds the pseudo-header's sum and is to be computed from `checksumStart` on.
    package var needsChecksum = false
    /// How the packet is to be cut.
    package var segmentation = Segmentation.none
    /// Whether a TCP super-packet has CWR set, for its first segment only.
    package var hasECN = false
    /// Length in bytes of the IP and transport headers. A hint to the kernel.
    package var headerLength: UInt16 = 0
    /// Payload bytes in each segment but the last; 0 without segmentation.
    package var segmentSize: UInt16 = 0
    /// Where the checksum starts, in bytes from the packet's start.
    package var checksumStart: UInt16 = 0
    /// Where the checksum belongs, in bytes from `checksumStart`.
    package var checksumOffset: UInt16 = 0

    /// The header of a finished packet.
    package init() {}

    /// Reads the first 10 bytes. `nil` when there are fewer, or when the packet is to be cut in a way we never asked for.
    package init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= Self.byteCount else { return nil }
        let kind = bytes[1]
        guard let segmentation = Segmentation(rawValue: kind & ~Self.ecnBit) else { return nil }
        self.needsChecksum = bytes[0] & Self.needsChecksumBit != 0
        self.segmentation = segmentation
        self.hasECN = kind & Self.ecnBit != 0
        self.headerLength = bytes.loadUnaligned(fromByteOffset: 2, as: UInt16.self)
        self.segmentSize = bytes.loadUnaligned(fromByteOffset: 4, as: UInt16.self)
        self.checksumStart = bytes.loadUnaligned(fromByteOffset: 6, as: UInt16.self)
        self.checksumOffset = bytes.loadUnaligned(fromByteOffset: 8, as: UInt16.self)
    }

    /// Writes the 10 bytes to the start of `bytes`; does nothing when there is less room.
    package func write(to bytes: UnsafeMutableRawBufferPointer) {
        guard bytes.count >= Self.byteCount else { return }
        bytes[0] = self.needsChecksum ? Self.needsChecksumBit : 0
        bytes[1] = self.segmentation.rawValue | (self.hasECN ? Self.ecnBit : 0)
        bytes.storeBytes(of: self.headerLength, toByteOffset: 2, as: UInt16.self)
        bytes.storeBytes(of: self.segmentSize, toByteOffset: 4, as: UInt16.self)
        bytes.storeBytes(of: self.checksumStart, toByteOffset: 6, as: UInt16.self)
        bytes.storeBytes(of: self.checksumOffset, toByteOffset: 8, as: UInt16.self)
    }

    /// VIRTIO_NET_HDR_F_NEEDS_CSUM.
    private static let needsChecksumBit: UInt8 = 1
    /// VIRTIO_NET_HDR_GSO_ECN.
    private static let ecnBit: UInt8 = 0x80
}
