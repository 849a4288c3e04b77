import COpenSSL
import Foundation
import LibP2PCore
import NIOCore
import PeerIdentity
import SwiftASN1
import Testing
import X509

@testable import LibP2PConnection

/// One side of a handshake, and what came of it.
struct TLSSide {
    enum Outcome {
        case finished(peer: PeerID, muxer: ProtocolID?)
        case failed(any Error)
    }

    let session: TLSSession
    private(set) var outcome: Outcome?
    /// What it has sent and nobody has taken.
    private(set) var flight: [UInt8] = []

    init(_ context: TLSContext, _ role: Role, expecting: PeerID? = nil, muxers: [ProtocolID] = []) throws {
        self.session = try TLSSession(context, role: role, expecting: expecting, muxers: muxers)
        self.take(self.session.start())
    }

    mutating func receive(_ bytes: [UInt8]) {
        guard self.outcome == nil else { return }
        self.take(self.session.receive(ByteBuffer(bytes: bytes)))
    }

    mutating func takeFlight() -> [UInt8] {
        defer { self.flight = [] }
        return self.flight
    }

    private mutating func take(_ step: HandshakeStep) {
        switch step {
        case .proceed(let bytes):
            self.add(bytes)
        case .finished(let peer, let muxer, let reply, _):
            self.add(reply)
            self.outcome = .finished(peer: peer, muxer: muxer)
        case .fail(let error, let alert):
            self.add(alert)
            self.outcome = .failed(error)
        }
    }

    private mutating func add(_ bytes: ByteBuffer?) { self.flight += bytes.map { Array($0.readableBytesView) } ?? [] }

    var peer: PeerID? { if case .finished(let peer, _) = self.outcome { peer } else { nil } }
    var muxer: ProtocolID? { if case .finished(_, let muxer) = self.outcome { muxer } else { nil } }
    func hasFailed<E: Error & Equatable>(with error: E) -> Bool {
        if case .failed(let failure) = self.outcome { failure as? E == error } else { false }
    }
}

/// Carries bytes between two sides until both are silent. `split` cuts each flight.
func shakeHands(
    _ dialer: inout TLSSide, _ listener: inout TLSSide, split: (_ flight: [UInt8]) -> [[UInt8]] = { [$0] }
) {
    while true {
        let (out, back) = (dialer.takeFlight(), listener.takeFlight())
        if out.isEmpty, back.isEmpty { return }
        for piece in split(out) { listener.receive(piece) }
        for piece in split(back) { dialer.receive(piece) }
    }
}

@Suite struct TLSSessionTests {
    let alice: PrivateKey
    let bob: PrivateKey
    let contexts: (alice: TLSContext, bob: TLSContext)

    init() throws {
        self.alice = try PrivateKey.generate()
        self.bob = try PrivateKey.generate()
        self.contexts = (
            try TLSContext(certificate: .make(identity: self.alice)),
            try TLSContext(certificate: .make(identity: self.bob))
        )
    }

    private func context(_ change: (inout ForgedCertificate) throws -> Void) throws -> TLSContext {
        var forged = ForgedCertificate(identity: self.bob)
        let key = P256Key()
        forged.key = key.certificateKey
        try change(&forged)
        return try TLSContext(certificate: PeerCertificate(certificate: forged.der(), privateKey: key.der))
    }

    // MARK: What both agree on

    @Test(arguments: KeyType.allCases)
    func provesBothIdentities(_ type: KeyType) throws {
        let identity = try PrivateKey.generate(type)
        let context = try TLSContext(certificate: .make(identity: identity))
        var dialer = try TLSSide(context, .dialer, expecting: PeerID(self.bob.publicKey))
        var listener = try TLSSide(self.contexts.bob, .listener, expecting: PeerID(identity.publicKey))
        shakeHands(&dialer, &listener)
        #expect(dialer.peer == PeerID(self.bob.publicKey))
        #expect(listener.peer == PeerID(identity.publicKey))
        #expect(dialer.session.remoteKey == self.bob.publicKey && listener.session.remoteKey == identity.publicKey)
    }

    static let agreements: [(dialer: [ProtocolID], listener: [ProtocolID], muxer: ProtocolID?)] = [
        (["/yamux/1.0.0"], ["/yamux/1.0.0"], "/yamux/1.0.0"),
        (["/a", "/b"], ["/b", "/a"], "/a"),
        (["/a", "/b"], ["/b"], "/b"),
        (["/a"], ["/b"], nil),
        ([], ["/b"], nil),
        (["/a"], [], nil),
        ([], [], nil),
        // What does not fit into the list is not offered.
        ([ProtocolID(rawValue: String(repeating: "x", count: 256)), ""], ["/b"], nil),
    ]

