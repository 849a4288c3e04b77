package import Multiformats

/// The check of the prefixes that members put behind themselves, before they become routes.
package enum RoutePlan {
    /// A prefix behind a member.
    package struct Claim: Hashable, Sendable {
        /// The network in this machine's configuration.
        package let network: String
        /// The member's name in it.
        package let member: String
        package let prefix: IPPrefix

        package init(network: String, member: String, prefix: IPPrefix) {
            self.network = network
            self.member = member
            self.prefix = prefix
        }
    }

    /// A prefix that an interface of the machine is connected to.
    package struct ConnectedPrefix: Hashable, Sendable {
        package let interface: String
        package let prefix: IPPrefix

        package init(interface: String, prefix: IPPrefix) {
            self.interface = interface
            self.prefix = prefix
        }
    }

    /// Why a prefix is refused.
    package enum Conflict: Hashable, Sendable, CustomStringConvertible {
        /// Two members claim common addresses. A member may claim a prefix within another of its own.
        case members(Claim, Claim)
        /// The prefix overlaps the overlay prefix of one of our networks.
        case overlay(Claim, network: String, IPPrefix)
        /// The prefix is the default route, or half of it.
        case defaultRoute(Claim)
        /// The prefix overlaps one that this machine is connected to.
        case connected(Claim, ConnectedPrefix)
        /// The prefix starts among addresses that never cross machines: loopback, link-local, multicast.
        case notRoutable(Claim)

        package var description: String {
            switch self {
            case .members(let a, let b):
                "route \(a.prefix) of \(a.member) overlaps route \(b.prefix) of \(b.member)"
            case .overlay(let claim, let network, let prefix):
                "route \(claim.prefix) of \(claim.member) overlaps \(prefix), the addresses of network \(network)"
            case .defaultRoute(let claim):
                "route \(claim.prefix) of \(claim.member) takes everything: a default route is not accepted"
            case .connected(let claim, let own):
                "route \(claim.prefix) of \(claim.member) overlaps \(own.prefix), which \(own.interface) is connected to"
            case .notRoutable(let claim):
                "route \(claim.prefix) of \(claim.member) starts among addresses that cannot be routed"
            }
        }
    }

    /// Everything that speaks against `claims`, in their order.
    ///
    /// - Parameters:
    ///   - claims: The prefixes behind all members of all our networks.
    ///   - overlays: The plans of our networks.
    ///   - connected: What the machine's own interfaces are connected to. Claims of this machine itself announce just such
    ///     prefixes and are not to be among `claims` when this is given.
    package static func conflicts(
        _ claims: [Claim], overlays: [AddressPlan], connected: [ConnectedPrefix] = []
    ) -> [Conflict] {
        var found: [Conflict] = []
        for (index, claim) in claims.enumerated() {
            if claim.prefix.length <= 1 {
                found.append(.defaultRoute(claim))
                continue
            }
            if !PacketFilter.isUnicast(claim.prefix.address) { found.append(.notRoutable(claim)) }
            for plan in overlays {
                for prefix in plan.prefixes where prefix.overlaps(claim.prefix) {
                    found.append(.overlay(claim, network: plan.networkName, prefix))
                }
            }
            for own in connected where own.prefix.overlaps(claim.prefix) { found.append(.connected(claim, own)) }
            for earlier in claims[..<index] where earlier.prefix.length > 1 && earlier.prefix.overlaps(claim.prefix) {
                let isSameMember = earlier.network == claim.network && earlier.member == claim.member
                if !isSameMember { found.append(.members(earlier, claim)) }
            }
        }
        return found
    }
}
