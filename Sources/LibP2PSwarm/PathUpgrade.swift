public import LibP2PCore
public import Multiformats
public import NIOCore

/// How good a way to a peer is, by what it is made of. Later cases are better.
public enum PathGrade: Int, Comparable, Hashable, Sendable, CaseIterable {
    /// Through a relay that limits time or data.
    case limitedRelay
    /// Through a relay.
    case relay
    /// Direct, inside another protocol: WebSocket, WebTransport, WebRTC.
    case wrapped
    /// Direct, TCP or whatever else is a plain stream.
    case stream
    /// Direct, QUIC.
    case quic

    /// What a connection at this address would be; a relay is taken for one without limits.
    public init(_ address: Multiaddr) {
        let protocols = Set(address.protocols)
        if protocols.contains(.p2pCircuit) {
            self = .relay
        } else if !protocols.isDisjoint(with: [.ws, .wss, .webtransport, .webrtc, .webrtcDirect]) {
            self = .wrapped
        } else {
            self = protocols.contains(.quicV1) ? .quic : .stream
        }
    }

    /// What this connection is.
    public init(_ connection: any Connection) {
        let details = connection.details
        if details.relay != nil || details.isLimited {
            self = details.isLimited ? .limitedRelay : .relay
        } else {
            self = PathGrade(connection.remoteAddress)
        }
    }

    /// The worse of two.
    public static func < (a: PathGrade, b: PathGrade) -> Bool { a.rawValue < b.rawValue }
}

/// Decides when to look for a better way to a peer that is connected: beside TCP while a QUIC address is known, beside a relay while any
/// direct one is. Pure.
///
/// 1. A way is better when its grade is; addresses that may be dialled say which grades can be had.
/// 2. The first attempt is due 10 s after a better address was first seen beside the connection there is.
/// 3. After an attempt that failed, and after one whose connection was gone within 5 min, the wait doubles from 30 s to 30 min, of which a
///    random half at most is taken off.
/// 4. A better address that was not known at the last attempt, and another network, shorten the wait to the 10 s again.
///
/// One attempt at a time: ``next(connections:addresses:now:)`` starts it, ``ended(succeeded:now:random:)`` ends it.
public struct PathUpgrade: Hashable, Sendable {
    /// From the sight of a better address to the first attempt.
    public static let settlingTime = TimeAmount.seconds(10)
    /// The wait after the first failure.
    public static let firstBackoff = TimeAmount.seconds(30)
    /// The longest wait.
    public static let maximumBackoff = TimeAmount.minutes(30)
    /// A better connection that lives as long has been worth its dial.
    public static let probation = TimeAmount.minutes(5)

    private var isUnderWay = false
    private var dueAt: NIODeadline?
    private var failures = 0
    private var succeededAt: NIODeadline?
    /// The better addresses of the last attempt.
    private var tried: Set<Multiaddr> = []

    /// Nothing tried yet.
    public init() {}

    /// Whether to try now, and the least grade that the new connection must have. To be asked now and then.
    ///
    /// - Parameters:
    ///   - connections: The grades of the connections there are; without any, there is nothing to better.
    ///   - addresses: Known addresses that some transport can dial.
    public mutating func next(connections: [PathGrade], addresses: [Multiaddr], now: NIODeadline) -> PathGrade? {
        guard !self.isUnderWay, let best = connections.max() else { return nil }
        let better = Set(addresses.filter { PathGrade($0) > best })
        guard !better.isEmpty, let least = PathGrade(rawValue: best.rawValue + 1) else {
            if self.failures == 0 { self.dueAt = nil }
            return nil
        }
        if let succeededAt = self.succeededAt {
            // The better connection is gone again.
            self.succeededAt = nil
            if now - succeededAt >= Self.probation { (self.failures, self.dueAt) = (0, nil) }
        }
        let soon = now + Self.settlingTime
        let due = self.dueAt ?? soon
        self.dueAt = better.isSubset(of: self.tried) ? due : min(due, soon)
        guard let dueAt = self.dueAt, now >= dueAt else { return nil }
        self.isUnderWay = true
        self.tried = better
        return least
    }

    /// The attempt is over.
    ///
    /// - Parameter random: A fresh random number: it spreads the attempts of peers that fail at the same time.
    public mutating func ended(succeeded: Bool, now: NIODeadline, random: UInt64) {
        guard self.isUnderWay else { return }
        self.isUnderWay = false
        // A success counts as a failure until it has lasted.
        self.failures = min(self.failures + 1, 16)
        self.succeededAt = succeeded ? now : nil
        let whole = min(Self.firstBackoff * (1 << (self.failures - 1)), Self.maximumBackoff).nanoseconds
        self.dueAt = now + .nanoseconds(whole - Int64(random % UInt64(whole / 2 + 1)))
    }

    /// The machine's links or addresses changed: what failed may work.
    public mutating func networkChanged(now: NIODeadline) {
        self.failures = 0
        self.tried = []
        if let due = self.dueAt { self.dueAt = min(due, now + Self.settlingTime) }
    }
}
