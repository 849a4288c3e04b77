internal import LibP2PCore
package import Multiformats
package import NIOCore

/// Decides in which order, and how long after one another, the addresses of a peer are dialled. Pure.
///
/// 1. Addresses fall in three groups: private (loopback, RFC 1918, link-local, unique local), public, relayed.
/// 2. Private and public start together; a relayed address starts 500 ms later when there is a public one.
/// 3. Within a group the families take turns, IPv6 first, one address per step. A step is 250 ms, 30 ms for private addresses.
/// 4. Within a family the lower port goes first: ephemeral ports are often stale observations.
/// 5. An address is dialled once, however often it is listed.
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

    package static let publicStep = TimeAmount.milliseconds(250)
    package static let privateStep = TimeAmount.milliseconds(30)
    package static let relayDelay = TimeAmount.milliseconds(500)

    /// The order of dials for `addresses`, earliest first.
    package static func plan(_ addresses: [Multiaddr]) -> [Step] {
        var seen = Set<Multiaddr>()
        let unique = addresses.filter { seen.insert($0).inserted }.prefix(Self.maximumAddresses)
        let relayed = unique.filter(\.isRelayed)
        let direct = unique.filter { !$0.isRelayed }
        let privates = direct.filter { $0.ipAddress?.isPrivate ?? false }
        let publics = direct.filter { !($0.ipAddress?.isPrivate ?? false) }
        var steps = self.stagger(privates, step: Self.privateStep) + self.stagger(publics, step: Self.publicStep)
        let head = publics.isEmpty ? TimeAmount.zero : Self.relayDelay
        steps += self.stagger(relayed, step: Self.publicStep).map { Step($0.address, after: $0.delay + head) }
        return steps.enumerated().sorted { ($0.element.delay, $0.offset) < ($1.element.delay, $1.offset) }.map(
            \.element)
    }

    private static func stagger(_ addresses: [Multiaddr], step: TimeAmount) -> [Step] {
        let byPort = addresses.enumerated().sorted { ($0.element.port, $0.offset) < ($1.element.port, $1.offset) }
            .map(\.element)
        let first = byPort.filter { $0.ipAddress?.family == .ipv6 }
        let second = byPort.filter { $0.ipAddress?.family != .ipv6 }
        let inTurns = (0..<max(first.count, second.count)).flatMap {
            Array(first.dropFirst($0).prefix(1) + second.dropFirst($0).prefix(1))
        }
        return inTurns.enumerated().map { Step($1, after: step * $0) }
    }
}

extension Multiaddr {
    fileprivate var port: UInt16 { self.tcpPort ?? self.udpPort ?? 0 }

    package var isRelayed: Bool { self.contains(.p2pCircuit) }
}
