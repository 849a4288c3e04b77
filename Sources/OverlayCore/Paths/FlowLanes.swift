/// What a packet travels in.
package enum LaneKind: UInt8, Equatable, Sendable {
    /// A stream: reliable, in order, super-packets whole.
    case stream
    /// QUIC datagrams: a lost packet delays no other.
    case datagram

    /// What suits a packet best: TCP a stream, as it brings its own recovery and profits from super-packets; all else datagrams. Ports and DSCP
    /// tell the exceptions: interactive TCP, which a lost packet of another flow must not delay, and bulk that yields.
    @inline(__always)
    package static func preferred(for packet: IPPacket) -> LaneKind {
        switch packet.dscp {
        // EF, VOICE-ADMIT, CS4, CS5, CS6: voice, interactive video, network control.
        case 46, 44, 32, 40, 48: return .datagram
        // CS1 and LE: scavengers.
        case 8, 1: return .stream
        default: break
        }
        guard packet.transportProtocol == .tcp else { return .datagram }
        guard let ports = packet.ports else { return .stream }
        return self.isInteractive(ports.source) || self.isInteractive(ports.destination) ? .datagram : .stream
    }

    /// ssh, DNS.
    @inline(__always)
    private static func isInteractive(_ port: UInt16) -> Bool { port == 22 || port == 53 }
}

/// Which lane each flow of a peer travels on. The first packet decides; after that the flow stays where it is until it has been idle for so
/// long that nothing of it is under way, so that none of its packets overtakes another.
///
/// A flow whose lane is gone goes to the stream at once. Flows are told apart by hash; ones with like hash and preference share their fate.
/// Owned by one thread, pure, times in nanoseconds. Allocates one table when the first packet comes.
package struct FlowLanes: ~Copyable {
    /// The least time without a packet after which a flow may change lanes.
    package static let minimumIdle: UInt64 = 200_000_000

    private static let bucketCount = 1_024
    /// Per bucket the time of the last packet, of which the lowest bit is the lane; 0 when there was none.
    private var table: UnsafeMutablePointer<UInt64>?
    private var usedSinceTrim = false

    package init() {}

    deinit { self.table?.deallocate() }

    /// The lane for the next packet of a flow.
    ///
    /// - Parameters:
    ///   - flowHash: Tells the flow.
    ///   - preferred: What suits the packet.
    ///   - carriesDatagrams: Whether there is a datagram lane now.
    ///   - rtt: The longest round trip of the lanes in use.
    @inline(__always)
    package mutating func lane(
        flowHash: UInt32, preferred: LaneKind, carriesDatagrams: Bool, rtt: UInt64, now: UInt64
    ) -> LaneKind {
        let table = self.flowTable()
        let bucket = Int(flowHash) & (Self.bucketCount / 2 - 1) | Int(preferred.rawValue) * (Self.bucketCount / 2)
        let last = table[bucket]
        let idle = max(Self.minimumIdle, 2 &* min(rtt, 1 << 40))
        var lane: LaneKind
        if last == 0 || now &- (last & ~1) > idle {
            lane = preferred
        } else {
            lane = last & 1 == 0 ? .stream : .datagram
        }
        if !carriesDatagrams { lane = .stream }
        table[bucket] = max(now & ~1, 2) | UInt64(lane.rawValue)
        return lane
    }

    /// Gives the table back when it was not used since the last call. To be called now and then, rarely against ``minimumIdle``.
    package mutating func trim() {
        if !self.usedSinceTrim {
            self.table?.deallocate()
            self.table = nil
        }
        self.usedSinceTrim = false
    }

    @inline(__always)
    private mutating func flowTable() -> UnsafeMutablePointer<UInt64> {
        self.usedSinceTrim = true
        if let table = self.table { return table }
        let table = UnsafeMutablePointer<UInt64>.allocate(capacity: Self.bucketCount)
        table.initialize(repeating: 0, count: Self.bucketCount)
        self.table = table
        return table
    }
}
