public import Multiformats

extension Multiaddr {
    /// Who is at this address: the value of `/p2p` where the address ends in it.
    ///
    /// `nil` for a relay's circuit address without a target: `/p2p/<relay>/p2p-circuit` names the relay, not who is behind it.
    public var peerID: PeerID? {
        self.removingTrailingP2P().peer.flatMap { try? PeerID(bytes: $0) }
    }

    /// The address without the `/p2p` at its end, and who that names. Both parts of `/ip4/192.0.2.7/tcp/4117/p2p/12D3Koo…`.
    ///
    /// The whole address and `nil` where it does not end in the `/p2p` of a valid peer ID. The address is empty
    /// (``isEmpty``) where there is nothing but `/p2p`.
    public func splittingPeerID() -> (address: Multiaddr, peerID: PeerID?) {
        let (address, bytes) = self.removingTrailingP2P()
        guard let peerID = bytes.flatMap({ try? PeerID(bytes: $0) }) else { return (self, nil) }
        return (address, peerID)
    }

    /// The address with `/p2p/<peerID>` at its end; unchanged where that is there already, or where the address ends in a path.
    public func appending(_ peerID: PeerID) -> Multiaddr {
        // A peer ID's bytes always are a valid value of `/p2p`.
        guard self.removingTrailingP2P().peer != peerID.bytes,
            let component = try? Component(.p2p, value: peerID.bytes)
        else { return self }
        return self.appending(component)
    }
}
