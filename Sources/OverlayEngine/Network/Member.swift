internal import Multiformats
internal import OverlayCore
internal import PeerIdentity

/// One other machine of a network, as the data path knows it.
struct Member: Sendable {
    /// Its number in this network's route table; never used again while the daemon runs.
    let index: PeerIndex
    let peer: PeerID
    let name: String
    /// Its overlay addresses, IPv4 first.
    let ips: [IPAddress]
    /// Prefixes behind it.
    var routes: [IPPrefix]
    /// Where it may be dialled.
    var addresses: [Multiaddr]
}
