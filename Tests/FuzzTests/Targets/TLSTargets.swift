import FoundationEssentials
import LibP2PCore
import NIOCore
import PeerIdentity
import X509

@testable import LibP2PConnection

private let author = Result { try PrivateKey(ed25519Seed: [UInt8](repeating: 1, count: 32)) }
private let context = Result { try TLSContext(certificate: .make(identity: author.get())) }
/// All vectors that are right are valid then.
private let now = Date(timeIntervalSince1970: 1_800_000_000)

extension FuzzTarget {
    /// What is read of a certificate lies in its bytes; one that is accepted bears no change.
    static let certificate = FuzzTarget(
        name: "certificate", maximumBytes: 8300,
        seeds: {
            let vectors = try Vectors.libp2p.get()
            let items = try ["tls_certificates", "tls_certificates_critical_ext"].flatMap { name in
                try vectors[name]["items"].items
            }
            let keys = try ["certificate_keys", "odd_certificates"].flatMap { try Vectors.tls.get()[$0].items }
            return try (items + keys).map { try $0["der_hex"].bytes }
                + [try PeerCertificate.make(identity: author.get(), now: now).certificate]
        },
        run: { input in
            if let fields = try? CertificateFields(derEncoded: input) {
                try hold(contains(fields.publicKeyInfo, in: input))
                for found in fields.extensions {
                    try hold(contains(Array(found.value), in: input))
                    guard let proof = try? PeerExtension(derEncoded: found.value) else { continue }
                    try holdEqual(try proof.encoded(), Array(found.value))
                }
                try? SelfSignature.verify(input)
            }
            guard let key = try? PeerCertificate.verify(chainDER: [input], now: now) else { return }
            try holdEqual(try PublicKey(encoded: key.encoded), key)
            var changed = input
            changed[input.count / 2] ^= 1
            try hold((try? PeerCertificate.verify(chainDER: [changed], now: now)) == nil)
        })

    /// A handshake with a remote that proves nothing ends in an error, or goes on; it never succeeds, and what it answers is bounded.
    static let tlsHandshake = FuzzTarget(
        name: "tls-handshake", maximumBytes: 20_000,
        seeds: {
            guard case .proceed(let hello?) = try session(.dialer).start(),
                case .proceed(let answer?) = try session(.listener).receive(hello)
            else { throw Violation(description: "no first flight") }
            return [
                [0, 0, 0, 0, 1] + Array(hello.readableBytesView), [0, 0, 0, 0, 0] + Array(answer.readableBytesView),
            ]
        },
        run: { input in
            var choices = Choices(input)
            let lengths = (0..<4).map { _ in Int(choices.byte()) * 8 }
            let session = try session(choices.byte() % 2 == 0 ? .dialer : .listener)
            var step = session.start()
            for piece in cut(choices.remainder(), lengths: lengths) {
                guard case .proceed(let bytes) = step else { break }
                try hold((bytes?.readableBytes ?? 0) < 8192)
                step = session.receive(ByteBuffer(bytes: piece))
            }
            if case .finished = step { throw Violation(description: "nobody has proven anything") }
        })

    private static func session(_ role: Role) throws -> TLSSession {
        try TLSSession(context.get(), role: role, expecting: nil, muxers: ["/yamux/1.0.0"])
    }

    private static func contains(_ part: [UInt8], in whole: [UInt8]) -> Bool {
        part.count <= whole.count
            && (0...whole.count - part.count).contains { whole[$0..<$0 + part.count].elementsEqual(part) }
    }
}