    @Test(arguments: agreements)
    func settlesTheMuxer(_ dialers: [ProtocolID], _ listeners: [ProtocolID], _ muxer: ProtocolID?) throws {
        var dialer = try TLSSide(self.contexts.alice, .dialer, muxers: dialers)
        var listener = try TLSSide(self.contexts.bob, .listener, muxers: listeners)
        shakeHands(&dialer, &listener)
        #expect(dialer.peer != nil && listener.peer != nil)
        #expect(dialer.muxer == muxer && listener.muxer == muxer)
    }

    @Test(arguments: [
        (true, true, "AES_128"), (true, false, "CHACHA20"), (false, true, "CHACHA20"), (false, false, "CHACHA20"),
    ])
    func prefersTheCipherThatIsFastOnBothSides(dialer: Bool, listener: Bool, cipher: String) throws {
        func context(_ key: PrivateKey, _ isAESFast: Bool) throws -> TLSContext {
            try TLSContext(
                certificate: .make(identity: key), cipherSuites: TLSContext.cipherSuites(isAESFast: isAESFast))
        }
        var ours = try TLSSide(context(self.alice, dialer), .dialer)
        var theirs = try TLSSide(context(self.bob, listener), .listener)
        shakeHands(&ours, &theirs)
        #expect(ours.session.cipher.contains(cipher) && theirs.session.cipher.contains(cipher))
    }

    @Test func saysNoNameAndGivesNoTickets() throws {
        var dialer = try TLSSide(self.contexts.alice, .dialer)
        var listener = try TLSSide(self.contexts.bob, .listener)
        let hello = dialer.takeFlight()
        let extensions = try Self.extensionTypes(ofClientHello: hello)
        #expect(extensions.contains(16) && extensions.contains(43), "what is there: ALPN, the version")
        #expect(!extensions.contains(0) && !extensions.contains(35) && !extensions.contains(41))
        listener.receive(hello)
        dialer.receive(listener.takeFlight())
        listener.receive(dialer.takeFlight())
        #expect(dialer.peer != nil && listener.peer != nil)
        #expect(listener.takeFlight().isEmpty, "tickets")
    }

    /// Spec: RFC 8446 § 4.1.2.
    private static func extensionTypes(ofClientHello record: [UInt8]) throws -> [UInt16] {
        var rest = ByteBuffer(bytes: record)
        // The record's and the message's header, version and random; then session ID, cipher suites, compression.
        rest.moveReaderIndex(forwardBy: 5 + 4 + 2 + 32)
        let skipped = [
            rest.readLengthPrefixedSlice(as: UInt8.self), rest.readLengthPrefixedSlice(as: UInt16.self),
            rest.readLengthPrefixedSlice(as: UInt8.self),
        ]
        try #require(!skipped.contains(nil))
        let list = rest.readLengthPrefixedSlice(as: UInt16.self)
        var extensions = try #require(list)
        var types: [UInt16] = []
        while let type = extensions.readInteger(as: UInt16.self) {
            types.append(type)
            let value = extensions.readLengthPrefixedSlice(as: UInt16.self)
            try #require(value != nil)
        }
        return types
    }

    // MARK: Bytes

    /// Every flight cut in two at the same place, for every place; and byte by byte.
    @Test func survivesEverySplit() throws {
        var longest = 0
        var cut = 1
        repeat {
            var dialer = try TLSSide(self.contexts.alice, .dialer, muxers: ["/yamux/1.0.0"])
            var listener = try TLSSide(self.contexts.bob, .listener, muxers: ["/yamux/1.0.0"])
            shakeHands(&dialer, &listener) { flight in
                longest = max(longest, flight.count)
                return [Array(flight.prefix(cut)), Array(flight.dropFirst(cut))]
            }
            #expect(dialer.muxer == "/yamux/1.0.0" && listener.muxer == "/yamux/1.0.0", "cut at \(cut)")
            cut += 1
        } while cut < longest
        #expect(longest > 500)
        var dialer = try TLSSide(self.contexts.alice, .dialer)
        var listener = try TLSSide(self.contexts.bob, .listener)
        shakeHands(&dialer, &listener) { $0.map { [$0] } }
        #expect(dialer.peer != nil && listener.peer != nil)
    }

    /// Whatever is damaged, nobody takes the wrong peer for the right one, and the failure has a name.
    @Test(arguments: [Role.dialer, .listener])
    func damageIsNoticed(_ victim: Role) throws {
        var place = 0
        var count = Int.max
        while place < count {
            var dialer = try TLSSide(self.contexts.alice, .dialer)
            var listener = try TLSSide(self.contexts.bob, .listener)
            var hello = dialer.takeFlight()
            if victim == .listener {
                count = hello.count
                hello[place] ^= 0x21
            }
            listener.receive(hello)
            var answer = listener.takeFlight()
            if victim == .dialer, !answer.isEmpty {
                count = answer.count
                // One signature is a byte or two shorter than another.
                guard place < count else { break }
                answer[place] ^= 0x21
            }
            dialer.receive(answer)
            shakeHands(&dialer, &listener)
            // Both derive their keys from every byte of the hellos, so neither can be satisfied.
            #expect(dialer.peer == nil && listener.peer == nil, "byte \(place) was changed, and nobody noticed")
            place += 7
        }
    }

