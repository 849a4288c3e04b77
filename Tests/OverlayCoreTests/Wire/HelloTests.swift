import SwiftProtobuf
import Testing

@testable import OverlayCore

@Suite struct HelloTests {
    static let networkID = NetworkID(bytes: Array(0..<32)) ?? NetworkID(staticName: "", secret: nil)
    static let hello = Hello(
        networkID: networkID, instance: 0x1122_3344_5566_7788, epoch: 7,
        capabilities: [.tso4, .tso6, .checksumPending],
        innerMTU: 1280)
    /// The same hello, encoded by `protoc --encode=warren.Greeting`, behind its length.
    static let helloBytes = hex(
        """
        38 0a36
          0a20 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
          11 8877665544332211  18 07  20 c08004  28 0b  30 800a
        """)
    /// `refuse { code: REFUSE_CODE_UNKNOWN_NETWORK_OR_MEMBER }`, likewise.
    static let refuseBytes = hex("04 1202 0801")

    static let answer = Hello(
        networkID: networkID, instance: 99, epoch: 7, maximumBodyBytes: 2000,
        capabilities: [.tso6, .uso, Capabilities(rawValue: 1 << 50)], innerMTU: 1280)
    static let agreed = Agreement(opener: hello, acceptor: answer, remoteInstance: 99)

    static func opener() -> HelloOpener {
        var opener = HelloOpener(hello)
        _ = opener.start()
        return opener
    }

    static func answerBytes() throws -> [UInt8] { try Greeting.hello(answer).encoded() }

    @Test func writesGoldenBytes() throws {
        var opener = HelloOpener(Self.hello)
        #expect(opener.start() == .send(Self.helloBytes))
        #expect(try Greeting.refuse(.unknownNetworkOrMember).encoded() == Self.refuseBytes)
    }

    @Test func agreesOnTheSmallerOfBoth() throws {
        #expect(Self.agreed.packetBodyLimit == 2000)
        #expect(Self.agreed.capabilities == .tso6)
        #expect(Self.agreed.epoch == 7)
        var opener = Self.opener()
        let early: [UInt8] = [3, 0, 0]
        #expect(opener.receive(try Self.answerBytes() + early) == .open(Self.agreed, leftover: early))

        var acceptor = HelloAcceptor()
        #expect(acceptor.receive(Self.helloBytes + early) == .decide(Self.hello, leftover: early))
        let agreement = Agreement(opener: Self.hello, acceptor: Self.answer, remoteInstance: Self.hello.instance)
        #expect(acceptor.accept(Self.answer) == .open(agreement, answer: try Self.answerBytes()))
    }

    @Test func readsAnySplit() throws {
        let answer = try Self.answerBytes()
        for split in 0...answer.count {
            var opener = Self.opener()
            if split < answer.count { #expect(opener.receive(Array(answer[..<split])) == .wait) }
            if split < answer.count {
                #expect(opener.receive(Array(answer[split...])) == .open(Self.agreed, leftover: []))
            }
        }
        for split in 0..<Self.helloBytes.count {
            var acceptor = HelloAcceptor()
            #expect(acceptor.receive(Array(Self.helloBytes[..<split])) == .wait)
            #expect(acceptor.receive(Array(Self.helloBytes[split...])) == .decide(Self.hello, leftover: []))
        }
        for split in 0..<Self.refuseBytes.count {
            var opener = Self.opener()
            #expect(opener.receive(Array(Self.refuseBytes[..<split])) == .wait)
            #expect(opener.receive(Array(Self.refuseBytes[split...])) == .refused(.unknownNetworkOrMember))
        }
    }

    @Test func refuses() {
        var acceptor = HelloAcceptor()
        _ = acceptor.receive(Self.helloBytes)
        #expect(
            acceptor.refuse(.unknownNetworkOrMember)
                == .refuse(answer: Self.refuseBytes, .unknownNetworkOrMember))
        #expect(acceptor.refuse(.malformed) == .fail(.outOfOrder, answer: []))

        var otherMTU = HelloAcceptor()
        _ = otherMTU.receive(Self.helloBytes)
        let ours = Hello(networkID: Self.networkID, instance: 1, epoch: 7, capabilities: [], innerMTU: 1400)
        #expect(otherMTU.accept(ours) == .refuse(answer: hex("04 1202 0805"), .mtuMismatch))

        // A refusal of a newer build keeps its number.
        var opener = Self.opener()
        #expect(opener.receive(hex("05 1203 08c801")) == .refused(RefuseCode(rawValue: 200)))
        #expect(RefuseCode(rawValue: 200).description == "code 200")
        #expect(RefuseCode.mtuMismatch.description == "mtuMismatch")
    }

