import Multiformats
import OverlayCore
import Testing

@Suite struct OffloadMetadataTests {
    static func tcp(_ family: IPAddress.Family, _ payload: Int, flags: TCPFlags = .ack, options: Int = 12)
        -> PacketBuilder
    {
        let options = [UInt8](repeating: 1, count: options)
        return PacketBuilder(
            family, .tcp(sequence: 7, flags: flags, options: options), payload: [UInt8](repeating: 0x5a, count: payload)
        )
    }

    static func udp(_ family: IPAddress.Family, _ payload: Int) -> PacketBuilder {
        PacketBuilder(family, .udp, payload: [UInt8](repeating: 0x5a, count: payload))
    }

    static func pending(_ segmentSize: UInt16, _ flags: OffloadMetadata.Flags = []) -> OffloadMetadata {
        OffloadMetadata(checksumPending: true, segmentSize: segmentSize, flags: flags)
    }

    @Test func virtioHeaderIsTenBytesInHostOrder() {
        let header = VirtioNetHeader(
            flags: .needsChecksum, segmentation: .tcpv6.withECN, headerByteCount: 0x0102, segmentSize: 0x0304,
            checksumStart: 0x0506, checksumOffset: 0x0708)
        var bytes = [UInt8](repeating: 0xee, count: 11)
        #expect(bytes.withUnsafeMutableBytes { header.encode(into: $0) })
        let words: [UInt16] = [0x0102, 0x0304, 0x0506, 0x0708]
        let fields: [UInt8] = words.flatMap { word in withUnsafeBytes(of: word) { Array($0) } }
        #expect(bytes == [[1, 0x84], fields, [0xee]].flatMap(\.self))
        #expect(bytes.withUnsafeBytes { VirtioNetHeader(decoding: $0) } == header)
        for count in 0..<10 {
            #expect(bytes[..<count].withUnsafeBytes { VirtioNetHeader(decoding: $0) } == nil)
            var short = [UInt8](repeating: 0, count: count)
            #expect(!short.withUnsafeMutableBytes { header.encode(into: $0) })
            #expect(short == [UInt8](repeating: 0, count: count))
        }
        #expect(bytes.withUnsafeMutableBytes { VirtioNetHeader.finished.encode(into: $0) })
        #expect(bytes == [UInt8](repeating: 0, count: 10) + [0xee])
    }

    @Test func wireFieldsAreThreeBytes() {
        var bytes = [UInt8](repeating: 0xee, count: 4)
        #expect(bytes.withUnsafeMutableBytes { Self.pending(0x05a0, .ecn).encode(into: $0) })
        #expect(bytes == [0x05, 0xa0, 0x01, 0xee])
        #expect(bytes.withUnsafeBytes { OffloadMetadata(wire: $0) } == Self.pending(0x05a0, .ecn))
        #expect([0, 0, 0x82].withUnsafeBytes { OffloadMetadata(wire: .init(rebasing: $0[..<2])) } == nil)
        let unknown: [UInt8] = [0, 0, 0x82]
        #expect(unknown.withUnsafeBytes { OffloadMetadata(wire: $0) }?.flags.rawValue == 0x82)
        #expect(!bytes.withUnsafeMutableBytes { OffloadMetadata.finished.encode(into: $0) })
        var short = [UInt8](repeating: 0, count: 2)
        #expect(!short.withUnsafeMutableBytes { Self.pending(1).encode(into: $0) })
    }

    // MARK: A peer's word

    struct Rebuilt: CustomTestStringConvertible {
        let testDescription: String
        let packet: PacketBuilder
        let metadata: OffloadMetadata
        let expected: VirtioNetHeader

        init(
            _ name: String, _ packet: PacketBuilder, _ metadata: OffloadMetadata,
            _ segmentation: VirtioNetHeader.Segmentation, size: UInt16, header: UInt16, start: UInt16, offset: UInt16
        ) {
            self.testDescription = name
            self.packet = packet
            self.metadata = metadata
            self.expected = VirtioNetHeader(
                flags: .needsChecksum, segmentation: segmentation, headerByteCount: header, segmentSize: size,
                checksumStart: start, checksumOffset: offset)
        }
    }

