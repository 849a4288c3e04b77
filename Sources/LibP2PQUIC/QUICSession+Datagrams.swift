internal import CNgtcp2
internal import DequeModule
internal import LibP2PCore
internal import NIOCore

/// Datagrams that wait for their turn, oldest first. They are dropped when they have waited too long, and not taken when too many wait.
struct DatagramQueue {
    private static let maximumBytes = 1 << 20
    private static let maximumCount = 4096
    private static let fullBytes = 32 << 10

    private struct Entry {
        var length: UInt16
        var deadline: UInt64
    }

    private let patience: UInt64
    private var bytes = ByteBuffer()
    private var entries = Deque<Entry>()

    init(patience: TimeAmount) {
        self.patience = UInt64(clamping: patience.nanoseconds)
    }

    var isEmpty: Bool { self.entries.isEmpty }

    /// Enough waits: who has more keeps it, where it can be chosen what goes first.
    var isFull: Bool { self.bytes.readableBytes >= Self.fullBytes }

    mutating func append(_ batch: DatagramBatch, now: UInt64, into counters: inout DatagramCounters) {
        if self.entries.isEmpty { self.bytes.clear() }
        guard self.bytes.readableBytes + batch.bytes.readableBytes <= Self.maximumBytes,
            self.entries.count + batch.count <= Self.maximumCount
        else {
            counters.overflowed += UInt64(batch.count)
            return
        }
        self.bytes.writeImmutableBuffer(batch.bytes)
        for length in batch.lengths { self.entries.append(Entry(length: length, deadline: now + self.patience)) }
    }

    /// The next to send. Those that no packet can hold are dropped.
    mutating func first(atMost maximum: Int, _ counters: inout DatagramCounters) -> UnsafeRawBufferPointer? {
        while let entry = self.entries.first {
            guard entry.length <= maximum else {
                counters.tooLarge += 1
                self.removeFirst()
                continue
            }
            // The queue holds the memory until the datagram is removed.
            return self.bytes.withUnsafeReadableBytes { UnsafeRawBufferPointer(rebasing: $0[..<Int(entry.length)]) }
        }
        return nil
    }

    mutating func removeFirst() {
        guard let entry = self.entries.popFirst() else { return }
        self.bytes.moveReaderIndex(forwardBy: Int(entry.length))
        // Never while a pointer to its bytes is out: the library copies what it takes.
        if self.bytes.readerIndex > Self.maximumBytes { self.bytes.discardReadBytes() }
    }

    mutating func dropExpired(now: UInt64, into counters: inout DatagramCounters) {
        while let entry = self.entries.first, entry.deadline <= now {
            counters.expired += 1
            self.removeFirst()
        }
    }
}

extension QUICSession {
    func send(_ batch: DatagramBatch) {
        guard self.state == .open, !batch.isEmpty else { return }
        guard self.maximumDatagramSize > 0 else {
            self.counters.tooLarge += UInt64(batch.count)
            return
        }
        self.datagrams.append(batch, now: QUICClock.now(), into: &self.counters)
        self.settle()
    }

    var takesDatagrams: Bool {
        guard self.state == .open, self.datagrams.isFull else { return self.state == .open }
        self.hasRefusedDatagrams = true
        return false
    }

    func tellDatagramWritability() {
        guard self.hasRefusedDatagrams, !self.datagrams.isFull else { return }
        self.hasRefusedDatagrams = false
        self.datagramReceiver?.datagramsWritable()
    }

    /// From within the library.
    func noteDatagram(_ bytes: UnsafeRawBufferPointer) {
        if self.datagramReceiver == nil {
            self.counters.unwanted += 1
        } else {
            self.arrived.append(bytes)
        }
    }

    func deliverDatagrams() {
        if !self.arrived.isEmpty {
            self.counters.received += UInt64(self.arrived.count)
            // Taken out for the call: the receiver may well cause more to arrive.
            var batch = DatagramBatch()
            swap(&batch, &self.arrived)
            self.datagramReceiver?.received(batch)
            batch.removeAll()
            if self.arrived.isEmpty { swap(&batch, &self.arrived) }
        }
        self.updateMaximumDatagramSize()
    }

    /// What of a packet is left for a datagram's payload once header, tag and frame header are taken off.
    func updateMaximumDatagramSize() {
        guard self.state == .open, let library = self.library,
            let limits = ngtcp2_conn_get_remote_transport_params(library)
        else { return }
        let packet = ngtcp2_conn_get_path_max_tx_udp_payload_size(library)
        let overhead = 1 + ngtcp2_conn_get_dcid(library).pointee.datalen + 4 + 16 + 3
        let frame = Int(clamping: limits.pointee.max_datagram_frame_size)
        let size = frame <= 3 ? 0 : max(0, min(packet - overhead, frame - 3, Int(UInt16.max)))
        guard size != self.maximumDatagramSize else { return }
        self.maximumDatagramSize = size
        self.datagramReceiver?.maximumDatagramSizeChanged()
    }
}
