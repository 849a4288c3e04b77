import Multiformats

extension Coalescer {
    /// Whose order must not change: one direction of a TCP connection or of a pair of UDP ports.
    struct Flow: Equatable {
        let peer: PeerIndex
        /// Both ports, as they lie in memory.
        let ports: UInt32
        let transportProtocol: IPProtocol
        let source: IPAddress
        let destination: IPAddress

        /// `nil` for what is neither TCP nor UDP, and for fragments.
        @inline(__always)
        init?(_ packet: IPPacket, in bytes: UnsafeRawBufferPointer, from peer: PeerIndex) {
            guard packet.fragment == .none, packet.byteCount == bytes.count else { return nil }
            switch packet.transport {
            case .tcp, .udp: break
            case .icmp, .other: return nil
            }
            self.peer = peer
            self.ports = bytes.loadUnaligned(fromByteOffset: packet.transportOffset, as: UInt32.self)
            self.transportProtocol = packet.transportProtocol
            self.source = packet.source
            self.destination = packet.destination
        }

        /// Differs for most flows that differ.
        @inline(__always)
        var tag: UInt32 {
            let mixed = (UInt64(self.ports) ^ self.source.low << 32 ^ self.destination.low) &* 0x9e37_79b9_7f4a_7c15
            return UInt32(truncatingIfNeeded: mixed >> 32)
        }

        @inline(__always)
        static func == (a: Flow, b: Flow) -> Bool {
            // What differs most often comes first.
            a.ports == b.ports && a.source.low == b.source.low && a.destination.low == b.destination.low
                && a.transportProtocol == b.transportProtocol && a.peer == b.peer && a.source == b.source
                && a.destination == b.destination
        }
    }

    /// A packet that may be part of a super-packet, as far as it says so itself.
    struct Segment {
        let packet: IPPacket
        let bytes: UnsafeRawBufferPointer
        let isTCP: Bool
        /// Nothing may follow: PSH is set.
        let isPushed: Bool

        @inline(__always)
        init?(_ packet: IPPacket, in bytes: UnsafeRawBufferPointer, kinds: Kinds) {
            let isIPv4 = packet.family == .ipv4
            // Neither options nor extension headers, and nothing behind a UDP datagram.
            guard packet.fragment == .none, packet.transportOffset == (isIPv4 ? 20 : 40),
                packet.transportOffset + packet.transportByteCount == bytes.count,
                packet.payloadOffset < bytes.count
            else { return nil }
            switch packet.transport {
            case .tcp(_, _, let flags):
                guard kinds.contains(isIPv4 ? .tcpv4 : .tcpv6), flags.subtracting(.psh) == .ack,
                    bytes[packet.transportOffset + 12] & 0x0f == 0
                else { return nil }
                self.isTCP = true
                self.isPushed = flags.contains(.psh)
            case .udp:
                // In IPv4 a zero says that there is no checksum, hence nothing to verify.
                guard kinds.contains(isIPv4 ? .udpv4 : .udpv6),
                    bytes.bigEndian16(at: packet.transportOffset + 6) != 0
                else { return nil }
                self.isTCP = false
                self.isPushed = false
            case .icmp, .other:
                return nil
            }
            self.packet = packet
            self.bytes = bytes
        }

        var payloadByteCount: Int { self.bytes.count - self.packet.payloadOffset }

        /// Whether anything could join it.
        var canBegin: Bool {
            !self.isPushed && self.bytes.count < Coalescer.maximumByteCount
                && self.payloadByteCount >= (self.isTCP ? OffloadMetadata.minimumTCPSegmentSize : 1)
        }

        var sequence: UInt32 { self.bytes.bigEndian32(at: self.packet.transportOffset + 4) }

        /// The identification; zero in IPv6, which has none.
        var identification: UInt16 { self.packet.family == .ipv4 ? self.bytes.bigEndian16(at: 4) : 0 }