    static let rebuilt: [Rebuilt] = {
        var optionsAndExtensions = Self.tcp(.ipv6, 3_000)
        optionsAndExtensions.extensions = [(0, [0, 0, 1, 4, 0, 0, 0, 0]), (43, [0, 0, 4, 0, 0, 0, 0, 0])]
        var options = Self.udp(.ipv4, 3_000)
        options.options = [1, 1, 1, 1, 1, 1, 1, 0]
        return [
            Rebuilt(
                "TCP, checksum only", Self.tcp(.ipv4, 100), pending(0), .none, size: 0, header: 52, start: 20,
                offset: 16),
            Rebuilt(
                "UDP, checksum only", Self.udp(.ipv6, 100), pending(0), .none, size: 0, header: 48, start: 40, offset: 6
            ),
            Rebuilt(
                "TCP without payload", Self.tcp(.ipv4, 0), pending(0), .none, size: 0, header: 52, start: 20, offset: 16
            ),
            Rebuilt(
                "SYN, checksum only", Self.tcp(.ipv4, 0, flags: .syn), pending(0), .none, size: 0, header: 52,
                start: 20, offset: 16),
            Rebuilt(
                "TCPv4", Self.tcp(.ipv4, 3_000), pending(1_400), .tcpv4, size: 1_400, header: 52, start: 20, offset: 16),
            Rebuilt(
                "TCPv6", Self.tcp(.ipv6, 3_000), pending(1_400), .tcpv6, size: 1_400, header: 72, start: 40, offset: 16),
            Rebuilt(
                "TCPv4 of 65,535 bytes", Self.tcp(.ipv4, 65_483), pending(1_208), .tcpv4, size: 1_208, header: 52,
                start: 20, offset: 16),
            Rebuilt(
                "TCPv6 of 65,575 bytes", Self.tcp(.ipv6, 65_503), pending(1_208), .tcpv6, size: 1_208, header: 72,
                start: 40, offset: 16),
            Rebuilt(
                "UDPv4", Self.udp(.ipv4, 3_000), pending(1_400), .udp, size: 1_400, header: 28, start: 20, offset: 6),
            Rebuilt(
                "UDPv6", Self.udp(.ipv6, 3_000), pending(1_400), .udp, size: 1_400, header: 48, start: 40, offset: 6),
            Rebuilt(
                "64 UDP segments", Self.udp(.ipv4, 640), pending(10), .udp, size: 10, header: 28, start: 20, offset: 6),
            Rebuilt(
                "64 UDP segments of 1 byte", Self.udp(.ipv4, 64), pending(1), .udp, size: 1, header: 28, start: 20,
                offset: 6),
            Rebuilt(
                "smallest TCP segment", Self.tcp(.ipv4, 17), pending(8), .tcpv4, size: 8, header: 52, start: 20,
                offset: 16),
            Rebuilt(
                "one segment exactly", Self.tcp(.ipv4, 1_400), pending(1_400), .none, size: 0, header: 52, start: 20,
                offset: 16),
            Rebuilt(
                "one byte more", Self.tcp(.ipv4, 1_401), pending(1_400), .tcpv4, size: 1_400, header: 52, start: 20,
                offset: 16),
            Rebuilt(
                "ECN by flag and CWR", Self.tcp(.ipv4, 3_000, flags: [.ack, .cwr]), pending(1_400, .ecn),
                .tcpv4.withECN, size: 1_400, header: 52, start: 20, offset: 16),
            Rebuilt(
                "ECN by CWR", Self.tcp(.ipv6, 3_000, flags: [.ack, .cwr]), pending(1_400), .tcpv6.withECN, size: 1_400,
                header: 72, start: 40, offset: 16),
            Rebuilt(
                "ECN by flag", Self.tcp(.ipv4, 3_000), pending(1_400, .ecn), .tcpv4.withECN, size: 1_400, header: 52,
                start: 20, offset: 16),
            Rebuilt(
                "no ECN on one segment", Self.tcp(.ipv4, 9, flags: [.ack, .cwr]), pending(1_400, .ecn), .none, size: 0,
                header: 52, start: 20, offset: 16),
            Rebuilt(
                "extension headers", optionsAndExtensions, pending(1_400), .tcpv6, size: 1_400, header: 88, start: 56,
                offset: 16),
            Rebuilt("IPv4 options", options, pending(1_400), .udp, size: 1_400, header: 36, start: 28, offset: 6),
        ]
    }()

    @Test(arguments: rebuilt) func rebuildsHeader(_ rebuilt: Rebuilt) throws {
        var bytes = rebuilt.packet.bytes(checksumField: 0xdead)
        let packet = try parse(bytes)
        let header = try bytes.withUnsafeMutableBytes {
            try VirtioNetHeader(for: packet, in: $0, metadata: rebuilt.metadata)
        }
        #expect(header == rebuilt.expected)
        #expect(bytes == rebuilt.packet.bytes(checksumField: rebuilt.packet.pseudoHeaderSum))
    }

