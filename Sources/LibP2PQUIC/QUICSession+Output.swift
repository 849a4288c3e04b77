internal import CLinux
internal import CNgtcp2
internal import DequeModule
internal import LibP2PCore
internal import NIOCore

/// The path and marking of the packet that the library wrote last, and of those that wait to go out with it.
final class PacketOutput {
    /// The last packet's path, and the batch's.
    private let storage = UnsafeMutablePointer<ngtcp2_path_storage>.allocate(capacity: 2)
    fileprivate let info = UnsafeMutablePointer<ngtcp2_pkt_info>.allocate(capacity: 1)
    /// Where the pieces of a stream's next packet lie.
    fileprivate let vectors = UnsafeMutableBufferPointer<ngtcp2_vec>.allocate(capacity: 16)

    init() {
        self.storage.initialize(repeating: ngtcp2_path_storage(), count: 2)
        ngtcp2_path_storage_zero(self.storage)
        ngtcp2_path_storage_zero(self.storage + 1)
        self.info.initialize(to: ngtcp2_pkt_info(ecn: 0))
        self.vectors.initialize(repeating: ngtcp2_vec())
    }

    deinit {
        self.storage.deallocate()
        self.info.deallocate()
        self.vectors.deallocate()
    }

    /// Where the library writes the path: the first member of the storage.
    fileprivate var path: UnsafeMutablePointer<ngtcp2_path> {
        UnsafeMutableRawPointer(self.storage).assumingMemoryBound(to: ngtcp2_path.self)
    }

    fileprivate var batchPath: UnsafeMutablePointer<ngtcp2_path> {
        UnsafeMutableRawPointer(self.storage + 1).assumingMemoryBound(to: ngtcp2_path.self)
    }

    /// The last packet begins a batch.
    fileprivate func beginBatch() { ngtcp2_path_copy(self.batchPath, self.path) }

    /// Whether the last packet takes the same path as the batch.
    fileprivate var followsBatch: Bool { ngtcp2_path_eq(self.batchPath, self.path) != 0 }

    var local: UDPAddress { UDPAddress(self.storage.pointee.path.local) }
    var remote: UDPAddress { UDPAddress(self.storage.pointee.path.remote) }
    var ecn: UInt8 { UInt8(truncatingIfNeeded: self.info.pointee.ecn) }

    /// The last packet of a connection.
    func writeClose(
        _ library: OpaquePointer, _ reason: inout ngtcp2_connection_close_error,
        into buffer: UnsafeMutableRawBufferPointer, now: UInt64
    ) -> Int {
        ngtcp2_conn_write_connection_close_versioned(
            library, self.path, NGTCP2_PKT_INFO_VERSION, self.info,
            buffer.baseAddress?.assumingMemoryBound(to: UInt8.self), ngtcp2_conn_get_max_tx_udp_payload_size(library),
            &reason, now)
    }
}

/// Packets of one size, path and marking, which go out in one call.
private struct Batch {
    var bytes = 0
    var count = 0
    var segment = 0
    var ecn: UInt8 = 0
}

extension QUICSession {
    /// Batches that one turn may send before others have theirs.
    private static let maximumBatches = 16
    private static let maximumSegments = 64

    /// Sends what the library lets go now: acknowledgements, datagrams, streams in turn.
    func pump() {
        guard self.state != .ended, let library = self.library else { return }
        for _ in 0..<Self.maximumBatches {
            guard !self.socket.isBlocked else { return self.socket.wait(self) }
            let now = QUICClock.now()
            if self.probes.isDue { ngtcp2_conn_set_keep_alive_timeout(library, 1) }
            self.datagrams.dropExpired(now: now, into: &self.counters)
            let hasMore = self.sendBatch(library, now: now)
            guard self.state != .ended else { return }
            ngtcp2_conn_update_pkt_tx_time(library, now)
            guard hasMore else { return }
        }
        // Others wait, too.
        self.eventLoop.execute { self.settle() }
    }

