import Multiformats

/// What is still to be done to a packet: a checksum to be computed, perhaps a super-packet to be cut into segments.
///
/// This is all that travels beside such a packet (frame kind 1). It holds no offsets: ``VirtioNetHeader`` is built by
/// the receiver from the packet itself, by the same rules that ``init(local:packet:in:)`` applies before sending.
///
/// | rule | otherwise |
/// |---|---|
/// | TCP or UDP, not a fragment | ``OffloadError/fragment``, ``OffloadError/notTCPOrUDP`` |
/// | the IPv4 header checksum is right | ``OffloadError/badHeaderChecksum`` |
/// | the UDP length reaches to the end of the packet | ``OffloadError/udpLengthMismatch`` |
/// | segment size ≥ 8 (TCP) or ≥ 1 (UDP), headers and one segment ≤ 65,535 bytes | ``OffloadError/badSegmentSize`` |
/// | at most 128 (between machines 64) UDP segments | ``OffloadError/tooManySegments`` |
/// | TCP super-packets carry neither SYN nor RST | ``OffloadError/unsegmentableFlags`` |
/// | only known flags, and those only on TCP super-packets with their checksum pending | ``OffloadError/badFlags`` |
package struct OffloadMetadata: Equatable, Sendable {
    /// Whether the transport checksum is still to be computed. Its field then holds nothing of use.
    package var checksumPending: Bool
    /// Payload bytes of each segment but the last; 0 where the packet is one segment. Not 0 only with
    /// `checksumPending`.
    package var segmentSize: UInt16
    /// Facts about a super-packet.
    package var flags: Flags

    /// The flags byte of frame kind 1. Bits not named here are refused.
    package struct Flags: OptionSet, Hashable, Sendable {
        package let rawValue: UInt8

        package init(rawValue: UInt8) { self.rawValue = rawValue }

        /// TCP's CWR belongs to the first segment only.
        package static let ecn = Flags(rawValue: 1)
    }

    /// A packet with finished checksums (frame kind 0).
    package static let finished = OffloadMetadata(checksumPending: false, segmentSize: 0, flags: [])

    /// The smallest TCP segment, as in Linux: what remains of its least MSS beside a full set of options.
    package static let minimumTCPSegmentSize = 8
    /// The most UDP segments a Linux socket produces.
    package static let maximumUDPSegments = 128
    /// The most UDP segments every Linux with USO accepts from a TUN, hence the most in one frame.
    package static let maximumUDPSegmentsPerFrame = 64

    package init(checksumPending: Bool, segmentSize: UInt16, flags: Flags) {
        self.checksumPending = checksumPending
        self.segmentSize = segmentSize
        self.flags = flags
    }

    /// Reads what our own kernel says about a packet it gave us. Borrows `bytes` until it returns.
    ///
    /// - Parameter packet: What `bytes` parsed to.
    /// - Throws: ``OffloadError``. After ``OffloadError/checksumElsewhere`` the packet can still be sent:
    ///   ``VirtioNetHeader/completeChecksum(in:)``. After anything else it is to be dropped.
    package init(
        local header: VirtioNetHeader, packet: IPPacket, in bytes: UnsafeRawBufferPointer
    ) throws(OffloadError) {
        let type = header.segmentation.withoutECN
        guard header.flags.contains(.needsChecksum) else {
            guard header.segmentation == .none else { throw .unsupportedSegmentation }
            self = .finished
            return
        }
        guard let field = packet.checksumField, Int(header.checksumStart) == packet.transportOffset,
            Int(header.checksumStart) + Int(header.checksumOffset) == field
        else { throw header.segmentation == .none ? .checksumElsewhere : .unsupportedSegmentation }

        var metadata = OffloadMetadata(checksumPending: true, segmentSize: 0, flags: [])
        if header.segmentation != .none {
            guard type == VirtioNetHeader.Segmentation(of: packet) else { throw .unsupportedSegmentation }
            guard header.segmentSize > 0 else { throw .badSegmentSize }
            metadata.segmentSize = header.segmentSize
            metadata.flags = header.segmentation.hasECN ? .ecn : []
        }
        let plan = try OffloadPlan(metadata, packet: packet, in: bytes)
        if plan.segmentSize == 0 {
            metadata.segmentSize = 0
            metadata.flags = []
        }
        self = metadata
    }

    /// Whether a peer that takes super-packets takes this one whole. If not, send its segments (``Segmenter``).
    package func fitsOneFrame(_ packet: IPPacket) -> Bool {
        guard self.segmentSize > 0, packet.transportProtocol == .udp else { return true }
        let payload = packet.byteCount - packet.payloadOffset
        return payload <= Int(self.segmentSize) * Self.maximumUDPSegmentsPerFrame
    }
}