    struct Forged: CustomTestStringConvertible {
        let testDescription: String
        let error: OffloadError
        let bytes: [UInt8]
        let metadata: OffloadMetadata

        init(
            _ name: String, _ error: OffloadError, _ packet: PacketBuilder, _ metadata: OffloadMetadata,
            _ change: (inout [UInt8]) -> Void = { _ in }
        ) {
            var bytes = packet.bytes
            change(&bytes)
            self.testDescription = name
            self.error = error
            self.bytes = bytes
            self.metadata = metadata
        }
    }

    static let forged: [Forged] = {
        let tcp = Self.tcp(.ipv4, 3_000)
        let udp = Self.udp(.ipv4, 3_000)
        var v4Fragment = udp
        v4Fragment.fragmentField = 0x2000
        var v4Later = udp
        v4Later.fragmentField = 0x0010
        var v6Fragment = Self.udp(.ipv6, 3_000)
        v6Fragment.extensions = [(44, [0, 0, 0, 1, 0, 0, 0, 0])]
        var v6Atomic = Self.tcp(.ipv6, 3_000)
        v6Atomic.extensions = [(44, [0, 0, 0, 0, 0, 0, 0, 0])]
        func other(_ number: UInt8) -> PacketBuilder {
            PacketBuilder(.ipv4, .other(IPProtocol(rawValue: number)), payload: [UInt8](repeating: 0, count: 3_000))
        }
        let unverified = OffloadMetadata(checksumPending: false, segmentSize: 1_400, flags: [])
        let finishedECN = OffloadMetadata(checksumPending: false, segmentSize: 0, flags: .ecn)
        return [
            Forged("fragment", .fragment, v4Fragment, pending(1_400)),
            Forged("fragment, checksum only", .fragment, v4Fragment, pending(0)),
            Forged("later fragment", .fragment, v4Later, pending(1_400)),
            Forged("IPv6 fragment", .fragment, v6Fragment, pending(1_400)),
            Forged("IPv6 atomic fragment", .fragment, v6Atomic, pending(1_400)),
            Forged("ICMP", .notTCPOrUDP, other(1), pending(0)),
            Forged("GRE", .notTCPOrUDP, other(47), pending(1_400)),
            Forged("AH", .notTCPOrUDP, other(51), pending(1_400)),
            Forged("IP in IP", .notTCPOrUDP, other(4), pending(1_400)),
            Forged("SCTP", .notTCPOrUDP, other(132), pending(0)),
            Forged("wrong IPv4 header checksum", .badHeaderChecksum, tcp, pending(1_400)) { $0[10] ^= 1 },
            Forged("wrong IPv4 header checksum, checksum only", .badHeaderChecksum, udp, pending(0)) { $0[8] ^= 1 },
            Forged("UDP length below the packet's", .udpLengthMismatch, udp, pending(1_400)) { $0[25] -= 1 },
            Forged("UDP length below, checksum only", .udpLengthMismatch, udp, pending(0)) { $0[25] -= 1 },
            Forged("TCP segments of 7", .badSegmentSize, tcp, pending(7)),
            Forged("TCP segments of 1", .badSegmentSize, tcp, pending(1)),
            Forged("segment and headers of 65,536", .badSegmentSize, tcp, pending(65_484)),
            Forged("GSO_BY_FRAGS", .badSegmentSize, udp, pending(65_535)),
            Forged("segments without pending checksum", .badSegmentSize, tcp, unverified),
            Forged("65 UDP segments", .tooManySegments, Self.udp(.ipv4, 641), pending(10)),
            Forged("65 UDP segments of 1", .tooManySegments, Self.udp(.ipv6, 65), pending(1)),
            Forged("129 UDP segments", .tooManySegments, udp, pending(23)),
            Forged("SYN super-packet", .unsegmentableFlags, Self.tcp(.ipv4, 3_000, flags: .syn), pending(1_400)),
            Forged(
                "RST super-packet", .unsegmentableFlags, Self.tcp(.ipv6, 3_000, flags: [.rst, .ack]), pending(1_400)),
            Forged("ECN on UDP", .badFlags, udp, pending(1_400, .ecn)),
            Forged("ECN without segments", .badFlags, tcp, pending(0, .ecn)),
            Forged("ECN on a finished packet", .badFlags, tcp, finishedECN),
            Forged("unknown flag", .badFlags, tcp, pending(1_400, .init(rawValue: 2))),
            Forged("unknown flag beside ECN", .badFlags, tcp, pending(1_400, .init(rawValue: 0x81))),
        ]
    }()

