/// A self-describing network address: `/ip4/192.0.2.7/tcp/4117/p2p/12D3Koo…`.
public struct Multiaddr: Hashable, Sendable {
    /// The binary form.
    public let bytes: [UInt8]
}
