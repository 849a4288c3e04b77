internal import LibP2PCore
package import Multiformats
package import NIOCore

/// Decides in which order, and how long after one another, the addresses of a peer are dialled. Pure.
///
///  1. Addresses fall in three groups: private (loopback, RFC 1918, RFC 6598, link-local, unique local), public, relayed. Private and public
///     start together; relayed addresses start 500 ms later when there is a public one.
///  2. In a group QUIC goes first. The first IPv6 address starts at once, the first IPv4 address one step later, all others another step
///     later; when there is one family only, all others start one step after the first. A step is 250 ms, 30 ms for private addresses.
///  3. WebTransport counts as QUIC and ranks behind it.
///  4. TCP starts one step after the last QUIC address, and goes by the same steps.
///  5. WebSocket counts as TCP and ranks behind it.
///  6. What is neither QUIC nor TCP starts 1 s after the last of them, 100 ms for private addresses.
///  7. Within a kind and family the lower port goes first: high ones are often stale observations.
///  8. Where the peer was reached last starts together with the first of its group.
///  9. Addresses without an IP start 1 s after all that have one, at once when there is none.
/// 10. An address is dialled once, however often it is listed; at most 8 addresses of one host are, and 64 in all.
/// 11. Where TCP is to go first, it and QUIC change places, and no QUIC address starts earlier for having been reached last.
/// 12. For a simultaneous dial, all start at once: order is all that is left of the above.
///
/// The steps are those of RFC 8305 and of go-libp2p's ranker.
package struct DialPlanner: Sendable {
    /// An address and when its dial starts, counted from the start of the whole.
    package struct Step: Hashable, Sendable {
        package var address: Multiaddr
        package var delay: TimeAmount

        package init(_ address: Multiaddr, after delay: TimeAmount) {
            self.address = address
            self.delay = delay
        }
    }

    /// Addresses of one peer that are looked at; more are left out, as they cost the remote network, not the peer.
    package static let maximumAddresses = 64
    /// Addresses with the same IP that are looked at: a peer cannot make us knock at every port of somebody else's machine.
    package static let maximumAddressesPerHost = 8

    package static let publicStep = TimeAmount.milliseconds(250)
    package static let privateStep = TimeAmount.milliseconds(30)
    package static let publicOtherDelay = TimeAmount.seconds(1)
    package static let privateOtherDelay = TimeAmount.milliseconds(100)
    package static let relayDelay = TimeAmount.milliseconds(500)

    /// The order of dials for `addresses`, earliest first.
    ///
    /// - Parameters:
    ///   - addresses: Where bounds or equal ranks leave a choice, the first of them go first.
    ///   - lastGood: Where the peer was reached last, if that is still believed in.
    ///   - isSimultaneous: The peer dials us at this very moment, too.
    ///   - startsWithTCP: TCP before QUIC.
    package static func plan(
        _ addresses: [Multiaddr], lastGood: Multiaddr? = nil, isSimultaneous: Bool = false, startsWithTCP: Bool = false
    ) -> [Step] {
        let lastGood = startsWithTCP && lastGood.map { Kind($0).isQUIC } ?? false ? nil : lastGood
        let candidates = Self.bounded(addresses).map(Candidate.init)
        func stagger(_ group: [Candidate], _ step: TimeAmount, other: TimeAmount) -> [Step] {
            Self.stagger(group, step, other: other, lastGood: lastGood, startsWithTCP: startsWithTCP)
        }
        let relayed = candidates.filter { $0.address.isRelayed }
        let direct = candidates.filter { !$0.address.isRelayed }
        let privates = direct.filter { $0.ip?.isPrivate == true }
        let publics = direct.filter { $0.ip?.isPrivate == false }
        let relayDelay = publics.isEmpty ? TimeAmount.zero : Self.relayDelay

        var steps = stagger(privates, Self.privateStep, other: Self.privateOtherDelay)
        steps += stagger(publics, Self.publicStep, other: Self.publicOtherDelay)
        steps += stagger(relayed, Self.publicStep, other: Self.publicOtherDelay)
            .map { Step($0.address, after: $0.delay + relayDelay) }
        let nameless = direct.filter { $0.ip == nil }
        let end = steps.map(\.delay).max().map { $0 + Self.publicOtherDelay } ?? .zero
        steps += nameless.map { Step($0.address, after: $0.address == lastGood ? .zero : end) }

        let ordered = steps.enumerated().sorted { ($0.element.delay, $0.offset) < ($1.element.delay, $1.offset) }
            .map(\.element)
        return isSimultaneous ? ordered.map { Step($0.address, after: .zero) } : ordered
    }

    private static func bounded(_ addresses: [Multiaddr]) -> [Multiaddr] {
        var seen = Set<Multiaddr>()
        var perHost: [IPAddress: Int] = [:]
        var chosen: [Multiaddr] = []
        for address in addresses.map(\.unmapped) where seen.insert(address).inserted {
            guard chosen.count < Self.maximumAddresses else { break }
            if let ip = address.ipAddress, !address.isRelayed {
                guard perHost[ip, default: 0] < Self.maximumAddressesPerHost else { continue }
                perHost[ip, default: 0] += 1
            }
            chosen.append(address)
        }
        return chosen
    }

    /// One group, from its own beginning.
    private static func stagger(
        _ group: [Candidate], _ step: TimeAmount, other: TimeAmount, lastGood: Multiaddr?, startsWithTCP: Bool
    ) -> [Step] {
        let sorted = group.enumerated().sorted { ($0.element, $0.offset) < ($1.element, $1.offset) }.map(\.element)
        let quic = Self.happyEyeballs(sorted.filter(\.kind.isQUIC), step)
        let tcp = Self.happyEyeballs(sorted.filter(\.kind.isTCP), step)
        let (early, late) = startsWithTCP ? (tcp, quic) : (quic, tcp)
        let lateStart = early.last.map { $0.delay + step } ?? .zero
        let steps = early + late.map { Step($0.address, after: $0.delay + lateStart) }
        let end = steps.last?.delay ?? .zero
        let others = sorted.filter { $0.kind == .other }.map { Step($0.address, after: end + other) }
        return (steps + others).map { $0.address == lastGood ? Step($0.address, after: .zero) : $0 }
    }

    /// IPv6, then IPv4, then the rest together (RFC 8305).
    private static func happyEyeballs(_ sorted: [Candidate], _ step: TimeAmount) -> [Step] {
        var order = sorted
        var isMixed = false
        if order.first?.isIPv4 == false, let index = order.firstIndex(where: \.isIPv4) {
            order.insert(order.remove(at: index), at: 1)
            isMixed = true
        }
        return order.enumerated().map { position, candidate in
            let steps = position < 2 ? position : (isMixed ? 2 : 1)
            return Step(candidate.address, after: step * steps)
        }
    }

    private enum Kind: Int {
        case quic, webTransport, tcp, webSocket, other

        var isQUIC: Bool { self == .quic || self == .webTransport }
        var isTCP: Bool { self == .tcp || self == .webSocket }

        init(_ address: Multiaddr) {
            let protocols = Set(address.protocols)
            if protocols.contains(.webtransport) {
                self = .webTransport
            } else if protocols.contains(.quicV1) {
                self = .quic
            } else if protocols.contains(.tcp) {
                self = protocols.isDisjoint(with: [.ws, .wss]) ? .tcp : .webSocket
            } else {
                self = .other
            }
        }
    }

    /// An address and what its rank depends on, read once.
    private struct Candidate: Comparable {
        let address: Multiaddr
        let ip: IPAddress?
        let kind: Kind
        let isIPv4: Bool
        let port: UInt16

        init(_ address: Multiaddr) {
            self.address = address
            self.ip = address.ipAddress
            self.kind = Kind(address)
            self.isIPv4 = self.ip?.family == .ipv4
            self.port = address.tcpPort ?? address.udpPort ?? 0
        }

        private var rank: (Int, Int, UInt16) { (self.kind.rawValue, self.isIPv4 ? 1 : 0, self.port) }

        static func < (a: Candidate, b: Candidate) -> Bool { a.rank < b.rank }
        static func == (a: Candidate, b: Candidate) -> Bool { a.rank == b.rank }
    }
}
