import LibP2P
import NIOCore
import NIOPosix
import TestKit
import Testing

/// The system's resolver: what `/etc/hosts` and numbers need, and TXT records from a name server of the test's on loopback.
@Suite(.timeLimit(.minutes(2))) struct SystemResolverTests {
    @Test(arguments: [
        ("192.0.2.7", nil, ["192.0.2.7"]), ("192.0.2.7", IPAddress.Family.ipv4, ["192.0.2.7"]),
        ("2001:db8::7", nil, ["2001:db8::7"]), ("2001:db8::7", .ipv6, ["2001:db8::7"]),
    ])
    func numbersStandForThemselves(name: String, family: IPAddress.Family?, addresses: [String]) async throws {
        let found = try await SystemResolver.shared.addresses(of: name, family)
        #expect(found.map(\.description) == addresses)
    }

    @Test func localhostIsThisMachine() async throws {
        #expect(
            try await SystemResolver.shared.addresses(of: "localhost", .ipv4).map(\.description).contains("127.0.0.1"))
    }

    @Test(arguments: ["a\u{0}b", "fe80::1"]) func whatIsNoUsableName(name: String) async {
        await #expect(throws: NameError.notFound) { try await SystemResolver.shared.addresses(of: name, nil) }
    }

    @Test(arguments: [("192.0.2.7", IPAddress.Family.ipv6), ("2001:db8::7", .ipv4)])
    func theOtherFamilyHasNothing(name: String, family: IPAddress.Family) async {
        await #expect(throws: NameError.notFound) { try await SystemResolver.shared.addresses(of: name, family) }
    }

    // MARK: TXT

    /// Strings of one record, each below 256 bytes.
    typealias Record = [String]

    static let long = String(repeating: "x", count: 255)

    /// What the records of a name come to.
    static let table: [(rule: String, answer: NameServer.Answer, texts: [String]?, error: NameError?)] = [
        ("one", .texts([["dnsaddr=/ip4/192.0.2.1/tcp/1"]]), ["dnsaddr=/ip4/192.0.2.1/tcp/1"], nil),
        ("several", .texts([["a"], ["b"], ["c"]]), ["a", "b", "c"], nil),
        ("strings of a record are one text", .texts([[long, long, "end"]]), [long + long + "end"], nil),
        ("an empty one", .texts([[""], ["b"]]), ["", "b"], nil),
        ("what is no UTF-8 is left out", .raw([[2, 0xff, 0xfe], [1, 0x61]]), ["a"], nil),
        ("a string that is longer than its record", .raw([[5, 0x61]]), nil, .malformed),
        ("a record that is longer than the message", .truncated, nil, .malformed),
        ("other records are skipped", .otherTypes(["a"]), ["a"], nil),
        ("no record", .texts([]), nil, .notFound),
        ("no such name", .code(3), nil, .notFound),
        ("the server has failed", .code(2), nil, .noAnswer),
        ("so many at most", .texts((0..<80).map { ["\($0)"] }), (0..<64).map { "\($0)" }, nil),
    ]

    @Test(arguments: table.indices) func readsTextRecords(row: Int) async throws {
        let (rule, answer, texts, error) = Self.table[row]
        let server = try await NameServer(answer)
        let resolver = SystemResolver(nameServer: (IPAddress(ipv4: 0x7f00_0001), server.port))
        do {
            #expect(try await resolver.texts(of: "_dnsaddr.name.example") == texts, "\(rule)")
        } catch let found as NameError {
            #expect(found == error, "\(rule)")
        }
        #expect(Set(server.questions.entries) == ["_dnsaddr.name.example"])
        try await resolver.shutDown()
        try await server.close()
    }

    @Test func whoAsksTheSameSharesTheAnswer() async throws {
        let server = try await NameServer(.texts([["a"]]), isHeld: true)
        let resolver = SystemResolver(nameServer: (IPAddress(ipv4: 0x7f00_0001), server.port))
        let calls = (0..<10).map { _ in Task { try await resolver.texts(of: "name.example") } }
        await server.questions.wait(forCount: 1)
        // Whoever does not wait any more ends at once, without an answer.
        let impatient = Task { try await resolver.texts(of: "name.example") }
        impatient.cancel()
        await #expect(throws: CancellationError.self) { try await impatient.value }
        await server.release()
        for call in calls { #expect(try await call.value == ["a"]) }
        try await resolver.shutDown()
        try await server.close()
    }

    @Test func aHostDialsNamesAndFollowsDnsaddr() async throws {
        let host = try await TCPHostTests.host("/ip4/127.0.0.1/tcp/0")
        let port = try #require(host.addresses.first?.tcpPort)
        let server = try await NameServer(
            .texts([
                ["dnsaddr=/dns4/localhost/tcp/\(port)/p2p/", "\(host.peerID)"], ["dnsaddr=/ip4/192.0.2.1/tcp/1/ws"],
            ]))
        let resolver = SystemResolver(nameServer: (IPAddress(ipv4: 0x7f00_0001), server.port))
        for name in [
            "/dns4/localhost/tcp/\(port)", "/dnsaddr/host.example", "/dnsaddr/host.example/p2p/\(host.peerID)",
        ] {
            let dialler = try await TCPHostTests.host { $0.resolver = resolver }
            let connection = try await dialler.connect(to: host.peerID, at: [try Multiaddr(name)])
            #expect(connection.remoteAddress == host.addresses.first)
            await dialler.shutDown()
        }
        await host.shutDown()
        try await resolver.shutDown()
        try await server.close()
    }
}

