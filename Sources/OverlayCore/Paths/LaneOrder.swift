/// Keeps a peer's packets in order while the peer moves from one lane to another.
///
/// A peer may have several lanes open, each with an epoch that is higher than those of its earlier ones. It sends on one of them, the
/// current one. A planned move ends with `MOVE(epoch)` on the old lane; packets of the new lane that come sooner are held until then, for
/// 250 ms at most. A lane that closes lets go what waited for it.
///
/// | packets on a lane | are |
/// |---|---|
/// | while no lane is current | delivered, and the lane is current |
/// | whose epoch is that of the current one or lower | delivered |
/// | with a higher epoch, which a MOVE has named | delivered, and the lane is current |
/// | with a higher epoch otherwise | held |
///
/// A MOVE on a lane that is held comes after what is held there.
///
/// Pure: the owner holds the packets and the clock, which counts nanoseconds.
package struct LaneOrder: Equatable, Sendable {
    /// What to do with the packets of a lane.
    package enum Verdict: Equatable, Sendable {
        case deliver
        /// Keep them, in order, until ``closed(_:)``, ``moved(from:to:now:)`` or ``tick(now:)`` names the lane.
        case hold
    }

    private struct Lane: Equatable, Sendable {
        let id: UInt64
        let epoch: UInt64
        /// Until when its packets are held.
        var holdDeadline: UInt64?
        /// The epoch that its MOVE named, which came while it was held.
        var heldMove: UInt64?
    }

    /// How long the packets of a lane are held at most, in nanoseconds.
    package static let maximumHold: UInt64 = 250_000_000
    /// How many bytes of a lane the owner holds before it reads no more of the lane: its sender then waits.
    package static let maximumHeldBytes = 1 << 20

    /// The lane that delivers, once one does.
    package private(set) var current: UInt64?

    private var lanes: [Lane] = []
    /// The epoch that the last MOVE named, while no open lane has it.
    private var expectedEpoch: UInt64?

    package init() {}

    /// When to call ``tick(now:)``.
    package var nextDeadline: UInt64? { self.lanes.compactMap(\.holdDeadline).min() }

    /// A lane of the peer is open.
    package mutating func opened(_ id: UInt64, epoch: UInt64) {
        self.lanes.append(Lane(id: id, epoch: epoch))
        if self.expectedEpoch == epoch {
            self.expectedEpoch = nil
            self.current = id
        }
    }

    /// Packets have come on a lane.
    package mutating func packets(on id: UInt64, now: UInt64) -> Verdict {
        guard let index = self.lanes.firstIndex(where: { $0.id == id }) else { return .deliver }
        let lane = self.lanes[index]
        if lane.holdDeadline != nil { return .hold }
        guard let current = self.currentEpoch else {
            self.current = id
            return .deliver
        }
        guard lane.epoch > current else { return .deliver }
        self.lanes[index].holdDeadline = now.addingClamped(Self.maximumHold)
        return .hold
    }

    /// A MOVE has come on a lane, its last frame: what follows comes on the lane of `epoch`.
    ///
    /// - Returns: The lanes whose held packets are delivered now, in this order.
    package mutating func moved(from id: UInt64, to epoch: UInt64, now: UInt64) -> [UInt64] {
        guard let index = self.lanes.firstIndex(where: { $0.id == id }) else { return [] }
        if self.packets(on: id, now: now) == .hold {
            self.lanes[index].heldMove = epoch
            return []
        }
        return self.follow(epoch)
    }

    /// A lane is gone, in whatever way.
    ///
    /// - Returns: The lanes whose held packets are delivered now, in this order.
    package mutating func closed(_ id: UInt64) -> [UInt64] {
        self.lanes.removeAll { $0.id == id }
        guard self.current == id else { return [] }
        self.current = nil
        // Epoch by epoch: a MOVE that was held may have let the next one go already.
        var released: [UInt64] = []
        while let next = self.lanes.filter({ $0.holdDeadline != nil }).min(by: { $0.epoch < $1.epoch }) {
            released += self.release(next.id)
        }
        return released
    }

    /// Time passes.
    ///
    /// - Returns: The lanes whose held packets are delivered now, out of order perhaps, in this order.
    package mutating func tick(now: UInt64) -> [UInt64] {
        self.releaseHeld { $0.holdDeadline.map { $0 <= now } ?? false }
    }

    private var currentEpoch: UInt64? { self.lanes.first { $0.id == self.current }?.epoch }

    private mutating func releaseHeld(where condition: (Lane) -> Bool) -> [UInt64] {
        let due = self.lanes.filter { $0.holdDeadline != nil && condition($0) }.sorted { $0.epoch < $1.epoch }
        return due.flatMap { self.release($0.id) }
    }

    /// The lane of `epoch` is the current one, as soon as it is open.
    private mutating func follow(_ epoch: UInt64) -> [UInt64] {
        guard let lane = self.lanes.first(where: { $0.epoch == epoch }) else {
            self.expectedEpoch = epoch
            return []
        }
        return self.release(lane.id)
    }

    /// Makes a lane the current one, and those after it that its own MOVE leads to.
    ///
    /// - Returns: Those that held packets.
    private mutating func release(_ id: UInt64) -> [UInt64] {
        guard let index = self.lanes.firstIndex(where: { $0.id == id }) else { return [] }
        let wasHolding = self.lanes[index].holdDeadline != nil
        let move = self.lanes[index].heldMove
        self.lanes[index].holdDeadline = nil
        self.lanes[index].heldMove = nil
        self.current = id
        // A MOVE leads to a higher epoch, or the owner would have refused it; so this ends.
        return (wasHolding ? [id] : []) + (move.map { self.follow($0) } ?? [])
    }
}
