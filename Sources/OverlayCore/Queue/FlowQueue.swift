/// The packets that wait for one peer: fair among flows, and short.
///
/// This is FQ-CoDel (RFC 8290) over packets linked through their own headers, with three changes for super-packets:
///
/// - A flow sends when its deficit covers its first packet, not when it is merely positive. With a quantum of one ordinary packet a flow of
///   64 KB super-packets saves for some 43 rounds, while flows of ordinary packets send in each: bytes are shared evenly, and a new or sparse flow
///   waits for at most the super-packet that is already being written. The saving costs one step per quantum of bytes sent.
/// - The CoDel target is at least the time that the largest waiting packet takes at the drain rate.
/// - Instead of dropping a super-packet whole, the caller may take one segment off it.
///
/// While there is no connection (``isWaiting``) the queue keeps the newest packets: the oldest is dropped on overflow, and the limits are lower.
///
/// Owned by one thread, pure, `now` in nanoseconds of any monotonic clock. Allocates one table when the first packet comes, nothing per packet.
/// Dropped packets collect in a list that the owner gives back to the pool with ``takeDropped()``.
/// Before a queue goes away its owner empties it with ``removeAll()``: it owns its packets but not their memory.
package struct FlowQueue: ~Copyable {
    /// How much may wait.
    package struct Limits: Equatable, Sendable {
        package var bytes: Int
        package var packets: Int

        package init(bytes: Int, packets: Int) {
            self.bytes = bytes
            self.packets = packets
        }

        /// 1 MiB and 1,024 packets: 16 super-packets, or 8 ms of small packets at 1 Gbit/s.
        package static let standard = Limits(bytes: 1 << 20, packets: 1_024)
        /// 256 KiB and 128 packets while there is no connection: what is still worth sending when one comes up.
        package static let waiting = Limits(bytes: 256 << 10, packets: 128)
    }

    /// What the caller did about a packet that calls for a congestion signal.
    package enum Reaction: Equatable, Sendable {
        /// It marked the packet CE; the packet travels on.
        case marked
        /// It cut one segment off the super-packet's end; the rest travels on.
        case shortened
        /// Nothing: the packet is dropped.
        case drop
    }

    /// Packets that were dropped or marked since the queue exists.
    package struct Counts: Equatable, Sendable {
        /// Dropped for want of room.
        package var queueFull: UInt64 = 0
        /// Dropped by CoDel. A segment cut off a super-packet counts as one.
        package var congestion: UInt64 = 0
        /// Dropped because they waited too long for a connection.
        package var expired: UInt64 = 0
        /// Marked CE instead of dropped.
        package var marked: UInt64 = 0
    }

    /// The number of flows that are told apart.
    static let flowCount = 256
    private static let none = UInt16.max

    /// One bucket of flows with the same hash.
    private struct Flow {
        var packets = PacketList()
        var bytes = 0
        var deficit = 0
        var next = FlowQueue.none
        var isListed = false
        var codel = CoDel()
    }

    /// A list of flows, linked by number.
    private struct FlowList {
        var head = FlowQueue.none
        var tail = FlowQueue.none
    }

    /// The limits while there is a connection.
    package let limits: Limits
    /// The limits while there is none.
    package let waitingLimits: Limits
    /// The bytes that a flow may send per round.
    package let quantumBytes: Int

    /// The packets' bytes.
    package private(set) var byteCount = 0
    /// The number of packets.
    package private(set) var packetCount = 0
    /// Drops and marks.
    package private(set) var counts = Counts()

    /// Whether there is no connection to send on.
    package var isWaiting = false

    /// How fast the queue drains, in bytes per second, when the owner knows it.
    package var drainBytesPerSecond: UInt64? { didSet { self.updateParameters() } }

    private var table: UnsafeMutablePointer<Flow>?
    private var newFlows = FlowList()
    private var oldFlows = FlowList()
    private var dropped = PacketList()
    private var largestPacketBytes = 0
    private var parameters = CoDelParameters(largestPacketBytes: 0, drainBytesPerSecond: nil)
    private var usedSinceTrim = false

    /// - Parameter mtuBytes: The MTU inside the tunnel; the quantum is one such packet, and at least 1,514 bytes.
    package init(limits: Limits = .standard, waitingLimits: Limits = .waiting, mtuBytes: Int = 1_280) {
        self.limits = limits
        self.waitingLimits = waitingLimits
        self.quantumBytes = max(1_514, min(mtuBytes, 65_535))
    }

    deinit { self.table?.deallocate() }

    /// Whether no packet waits.
    package var isEmpty: Bool { self.packetCount == 0 }

    /// Bytes that the queue itself holds allocated, packets apart.
    package var allocatedBytes: Int { self.table == nil ? 0 : Self.flowCount * MemoryLayout<Flow>.stride }

    /// Takes ownership of `packet` and puts it last in its flow, which its `flowHash` tells.
    ///
    /// When that exceeds a limit, packets are dropped from the head of the flow with the most bytes, or, while there is no connection,
    /// the packet that waited longest.
    package mutating func enqueue(_ packet: PacketRef, now: UInt64) {
        let table = self.flowTable()
        let number = Int(packet.flowHash) & (Self.flowCount - 1)
        let length = packet.length
        packet.header.pointee.enqueuedAt = now
        table[number].packets.append(packet)
        table[number].bytes &+= length
        self.byteCount &+= length
        self.packetCount &+= 1
        if length > self.largestPacketBytes {
            self.largestPacketBytes = length
            self.updateParameters()
        }
        if !table[number].isListed {
            table[number].isListed = true
            table[number].deficit = self.quantumBytes
            Self.append(number, to: &self.newFlows, table)
        }
        let limits = self.isWaiting ? self.waitingLimits : self.limits
        while self.byteCount > limits.bytes || self.packetCount > limits.packets {
            guard let victim = self.isWaiting ? self.oldestFlow(table) : self.fattestFlow(table) else { return }
            self.dropFirst(of: victim, table)
            self.counts.queueFull &+= 1
        }
    }

    /// The packet to send next; its ownership goes to the caller.
    ///
    /// - Parameter react: Called for a packet that calls for a congestion signal. It borrows the packet and may change its
    ///   bytes and cut its end.
    @inline(__always)
    package mutating func dequeue(now: UInt64, react: (PacketRef) -> Reaction) -> PacketRef? {
        guard self.packetCount > 0, let table = self.table else { return nil }
        while let number = self.nextFlow(table) {
            if let packet = self.dequeue(from: number, table, now: now, react: react) { return packet }
        }
        return nil
    }

    /// Drops what waited since before `time`, for instance while a dial went on and on.
    package mutating func dropEnqueued(before time: UInt64) {
        guard self.packetCount > 0, let table = self.table else { return }
        for number in 0..<Self.flowCount {
            while let first = table[number].packets.first, first.enqueuedAt < time {
                self.dropFirst(of: number, table)
                self.counts.expired &+= 1
            }
        }
    }

    /// The packets dropped since the last call, for the pool.
    package mutating func takeDropped() -> PacketList {
        let list = self.dropped
        self.dropped = PacketList()
        return list
    }

    /// All packets, waiting and dropped, for the pool. Counts nothing.
    package mutating func removeAll() -> PacketList {
        var list = self.takeDropped()
        if let table = self.table {
            for number in 0..<Self.flowCount { list.append(contentsOf: &table[number].packets) }
            table.update(repeating: Flow(), count: Self.flowCount)
        }
        self.newFlows = FlowList()
        self.oldFlows = FlowList()
        self.byteCount = 0
        self.packetCount = 0
        self.becameEmpty()
        return list
    }

    /// Gives the table back when the queue is empty and was not used since the last call. To be called now and then, say every 10 s.
    package mutating func trim() {
        if self.packetCount == 0, !self.usedSinceTrim {
            self.table?.deallocate()
            self.table = nil
            self.newFlows = FlowList()
            self.oldFlows = FlowList()
        }
        self.usedSinceTrim = false
    }

    // MARK: Scheduling

    /// The flow whose turn it is, or `nil` when none has a packet: new flows first, each for one quantum, then the others in turn.
    @inline(__always)
    private mutating func nextFlow(_ table: UnsafeMutablePointer<Flow>) -> Int? {
        while true {
            let isNew = self.newFlows.head != Self.none
            let number = Int(isNew ? self.newFlows.head : self.oldFlows.head)
            guard number != Int(Self.none) else { return nil }
            let flow = table + number
            guard let first = flow.pointee.packets.first else {
                if isNew {
                    // It stays listed for one round, or a flow could be new with each of its packets and starve the rest.
                    Self.popFirst(&self.newFlows, table)
                    Self.append(number, to: &self.oldFlows, table)
                } else {
                    Self.popFirst(&self.oldFlows, table)
                    flow.pointee.isListed = false
                }
                continue
            }
            if flow.pointee.deficit >= first.length { return number }
            if !isNew, self.oldFlows.head == self.oldFlows.tail {
                // Alone: all the rounds that it would save for come now.
                flow.pointee.deficit = first.length
                return number
            }
            flow.pointee.deficit &+= self.quantumBytes
            if isNew { Self.popFirst(&self.newFlows, table) } else { Self.popFirst(&self.oldFlows, table) }
            Self.append(number, to: &self.oldFlows, table)
        }
    }

    /// The next packet of a flow that CoDel lets pass; `nil` when it dropped all there were.
    @inline(__always)
    private mutating func dequeue(
        from number: Int, _ table: UnsafeMutablePointer<Flow>, now: UInt64, react: (PacketRef) -> Reaction
    ) -> PacketRef? {
        let flow = table + number
        while let packet = flow.pointee.packets.popFirst() {
            let length = packet.length
            flow.pointee.bytes &-= length
            self.byteCount &-= length
            self.packetCount &-= 1
            let sojourn = now > packet.enqueuedAt ? now &- packet.enqueuedAt : 0
            if flow.pointee.codel.calls(
                sojourn: sojourn, backlog: flow.pointee.bytes, now: now, self.parameters)
            {
                switch react(packet) {
                case .marked:
                    self.counts.marked &+= 1
                case .shortened:
                    self.counts.congestion &+= 1
                case .drop:
                    self.counts.congestion &+= 1
                    self.dropped.append(packet)
                    continue
                }
            }
            // After drops this may be a longer packet than the deficit was checked for: it goes negative, and the flow saves longer.
            flow.pointee.deficit &-= packet.length
            if self.packetCount == 0 { self.becameEmpty() }
            return packet
        }
        if self.packetCount == 0 { self.becameEmpty() }
        return nil
    }

    // MARK: Overflow

    private mutating func dropFirst(of number: Int, _ table: UnsafeMutablePointer<Flow>) {
        guard let packet = table[number].packets.popFirst() else { return }
        table[number].bytes &-= packet.length
        self.byteCount &-= packet.length
        self.packetCount &-= 1
        self.dropped.append(packet)
        if self.packetCount == 0 { self.becameEmpty() }
    }

    private func fattestFlow(_ table: UnsafeMutablePointer<Flow>) -> Int? {
        var fattest: Int?
        var most = -1
        self.forEachListedFlow(table) { number in
            if table[number].bytes > most, !table[number].packets.isEmpty {
                most = table[number].bytes
                fattest = number
            }
        }
        return fattest
    }

    private func oldestFlow(_ table: UnsafeMutablePointer<Flow>) -> Int? {
        var oldest: Int?
        var time = UInt64.max
        self.forEachListedFlow(table) { number in
            if let first = table[number].packets.first, first.enqueuedAt < time || oldest == nil {
                time = first.enqueuedAt
                oldest = number
            }
        }
        return oldest
    }

    @inline(__always)
    private func forEachListedFlow(_ table: UnsafeMutablePointer<Flow>, _ visit: (Int) -> Void) {
        Self.forEach(self.newFlows, table, visit)
        Self.forEach(self.oldFlows, table, visit)
    }

    @inline(__always)
    private static func forEach(_ list: FlowList, _ table: UnsafeMutablePointer<Flow>, _ visit: (Int) -> Void) {
        var number = list.head
        while number != Self.none {
            visit(Int(number))
            number = table[Int(number)].next
        }
    }

    // MARK: Table and lists

    @inline(__always)
    private mutating func flowTable() -> UnsafeMutablePointer<Flow> {
        self.usedSinceTrim = true
        if let table = self.table { return table }
        let table = UnsafeMutablePointer<Flow>.allocate(capacity: Self.flowCount)
        table.initialize(repeating: Flow(), count: Self.flowCount)
        self.table = table
        return table
    }

    @inline(__always)
    private static func append(_ number: Int, to list: inout FlowList, _ table: UnsafeMutablePointer<Flow>) {
        let short = UInt16(truncatingIfNeeded: number)
        table[number].next = Self.none
        if list.tail == Self.none { list.head = short } else { table[Int(list.tail)].next = short }
        list.tail = short
    }

    @inline(__always)
    private static func popFirst(_ list: inout FlowList, _ table: UnsafeMutablePointer<Flow>) {
        guard list.head != Self.none else { return }
        list.head = table[Int(list.head)].next
        if list.head == Self.none { list.tail = Self.none }
    }

    /// The next backlog is judged by its own largest packet.
    private mutating func becameEmpty() {
        guard self.largestPacketBytes > self.quantumBytes else { return }
        self.largestPacketBytes = 0
        self.updateParameters()
    }

    private mutating func updateParameters() {
        self.parameters = CoDelParameters(
            largestPacketBytes: self.largestPacketBytes, drainBytesPerSecond: self.drainBytesPerSecond)
    }
}