    /// - Returns: Whether there may be more to send at once.
    private func sendBatch(_ library: OpaquePointer, now: UInt64) -> Bool {
        let buffer = self.socket.sendBuffer
        let maximum = ngtcp2_conn_get_max_tx_udp_payload_size(library)
        let proven = ngtcp2_conn_get_path_max_tx_udp_payload_size(library)
        let quantum = min(ngtcp2_conn_get_send_quantum(library), buffer.count)
        var batch = Batch()
        while batch.bytes + maximum <= buffer.count {
            let space = UnsafeMutableRawBufferPointer(rebasing: buffer[batch.bytes..<batch.bytes + maximum])
            let written = self.writePacket(library, into: space, now: now)
            guard written >= 0 else {
                self.flush(batch)
                self.fail(Int32(clamping: written))
                return false
            }
            guard written > 0 else {
                self.flush(batch)
                return false
            }
            self.noteWritten(library, now: now)
            let ecn = self.output.ecn
            let fits =
                batch.count == 0
                || (written <= batch.segment && batch.segment <= proven && ecn == batch.ecn
                    && self.output.followsBatch)
            guard fits else {
                // Of another kind than those before: these go first, and it alone.
                self.flush(batch)
                self.socket.send(
                    UnsafeRawBufferPointer(rebasing: space[..<written]), local: self.output.local,
                    remote: self.output.remote, ecn: ecn, segment: 0)
                return true
            }
            if batch.count == 0 {
                batch = Batch(bytes: 0, count: 0, segment: written, ecn: ecn)
                self.output.beginBatch()
            }
            batch.bytes += written
            batch.count += 1
            // A shorter packet can only be the last, and one that tries out the path goes alone.
            if written < batch.segment || written > proven || batch.count == Self.maximumSegments
                || batch.bytes >= quantum
            {
                break
            }
        }
        self.flush(batch)
        return true
    }

    private func flush(_ batch: Batch) {
        guard batch.count > 0 else { return }
        self.socket.send(
            UnsafeRawBufferPointer(rebasing: self.socket.sendBuffer[..<batch.bytes]),
            local: UDPAddress(self.output.batchPath.pointee.local),
            remote: UDPAddress(self.output.batchPath.pointee.remote), ecn: batch.ecn,
            segment: batch.count > 1 ? batch.segment : 0)
    }

    /// Fills one packet with datagrams first, then streams, each of which goes to the end of the line when it has had its turn.
    private func writePacket(_ library: OpaquePointer, into space: UnsafeMutableRawBufferPointer, now: UInt64) -> Int {
        while true {
            let written: Int
            if self.state == .open,
                let datagram = self.datagrams.first(atMost: self.maximumDatagramSize, &self.counters)
            {
                written = self.write(datagram, library, space, now)
            } else if let stream = self.nextStream(library) {
                written = self.write(stream, library, space, now)
            } else {
                return ngtcp2_conn_writev_stream_versioned(
                    library, self.output.path, NGTCP2_PKT_INFO_VERSION, self.output.info,
                    space.baseAddress?.assumingMemoryBound(to: UInt8.self), space.count, nil,
                    NGTCP2_WRITE_STREAM_FLAG_NONE, -1, nil, 0, now)
            }
            switch Int32(clamping: written) {
            case NGTCP2_ERR_WRITE_MORE, NGTCP2_ERR_STREAM_DATA_BLOCKED, NGTCP2_ERR_STREAM_SHUT_WR,
                NGTCP2_ERR_STREAM_NOT_FOUND:
                continue
            default:
                return written
            }
        }
    }

    private func write(
        _ datagram: UnsafeRawBufferPointer, _ library: OpaquePointer, _ space: UnsafeMutableRawBufferPointer,
        _ now: UInt64
    ) -> Int {
        var vector = ngtcp2_vec(
            base: datagram.baseAddress.map {
                UnsafeMutableRawPointer(mutating: $0).assumingMemoryBound(to: UInt8.self)
            },
            len: datagram.count)
        var isAccepted: Int32 = 0
        let written = ngtcp2_conn_writev_datagram_versioned(
            library, self.output.path, NGTCP2_PKT_INFO_VERSION, self.output.info,
            space.baseAddress?.assumingMemoryBound(to: UInt8.self), space.count, &isAccepted,
            NGTCP2_WRITE_DATAGRAM_FLAG_MORE, self.counters.sent, &vector, 1, now)
        if isAccepted != 0 {
            self.counters.sent += 1
            self.datagrams.removeFirst()
        }
        return written
    }

    private func nextStream(_ library: OpaquePointer) -> QUICStream? {
        let hasRoom = ngtcp2_conn_get_max_data_left(library) > 0
        while let stream = self.sendable.first {
            guard stream.output.isSendable, !stream.isForgotten, !stream.isOutputStopped else {
                self.sendable.removeFirst()
                stream.isQueued = false
                continue
            }
            // Only the mere end of a stream needs no room in the connection's window.
            return hasRoom || stream.output.unsentBytes == 0 ? stream : nil
        }
        return nil
    }

