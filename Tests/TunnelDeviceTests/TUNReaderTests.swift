import CLinux
import Glibc
import Synchronization
import Testing

@testable import TunnelDevice

@Suite struct TUNReaderTests {
    @Test func handsOverWhatIsAtHandInOneBurst() throws {
        let device = try SocketDevice()
        let sink = RecordingSink()
        for size in 1...5 { device.deliver(packetBytes: size) }
        let reader = try TUNReader(device: device, sink: sink)
        try reader.start()
        sink.wait { $0.packets.count == 5 && $0.open == 0 }
        reader.stop()
        #expect(sink.state.withLock { $0.bursts } == [[11, 12, 13, 14, 15]])
    }

    @Test func endsABurstAtItsLimits() throws {
        for (limits, bursts) in [
            (BurstLimits(packets: 2), [[20, 20], [20, 20], [20]]),
            // A burst ends with the packet that reaches the limit.
            (BurstLimits(bytes: 50), [[20, 20, 20], [20, 20]]),
            (BurstLimits(packets: 0, bytes: -1), [[20], [20], [20], [20], [20]]),
        ] {
            let device = try SocketDevice()
            let sink = RecordingSink()
            for _ in 0..<5 { device.deliver(packetBytes: 10) }
            let reader = try TUNReader(device: device, sink: sink, limits: limits)
            try reader.start()
            sink.wait { $0.packets.count == 5 && $0.open == 0 }
            reader.stop()
            #expect(sink.state.withLock { $0.bursts } == bursts)
        }
    }

    @Test func wakesUpForEachPacket() throws {
        let device = try SocketDevice()
        let sink = RecordingSink()
        let reader = try TUNReader(device: device, sink: sink)
        try reader.start()
        for count in 1...50 {
            device.deliver(packetBytes: count)
            sink.wait { $0.packets.count == count }
        }
        reader.stop()
        #expect(sink.state.withLock { $0.packets } == (1...50).map { $0 + 10 })
    }

    @Test func reportsADeviceThatIsGoneOnceAndEnds() throws {
        let device = try SocketDevice()
        let sink = RecordingSink()
        let reader = try TUNReader(device: device, sink: sink)
        device.deliver(packetBytes: 1)
        device.isGone.store(true, ordering: .releasing)
        try reader.start()
        sink.wait { !$0.failures.isEmpty }
        reader.stop()
        #expect(sink.state.withLock { $0.failures } == [.deviceGone])
    }

    @Test func stopsWhileWaitingAndStaysSilent() throws {
        let device = try SocketDevice()
        let sink = RecordingSink()
        let reader = try TUNReader(device: device, sink: sink)
        try reader.start()
        try reader.start()
        reader.stop()
        reader.stop()
        device.deliver(packetBytes: 1)
        #expect(sink.state.withLock { $0.packets.isEmpty && $0.failures.isEmpty })
    }

    @Test func canBeStoppedByItsSink() throws {
        let device = try SocketDevice()
        let sink = RecordingSink()
        let reader = try TUNReader(device: device, sink: sink, limits: BurstLimits(packets: 1))
        sink.state.withLock { $0.atBurstEnd = { reader.stop() } }
        for _ in 0..<10 { device.deliver(packetBytes: 1) }
        try reader.start()
        sink.wait { $0.bursts.count == 1 }
        reader.stop()
        #expect(sink.state.withLock { $0.bursts } == [[11]])
        sink.state.withLock { $0.atBurstEnd = nil }
    }
}

/// A device made of a pair of sockets, which keep packets apart as a TUN does.
private final class SocketDevice: PacketDevice {
    let name = "fake0"
    let mtu = 1280
    let offload: OffloadFeatures = []
    let descriptor: Int32
    let isGone = Atomic<Bool>(false)
    private let farEnd: Int32

    init() throws {
        var pair: [Int32] = [0, 0]
        let kind = Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        try #require(socketpair(AF_UNIX, kind, 0, &pair) == 0)
        self.descriptor = pair[0]
        self.farEnd = pair[1]
    }

    deinit {
        close(self.descriptor)
        close(self.farEnd)
    }

    func deliver(packetBytes: Int) {
        let bytes = [UInt8](repeating: 0, count: PacketDeviceLimits.headerBytes + packetBytes)
        #expect(Glibc.write(self.farEnd, bytes, bytes.count) == bytes.count)
    }

    func read(into buffer: UnsafeMutableRawBufferPointer) throws(PacketReadError) -> Int? {
        if self.isGone.load(ordering: .acquiring) { throw .deviceGone }
        let count = clinux_read(self.descriptor, buffer.baseAddress, buffer.count)
        return count < 0 ? nil : count
    }

    func write(header: UnsafeRawPointer, packet: UnsafeRawBufferPointer) -> PacketWriteResult { .written }
}

/// Notes the size of each packet, in bursts. The buffer, of which nobody reads, belongs to the reader's thread.
private final class RecordingSink: PacketSink, @unchecked Sendable {
    struct State {
        var bursts: [[Int]] = []
        var current: [Int] = []
        var failures: [PacketReadError] = []
        var atBurstEnd: (@Sendable () -> Void)?

        var packets: [Int] { self.bursts.flatMap { $0 } + self.current }
        var open: Int { self.current.count }
    }

    let state = Mutex(State())
    private let buffer = UnsafeMutableRawBufferPointer.allocate(
        byteCount: PacketDeviceLimits.readBytes, alignment: 8)

    deinit { self.buffer.deallocate() }

    func nextBuffer() -> UnsafeMutableRawBufferPointer { self.buffer }

    func received(byteCount: Int) { self.state.withLock { $0.current.append(byteCount) } }

    func burstEnded() {
        let action = self.state.withLock { state in
            // A burst in which nothing came is none: the device was empty when the last one met its limit.
            if !state.current.isEmpty { state.bursts.append(state.current) }
            state.current = []
            return state.atBurstEnd
        }
        action?()
    }

    func deviceFailed(_ error: PacketReadError) { self.state.withLock { $0.failures.append(error) } }

    /// Returns when `condition` holds, or, so that a broken reader does not hang the tests, fails after a minute.
    func wait(until condition: (State) -> Bool) {
        let end = ContinuousClock.now + .seconds(60)
        while !self.state.withLock({ condition($0) }) {
            guard ContinuousClock.now < end else {
                Issue.record("waited in vain")
                return
            }
            sched_yield()
        }
    }
}
