internal import LibP2PCore
internal import NIOCore
internal import OverlayCore

/// The packets of one tunnel that travel in datagrams: which flows those are, and what waits for its turn.
///
/// Datagrams go before streams and are dropped after 20 ms. Owned by the event loop of packets.
final class DatagramQueue {
    /// How long a packet may wait, in nanoseconds.
    static let maximumWait: UInt64 = 20_000_000
    /// How long a move to another path may hold packets back at most, in nanoseconds.
    static let maximumPause: UInt64 = 50_000_000
    /// Bytes handed over at once: some forty packets, which leave in one system call.
    private static let burstBytes = 60_000

    /// What has been sent.
    private(set) var sentPackets: UInt64 = 0
    private(set) var sentBytes: UInt64 = 0
    /// Packets that no datagram holds.
    private(set) var oversizedPackets: UInt64 = 0
    /// The lane in use; `nil` when all packets travel on streams.
    private(set) var lane: DatagramLane?

    private var queue: FlowQueue
    private var flows = FlowLanes()
    private var isBlocked = false
    private var pausedUntil: UInt64 = 0

    init(mtu: Int) {
        self.queue = FlowQueue(mtuBytes: mtu)
    }

    var counts: FlowQueue.Counts { self.queue.counts }

    var isEmpty: Bool { self.queue.isEmpty }

    /// When to pump again although nothing happens; `nil` when that does not help.
    func nextDeadline(now: UInt64) -> UInt64? {
        !self.queue.isEmpty && now < self.pausedUntil ? self.pausedUntil : nil
    }

    /// Goes over to another lane, or to none. What the old one carries has `delay` nanoseconds to arrive before the new one is used.
    func use(_ lane: DatagramLane?, after delay: UInt64, now: UInt64) {
        self.pausedUntil = self.lane == nil ? 0 : now &+ min(delay, Self.maximumPause)
        self.lane = lane
        self.isBlocked = false
    }

    /// The lane that a packet's flow travels on.
    @inline(__always)
    func kind(of packet: PacketRef, rtt: UInt64, now: UInt64) -> LaneKind {
        self.flows.lane(
            flowHash: packet.flowHash, preferred: packet.flags.contains(.prefersDatagrams) ? .datagram : .stream,
            carriesDatagrams: self.lane != nil, rtt: rtt, now: now)
    }

    /// Takes ownership of a packet.
    @inline(__always)
    func enqueue(_ packet: PacketRef, now: UInt64) { self.queue.enqueue(packet, now: now) }

    /// All that waits, oldest flow first: there is no lane any more.
    func removeAll() -> PacketList { self.queue.removeAll() }

    /// Hands packets to the lane as long as that takes them.
    ///
    /// - Parameter done: Gets the packets that are sent or dropped.
    /// - Returns: The bytes handed over.
    func pump(now: UInt64, done: inout PacketList) -> Int {
        guard let lane = self.lane, !self.queue.isEmpty, now >= self.pausedUntil else { return 0 }
        // What waits behind a pause was not kept waiting by the path.
        if self.isBlocked, now > Self.maximumWait, now - Self.maximumWait > self.pausedUntil {
            self.queue.dropEnqueued(before: now - Self.maximumWait)
        }
        var total = 0
        while !self.queue.isEmpty, lane.isWritable {
            var bytes = 0
            while bytes < Self.burstBytes, let packet = self.queue.dequeue(now: now, react: PeerTunnel.signalCongestion)
            {
                let length = packet.length
                if lane.append(packet) {
                    self.sentPackets &+= 1
                    self.sentBytes &+= UInt64(length)
                } else {
                    self.oversizedPackets &+= 1
                }
                bytes += length
                done.append(packet)
            }
            lane.flush()
            total += bytes
        }
        self.isBlocked = !self.queue.isEmpty
        var dropped = self.queue.takeDropped()
        done.append(contentsOf: &dropped)
        return total
    }

    /// Lets go of memory that an idle tunnel does not need.
    func trim() {
        self.queue.trim()
        self.flows.trim()
        self.lane?.trim()
    }
}