    private func write(
        _ stream: QUICStream, _ library: OpaquePointer, _ space: UnsafeMutableRawBufferPointer, _ now: UInt64
    ) -> Int {
        let (count, reachesEnd) = stream.output.next(self.output.vectors)
        var accepted = -1
        let flags = NGTCP2_WRITE_STREAM_FLAG_MORE | (reachesEnd ? NGTCP2_WRITE_STREAM_FLAG_FIN : 0)
        let written = ngtcp2_conn_writev_stream_versioned(
            library, self.output.path, NGTCP2_PKT_INFO_VERSION, self.output.info,
            space.baseAddress?.assumingMemoryBound(to: UInt8.self), space.count, &accepted, flags, stream.number,
            self.output.vectors.baseAddress, count, now)
        if accepted >= 0 {
            stream.output.sent(accepted)
            if reachesEnd, stream.output.unsentBytes == 0 { stream.output.hasSentEnd = true }
        }
        switch Int32(clamping: written) {
        case NGTCP2_ERR_STREAM_DATA_BLOCKED: stream.isFlowBlocked = true
        case NGTCP2_ERR_STREAM_SHUT_WR, NGTCP2_ERR_STREAM_NOT_FOUND: self.stopOutput(of: stream)
        default: break
        }
        if accepted >= 0 || stream.isFlowBlocked || stream.isOutputStopped {
            self.sendable.removeFirst()
            stream.isQueued = false
            self.enqueue(stream)
        }
        return written
    }

    /// The remote wants no more of it: what is written from now on is dropped.
    private func stopOutput(of stream: QUICStream) {
        stream.isOutputStopped = true
        stream.output.dropUnsent()
    }
}

// MARK: - Liveness

/// Signs of life that were asked for.
struct Probes {
    private var waiting: [(promise: EventLoopPromise<TimeAmount>, asked: UInt64, sent: UInt64?)] = []

    var isWaiting: Bool { !self.waiting.isEmpty }
    /// Whether the next packet must be one that the remote acknowledges.
    var isDue: Bool { self.waiting.contains { $0.sent == nil } }

    mutating func add(_ promise: EventLoopPromise<TimeAmount>, now: UInt64) {
        self.waiting.append((promise, now, nil))
    }

    /// A packet that asks for an acknowledgement has gone out.
    mutating func sent(now: UInt64) {
        for index in self.waiting.indices where self.waiting[index].sent == nil { self.waiting[index].sent = now }
    }

    /// A packet sent at `sent` was acknowledged at `now`.
    mutating func acknowledged(sent: UInt64, now: UInt64) {
        let done = self.waiting.filter { $0.sent.map { $0 <= sent } ?? false }
        self.waiting.removeAll { $0.sent.map { $0 <= sent } ?? false }
        for probe in done {
            probe.promise.succeed(.nanoseconds(Int64(clamping: now - min(probe.asked, now))))
        }
    }

    mutating func fail(_ error: any Error) {
        let waiting = self.waiting
        self.waiting = []
        for probe in waiting { probe.promise.fail(error) }
    }
}

extension QUICSession {
    /// Has the remote acknowledge something.
    func probe() -> EventLoopFuture<TimeAmount> {
        let promise = self.eventLoop.makePromise(of: TimeAmount.self)
        guard self.state == .open else {
            promise.fail(QUICError.socketClosed)
            return promise.futureResult
        }
        self.lastRoundTrip = self.statistics.latest_rtt
        self.probes.add(promise, now: QUICClock.now())
        self.settle()
        return promise.futureResult
    }

    private func noteWritten(_ library: OpaquePointer, now: UInt64) {
        // Not every packet asks for an acknowledgement.
        guard self.probes.isDue, self.statistics.last_tx_pkt_ts.2 == now else { return }
        ngtcp2_conn_set_keep_alive_timeout(library, UInt64(self.options.keepalive.nanoseconds))
        self.probes.sent(now: now)
    }

    /// The library reports no acknowledgement of its own packets, but each that counts leaves a new round-trip time behind, which tells
    /// when the packet was sent.
    func checkProbes(now: UInt64) {
        let latest = self.statistics.latest_rtt
        guard latest != self.lastRoundTrip, latest <= now else { return }
        self.lastRoundTrip = latest
        self.probes.acknowledged(sent: now - latest, now: now)
    }

    var statistics: ngtcp2_conn_stat {
        var statistics = ngtcp2_conn_stat()
        if let library = self.library {
            ngtcp2_conn_get_conn_stat_versioned(library, NGTCP2_CONN_STAT_VERSION, &statistics)
        }
        return statistics
    }

    var roundTripTime: TimeAmount? {
        let statistics = self.statistics
        guard self.library != nil, statistics.first_rtt_sample_ts != UInt64.max else { return nil }
        return .nanoseconds(Int64(clamping: statistics.smoothed_rtt))
    }
}