extension OffloadMetadata {
    /// Length of the fields in front of the packet in frame kind 1: segment size and flags.
    package static let wireByteCount = 3

    /// Reads the first three bytes of a kind 1 body: segment size, big-endian, and flags. `nil` when there are fewer.
    ///
    /// Nothing is judged yet: ``VirtioNetHeader/init(for:in:metadata:)`` and ``Segmenter`` do that.
    package init?(wire bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= Self.wireByteCount else { return nil }
        self.checksumPending = true
        self.segmentSize = bytes.bigEndian16(at: 0)
        self.flags = Flags(rawValue: bytes[2])
    }

    /// Writes the first three bytes of a kind 1 body. Returns `false`, and writes nothing, when there is no room or
    /// when this is ``finished``, which travels as kind 0.
    @discardableResult
    package func encode(into bytes: UnsafeMutableRawBufferPointer) -> Bool {
        guard bytes.count >= Self.wireByteCount, self.checksumPending else { return false }
        bytes.setBigEndian16(self.segmentSize, at: 0)
        bytes[2] = self.flags.rawValue
        return true
    }
}

/// Why a packet and its metadata do not belong together. From a peer all of these are `malformed`.
package enum OffloadError: UInt8, Error, Hashable, Sendable, CaseIterable {
    /// The parsed packet is not of the length of the bytes beside it.
    case lengthMismatch
    /// Fragments have neither checksum nor segments of their own.
    case fragment
    /// Only TCP and UDP can be offloaded.
    case notTCPOrUDP
    /// The IPv4 header checksum is wrong.
    case badHeaderChecksum
    /// The UDP length is not that of the rest of the packet.
    case udpLengthMismatch
    /// The segment size is too small, or headers and one segment exceed 65,535 bytes.
    case badSegmentSize
    /// More UDP segments than a kernel takes.
    case tooManySegments
    /// A TCP super-packet with SYN or RST.
    case unsegmentableFlags
    /// Metadata flags that are unknown or do not belong to this packet.
    case badFlags
    /// Our kernel asks for a segmentation that we did not ask it for, or that does not fit the packet.
    case unsupportedSegmentation
    /// Our kernel wants a checksum elsewhere than in the outermost TCP or UDP header.
    case checksumElsewhere
}

/// A packet and its metadata, judged: the one place for the rules of ``OffloadMetadata``.
struct OffloadPlan {
    /// Where the pending checksum lies, from the start of the packet; `nil` when it is finished.
    let checksumField: Int?
    /// Payload bytes of each segment but the last; 0 when the packet is one segment.
    let segmentSize: Int