        /// Writes the payload to the start of `copy` and verifies all checksums on the way.
        @inline(__always)
        func copyPayload(to copy: UnsafeMutableRawBufferPointer) -> Bool {
            let start = self.packet.transportOffset
            let addresses: Int
            switch self.packet.family {
            case .ipv4:
                guard Checksum.internet(self.bytes.part(from: 0, count: start)) == 0 else { return false }
                addresses = 12
            case .ipv6:
                addresses = 8
            }
            // Without options the addresses of the pseudo-header stand right in front of the transport header.
            var sum = PartialSum()
            sum.add(UInt16(self.packet.transportProtocol.rawValue))
            sum.add(UInt16(truncatingIfNeeded: self.bytes.count - start))
            sum.add(self.bytes.part(from: addresses, count: self.packet.payloadOffset - addresses))
            sum.add(
                self.bytes.part(from: self.packet.payloadOffset, count: self.payloadByteCount), copyingTo: copy)
            return sum.folded == 0xffff
        }
    }

    /// A slot: the first packet of a flow, exactly as it came, and behind it the payloads of those that continue it.
    struct Assembly {
        /// Length of a slot.
        static let roomBytes = 65_536
        /// From one slot to the next: were it a power of two, the headers of all would compete for the same lines of the cache.
        static let strideBytes = Self.roomBytes + 192

        /// When it was last used, on a clock that counts uses.
        var usedAt: UInt64 = 0
        private(set) var flow = Flow.none
        private let room: UnsafeMutableRawBufferPointer
        private var byteCount = 0
        private var packetCount = 0
        private var segmentSize = 0
        private var transportOffset = 0
        private var payloadOffset = 0
        private var nextSequence: UInt32 = 0
        private var identification: UInt16 = 0
        private var identificationStep: UInt16 = 0
        private var isPushed = false
        private var isShort = false

        init(room: UnsafeMutableRawBufferPointer) { self.room = room }

        /// Takes the first segment, for which ``Segment/canBegin`` holds.
        ///
        /// - Returns: `false`, and the slot stays empty, when a checksum is wrong.
        @inline(__always)
        mutating func begin(_ segment: Segment, of flow: Flow) -> Bool {
            let packet = segment.packet
            guard segment.copyPayload(to: self.room(from: packet.payloadOffset)) else { return false }
            self.room.copyMemory(from: segment.bytes.part(from: 0, count: packet.payloadOffset))
            self.flow = flow
            self.byteCount = segment.bytes.count
            self.packetCount = 1
            self.segmentSize = segment.payloadByteCount
            self.transportOffset = packet.transportOffset
            self.payloadOffset = packet.payloadOffset
            self.nextSequence = segment.isTCP ? segment.sequence &+ UInt32(truncatingIfNeeded: self.segmentSize) : 0
            self.identification = segment.identification
            self.isPushed = false
            self.isShort = false
            return true
        }

        /// Whether `segment`, which is of the same flow, continues the packet, if its checksums are right.
        @inline(__always)
        func accepts(_ segment: Segment) -> Bool {
            let first = UnsafeRawBufferPointer(self.room)
            let bytes = segment.bytes
            let start = self.transportOffset
            guard segment.packet.payloadOffset == self.payloadOffset, segment.payloadByteCount <= self.segmentSize,
                self.byteCount + segment.payloadByteCount <= Coalescer.maximumByteCount
            else { return false }
            switch segment.packet.family {
            case .ipv4:
                // Version, header length and TOS; flags, TTL and protocol.
                guard bytes.bigEndian16(at: 0) == first.bigEndian16(at: 0),
                    bytes.bigEndian32(at: 6) == first.bigEndian32(at: 6)
                else { return false }
                let step = segment.identification &- self.identification
                let isAtomic = bytes[6] & 0x40 != 0
                guard self.packetCount == 1 ? step == 1 || step == 0 && isAtomic : step == self.identificationStep
                else { return false }
            case .ipv6:
                // Version, traffic class and flow label; hop limit behind the next header.
                guard bytes.bigEndian32(at: 0) == first.bigEndian32(at: 0),
                    bytes.bigEndian16(at: 6) == first.bigEndian16(at: 6)
                else { return false }
            }
            guard segment.isTCP else { return true }
            guard segment.sequence == self.nextSequence,
                // Acknowledgement; header length, flags and window; urgent pointer.
                bytes.bigEndian32(at: start + 8) == first.bigEndian32(at: start + 8),
                (bytes.bigEndian32(at: start + 12) ^ first.bigEndian32(at: start + 12)) & ~Self.pushBit == 0,
                bytes.bigEndian16(at: start + 18) == first.bigEndian16(at: start + 18)
            else { return false }
            for option in stride(from: start + 20, to: self.payloadOffset, by: 4)
            where bytes.bigEndian32(at: option) != first.bigEndian32(at: option) {
                return false
            }
            return true
        }