    @Test func aCutHandshakeIsNamed() throws {
        let dialer = try TLSSide(self.contexts.alice, .dialer)
        #expect(dialer.session.inputEnded() as? TLSError == .handshakeCutOff)
        guard case .fail(let error, nil) = dialer.session.receive(ByteBuffer(bytes: [1])) else {
            Issue.record("goes on after its end")
            return
        }
        #expect(error as? TLSError == .engineFailed(reason: "out of turn"))
    }

    @Test(arguments: ["GET / HTTP/1.1\r\n\r\n", "\u{13}/multistream/1.0.0\n", "\0\0\0\0\0\0\0\0\0\0\0\0"])
    func refusesWhatIsNotTLS(_ text: String) throws {
        for role in [Role.dialer, .listener] {
            var side = try TLSSide(self.contexts.bob, role)
            side.receive(Array(text.utf8))
            guard case .failed(let error as TLSError) = side.outcome, case .malformed = error else {
                Issue.record("\(String(describing: side.outcome))")
                return
            }
        }
    }

    /// A handshake message may announce much; no more than a bounded part of it is awaited.
    @Test func boundsWhatItKeeps() throws {
        var listener = try TLSSide(self.contexts.bob, .listener)
        // A client hello of 16 MiB, one full record after another.
        let record = [UInt8]([22, 3, 1, 0x40, 0]) + [1, 0xff, 0xff, 0xff] + [UInt8](repeating: 0, count: 0x4000 - 4)
        var sent = 0
        while listener.outcome == nil, sent < 64 {
            listener.receive(record)
            sent += 1
        }
        #expect(sent <= 9)
        guard case .failed = listener.outcome else {
            Issue.record("still waits")
            return
        }
    }

    // MARK: The wrong ones

