/// A peer's place in the daemon's table of peers. Packets and routes carry it instead of the peer ID.
package struct PeerIndex: RawRepresentable, Hashable, Sendable {
    /// The largest index that a ``RouteTable`` can hold.
    package static let maximumRawValue: UInt32 = 0xffff_fffd

    package let rawValue: UInt32

    @inline(__always)
    package init(rawValue: UInt32) { self.rawValue = rawValue }
}