        /// Takes a segment that ``accepts(_:)`` has admitted.
        ///
        /// - Returns: `false`, and nothing has changed, when a checksum is wrong.
        @inline(__always)
        mutating func append(_ segment: Segment) -> Bool {
            guard segment.copyPayload(to: self.room(from: self.byteCount)) else { return false }
            let payload = segment.payloadByteCount
            if self.packetCount == 1 { self.identificationStep = segment.identification &- self.identification }
            self.identification = segment.identification
            self.byteCount += payload
            self.packetCount += 1
            self.nextSequence &+= UInt32(truncatingIfNeeded: payload)
            self.isPushed = segment.isPushed
            self.isShort = payload < self.segmentSize
            return true
        }

        /// Whether nothing more can join.
        @inline(__always)
        var isComplete: Bool {
            self.isPushed || self.isShort
                || self.flow.transportProtocol == .udp
                    && self.packetCount == OffloadMetadata.maximumUDPSegmentsPerFrame
        }

        /// What the slot holds, ready to be written.
        func finish() -> Output {
            let bytes = UnsafeMutableRawBufferPointer(rebasing: self.room[..<self.byteCount])
            let header = self.packetCount == 1 ? .finished : self.finishHeaders(of: bytes)
            return Output(
                header: header, bytes: UnsafeRawBufferPointer(bytes), packetCount: self.packetCount,
                peer: self.flow.peer)
        }

        /// Makes the headers those of a super-packet whose checksum is pending.
        private func finishHeaders(of bytes: UnsafeMutableRawBufferPointer) -> VirtioNetHeader {
            let start = self.transportOffset
            let isTCP = self.flow.transportProtocol == .tcp
            let segmentation: VirtioNetHeader.Segmentation
            switch self.flow.source.family {
            case .ipv4:
                bytes.setBigEndian16(UInt16(bytes.count), at: 2)
                bytes.setBigEndian16(
                    Checksum.ipv4Header(UnsafeRawBufferPointer(bytes).part(from: 0, count: start)), at: 10)
                segmentation = isTCP ? .tcpv4 : .udp
            case .ipv6:
                bytes.setBigEndian16(UInt16(bytes.count - 40), at: 4)
                segmentation = isTCP ? .tcpv6 : .udp
            }
            if isTCP {
                if self.isPushed { bytes[start + 13] |= TCPFlags.psh.rawValue }
            } else {
                bytes.setBigEndian16(UInt16(bytes.count - start), at: start + 4)
            }
            let pseudoHeader = Checksum.pseudoHeader(
                source: self.flow.source, destination: self.flow.destination,
                transportProtocol: self.flow.transportProtocol, byteCount: bytes.count - start)
            let field = isTCP ? 16 : 6
            bytes.setBigEndian16(pseudoHeader, at: start + field)
            return VirtioNetHeader(
                flags: .needsChecksum, segmentation: segmentation, headerByteCount: UInt16(self.payloadOffset),
                segmentSize: UInt16(self.segmentSize), checksumStart: UInt16(start), checksumOffset: UInt16(field))
        }

        @inline(__always)
        private func room(from offset: Int) -> UnsafeMutableRawBufferPointer {
            UnsafeMutableRawBufferPointer(rebasing: self.room[offset...])
        }

        /// PSH in the word of header length, flags and window.
        private static let pushBit = UInt32(TCPFlags.psh.rawValue) << 16
    }
}

extension Coalescer.Flow {
    /// No packet is of this flow.
    static let none = Coalescer.Flow()

    private init() {
        self.peer = PeerIndex(rawValue: .max)
        self.ports = 0
        self.transportProtocol = IPProtocol(rawValue: 0)
        self.source = IPAddress(ipv4: 0)
        self.destination = IPAddress(ipv4: 0)
    }
}