    @Test func refusesAnotherPeer() throws {
        let expected = PeerID(self.alice.publicKey)
        var dialer = try TLSSide(self.contexts.alice, .dialer, expecting: expected)
        var listener = try TLSSide(self.contexts.bob, .listener)
        shakeHands(&dialer, &listener)
        let mismatch = TransportError.peerMismatch(expected: expected, found: PeerID(self.bob.publicKey))
        #expect(dialer.hasFailed(with: mismatch))
        #expect(listener.hasFailed(with: TLSError.refused(alert: 42)))

        var other = try TLSSide(self.contexts.alice, .dialer)
        var strict = try TLSSide(self.contexts.bob, .listener, expecting: PeerID(self.bob.publicKey))
        shakeHands(&other, &strict)
        #expect(
            strict.hasFailed(
                with: TransportError.peerMismatch(expected: PeerID(self.bob.publicKey), found: expected)))
        // In TLS 1.3 the client is done before the server has seen who it is.
        #expect(other.peer == PeerID(self.bob.publicKey))
    }

    @Test func refusesBadCertificatesOnBothSides() throws {
        let stranger = try PrivateKey.generate()
        let now = Date()
        let foreignProof = try ForgedCertificate(identity: stranger).rightProof()
        let expired = Date(timeIntervalSince1970: 1_750_000_000)
        let future = Date(timeIntervalSince1970: (now + 1e6).timeIntervalSince1970.rounded())
        let cases: [(PeerCertificateError, (inout ForgedCertificate) throws -> Void)] = [
            (.expired(notAfter: expired), { $0.notAfter = expired }),
            (.notYetValid(notBefore: future), { $0.notBefore = future }),
            (.noPeerExtension, { $0.hasProof = false }),
            (.invalidIdentitySignature, { $0.proof = foreignProof }),
            (.invalidSelfSignature, { $0.issuer = P256Key().certificateKey }),
            (.malformedPeerExtension, { $0.proof = [1, 2, 3] }),
            (
                .unknownCriticalExtension(oid: "1.2.3"),
                { $0.others = [.init(oid: [1, 2, 3], critical: true, value: [5, 0])] }
            ),
        ]
        for (expected, change) in cases {
            let bad = try self.context(change)
            let isExpired = if case .expired = expected { true } else { false }
            var dialer = try TLSSide(self.contexts.alice, .dialer)
            var listener = try TLSSide(bad, .listener)
            shakeHands(&dialer, &listener)
            #expect(dialer.hasFailed(with: TLSError.badCertificate(expected)), "\(String(describing: dialer.outcome))")
            #expect(listener.hasFailed(with: TLSError.refused(alert: isExpired ? 45 : 42)))

            var badDialer = try TLSSide(bad, .dialer)
            var goodListener = try TLSSide(self.contexts.alice, .listener)
            shakeHands(&badDialer, &goodListener)
            #expect(goodListener.hasFailed(with: TLSError.badCertificate(expected)))
        }
    }

    @Test func refusesClientsThatAreNotLibP2P() throws {
        let offers = ["h2", "/yamux/1.0.0x"]
        let cases: [(TLSError, RawTLS.Settings)] = [
            (.wrongVersion, .init(maximumVersion: TLS1_2_VERSION)),
            (.badCertificate(.wrongChainLength(0)), .init()),
            (.noCommonProtocol(ours: ["/yamux/1.0.0", "libp2p"]), .init(protocols: offers)),
            (.noCommonParameters, .init(cipherSuites: "TLS_AES_128_CCM_SHA256")),
            (
                .badCertificate(.wrongChainLength(2)),
                .init(certificate: try .make(identity: self.alice), extraCopies: 1)
            ),
        ]
        for (expected, settings) in cases {
            var listener = try TLSSide(self.contexts.bob, .listener, muxers: ["/yamux/1.0.0"])
            let client = try RawTLS(settings, isServer: false)
            client.shakeHands(with: &listener)
            #expect(listener.hasFailed(with: expected), "\(String(describing: listener.outcome))")
        }
    }

    /// Implementations that name nothing are spoken to as those that name `libp2p` alone.
    @Test func takesClientsWithoutALPN() throws {
        var listener = try TLSSide(self.contexts.bob, .listener, muxers: ["/yamux/1.0.0"])
        let client = try RawTLS(.init(certificate: .make(identity: self.alice)), isServer: false)
        client.shakeHands(with: &listener)
        #expect(listener.peer == PeerID(self.alice.publicKey) && listener.muxer == nil)
    }

    @Test func refusesServersThatAreNotLibP2P() throws {
        let certificate = try PeerCertificate.make(identity: self.bob)
        let cases: [([TLSError], RawTLS.Settings)] = [
            ([.wrongVersion], .init(maximumVersion: TLS1_2_VERSION, certificate: certificate)),
            // Not every OpenSSL looks at what was chosen.
            (
                [.unexpectedProtocol("h2"), .malformed(reason: "bad extension")],
                .init(certificate: certificate, chosen: "h2")
            ),
            ([.badCertificate(.wrongChainLength(3))], .init(certificate: certificate, extraCopies: 2)),
        ]
        for (expected, settings) in cases {
            var dialer = try TLSSide(self.contexts.alice, .dialer, muxers: ["/yamux/1.0.0"])
            let server = try RawTLS(settings, isServer: true)
            server.shakeHands(with: &dialer)
            #expect(
                expected.contains { dialer.hasFailed(with: $0) }, "\(String(describing: dialer.outcome))")
        }
    }

    // MARK: Keys

    /// The sending key changes in time, and nobody above notices.
    @Test func changesItsKeys() throws {
        let dialer = try TLSSession(
            self.contexts.alice, role: .dialer, expecting: nil, muxers: [], recordsPerKey: 2)
        var listener = try TLSSide(self.contexts.bob, .listener)
        var toListener = Array(bytes(of: dialer.start()).readableBytesView)
        while listener.outcome == nil {
            listener.receive(toListener)
            toListener = Array(bytes(of: dialer.receive(ByteBuffer(bytes: listener.takeFlight()))).readableBytesView)
        }
        var (outgoing, plaintext) = (BufferRing(count: 2), BufferRing(count: 2))
        var received: [UInt8] = []
        var sealed = 0
        for round in 0..<9 {
            let text = [UInt8](repeating: UInt8(round), count: 20_000)
            dialer.startSealing([ByteBuffer(bytes: text)])
            while let records = try dialer.sealNext(&outgoing) {
                sealed += records.readableBytes
                let opened = listener.session.open(records, &plaintext)
                #expect(opened.end == nil)
                received += opened.plaintext.readableBytesView
            }
        }
        #expect(received == (0..<9).flatMap { [UInt8](repeating: UInt8($0), count: 20_000) })
        let withoutChanges = 9 * (20_000 + 2 * TLSRecordPacker.overheadBytes)
        #expect(sealed > withoutChanges && (sealed - withoutChanges).isMultiple(of: 27))
    }

    private func bytes(of step: HandshakeStep) -> ByteBuffer {
        switch step {
        case .proceed(let bytes): bytes ?? ByteBuffer()
        case .finished(_, _, let reply, _): reply ?? ByteBuffer()
        case .fail: ByteBuffer()
        }
    }
}