    private static let id = String(repeating: "ab", count: 32)
    static let malformed: [(String, HelloError)] = [
        ("8120", HelloError.badLength), ("ffffffff7f", .badLength), ("808001", .badLength), ("8000", .badLength),
        ("8080808000", .badLength), ("00", .empty), ("02 0a05", .notProtobuf), ("02 1a00", .empty),
        ("02 0a00", .badNetworkID(bytes: 0)), ("05 0a03 0a01aa", .badNetworkID(bytes: 1)),
        ("24 0a22 0a20\(id)", .badBodyLimit(0)),
        ("27 0a25 0a20\(id) 20ff09", .badBodyLimit(1279)),
        ("28 0a26 0a20\(id) 20c18004", .badBodyLimit(65_601)),
        ("2a 0a28 0a20\(id) 20800a 30ff09", .badMTU(1279)),
        ("2b 0a29 0a20\(id) 20800a 30808004", .badMTU(65_536)),
    ]

    @Test(arguments: malformed)
    func refusesMalformedHellos(bytes: String, expected: HelloError) throws {
        var acceptor = HelloAcceptor()
        #expect(acceptor.receive(hex(bytes)) == .fail(expected, answer: hex("04 1202 0806")))
        #expect(acceptor.receive([]) == .fail(.outOfOrder, answer: []))
        var opener = Self.opener()
        #expect(opener.receive(hex(bytes)) == .fail(expected))
        #expect(!expected.description.isEmpty)
    }

    @Test func refusesIllegalTransitions() throws {
        var unstarted = HelloOpener(Self.hello)
        #expect(unstarted.receive([]) == .fail(.outOfOrder))
        #expect(unstarted.start() == .fail(.outOfOrder))
        var twice = Self.opener()
        #expect(twice.start() == .fail(.outOfOrder))
        var answered = Self.opener()
        _ = answered.receive(Self.refuseBytes)
        #expect(answered.receive(Self.refuseBytes) == .fail(.outOfOrder))

        var early = HelloAcceptor()
        #expect(early.accept(Self.answer) == .fail(.outOfOrder, answer: []))
        var refusedByOpener = HelloAcceptor()
        #expect(refusedByOpener.receive(Self.refuseBytes) == .fail(.outOfOrder, answer: []))
        let other = NetworkID(staticName: "other", secret: nil)
        let elsewhere = Hello(networkID: other, instance: 1, epoch: 1, capabilities: [], innerMTU: 1280)
        var mixedUp = HelloAcceptor()
        _ = mixedUp.receive(Self.helloBytes)
        #expect(mixedUp.accept(elsewhere) == .fail(.otherNetwork(other), answer: []))
        var misled = Self.opener()
        #expect(misled.receive(try Greeting.hello(elsewhere).encoded()) == .fail(.otherNetwork(other)))
        var wrongMTU = Self.opener()
        let large = Hello(networkID: Self.networkID, instance: 1, epoch: 1, capabilities: [], innerMTU: 9000)
        #expect(
            wrongMTU.receive(try Greeting.hello(large).encoded()) == .fail(.mtuMismatch(ours: 1280, theirs: 9000)))
    }

    @Test func clampsOwnNumbers() {
        let hello = Hello(
            networkID: Self.networkID, instance: 0, epoch: 0, maximumBodyBytes: 1 << 30, capabilities: [], innerMTU: 10)
        #expect(hello.maximumBodyBytes == 65_600)
        #expect(hello.innerMTU == 1280)
    }

    @Test func namesEveryCodeOfTheSpecification() {
        let refuse = Warren_RefuseCode.allCases.filter { $0 != .unspecified }
        #expect(Set(refuse.map(\.rawValue)) == Set(RefuseCode.names.keys.map(\.rawValue)))
        let close = Warren_CloseCode.allCases.filter { $0 != .unspecified }
        #expect(Set(close.map(\.rawValue)) == Set(CloseCode.names.keys.map { Int($0.rawValue) }))
        for (code, name) in RefuseCode.names { #expect(code.description == name) }
        for (code, name) in CloseCode.names { #expect(code.description == name) }
        #expect(CloseCode(rawValue: 900).description == "code 900")
    }

    @Test func survivesRandomBytes() {
        var random = SeededGenerator(state: 3)
        var outcomes: Set<String> = []
        for round in 0..<2000 {
            var bytes = Self.helloBytes
            if round % 2 == 0 {
                let at = Int.random(in: 0..<bytes.count, using: &random)
                bytes[at] = UInt8.random(in: 0...255, using: &random)
            } else {
                bytes = random.bytes(Int.random(in: 0..<80, using: &random))
            }
            var acceptor = HelloAcceptor()
            switch acceptor.receive(bytes) {
            case .wait: outcomes.insert("wait")
            case .decide: outcomes.insert("decide")
            case .fail: outcomes.insert("fail")
            case .open, .refuse: Issue.record("answered by itself")
            }
        }
        #expect(outcomes == ["wait", "decide", "fail"])
    }
}
