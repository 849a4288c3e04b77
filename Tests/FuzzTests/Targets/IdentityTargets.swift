import LibP2PProtocols
import Multiformats
import PeerIdentity

private let author = Result { try PrivateKey(ed25519Seed: [UInt8](repeating: 1, count: 32)) }

extension FuzzTarget {
    /// Only the canonical encoding of a key is one.
    static let publicKey = FuzzTarget(
        name: "public-key", maximumBytes: 2100, seeds: { try Vectors.keys("public") },
        run: { input in
            guard let key = try? PublicKey(encoded: input) else { return }
            try holdEqual(key.encoded, input)
            try holdEqual(try PublicKey(type: key.type, data: key.data), key)
            try hold(PeerID(key).matches(key))
            try hold(!key.isValidSignature(input, for: input))
            let inlined = PeerID(key).publicKey
            try hold(inlined == key || key.encoded.count > PeerID.maximumInlinedKeyBytes)
        })

    /// A private key that is accepted comes back from its own encoding, and belongs to a valid public key.
    static let privateKey = FuzzTarget(
        name: "private-key", maximumBytes: 4096, seeds: { try Vectors.keys("private") },
        run: { input in
            guard let key = try? PrivateKey(encoded: input) else { return }
            let again = try PrivateKey(encoded: key.encoded)
            try hold(again.encoded == key.encoded && again.publicKey == key.publicKey)
            try holdEqual(try PublicKey(encoded: key.publicKey.encoded), key.publicKey)
            guard key.type != .rsa else { return }
            let signature = try key.sign([1, 2, 3])
            try hold(key.publicKey.isValidSignature(signature, for: [1, 2, 3]))
            try hold(!key.publicKey.isValidSignature(signature, for: [1, 2]))
        })

    /// Peer IDs come back from their bytes and from both texts.
    static let peerID = FuzzTarget(
        name: "peer-id", maximumBytes: 256,
        seeds: {
            let keys = try Vectors.libp2p.get()["keys"]["items"].members ?? [:]
            let others = try Vectors.libp2p.get()["peer_id_text"].members ?? [:]
            var texts = others.values.compactMap(\.text)
            var seeds: [[UInt8]] = []
            for key in keys.values {
                texts += try [key["peer_id"].text, key["peer_id_cid_base32"].text].compactMap(\.self)
                seeds.append(try key["peer_id_hex"].bytes)
            }
            return seeds + texts.map { Array($0.utf8) }
        },
        run: { input in
            if let peer = try? PeerID(bytes: input) {
                try holdEqual(peer.bytes, input)
                try checkTexts(of: peer)
            }
            if let text = String(validating: input, as: UTF8.self), let peer = try? PeerID(text) {
                try holdEqual(try PeerID(bytes: peer.bytes), peer)
                try checkTexts(of: peer)
            }
        })

    /// An envelope that opens has a valid signature, so nothing but the bytes around it may differ from what its author sealed.
    static let envelope = FuzzTarget(
        name: "envelope", maximumBytes: 8400,
        seeds: {
            let short = try SignedEnvelope.seal([1], type: [3, 1], domain: "d", with: author.get())
            let long = try SignedEnvelope.seal(
                [UInt8](repeating: 3, count: 60), type: [1], domain: "d", with: author.get())
            return try [short.bytes, long.bytes, record(addresses: 2).seal(with: author.get()).bytes]
        },
        run: { input in
            if let envelope = try? SignedEnvelope.open(input, domain: "d") {
                try holdEqual(envelope.bytes, input)
                try hold(try envelope.publicKey == author.get().publicKey)
                let again = try SignedEnvelope.seal(
                    envelope.payload, type: envelope.payloadType, domain: "d", with: author.get())
                try holdEqual(try SignedEnvelope.open(again.bytes, domain: "d").payload, envelope.payload)
            }
            if let (record, envelope) = try? PeerRecord.open(input) {
                try hold(record.peerID == envelope.signer && input.count <= PeerRecord.maximumEnvelopeBytes)
            }
        })

    /// The record in an envelope whose signature is valid, whatever was signed.
    static let peerRecord = FuzzTarget(
        name: "peer-record", maximumBytes: 7000,
        seeds: { try [0, 1, 5].map { try record(addresses: $0).seal(with: author.get()).payload } },
        run: { input in
            let envelope: SignedEnvelope
            do {
                envelope = try SignedEnvelope.seal(
                    input, type: PeerRecord.payloadType, domain: PeerRecord.domain, with: author.get())
            } catch {
                throw Violation(description: "\(error)")
            }
            try holdEqual(try SignedEnvelope.open(envelope.bytes, domain: PeerRecord.domain), envelope)
            guard let (record, _) = try? PeerRecord.open(envelope.bytes) else { return }
            try holdEqual(record.peerID, envelope.signer)
            try hold(record.addresses.count <= PeerRecord.maximumAddresses)
            // Ours is never longer than what it was read from.
            try holdEqual(try PeerRecord.open(record.seal(with: author.get()).bytes).record, record)
        })

    /// What identify accepts stays within its limits, and comes back from our own encoding.
    static let identify = FuzzTarget(
        name: "identify", maximumBytes: 8192,
        seeds: {
            var info = IdentifyInfo()
            info.publicKey = try author.get().publicKey
            info.listenAddresses = try [Multiaddr("/ip4/192.0.2.7/tcp/4117"), Multiaddr("/ip6/::1/udp/1/quic-v1")]
            info.protocols = ["/ipfs/id/1.0.0", "/ipfs/ping/1.0.0"]
            info.observedAddress = try Multiaddr("/ip4/192.0.2.9/tcp/40000")
            info.protocolVersion = "ipfs/0.1.0"
            info.agentVersion = "warren/0.1.0"
            let plain = try info.encoded()
            info.signedPeerRecord = try record(addresses: 2).seal(with: author.get()).bytes
            let signed = try info.encoded()
            return (plain + signed).flatMap { message in [[0, 0] + message, [60, 0] + message] }
        },
        run: { input in
            var choices = Choices(input)
            let lengths = [Int(choices.byte()) * 16, Int(choices.byte()) * 16]
            let messages = cut(choices.remainder(), lengths: lengths)
            guard let info = try? IdentifyInfo(merging: messages) else { return }
            try hold(info.listenAddresses.count <= IdentifyInfo.maximumAddresses)
            try hold(info.protocols.count <= IdentifyInfo.maximumProtocols)
            for text in info.protocols + [info.protocolVersion, info.agentVersion].compactMap(\.self) {
                try hold(text.utf8.count <= IdentifyInfo.maximumTextBytes)
            }
            try holdEqual(try IdentifyInfo(merging: info.encoded()), info)
        })

    private static func record(addresses count: Int) throws -> PeerRecord {
        let addresses = try (0..<count).map { try Multiaddr("/ip4/192.0.2.\($0)/tcp/4117") }
        return try PeerRecord(peerID: PeerID(author.get().publicKey), sequence: 1 << 60, addresses: addresses)
    }

    private static func checkTexts(of peer: PeerID) throws {
        try holdEqual(try PeerID(peer.description), peer)
        try holdEqual(try PeerID(peer.cidText), peer)
        if let key = peer.publicKey { try hold(peer.matches(key)) }
    }
}