/// Answers every question for TXT records alike. On loopback, UDP.
final class NameServer: Sendable {
    enum Answer: Sendable {
        /// Records, each of several strings.
        case texts([[String]])
        /// Records, by their bytes.
        case raw([[UInt8]])
        /// A record whose length leads beyond the end.
        case truncated
        /// An address, an alias, then these.
        case otherTypes([String])
        /// Nothing, and a response code.
        case code(UInt8)
    }

    /// The names that were asked for.
    let questions = Journal<String>()
    let port: UInt16
    private let channel: any Channel
    private let handler: Handler

    /// - Parameter isHeld: The first answer waits for ``release()``.
    init(_ answer: Answer, isHeld: Bool = false) async throws {
        let handler = Handler(answer, questions: self.questions, isHeld: isHeld)
        self.handler = handler
        self.channel = try await DatagramBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(handler) }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        self.port = UInt16(self.channel.localAddress?.port ?? 0)
    }

    func release() async {
        let handler = self.handler
        try? await self.channel.eventLoop.submit { handler.release() }.get()
    }

    func close() async throws { try await self.channel.close() }

    private final class Handler: ChannelInboundHandler, @unchecked Sendable {
        typealias InboundIn = AddressedEnvelope<ByteBuffer>
        typealias OutboundOut = AddressedEnvelope<ByteBuffer>

        private let answer: Answer
        private let questions: Journal<String>
        // The channel's loop only.
        private var isHeld: Bool
        private var held: [(ChannelHandlerContext, AddressedEnvelope<ByteBuffer>)] = []

        init(_ answer: Answer, questions: Journal<String>, isHeld: Bool) {
            self.answer = answer
            self.questions = questions
            self.isHeld = isHeld
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let question = self.unwrapInboundIn(data)
            guard let (name, reply) = self.reply(to: Array(question.data.readableBytesView)) else { return }
            let envelope = AddressedEnvelope(remoteAddress: question.remoteAddress, data: ByteBuffer(bytes: reply))
            if self.isHeld {
                self.held.append((context, envelope))
            } else {
                context.writeAndFlush(self.wrapOutboundOut(envelope), promise: nil)
            }
            self.questions.write(name)
        }

        func release() {
            self.isHeld = false
            for (context, envelope) in self.held { context.writeAndFlush(self.wrapOutboundOut(envelope), promise: nil) }
            self.held = []
        }

        /// The name of the question, and a message with the question's number and text and our answer (RFC 1035, section 4).
        private func reply(to question: [UInt8]) -> (String, [UInt8])? {
            guard question.count > 12 else { return nil }
            var labels: [String] = []
            var at = 12
            while at < question.count, question[at] > 0 {
                let end = at + 1 + Int(question[at])
                guard end < question.count else { return nil }
                labels.append(String(decoding: question[at + 1..<end], as: UTF8.self))
                at = end
            }
            guard at + 5 <= question.count else { return nil }
            let (code, records) = self.records
            var reply = Array(question[0..<2]) + [0x85, 0x80 | code, 0, 1]
            reply += Self.short(records.count) + [0, 0, 0, 0] + question[12..<at + 5]
            for record in records {
                // The name is that of the question.
                reply += [0xc0, 12] + Self.short(record.type) + [0, 1, 0, 0, 0, 60]
                reply += Self.short(record.length ?? record.data.count) + record.data
            }
            return (labels.joined(separator: "."), reply)
        }

        private var records: (code: UInt8, [(type: Int, data: [UInt8], length: Int?)]) {
            func text(_ strings: [String]) -> [UInt8] { strings.flatMap { [UInt8($0.utf8.count)] + Array($0.utf8) } }
            return switch self.answer {
            case .texts(let records): (0, records.map { (16, text($0), nil) })
            case .raw(let records): (0, records.map { (16, $0, nil) })
            case .truncated: (0, [(16, text(["a"]), 500)])
            case .otherTypes(let texts):
                (0, [(1, [192, 0, 2, 1], nil), (5, [1, 0x61, 0], nil)] + texts.map { (16, text([$0]), nil) })
            case .code(let code): (code, [])
            }
        }

        private static func short(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 0xff), UInt8(value & 0xff)] }
    }
}
