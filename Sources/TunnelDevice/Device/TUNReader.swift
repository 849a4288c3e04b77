import CLinux
import Glibc
import Synchronization

/// Where a ``TUNReader`` puts packets. Everything is called on the reader's thread.
///
/// For each burst: `nextBuffer`, `received`, `nextBuffer`, `received`, …, `nextBuffer`, `burstEnded`. The last buffer of a burst stays unused.
package protocol PacketSink: AnyObject, Sendable {
    /// The place for the next packet and its header: at least ``PacketDeviceLimits/readBytes``, the sink's own until `received` or
    /// `burstEnded`. A sink without room gives the same scratch space again and drops, so that the device is never left unread.
    func nextBuffer() -> UnsafeMutableRawBufferPointer

    /// The first `byteCount` bytes of the buffer last given are a header and its packet.
    func received(byteCount: Int)

    /// Nothing more is at hand, or the burst is as long as it may be: hand over what came.
    func burstEnded()

    /// The device cannot be read any more, and nothing else will be called. Not called after ``TUNReader/stop()``.
    func deviceFailed(_ error: PacketReadError)
}

/// How much a ``TUNReader`` reads before it hands over.
package struct BurstLimits: Hashable, Sendable {
    /// The most packets in a burst.
    package var packets: Int
    /// A burst ends with the packet that reaches this many bytes, headers included.
    package var bytes: Int

    /// 64 packets or 256 KiB: a full burst of small packets fits a few security records, and four super-packets keep the
    /// thread that seals them busy while the next are read.
    package init(packets: Int = 64, bytes: Int = 256 * 1024) {
        self.packets = max(1, packets)
        self.bytes = max(1, bytes)
    }
}

/// Reads a packet device on a thread of its own: waits, then reads without blocking until the device is empty or the burst is long enough,
/// then hands over.
package final class TUNReader<Device: PacketDevice, Sink: PacketSink>: Sendable {
    private let device: Device
    private let sink: Sink
    private let limits: BurstLimits
    private let wake: Int32
    private let stopping = Atomic<Bool>(false)
    private let thread = Mutex<WorkerThread?>(nil)

    /// A reader that does nothing until ``start()``.
    package init(device: Device, sink: Sink, limits: BurstLimits = BurstLimits()) throws(WorkerThreadError) {
        self.device = device
        self.sink = sink
        self.limits = limits
        self.wake = clinux_eventfd()
        if self.wake < 0 { throw .noEventDescriptor(errno: -self.wake) }
    }

    deinit { close(self.wake) }

    /// Starts the thread. It holds the reader, the device and the sink until it ends. A second call does nothing.
    package func start() throws(WorkerThreadError) {
        try self.thread.withLock { thread throws(WorkerThreadError) in
            if thread == nil { thread = try WorkerThread(name: "warren-tun") { self.run() } }
        }
    }

    /// Ends the thread and waits for it: afterwards the sink is not called any more. Safe to repeat, and from the sink itself,
    /// where it takes effect at the end of the burst.
    package func stop() {
        self.stopping.store(true, ordering: .releasing)
        _ = clinux_eventfd_signal(self.wake)
        self.thread.withLock { $0 }?.join()
    }

    private func run() {
        var waits = [
            pollfd(fd: self.device.descriptor, events: Int16(POLLIN), revents: 0),
            pollfd(fd: self.wake, events: Int16(POLLIN), revents: 0),
        ]
        while true {
            // Without an end: an interrupted poll counts as "nothing yet".
            let readable = poll(&waits, nfds_t(waits.count), -1) > 0 && waits[0].revents != 0
            if self.stopping.load(ordering: .acquiring) { return }
            guard readable else { continue }
            do throws(PacketReadError) {
                while try self.readBurst(), !self.stopping.load(ordering: .acquiring) {}
            } catch {
                if !self.stopping.load(ordering: .acquiring) { self.sink.deviceFailed(error) }
                return
            }
        }
    }

    /// Reads one burst. Returns whether it was cut short by a limit, so that more may be waiting.
    private func readBurst() throws(PacketReadError) -> Bool {
        defer { self.sink.burstEnded() }
        var packets = 0
        var bytes = 0
        while packets < self.limits.packets, bytes < self.limits.bytes {
            guard let count = try self.device.read(into: self.sink.nextBuffer()) else { return false }
            self.sink.received(byteCount: count)
            packets += 1
            bytes += count
        }
        return true
    }
}
