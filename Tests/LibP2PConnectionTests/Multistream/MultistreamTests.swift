import LibP2PCore
import NIOCore
import Testing

@testable import LibP2PConnection

/// Bytes are written out by hand, so that a bug in our encoder cannot hide in our decoder.
enum MultistreamBytes {
    static let header: [UInt8] = [0x13] + Array("/multistream/1.0.0\n".utf8)
    static let noise: [UInt8] = [0x07] + Array("/noise\n".utf8)
    static let tls: [UInt8] = [0x0b] + Array("/tls/1.0.0\n".utf8)
    static let yamux: [UInt8] = [0x0d] + Array("/yamux/1.0.0\n".utf8)
    static let na: [UInt8] = [0x03, 0x6e, 0x61, 0x0a]
    static let ls: [UInt8] = [0x03, 0x6c, 0x73, 0x0a]
}

private typealias Bytes = MultistreamBytes

private func buffer(_ bytes: [UInt8]) -> ByteBuffer { ByteBuffer(bytes: bytes) }

@Suite struct MultistreamTests {
    static let texts: [(String, [UInt8])] = [
        ("/multistream/1.0.0", Bytes.header), ("/noise", Bytes.noise), ("/tls/1.0.0", Bytes.tls), ("na", Bytes.na),
        ("ls", Bytes.ls), ("/yamux/1.0.0", Bytes.yamux),
        ("/ipfs/id/1.0.0", [0x0f] + Array("/ipfs/id/1.0.0\n".utf8)),
        ("/ipfs/ping/1.0.0", [0x11] + Array("/ipfs/ping/1.0.0\n".utf8)),
        ("/libp2p/dcutr", [0x0e] + Array("/libp2p/dcutr\n".utf8)),
        (String(repeating: "x", count: 199), [0xc8, 0x01] + Array(repeating: 0x78, count: 199) + [0x0a]),
    ]

    @Test(arguments: texts)
    func messages(text: String, bytes: [UInt8]) throws {
        var out = ByteBuffer()
        out.writeMultistreamMessage(text)
        #expect(Array(out.readableBytesView) == bytes)
        for cut in 0..<bytes.count {
            var part = buffer(Array(bytes[..<cut]))
            #expect(try part.readMultistreamMessage() == nil)
            #expect(part.readableBytes == cut)
        }
        out.writeInteger(UInt8(0xff))
        #expect(try out.readMultistreamMessage() == text)
        #expect(out.readableBytes == 1)
    }

    static let badMessages: [([UInt8], NegotiationError)] = [
        ([0x00], .malformedMessage),
        ([0x80, 0x00], .malformedMessage),
        ([0x02, 0x61, 0x62], .malformedMessage),
        ([0x03, 0x61, 0x0a, 0x0a], .malformedMessage),
        ([0x03, 0xff, 0xfe, 0x0a], .malformedMessage),
        ([0x81, 0x08], .messageTooLong(bytes: 1025)),
        ([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], .messageTooLong(bytes: .max)),
        ([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], .malformedMessage),
    ]

    @Test(arguments: badMessages)
    func refusesBadMessages(bytes: [UInt8], error: NegotiationError) {
        var part = buffer(bytes)
        #expect(throws: error) { _ = try part.readMultistreamMessage() }
        var dialer = MultistreamDialer(proposing: ["/noise"])
        _ = dialer.start()
        #expect(dialer.receive(buffer(bytes)) == .fail(error))
        var listener = MultistreamListener()
        #expect(listener.receive(buffer(Bytes.header + bytes)) { _ in true } == .fail(error))
    }

    @Test func theLongestMessageIsRead() throws {
        let text = String(repeating: "x", count: 1023)
        var out = ByteBuffer()
        out.writeMultistreamMessage(text)
        #expect(try out.readMultistreamMessage() == text)
    }

