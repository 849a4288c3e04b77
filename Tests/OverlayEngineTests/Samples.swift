import Multiformats
import OverlayEngine
import PeerIdentity

/// Values the configuration tests share.
enum Samples {
    /// The ID of a machine whose Ed25519 public key is `byte` 32 times.
    static func id(_ byte: UInt8) -> PeerID {
        PeerID(uncheckedBytes: [0x00, 0x24, 0x08, 0x01, 0x12, 0x20] + Array(repeating: byte, count: 32))
    }

    /// The machine with ID 1, in networks whose IPv6 prefix is always the same.
    static let context = DaemonConfiguration.Context(
        ownPeerID: Self.id(1), defaultName: "a", ipv6Prefix: { _, _ in IPPrefix("fd01:203:405::/48") })

    /// What the parser of peer IDs has against `text`.
    static func reasonAgainst(_ text: String) -> String {
        do { return "\(try PeerID(text))" } catch { return "\(error)" }
    }

    /// Parses without mistakes.
    static func parse(_ yaml: String) throws -> DaemonConfiguration.Parsed {
        try DaemonConfiguration.parse(yaml, file: "f.yaml", context: Self.context)
    }

    /// A configuration whose network `home` has these peers, in YAML's flow style.
    static func home(_ peers: String..., network: String = "", rest: String = "") throws -> DaemonConfiguration {
        let list = peers.map { "      - { \($0) }\n" }.joined()
        return try Self.parse("\(rest)\nnetworks:\n  home:\n    \(network)\n    peers:\n\(list)").configuration
    }
}
