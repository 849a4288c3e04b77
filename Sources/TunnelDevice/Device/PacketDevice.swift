/// A device that IP packets come from and go to: a TUN interface, or a stand-in for one in tests.
///
/// Each packet is preceded by a `struct virtio_net_hdr` of 10 bytes, offload or not, so that there is one way to read and to write.
///
/// One thread reads; any number of threads may write at the same time, because the kernel takes one packet per call.
package protocol PacketDevice: AnyObject, Sendable {
    /// The interface's name.
    var name: String { get }

    /// The largest packet in bytes that is not a super-packet; 0 when the device is gone. Asks the kernel: not for every packet.
    var mtu: Int { get }

    /// What the device may hand us unfinished. Writing a super-packet is always possible.
    var offload: OffloadFeatures { get }

    /// Readable (as `poll` sees it) while a packet waits. For waiting only, owned by the device.
    var descriptor: Int32 { get }

    /// Reads one packet with its header in front.
    ///
    /// - Parameter buffer: Borrowed until the call returns; at least ``PacketDeviceLimits/readBytes`` long, because a packet that does
    ///   not fit is cut off silently.
    /// - Returns: How many bytes were read, header included; `nil` when nothing waits.
    func read(into buffer: UnsafeMutableRawBufferPointer) throws(PacketReadError) -> Int?

    /// Writes one packet. Both pointers are borrowed until the call returns, which is at once: the kernel queues or drops.
    ///
    /// - Parameters:
    ///   - header: A `struct virtio_net_hdr`, 10 bytes. It must have been made here, never taken from a remote.
    ///   - packet: An IP packet, or a super-packet as `header` describes it.
    /// - Returns: What became of it; all outcomes but `written` mean that it is lost and should be counted.
    func write(header: UnsafeRawPointer, packet: UnsafeRawBufferPointer) -> PacketWriteResult
}

/// Sizes that hold for every ``PacketDevice``.
package enum PacketDeviceLimits {
    /// The header in front of each packet.
    package static let headerBytes = 10
    /// The largest packet a device hands out or takes: an IPv6 header (40 bytes) and the largest payload it can announce (65,535).
    package static let packetBytes = 65_575
    /// The smallest buffer to read into: a header and the largest packet.
    package static let readBytes = Self.headerBytes + Self.packetBytes
}

/// What a device leaves to its reader: checksums, and cutting super-packets into segments.
package struct OffloadFeatures: OptionSet, Hashable, Sendable, CustomStringConvertible {
    package let rawValue: UInt32

    package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Checksums of TCP and UDP may be pending.
    package static let checksum = Self(rawValue: 0x01)
    /// TCP over IPv4 may come as super-packets.
    package static let tcp4 = Self(rawValue: 0x02)
    /// TCP over IPv6 may come as super-packets.
    package static let tcp6 = Self(rawValue: 0x04)
    /// TCP super-packets may have CWR set, which belongs on their first segment only.
    package static let tcpECN = Self(rawValue: 0x08)
    /// UDP over IPv4 may come as super-packets (Linux 6.2).
    package static let udp4 = Self(rawValue: 0x20)
    /// UDP over IPv6 may come as super-packets (Linux 6.2).
    package static let udp6 = Self(rawValue: 0x40)
    /// All that Linux has.
    package static let all: Self = [.checksum, .tcp4, .tcp6, .tcpECN, .udp4, .udp6]

    package var description: String {
        let names: [(Self, String)] = [
            (.checksum, "csum"), (.tcp4, "tso4"), (.tcp6, "tso6"), (.tcpECN, "tso-ecn"), (.udp4, "uso4"),
            (.udp6, "uso6"),
        ]
        let present = names.filter { self.contains($0.0) }.map(\.1)
        return present.isEmpty ? "none" : present.joined(separator: " ")
    }
}

/// What became of a packet that was written.
package enum PacketWriteResult: Hashable, Sendable {
    case written
    /// The device's queue is full (EAGAIN, ENOBUFS, ENOMEM).
    case queueFull
    /// The interface is down (EIO).
    case linkDown
    /// The kernel found header or packet wanting, mostly with EINVAL.
    case rejected(errno: Int32)
    /// The interface has been deleted (EBADFD). Nothing will ever be written again.
    case deviceGone
}

/// Why a device cannot be read any more.
package enum PacketReadError: Error, Hashable, Sendable {
    /// The interface has been deleted (EBADFD).
    case deviceGone
    /// Any other failure.
    case failed(errno: Int32)
}
