package import Multiformats

/// The transport a multiaddr is for. The raw value is its name in messages.
package enum AddressKind: String, Hashable, Sendable {
    case tcp
    case quicV1 = "quic-v1"
    case ws
    case wss
    case webTransport = "webtransport"
    case webRTCDirect = "webrtc-direct"
    /// Through a relay: what is before `/p2p-circuit` says how to reach it.
    case relayed = "p2p-circuit"

    /// The transport of `address`, its final `/p2p` not looked at; `nil` for a form that no transport has.
    package init?(_ address: Multiaddr) {
        var protocols = address.removingTrailingP2P().address.protocols[...]
        if protocols.last == .p2pCircuit {
            self = .relayed
            return
        }
        switch protocols.popFirst() {
        case .ip6zone where protocols.first == .ip6: protocols.removeFirst()
        case .ip6 where protocols.first == .ip6zone: protocols.removeFirst()
        case .ip4, .ip6, .dns, .dns4, .dns6: break
        // What a dnsaddr stands for is found out when it is resolved; its own form is as good as TCP's.
        case .dnsaddr where protocols.isEmpty:
            self = .tcp
            return
        default: return nil
        }
        let withoutCertificates = protocols.filter { $0 != .certhash && $0 != .sni }
        switch withoutCertificates {
        case [.tcp]: self = .tcp
        case [.udp, .quicV1]: self = .quicV1
        case [.tcp, .ws]: self = .ws
        case [.tcp, .wss], [.tcp, .tls, .ws]: self = .wss
        case [.udp, .quicV1, .webtransport]: self = .webTransport
        case [.udp, .webrtcDirect]: self = .webRTCDirect
        default: return nil
        }
    }
}