    init(
        _ metadata: OffloadMetadata, packet: IPPacket, in bytes: UnsafeRawBufferPointer
    ) throws(OffloadError) {
        guard packet.byteCount == bytes.count else { throw .lengthMismatch }
        guard metadata.checksumPending else {
            guard metadata.flags.isEmpty else { throw .badFlags }
            guard metadata.segmentSize == 0 else { throw .badSegmentSize }
            self.checksumField = nil
            self.segmentSize = 0
            return
        }
        guard packet.fragment == .none else { throw .fragment }
        guard let field = packet.checksumField else { throw .notTCPOrUDP }
        if packet.family == .ipv4 {
            let header = bytes.part(from: 0, count: packet.transportOffset)
            guard Checksum.internet(header) == 0 else { throw .badHeaderChecksum }
        }
        guard packet.transportOffset + packet.transportByteCount == bytes.count else { throw .udpLengthMismatch }
        self.checksumField = field

        let isTCP = packet.transportProtocol == .tcp
        guard metadata.flags.subtracting(.ecn).isEmpty,
            metadata.flags.isEmpty || isTCP && metadata.segmentSize > 0
        else { throw .badFlags }
        let segmentSize = Int(metadata.segmentSize)
        guard segmentSize > 0 else {
            self.segmentSize = 0
            return
        }
        guard segmentSize >= (isTCP ? OffloadMetadata.minimumTCPSegmentSize : 1),
            packet.payloadOffset + segmentSize <= 65_535
        else { throw .badSegmentSize }
        let payload = bytes.count - packet.payloadOffset
        guard payload > segmentSize else {
            self.segmentSize = 0
            return
        }
        switch packet.transport {
        case .tcp(_, _, let flags):
            guard flags.isDisjoint(with: [.syn, .rst]) else { throw .unsegmentableFlags }
        default:
            guard payload <= segmentSize * OffloadMetadata.maximumUDPSegments else { throw .tooManySegments }
        }
        self.segmentSize = segmentSize
    }
}

extension VirtioNetHeader {
    /// Builds the header for a packet from a peer, and makes its checksum field hold what the kernel expects there.
    ///
    /// Every field follows from the packet as parsed; of the metadata only the segment size is taken over, within
    /// bounds. For a packet with finished checksums the result is ``finished`` and `bytes` stay as they are.
    ///
    /// - Parameters:
    ///   - packet: What `bytes` parsed to.
    ///   - bytes: The packet. Borrowed until return; two bytes change when a checksum is pending.
    ///   - metadata: What the peer says about it.
    /// - Throws: ``OffloadError``: the packet is `malformed`. `bytes` are then unchanged.
    package init(
        for packet: IPPacket, in bytes: UnsafeMutableRawBufferPointer, metadata: OffloadMetadata
    ) throws(OffloadError) {
        let plan = try OffloadPlan(metadata, packet: packet, in: UnsafeRawBufferPointer(bytes))
        guard let field = plan.checksumField else {
            self = .finished
            return
        }
        var segmentation = Segmentation.none
        if plan.segmentSize > 0 {
            guard metadata.fitsOneFrame(packet) else { throw .tooManySegments }
            segmentation = Segmentation(of: packet)
            if case .tcp(_, _, let flags) = packet.transport, flags.contains(.cwr) || metadata.flags.contains(.ecn) {
                segmentation = segmentation.withECN
            }
        }
        let pseudoHeader = Checksum.pseudoHeader(
            source: packet.source, destination: packet.destination, transportProtocol: packet.transportProtocol,
            byteCount: packet.transportByteCount)
        bytes.setBigEndian16(pseudoHeader, at: field)
        self.init(
            flags: .needsChecksum, segmentation: segmentation,
            headerByteCount: UInt16(packet.payloadOffset), segmentSize: UInt16(plan.segmentSize),
            checksumStart: UInt16(packet.transportOffset),
            checksumOffset: UInt16(field - packet.transportOffset))
    }
}

extension VirtioNetHeader.Segmentation {
    /// The type that cuts a TCP or UDP packet; ``none`` for other protocols.
    init(of packet: IPPacket) {
        switch (packet.transportProtocol, packet.family) {
        case (.tcp, .ipv4): self = .tcpv4
        case (.tcp, .ipv6): self = .tcpv6
        case (.udp, _): self = .udp
        default: self = .none
        }
    }
}