    @Test(arguments: forged) func refuses(_ forged: Forged) throws {
        var bytes = forged.bytes
        let packet = try parse(bytes)
        #expect(throws: forged.error) {
            try bytes.withUnsafeMutableBytes { try VirtioNetHeader(for: packet, in: $0, metadata: forged.metadata) }
        }
        #expect(bytes == forged.bytes)
    }

    @Test func refusesPacketOfOtherLength() throws {
        var bytes = Self.tcp(.ipv4, 3_000).bytes
        let packet = try parse(bytes)
        bytes.removeLast()
        for metadata in [OffloadMetadata.finished, Self.pending(0), Self.pending(1_400)] {
            #expect(throws: OffloadError.lengthMismatch) {
                try bytes.withUnsafeMutableBytes { try VirtioNetHeader(for: packet, in: $0, metadata: metadata) }
            }
        }
    }

    @Test func finishedPacketsGetNothing() throws {
        for builder in [Self.tcp(.ipv4, 100), Self.udp(.ipv6, 3_000)] {
            var bytes = builder.bytes
            let packet = try parse(bytes)
            let header = try bytes.withUnsafeMutableBytes {
                try VirtioNetHeader(for: packet, in: $0, metadata: .finished)
            }
            #expect(header == .finished)
            #expect(bytes == builder.bytes)
        }
    }

    /// Whatever comes in: an accepted header points at the checksum of the transport header and nowhere else, and
    /// nothing but that checksum was touched.
    @Test func acceptedHeadersPointAtTheRightPlace() {
        var random = SeededGenerator(state: 6)
        var accepted = 0
        var segmented = 0
        for round in 0..<20_000 {
            var bytes = random.packet(payload: 0...200).bytes
            for _ in 0..<Int.random(in: 0...2, using: &random) {
                let limit = Bool.random(using: &random) ? min(bytes.count, 72) : bytes.count
                bytes[Int.random(in: 0..<limit, using: &random)] = UInt8(truncatingIfNeeded: random.next())
            }
            if Bool.random(using: &random), bytes[0] >> 4 == 4 {
                // A liar computes header checksums too.
                let headerByteCount = min(max(Int(bytes[0] & 15) * 4, 20), bytes.count)
                bytes.replaceSubrange(10..<12, with: [0, 0])
                bytes.replaceSubrange(10..<12, with: big(~slowSum(Array(bytes[..<headerByteCount]))))
            }
            let size =
                Bool.random(using: &random)
                ? UInt16.random(in: 0...100, using: &random) : UInt16(truncatingIfNeeded: random.next())
            let flags = round % 4 == 0 ? UInt8(truncatingIfNeeded: random.next()) : UInt8(round % 8 / 4)
            let metadata = Self.pending(size, .init(rawValue: flags))
            let before = bytes
            guard let packet = try? parse(bytes),
                let header = bytes.withUnsafeMutableBytes({
                    try? VirtioNetHeader(for: packet, in: $0, metadata: metadata)
                })
            else {
                #expect(bytes == before)
                continue
            }
            accepted += 1
            let start = slowTransportOffset(bytes)
            let isTCP = slowProtocol(bytes) == 6
            #expect(isTCP || slowProtocol(bytes) == 17)
            let field = start + (isTCP ? 16 : 6)
            let headers = start + (isTCP ? Int(bytes[start + 12] >> 4) * 4 : 8)
            #expect(header.flags == .needsChecksum)
            #expect(Int(header.checksumStart) == start)
            #expect(Int(header.checksumStart) + Int(header.checksumOffset) == field)
            #expect(Int(header.headerByteCount) == headers && field + 2 <= headers && headers <= bytes.count)
            let payload = bytes.count - headers
            if header.segmentation == .none {
                #expect(header.segmentSize == 0 && (size == 0 || payload <= Int(size)))
            } else {
                segmented += 1
                let expected: VirtioNetHeader.Segmentation =
                    !isTCP ? .udp : bytes[0] >> 4 == 4 ? .tcpv4 : .tcpv6
                #expect(header.segmentation.withoutECN == expected)
                #expect(isTCP || !header.segmentation.hasECN)
                #expect(header.segmentSize == size && payload > Int(size))
                #expect(headers + Int(size) <= 65_535 && (isTCP ? size >= 8 : payload <= 64 * Int(size)))
            }
            // The field holds the pseudo-header; the rest is as it was.
            var restored = bytes
            restored.replaceSubrange(field..<field + 2, with: before[field..<field + 2])
            #expect(restored == before)
            let addresses = bytes[0] >> 4 == 4 ? bytes[12..<20] : bytes[8..<40]
            let tail = big(UInt16(bytes.count - start)) + [0, isTCP ? 6 : 17]
            #expect(Array(bytes[field..<field + 2]) == big(slowSum(Array(addresses) + tail)))
        }
        #expect(accepted > 3_000 && segmented > 1_000)
    }

    // MARK: Our kernel's word

    struct Local: CustomTestStringConvertible {
        let testDescription: String
        let packet: PacketBuilder
        let header: VirtioNetHeader
        let expected: Result<OffloadMetadata, OffloadError>

        init(
            _ name: String, _ packet: PacketBuilder, _ flags: VirtioNetHeader.Flags,
            _ type: VirtioNetHeader.Segmentation, size: UInt16 = 0, start: UInt16 = 0, offset: UInt16 = 0,
            _ expected: Result<OffloadMetadata, OffloadError>
        ) {
            self.testDescription = name
            self.packet = packet
            self.header = VirtioNetHeader(
                flags: flags, segmentation: type, headerByteCount: 0, segmentSize: size, checksumStart: start,
                checksumOffset: offset)
            self.expected = expected
        }
    }

    static let local: [Local] = {
        let tcp4 = Self.tcp(.ipv4, 3_000)
        let tcp6 = Self.tcp(.ipv6, 3_000)
        let udp4 = Self.udp(.ipv4, 3_000)
        let gre = PacketBuilder(.ipv4, .other(IPProtocol(rawValue: 47)), payload: [UInt8](repeating: 0, count: 100))
        let bad = Result<OffloadMetadata, OffloadError>.failure(.unsupportedSegmentation)
        return [
            Local("finished", tcp4, [], .none, .success(.finished)),
            Local("verified", tcp4, .dataValid, .none, .success(.finished)),
            Local("checksum", tcp4, .needsChecksum, .none, start: 20, offset: 16, .success(pending(0))),
            Local("UDP checksum", udp4, .needsChecksum, .none, start: 20, offset: 6, .success(pending(0))),
            Local("TSO4", tcp4, .needsChecksum, .tcpv4, size: 1_400, start: 20, offset: 16, .success(pending(1_400))),
            Local("TSO6", tcp6, .needsChecksum, .tcpv6, size: 1_400, start: 40, offset: 16, .success(pending(1_400))),
            Local(
                "TSO with CWR", tcp4, .needsChecksum, .tcpv4.withECN, size: 1_400, start: 20, offset: 16,
                .success(pending(1_400, .ecn))),
            Local("USO", udp4, .needsChecksum, .udp, size: 1_400, start: 20, offset: 6, .success(pending(1_400))),
            Local(
                "USO of 100 segments", udp4, .needsChecksum, .udp, size: 30, start: 20, offset: 6, .success(pending(30))
            ),
            Local(
                "one segment", tcp4, .needsChecksum, .tcpv4.withECN, size: 3_000, start: 20, offset: 16,
                .success(pending(0))),
            Local("UFO", udp4, .needsChecksum, .init(rawValue: 3), size: 1_400, start: 20, offset: 6, bad),
            Local("unknown type", tcp4, .needsChecksum, .init(rawValue: 9), size: 1_400, start: 20, offset: 16, bad),
            Local("ECN bit alone", tcp4, .needsChecksum, .init(rawValue: 0x80), size: 0, start: 20, offset: 16, bad),
            Local("TSO6 on IPv4", tcp4, .needsChecksum, .tcpv6, size: 1_400, start: 20, offset: 16, bad),
            Local("TSO on UDP", udp4, .needsChecksum, .tcpv4, size: 1_400, start: 20, offset: 6, bad),
            Local("TSO without checksum", tcp4, [], .tcpv4, size: 1_400, bad),
            Local("TSO inside a tunnel", gre, .needsChecksum, .tcpv4, size: 20, start: 44, offset: 16, bad),
            Local(
                "TSO of size 0", tcp4, .needsChecksum, .tcpv4, size: 0, start: 20, offset: 16, .failure(.badSegmentSize)
            ),
            Local(
                "ECN on USO", udp4, .needsChecksum, .udp.withECN, size: 1_400, start: 20, offset: 6, .failure(.badFlags)
            ),
            Local(
                "checksum inside a tunnel", gre, .needsChecksum, .none, start: 44, offset: 16,
                .failure(.checksumElsewhere)),
            Local(
                "checksum at the wrong offset", tcp4, .needsChecksum, .none, start: 20, offset: 6,
                .failure(.checksumElsewhere)),
            Local(
                "checksum from the wrong start", tcp4, .needsChecksum, .none, start: 18, offset: 18,
                .failure(.checksumElsewhere)),
            Local(
                "checksum far outside", tcp4, .needsChecksum, .none, start: 65_535, offset: 65_535,
                .failure(.checksumElsewhere)),
        ]
    }()

    @Test(arguments: local) func readsLocalHeader(_ local: Local) throws {
        let bytes = local.packet.bytes(checksumField: local.packet.pseudoHeaderSum)
        let packet = try parse(bytes)
        let result: Result<OffloadMetadata, OffloadError> = bytes.withUnsafeBytes { bytes in
            do throws(OffloadError) {
                return .success(try OffloadMetadata(local: local.header, packet: packet, in: bytes))
            } catch {
                return .failure(error)
            }
        }
        #expect(result == local.expected)
    }

    @Test func everyErrorIsCovered() {
        var seen: Set<OffloadError> = [.lengthMismatch]
        seen.formUnion(Self.forged.map(\.error))
        for case .failure(let error) in Self.local.map(\.expected) { seen.insert(error) }
        #expect(seen == Set(OffloadError.allCases))
    }

    /// What is accepted here is accepted there, unless it says so.
    @Test func receiverAgreesWithSender() throws {
        for local in Self.local {
            guard case .success(let metadata) = local.expected else { continue }
            var bytes = local.packet.bytes
            let packet = try parse(bytes)
            let header = bytes.withUnsafeMutableBytes { try? VirtioNetHeader(for: packet, in: $0, metadata: metadata) }
            #expect((header != nil) == metadata.fitsOneFrame(packet), "\(local)")
        }
    }

    /// An inner TCP segment whose checksum the kernel left to us: the outer packet is GRE.
    @Test func completesChecksumElsewhere() throws {
        let inner = Self.tcp(.ipv4, 77)
        func outer(_ inner: [UInt8]) -> [UInt8] {
            PacketBuilder(.ipv4, .other(IPProtocol(rawValue: 47)), payload: [0, 0, 8, 0] + inner).bytes
        }
        var bytes = outer(inner.bytes(checksumField: inner.pseudoHeaderSum))
        var header = VirtioNetHeader(
            flags: .needsChecksum, segmentation: .none, headerByteCount: 0, segmentSize: 0, checksumStart: 44,
            checksumOffset: 16)
        #expect(bytes.withUnsafeMutableBytes { header.completeChecksum(in: $0) })
        #expect(bytes == outer(inner.bytes))

        // A checksum of zero is written as all ones.
        var zero: [UInt8] = [0xff, 0xfe, 0, 1, 0, 0]
        let small = VirtioNetHeader(
            flags: .needsChecksum, segmentation: .none, headerByteCount: 0, segmentSize: 0, checksumStart: 0,
            checksumOffset: 4)
        #expect(zero.withUnsafeMutableBytes { small.completeChecksum(in: $0) })
        #expect(zero == [0xff, 0xfe, 0, 1, 0xff, 0xff])

        let unchanged = bytes
        header.checksumOffset = UInt16(bytes.count - 44 - 1)
        #expect(!bytes.withUnsafeMutableBytes { header.completeChecksum(in: $0) })
        (header.checksumStart, header.checksumOffset) = (65_535, 65_535)
        #expect(!bytes.withUnsafeMutableBytes { header.completeChecksum(in: $0) })
        (header.checksumStart, header.checksumOffset, header.segmentation) = (44, 16, .tcpv4)
        #expect(!bytes.withUnsafeMutableBytes { header.completeChecksum(in: $0) })
        #expect(!bytes.withUnsafeMutableBytes { VirtioNetHeader.finished.completeChecksum(in: $0) })
        #expect(bytes == unchanged)
    }
}

/// The protocol number behind all network headers, by the plainest walk.
private func slowProtocol(_ bytes: [UInt8]) -> UInt8 {
    guard bytes[0] >> 4 == 6 else { return bytes[9] }
    var next = bytes[6]
    var offset = 40
    while [0, 43, 44, 60].contains(next) {
        let length = next == 44 ? 8 : 8 + 8 * Int(bytes[offset + 1])
        next = bytes[offset]
        offset += length
    }
    return next
}
