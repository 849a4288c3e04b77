package import Multiformats
package import PeerIdentity

/// What `/etc/warren/warren.yaml` says, checked and with every default in place.
///
/// A value of this type is consistent in itself: names and IDs are unique, routes lead to one peer each. Whether it fits
/// the machine (ports, connected prefixes) is found out when the daemon applies it.
package struct DaemonConfiguration: Equatable, Sendable {
    /// This machine's name, in every network.
    package var name: String
    /// Where to listen, without the transports this build has not got.
    package var listen: [Multiaddr]
    /// For whom this machine relays.
    package var relay: RelayPolicy
    /// Groups whose members may change things through the socket, besides root.
    package var operators: [String]
    /// The congestion control asked for on TCP sockets.
    package var tcpCongestion: String
    /// What identify says.
    package var protocolVersion: String
    /// The networks, in the order of the file.
    package var networks: [NetworkConfiguration]

    /// For whom a machine relays.
    package enum RelayPolicy: String, CaseIterable, Sendable {
        /// Both ends must be members of one network that this machine is in too.
        case members
        /// Any peer.
        case anyone
        /// Nobody.
        case off
    }
}

/// One network this machine is a member of.
package struct NetworkConfiguration: Equatable, Sendable {
    /// Its name: part of the network ID.
    package var name: String
    /// The TUN interface.
    package var interface: String
    /// The inner MTU, 1280…65,535 bytes.
    package var mtuBytes: Int
    /// Where the members' IPv4 addresses come from.
    package var ipv4Prefix: IPPrefix
    /// Part of the network ID, when there is one.
    package var networkSecret: NetworkSecret?
    /// Managed mode: the announced prefixes that may be used.
    package var acceptRoutes: [IPPrefix]
    /// This machine's own entry in the list of peers, when there is one. Never dialled.
    package var own: PeerConfiguration?
    /// The other machines, in the order of the file.
    package var peers: [PeerConfiguration]
}

/// One machine in the list of a network's peers.
package struct PeerConfiguration: Equatable, Sendable {
    /// Its name in this network.
    package var name: String
    /// Who it is.
    package var id: PeerID
    /// Where to dial it, without the transports this build has not got; discovery finds the rest.
    package var addresses: [Multiaddr]
    /// Its overlay IPv4 address where the configuration settles it.
    package var ipv4: IPAddress?
    /// Prefixes behind it.
    package var routes: [IPPrefix]
}

/// A network's shared secret. It never shows itself in text.
package struct NetworkSecret: Hashable, Sendable, CustomStringConvertible, CustomDebugStringConvertible {
    /// The UTF-8 bytes of the secret.
    package let bytes: [UInt8]

    /// Wraps the secret's text.
    package init(_ text: String) { self.bytes = Array(text.utf8) }

    /// A mask.
    package var description: String { "(secret)" }
    /// A mask.
    package var debugDescription: String { "(secret)" }
}

extension DaemonConfiguration {
    /// The port a machine listens on when the configuration does not say.
    package static let defaultPort: UInt16 = 4117

    /// The default of `listen`, before transports that this build has not got are left out.
    static let defaultListen: [String] = [
        "/ip4/0.0.0.0/tcp/4117", "/ip6/::/tcp/4117", "/ip4/0.0.0.0/udp/4117/quic-v1", "/ip6/::/udp/4117/quic-v1",
    ]

    /// The smallest MTU is IPv6's (RFC 8200 § 5), the largest the longest IPv4 packet.
    static let mtuRange = 1280...65_535
    static let defaultMTUBytes = 1280
    /// Room for at least two members, and no more than a first octet's worth of addresses.
    static let ipv4PrefixLengthRange = 8...30
    /// Shared address space (RFC 6598).
    static let defaultIPv4Prefix = "100.64.0.0/10"

    /// The longest file that is read.
    package static let maximumFileBytes = 1 << 20
    /// Aliases may be nested: with this many a document unfolds to a few hundred times its size at most.
    static let maximumAliases = 16
    static let maximumNetworks = 64
    static let maximumPeersPerNetwork = 4096
    static let maximumRoutesPerPeer = 1024
    static let maximumAddressesPerPeer = 64
    static let maximumListenAddresses = 64
    static let maximumOperators = 64
    static let maximumSecretBytes = 1024
}
