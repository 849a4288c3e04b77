/// Times and sizes that steer ``CoDel``.
struct CoDelParameters: Equatable, Sendable {
    /// The standing delay that is tolerated, in nanoseconds.
    var target: UInt64
    /// How long the delay must stand before anything is dropped, in nanoseconds.
    var interval: UInt64
    /// A backlog of at most this many bytes is never worth a drop.
    var backlogFloor: Int

    /// The RFC's values: 5 ms and 100 ms.
    static let standardTarget: UInt64 = 5_000_000
    static let standardInterval: UInt64 = 100_000_000

    /// - Parameters:
    ///   - largestPacketBytes: The largest packet that waits.
    ///   - drainBytesPerSecond: How fast the queue drains, when that is known. At a low rate one super-packet alone takes longer than
    ///     5 ms; a target below that time would drop for a delay that no drop can shorten.
    init(largestPacketBytes: Int, drainBytesPerSecond: UInt64?) {
        var target = Self.standardTarget
        if let rate = drainBytesPerSecond {
            let bytes = UInt64(clamping: min(largestPacketBytes, 1 << 20))
            target = max(target, bytes * 1_000_000_000 / max(rate, 1))
        }
        self.target = target
        self.interval = max(Self.standardInterval, 2 * target)
        self.backlogFloor = 1_514
    }
}

/// The controlled-delay law for one flow: says, packet by packet, when a standing queue calls for a drop or a mark.
///
/// Spec: RFC 8289 § 5.
struct CoDel: Equatable, Sendable {
    private var firstAbove: UInt64 = 0
    private var dropNext: UInt64 = 0
    private var count: UInt32 = 0
    private var lastCount: UInt32 = 0
    private var isDropping = false

    /// Judges the packet that has just left the queue.
    ///
    /// To be called again for the packet behind it when the answer was `true` and the packet was dropped (not when it was marked).
    ///
    /// - Parameters:
    ///   - sojourn: How long the packet waited, in nanoseconds.
    ///   - backlog: The bytes still behind it in this flow.
    /// - Returns: Whether the packet is to be dropped or marked.
    @inline(__always)
    mutating func calls(sojourn: UInt64, backlog: Int, now: UInt64, _ parameters: CoDelParameters) -> Bool {
        guard sojourn >= parameters.target, backlog > parameters.backlogFloor else {
            self.firstAbove = 0
            self.isDropping = false
            return false
        }
        return self.callsAboveTarget(now: now, parameters)
    }

    private mutating func callsAboveTarget(now: UInt64, _ parameters: CoDelParameters) -> Bool {
        if self.firstAbove == 0 {
            self.firstAbove = now &+ parameters.interval
            self.isDropping = false
            return false
        }
        guard now >= self.firstAbove else {
            self.isDropping = false
            return false
        }
        if self.isDropping {
            guard now >= self.dropNext else { return false }
            self.count &+= self.count == .max ? 0 : 1
            self.dropNext = self.control(self.dropNext, parameters.interval)
            return true
        }
        // A queue that builds up again soon after the last drops resumes near their rate.
        let isRecent = now < self.dropNext || now - self.dropNext < 16 * parameters.interval
        let delta = self.count &- self.lastCount
        self.count = delta > 1 && isRecent ? delta : 1
        self.lastCount = self.count
        self.isDropping = true
        self.dropNext = self.control(now, parameters.interval)
        return true
    }

    private func control(_ time: UInt64, _ interval: UInt64) -> UInt64 {
        time &+ UInt64(Double(interval) / Double(max(self.count, 1)).squareRoot())
    }
}
