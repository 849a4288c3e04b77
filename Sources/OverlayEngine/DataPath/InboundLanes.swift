internal import LibP2PCore
internal import NIOCore
internal import OverlayCore

/// The streams on which one peer sends us packets of one network, and the order among them.
///
/// Owned by the event loop of packets.
final class InboundLanes {
    /// Streams of one peer in one network.
    static let maximumCount = 4

    private(set) var lanes: [InboundLane] = []
    /// Packets delivered before ones that the peer sent earlier, on another path.
    private(set) var reorderedPackets: UInt64 = 0

    private let eventLoop: any EventLoop
    private var order = LaneOrder()
    private var timer: Scheduled<Void>?

    init(eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
    }

    /// Closes all.
    func close(_ code: CloseCode) {
        self.timer?.cancel()
        let lanes = self.lanes
        self.lanes = []
        for lane in lanes { lane.close(code) }
    }

    /// Whether the peer sends on this connection.
    func contains(_ connection: any Connection) -> Bool {
        self.lanes.contains { $0.connection.id == connection.id && $0.agreement != nil }
    }

    /// The lane of the lowest epoch, besides the one that the peer sends on.
    var oldestSpare: InboundLane? {
        self.lanes.filter { $0.number != self.order.current }
            .min { ($0.agreement?.epoch ?? 0) < ($1.agreement?.epoch ?? 0) }
    }

    /// Lets go of memory that idle lanes do not need.
    func trim() { for lane in self.lanes { lane.trim() } }

    // MARK: From the lanes

    /// A lane is open.
    func opened(_ lane: InboundLane, epoch: UInt64) {
        self.lanes.append(lane)
        self.order.opened(lane.number, epoch: epoch)
    }

    /// A lane is gone: what it still held is delivered, and what waited for it.
    func closed(_ lane: InboundLane) {
        guard let index = self.lanes.firstIndex(where: { $0 === lane }) else { return }
        self.lanes.remove(at: index)
        _ = lane.releaseHeld()
        self.release(self.order.closed(lane.number), isLate: false)
    }

    /// Whether packets of `lane` are delivered now, or held.
    func mayDeliver(from lane: InboundLane) -> Bool {
        let before = self.order.current
        let verdict = self.order.packets(on: lane.number, now: NIODeadline.now().uptimeNanoseconds)
        if self.order.current != before { self.reconsider(except: lane) }
        if verdict == .hold { self.armTimer() }
        return verdict == .deliver
    }

    /// The peer has left `lane` for the one of `epoch`.
    func moved(_ lane: InboundLane, to epoch: UInt64) {
        guard let agreement = lane.agreement, epoch > agreement.epoch else { return }
        let now = NIODeadline.now().uptimeNanoseconds
        self.release(self.order.moved(from: lane.number, to: epoch, now: now), isLate: false)
    }

    // MARK: Details

    private func release(_ numbers: [UInt64], isLate: Bool) {
        for number in numbers {
            guard let lane = self.lanes.first(where: { $0.number == number }) else { continue }
            let packets = lane.releaseHeld()
            if isLate { self.reorderedPackets += packets }
        }
        self.reconsider(except: nil)
        self.armTimer()
    }

    private func reconsider(except lane: InboundLane?) {
        for other in self.lanes where other !== lane { other.reconsider() }
    }

    private func armTimer() {
        self.timer?.cancel()
        self.timer = self.order.nextDeadline.map { deadline in
            self.eventLoop.scheduleTask(deadline: .uptimeNanoseconds(deadline)) { [weak self] in
                guard let self else { return }
                self.release(self.order.tick(now: NIODeadline.now().uptimeNanoseconds), isLate: true)
            }
        }
    }
}

// Owned by one event loop, whose tasks it is captured by.
extension InboundLanes: @unchecked Sendable {}
