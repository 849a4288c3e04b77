internal import LibP2PConnection
internal import PeerIdentity

extension TLSCredentials {
    /// A fresh certificate for `identity`, and the rules of libp2p for the remote's.
    convenience init(identity: PrivateKey) throws {
        let own = try PeerCertificate.make(identity: identity)
        try self.init(certificate: own.certificate, key: own.privateKey) { chain in
            PeerID(try PeerCertificate.verify(chainDER: chain))
        }
    }
}