    @Test func dialerSurvivesAnySplit() {
        let early: [UInt8] = [0xca, 0xfe]
        let reply = Bytes.header + Bytes.noise + early
        for cut in 0...reply.count {
            var dialer = MultistreamDialer(proposing: ["/noise"])
            #expect(dialer.start() == .send(buffer(Bytes.header + Bytes.noise)))
            let first = dialer.receive(buffer(Array(reply[..<cut])))
            if cut < reply.count - early.count {
                #expect(first == .wait)
                #expect(
                    dialer.receive(buffer(Array(reply[cut...])))
                        == .negotiated("/noise", reply: nil, leftover: buffer(early)))
            } else {
                let leftover = buffer(Array(early.prefix(cut - reply.count + early.count)))
                #expect(first == .negotiated("/noise", reply: nil, leftover: leftover))
            }
        }
    }

    @Test func listenerSurvivesAnySplit() {
        let early: [UInt8] = [0xca, 0xfe]
        let request = Bytes.header + Bytes.tls + Bytes.ls + Bytes.noise + early
        for cut in 0...(request.count - early.count) {
            var listener = MultistreamListener(listed: ["/noise"])
            #expect(listener.start() == buffer(Bytes.header))
            var sent: [UInt8] = []
            var agreed = 0
            for part in [request[..<cut], request[cut...]] where !part.isEmpty {
                switch listener.receive(buffer(Array(part)), accepts: { $0 == "/noise" }) {
                case .wait: break
                case .send(let bytes): sent += bytes.readableBytesView
                case .negotiated(let id, let reply, let leftover):
                    agreed += 1
                    sent += reply?.readableBytesView ?? ByteBufferView()
                    #expect(id == "/noise")
                    // The early bytes are in the second part unless that is all there is of it.
                    #expect(leftover == buffer(cut == request.count - early.count ? [] : early))
                case .fail(let error): Issue.record(error)
                }
                if agreed > 0 { break }
            }
            #expect(agreed == 1)
            #expect(sent == Bytes.na + [0x09] + Bytes.noise + [0x0a] + Bytes.noise)
        }
    }

    @Test func dialerProposesInOrder() {
        var dialer = MultistreamDialer(proposing: ["/tls/1.0.0", "/noise", "/x"])
        #expect(dialer.start() == .send(buffer(Bytes.header + Bytes.tls)))
        #expect(dialer.receive(buffer(Bytes.header + Bytes.na)) == .send(buffer(Bytes.noise)))
        var other = dialer
        #expect(dialer.receive(buffer(Bytes.noise)) == .negotiated("/noise", reply: nil, leftover: ByteBuffer()))
        #expect(other.receive(buffer(Bytes.na)) == .send(buffer([0x03, 0x2f, 0x78, 0x0a])))
        #expect(other.receive(buffer(Bytes.na)) == .fail(.unsupported(["/tls/1.0.0", "/noise", "/x"])))
        #expect(other.receive(buffer(Bytes.noise)) == .fail(.unexpectedReply("/noise")))
        #expect(other.inputEnded() == .streamEnded)
    }

    static let badReplies: [([ProtocolID], [UInt8], NegotiationError)] = [
        (["/noise"], Bytes.noise, .unexpectedHeader("/noise")),
        (["/noise"], Bytes.header + Bytes.tls, .unexpectedReply("/tls/1.0.0")),
        (["/noise"], Bytes.header + Bytes.header, .unexpectedReply("/multistream/1.0.0")),
        (["/noise"], Bytes.header + Bytes.na, .unsupported(["/noise"])),
        (["/noise", "/tls/1.0.0"], Bytes.header + Bytes.tls, .unexpectedReply("/tls/1.0.0")),
        (["/noise", "/tls/1.0.0"], Bytes.header + Bytes.na + Bytes.tls, .unexpectedReply("na")),
    ]

    @Test(arguments: badReplies)
    func dialerRefuses(proposals: [ProtocolID], reply: [UInt8], error: NegotiationError) {
        var dialer = MultistreamDialer(proposing: proposals)
        _ = dialer.start()
        #expect(dialer.receive(buffer(reply)) == .fail(error))
    }

    @Test func dialerChecksItsProposals() {
        var none = MultistreamDialer(proposing: [])
        #expect(none.start() == .fail(.noProtocolsProposed))
        var long = MultistreamDialer(proposing: ["/x", ProtocolID(rawValue: String(repeating: "x", count: 1024))])
        #expect(long.start() == .fail(.messageTooLong(bytes: 1025)))
    }

    static let badRequests: [([UInt8], NegotiationError)] = [
        (Bytes.noise, .unexpectedHeader("/noise")),
        (Bytes.header + Array(repeating: Bytes.tls, count: 33).joined(), .tooManyProposals),
        (Bytes.header + Array(repeating: Bytes.ls, count: 33).joined(), .tooManyProposals),
    ]

    @Test(arguments: badRequests)
    func listenerRefuses(request: [UInt8], error: NegotiationError) {
        var listener = MultistreamListener()
        #expect(listener.receive(buffer(request)) { $0 == "/noise" } == .fail(error))
    }

    @Test func listenerTakesTheLastProposalItMay() {
        var listener = MultistreamListener()
        let request = Bytes.header + Array(repeating: Bytes.tls, count: 31).joined() + Bytes.noise
        let reply = Array(repeating: Bytes.na, count: 31).joined() + Bytes.noise
        #expect(
            listener.receive(buffer(request)) { $0 == "/noise" }
                == .negotiated("/noise", reply: buffer(Array(reply)), leftover: ByteBuffer()))
        #expect(listener.receive(buffer(Bytes.tls)) { _ in true } == .fail(.unexpectedReply("/tls/1.0.0")))
    }

    @Test func listenerTellsWhatADialerWanted() {
        var listener = MultistreamListener()
        #expect(listener.receive(buffer(Bytes.header + Bytes.tls)) { _ in false } == .send(buffer(Bytes.na)))
        #expect(listener.inputEnded() == .unsupported(["/tls/1.0.0"]))
        var silent = MultistreamListener()
        #expect(silent.inputEnded() == .streamEnded)
    }

    @Test func aListIsOneMessage() throws {
        let listed = (0..<200).map { ProtocolID(rawValue: "/protocol/\($0)") }
        var listener = MultistreamListener(listed: listed)
        guard case .send(var answer) = listener.receive(buffer(Bytes.header + Bytes.ls), accepts: { _ in true }) else {
            Issue.record("no answer")
            return
        }
        #expect(answer.getInteger(at: 0, as: UInt8.self) ?? 0 >= 0x80)
        let length =
            Int(answer.readInteger(as: UInt8.self) ?? 0) & 0x7f | Int(answer.readInteger(as: UInt8.self) ?? 0) << 7
        #expect(length == answer.readableBytes)
        #expect(length <= Multistream.maximumMessageBytes)
        var names: [ProtocolID] = []
        while answer.readableBytes > 1 {
            names.append(ProtocolID(rawValue: try #require(try answer.readMultistreamMessage())))
        }
        #expect(answer.readInteger(as: UInt8.self) == 0x0a)
        #expect(names == Array(listed.prefix(names.count)))
        #expect(names.count > 50)
    }

    /// Damaged input has the same outcome in one piece and byte by byte, and never traps.
    @Test func randomInput() {
        var random = SplitMix(seed: 1)
        let words = [Bytes.header, Bytes.noise, Bytes.tls, Bytes.na, Bytes.ls, [0x00], [0xff, 0x7f]]
        for _ in 0..<1000 {
            var input: [UInt8] = random.next() % 4 == 0 ? [] : Bytes.header
            for _ in 0..<Int(random.next() % 5) { input += words[Int(random.next() % 7)] }
            if !input.isEmpty, random.next() % 2 == 0 {
                input[Int(random.next() % UInt64(input.count))] = UInt8(truncatingIfNeeded: random.next())
            }
            #expect(Self.listen(input, chunk: .max) == Self.listen(input, chunk: 1))
            #expect(Self.dial(input, chunk: .max) == Self.dial(input, chunk: 1))
        }
    }

    private static func listen(_ input: [UInt8], chunk: Int) -> NegotiationAction {
        var machine = MultistreamListener(listed: ["/noise"])
        return self.outcome(input, chunk: chunk) { machine.receive($0) { $0 == "/noise" } }
    }

    private static func dial(_ input: [UInt8], chunk: Int) -> NegotiationAction {
        var machine = MultistreamDialer(proposing: ["/noise"])
        _ = machine.start()
        return self.outcome(input, chunk: chunk) { machine.receive($0) }
    }

    /// The final action, with all that was sent as its reply and all that is unread as its leftover.
    private static func outcome(
        _ input: [UInt8], chunk: Int, receive: (ByteBuffer) -> NegotiationAction
    ) -> NegotiationAction {
        var rest = buffer(input)
        var sent = ByteBuffer()
        while let part = rest.readSlice(length: min(chunk, rest.readableBytes)), part.readableBytes > 0 {
            switch receive(part) {
            case .wait: break
            case .send(let bytes): sent.writeImmutableBuffer(bytes)
            case .negotiated(let id, let reply, var leftover):
                leftover.writeImmutableBuffer(rest)
                sent.writeImmutableBuffer(reply ?? ByteBuffer())
                return .negotiated(id, reply: sent, leftover: leftover)
            case .fail(let error): return .fail(error)
            }
        }
        return .send(sent)
    }
}

/// Small, fast, and the same on every run.
struct SplitMix: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { self.state = seed }

    mutating func next() -> UInt64 {
        self.state &+= 0x9e37_79b9_7f4a_7c15
        var z = self.state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}
