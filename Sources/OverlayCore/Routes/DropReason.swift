/// Why a packet went no further. The names appear in `warren status --json` and in metrics and never change.
package enum DropReason: UInt8, CaseIterable, Hashable, Sendable, CustomStringConvertible {
    /// No peer and no network of ours has the destination.
    case noRoute
    /// The sender belongs to none of our networks.
    case stranger
    /// The source address is not one that the authenticated peer may use.
    case wrongSource
    /// The destination is neither ours nor in a prefix that we announce.
    case wrongDestination
    /// The packet or its offload claim does not parse.
    case malformed
    /// The peer's queue, or the TUN's, had no room.
    case queueFull
    /// The queue stood too long; dropped to tell the flow.
    case congestion
    /// Waited too long for a connection or in front of a datagram lane.
    case expired
    /// Longer than the path carries.
    case tooBig
    /// No address of the peer answers.
    case unreachable
    /// The packet would leave through the tunnel it came from, or is one of our own.
    case loop
    /// No memory for packets was left.
    case exhausted
    /// Lost with a path that died.
    case pathLost
    /// The network is down.
    case networkDown

    /// The stable name.
    package var name: String {
        switch self {
        case .noRoute: "noRoute"
        case .stranger: "stranger"
        case .wrongSource: "wrongSource"
        case .wrongDestination: "wrongDestination"
        case .malformed: "malformed"
        case .queueFull: "queueFull"
        case .congestion: "congestion"
        case .expired: "expired"
        case .tooBig: "tooBig"
        case .unreachable: "unreachable"
        case .loop: "loop"
        case .exhausted: "exhausted"
        case .pathLost: "pathLost"
        case .networkDown: "networkDown"
        }
    }

    package var description: String { self.name }
}

/// A counter for each ``DropReason``, in place. Each thread has its own; readers add them up.
package struct DropCounters: Equatable, Sendable {
    private static let capacity = 16
    private var values = InlineArray<16, UInt64>(repeating: 0)

    package init() {}

    /// Packets dropped for `reason`.
    @inline(__always)
    package subscript(reason: DropReason) -> UInt64 {
        get { self.values[Int(reason.rawValue) & (Self.capacity - 1)] }
        set { self.values[Int(reason.rawValue) & (Self.capacity - 1)] = newValue }
    }

    /// Counts `packets` more.
    @inline(__always)
    package mutating func count(_ reason: DropReason, packets: UInt64 = 1) { self[reason] &+= packets }

    /// Adds another thread's counters.
    package static func += (sum: inout DropCounters, other: DropCounters) {
        for reason in DropReason.allCases { sum[reason] &+= other[reason] }
    }

    /// All packets dropped.
    package var total: UInt64 { DropReason.allCases.reduce(0) { $0 &+ self[$1] } }

    /// Every reason by name, zeroes too.
    package var byName: [String: UInt64] {
        Dictionary(uniqueKeysWithValues: DropReason.allCases.map { ($0.name, self[$0]) })
    }

    package static func == (a: DropCounters, b: DropCounters) -> Bool {
        DropReason.allCases.allSatisfy { a[$0] == b[$0] }
    }
}
