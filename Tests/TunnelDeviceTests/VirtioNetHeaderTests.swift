import Testing

@testable import TunnelDevice

/// Bytes as `<linux/virtio_net.h>` lays them out on a little-endian machine.
@Suite struct VirtioNetHeaderTests {
    static let vectors: [([UInt8], VirtioNetHeader)] = [
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0], VirtioNetHeader()),
        (
            // TCP over IPv4: checksum from byte 20, at 16 behind it; 1,240-byte segments behind 52 bytes of headers.
            [1, 1, 52, 0, 0xD8, 0x04, 20, 0, 16, 0],
            make {
                $0.needsChecksum = true
                $0.segmentation = .tcp4
                $0.headerLength = 52
                $0.segmentSize = 1240
                $0.checksumStart = 20
                $0.checksumOffset = 16
            }
        ),
        (
            // TCP over IPv6 with CWR on the first segment.
            [1, 0x84, 72, 0, 0xB0, 0x04, 40, 0, 16, 0],
            make {
                $0.needsChecksum = true
                $0.segmentation = .tcp6
                $0.hasECN = true
                $0.headerLength = 72
                $0.segmentSize = 1200
                $0.checksumStart = 40
                $0.checksumOffset = 16
            }
        ),
        (
            [1, 5, 28, 0, 0xE8, 0x03, 20, 0, 6, 0],
            make {
                $0.needsChecksum = true
                $0.segmentation = .udp
                $0.headerLength = 28
                $0.segmentSize = 1000
                $0.checksumStart = 20
                $0.checksumOffset = 6
            }
        ),
    ]

    @Test(arguments: Self.vectors) func readsAndWrites(bytes: [UInt8], header: VirtioNetHeader) {
        #expect(bytes.withUnsafeBytes { VirtioNetHeader($0) } == header)
        var written = [UInt8](repeating: 0xAA, count: 12)
        written.withUnsafeMutableBytes { header.write(to: $0) }
        #expect(written == bytes + [0xAA, 0xAA])
    }

    /// 1 marks data whose checksum was verified (VIRTIO_NET_HDR_F_DATA_VALID is 2): nothing is pending.
    @Test func ignoresFlagsThatAskForNothing() {
        let bytes: [UInt8] = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        #expect(bytes.withUnsafeBytes { VirtioNetHeader($0) } == VirtioNetHeader())
    }

    @Test(arguments: [
        [], [UInt8](repeating: 0, count: 9), [0, 3, 0, 0, 0, 0, 0, 0, 0, 0], [0, 2, 0, 0, 0, 0, 0, 0, 0, 0],
    ])
    func refusesShortAndUnknownHeaders(bytes: [UInt8]) {
        #expect(bytes.withUnsafeBytes { VirtioNetHeader($0) } == nil)
    }

    @Test func doesNotWriteIntoTooLittleRoom() {
        var room = [UInt8](repeating: 7, count: 9)
        room.withUnsafeMutableBytes { VirtioNetHeader().write(to: $0) }
        #expect(room == [UInt8](repeating: 7, count: 9))
    }

    private static func make(_ change: (inout VirtioNetHeader) -> Void) -> VirtioNetHeader {
        var header = VirtioNetHeader()
        change(&header)
        return header
    }
}
