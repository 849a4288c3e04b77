import LibP2P
import NIOCore
import TestKit
import Testing

@testable import LibP2PProtocols

@Suite(.timeLimit(.minutes(1))) struct IdentifyServiceTests {
    let network = TestNetwork()

    /// A host that answers the question with what the test says.
    func answering(_ answer: @escaping @Sendable (any LibP2PCore.Stream) -> Void) async throws -> Host {
        let host = try await self.network.host()
        host.accept(IdentifyService.protocolID) { stream in
            stream.receiver = RecordingReceiver()
            answer(stream)
        }
        return host
    }

    static func write(_ messages: [[UInt8]], to stream: any LibP2PCore.Stream, end: Bool = true) {
        for message in messages {
            var bytes = ByteBuffer()
            bytes.writeLengthPrefixed(message)
            stream.write(bytes)
        }
        stream.flush()
        if end { stream.closeWrite() }
    }

    /// What becomes of asking such a host.
    func ask(_ host: Host) async throws -> Result<IdentifyInfo, any Error> {
        let asker = try await self.network.host()
        let connection = try await asker.connect(to: host.peerID, at: host.addresses)
        do { return .success(try await asker.identify.info(of: connection)) } catch { return .failure(error) }
    }

    // MARK: Asking and answering

    @Test func bothLearnAllOfEachOther() async throws {
        let a = try await self.network.host {
            $0.agentVersion = "one/1"
            $0.protocolVersion = "test/1"
        }
        let b = try await self.network.host()
        a.accept("/a") { $0.reset(.unspecified) }
        let learnt = Journal<(PeerID, IdentifyInfo)>()
        for host in [a, b] { host.identify.observe { learnt.write(($0.remotePeer, $1)) } }
        let events = b.swarm.journal()
        let outbound = try await a.connect(to: b.peerID, at: b.addresses)
        let inbound = await events.first { $0.connection }
        await learnt.wait(forCount: 2)

        let ofB = try await a.identify.info(of: outbound)
        let ofA = try await b.identify.info(of: inbound)
        #expect(ofA.agentVersion == "one/1" && ofA.protocolVersion == "test/1")
        #expect(ofB.agentVersion == "warren" && ofB.protocolVersion == "ipfs/0.1.0")
        #expect(ofA.protocols == ["/a", "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0"])
        #expect(ofB.protocols == ["/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0"])
        #expect(ofA.listenAddresses == a.addresses && ofB.listenAddresses == b.addresses)
        #expect(ofA.observedAddress == b.addresses.first)
        #expect(ofB.observedAddress == outbound.localAddress)
        for (host, info) in [(a, ofA), (b, ofB)] {
            #expect(info.publicKey.map { PeerID($0) } == host.peerID)
            let (record, _) = try PeerRecord.open(try #require(info.signedPeerRecord))
            #expect(record.peerID == host.peerID && record.addresses == host.addresses)
        }
        #expect(b.peerStore.addresses(of: a.peerID) == a.addresses)
        #expect(b.peerStore.speaks("/a", a.peerID) && !a.peerStore.speaks("/a", b.peerID))
        #expect(Set(learnt.entries.map(\.0)) == [a.peerID, b.peerID])
        for host in [a, b] { await host.shutDown() }
    }

    @Test func protocolsAreToldToThoseWhoMayUseThem() async throws {
        let (member, stranger, host) = (
            try await self.network.host(), try await self.network.host(), try await self.network.host()
        )
        let calls = Journal<PeerID>()
        host.accept("/secret", from: { $0 == member.peerID }) { stream in
            calls.write(stream.connection?.remotePeer ?? host.peerID)
            stream.reset(.unspecified)
        }
        for (asker, mayUse) in [(member, true), (stranger, false)] {
            let connection = try await asker.connect(to: host.peerID, at: host.addresses)
            let info = try await asker.identify.info(of: connection)
            #expect(info.protocols.contains("/secret") == mayUse)
            let stream = try await connection.openStream(["/secret"]).get().record()
            let error = await stream.closed()
            #expect((error as? NegotiationError == .unsupported(["/secret"])) == !mayUse)
        }
        #expect(calls.entries == [member.peerID])
        for host in [member, stranger, host] { await host.shutDown() }
    }

    @Test func severalMessagesMakeOneAnswer() async throws {
        let host = try await self.answering { stream in
            var (first, second) = (IdentifyInfo(), IdentifyInfo())
            first.agentVersion = "one"
            first.protocols = ["/a"]
            second.agentVersion = "two"
            second.protocols = ["/b"]
            Self.write(((try? first.encoded()) ?? []) + ((try? second.encoded()) ?? []), to: stream)
        }
        let info = try await self.ask(host).get()
        #expect(info.agentVersion == "two" && info.protocols == ["/a", "/b"])
        await host.shutDown()
    }

    static let broken: [(messages: [[UInt8]], end: Bool, error: any (Error & Equatable & Sendable))] = [
        (Array(repeating: [], count: 11), false, IdentifyError.tooManyMessages),
        ([Array(repeating: 0, count: 8193)], false, StreamReadError.tooLong(limit: 8192)),
        ([[0xff]], true, IdentifyError.malformed),
        ([], true, StreamReadError.ended(afterBytes: 0)),
    ]

    @Test(arguments: broken.indices) func aBrokenAnswerIsAnError(row: Int) async throws {
        let (messages, end, expected) = Self.broken[row]
        let host = try await self.answering { Self.write(messages, to: $0, end: end) }
        let error = try await self.ask(host).failure
        #expect(error.map { "\($0)" } == "\(expected)")
        await host.shutDown()
    }

    @Test func tenMessagesAreTaken() async throws {
        let host = try await self.answering { Self.write(Array(repeating: [], count: 10), to: $0) }
        #expect(try await self.ask(host).get() == IdentifyInfo())
        await host.shutDown()
    }

    @Test func anAnswerCutOffInTheMiddleIsAnError() async throws {
        let host = try await self.answering { stream in
            stream.write(ByteBuffer(bytes: [5, 1, 2]))
            stream.flush()
            stream.closeWrite()
        }
        #expect(try await self.ask(host).failure as? StreamReadError == .ended(afterBytes: 3))
        await host.shutDown()
    }

    @Test func aKeyOfSomebodyElseDiscreditsAll() async throws {
        let other = try PrivateKey.generate()
        let host = try await self.answering { stream in
            var info = IdentifyInfo()
            info.publicKey = other.publicKey
            info.protocols = ["/a"]
            info.listenAddresses = [Multiaddr(components: [.memory(99)])]
            Self.write((try? info.encoded()) ?? [], to: stream)
        }
        let asker = try await self.network.host()
        let connection = try await asker.connect(to: host.peerID, at: host.addresses)
        await #expect(throws: IdentifyError.wrongPublicKey) { try await asker.identify.info(of: connection) }
        #expect(!asker.peerStore.speaks("/a", host.peerID))
        #expect(asker.peerStore.addresses(of: host.peerID) == host.addresses, "the address that was dialled")
        for host in [asker, host] { await host.shutDown() }
    }

    @Test func aSilentRemoteTimesOutAndMayBeAskedAnew() async throws {
        let asked = Journal<any LibP2PCore.Stream>()
        let host = try await self.answering { asked.write($0) }
        let asker = try await self.network.host()
        let connection = try await asker.connect(to: host.peerID, at: host.addresses)
        await asked.wait(forCount: 1)
        let answer = Task { try await asker.identify.info(of: connection) }
        await self.network.advance(by: IdentifyService.timeout)
        await #expect(throws: StreamReadError.timedOut) { try await answer.value }
        let again = Task { try await asker.identify.info(of: connection) }
        let stream = try #require(await asked.wait(forCount: 2).last)
        try await stream.eventLoop.submit { Self.write([[]], to: stream) }.get()
        #expect(try await again.value == IdentifyInfo())
        #expect(asked.entries.count == 2)
        for host in [asker, host] { await host.shutDown() }
    }

    // MARK: Addresses

    struct Row: Sendable, CustomStringConvertible {
        let remote: String?
        let kept: [String]
        var description: String { self.remote ?? "no IP" }
    }

    static let offered = [
        "/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.1/tcp/1", "/ip4/192.0.2.1/tcp/1", "/ip6/::1/tcp/1",
        "/ip6/fd00::1/tcp/1",
        "/ip6/2001:db8::1/tcp/1", "/dns4/example.org/tcp/1", "/ip4/0.0.0.0/tcp/1", "/ip6/::/tcp/1",
        "/ip6/::ffff:127.0.0.1/tcp/1",
    ]
    static let publics = ["/ip4/192.0.2.1/tcp/1", "/ip6/2001:db8::1/tcp/1", "/dns4/example.org/tcp/1"]
    static let nearBy = publics + ["/ip4/192.168.1.1/tcp/1", "/ip6/fd00::1/tcp/1"]
    static let everywhere = nearBy + ["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1", "/ip6/::ffff:127.0.0.1/tcp/1"]

    @Test(arguments: [
        Row(remote: nil, kept: offered), Row(remote: "127.0.0.1", kept: everywhere),
        Row(remote: "::1", kept: everywhere),
        Row(remote: "10.1.1.1", kept: nearBy), Row(remote: "fe80::1", kept: nearBy),
        Row(remote: "198.51.100.1", kept: publics), Row(remote: "2001:db8::9", kept: publics),
    ])
    func keepsAddressesThatMeanSomethingHere(row: Row) throws {
        let addresses = try Self.offered.map { try Multiaddr($0) }
        let kept = IdentifyService.useful(addresses, from: row.remote.flatMap { IPAddress($0) })
        #expect(Set(kept.map(\.description)) == Set(row.kept))
    }

    // MARK: Push

    /// Pushes what the test says from one host to another, and returns when that has been taken in.
    func push(_ info: IdentifyInfo, from sender: Host, to receiver: Host, on connection: any Connection) async throws {
        let learnt = Journal<IdentifyInfo>()
        receiver.identify.observe { _, info in learnt.write(info) }
        let stream = try await connection.openStream([IdentifyService.pushProtocolID]).get()
        let messages = try info.encoded()
        try await stream.eventLoop.submit { Self.write(messages, to: stream) }.get()
        await learnt.wait(forCount: 1)
    }

    func identified() async throws -> ConnectedHosts {
        let hosts = try await self.network.pair()
        _ = try await hosts.dialer.identify.info(of: hosts.outbound)
        _ = try await hosts.listener.identify.info(of: hosts.inbound)
        return hosts
    }

    @Test func aChangeIsPushedBothWays() async throws {
        let hosts = try await self.identified()
        for (teller, hearer) in [(hosts.dialer, hosts.listener), (hosts.listener, hosts.dialer)] {
            let learnt = Journal<IdentifyInfo>()
            hearer.identify.observe { _, info in learnt.write(info) }
            teller.accept("/new") { $0.reset(.unspecified) }
            await teller.identify.push()
            #expect(await learnt.wait(forCount: 1).first?.protocols.contains("/new") == true)
            #expect(hearer.peerStore.speaks("/new", teller.peerID))
        }
        await hosts.shutDown()
    }

    @Test func aPushChangesOnlyWhatItHolds() async throws {
        let hosts = try await self.identified()
        let (sender, receiver) = (hosts.dialer, hosts.listener)
        var info = IdentifyInfo()
        info.listenAddresses = [Multiaddr(components: [.memory(77)])]
        try await self.push(info, from: sender, to: receiver, on: hosts.outbound)
        #expect(receiver.peerStore.speaks("/ipfs/ping/1.0.0", sender.peerID))
        #expect(receiver.peerStore.addresses(of: sender.peerID) == sender.addresses + info.listenAddresses)
        var other = IdentifyInfo()
        other.protocols = ["/only"]
        try await self.push(other, from: sender, to: receiver, on: hosts.outbound)
        #expect(receiver.peerStore.speaks("/only", sender.peerID))
        #expect(!receiver.peerStore.speaks("/ipfs/ping/1.0.0", sender.peerID))
        #expect(receiver.peerStore.addresses(of: sender.peerID) == sender.addresses + info.listenAddresses)
        await hosts.shutDown()
    }

    @Test func aNewerRecordReplacesAnOlderOneOnly() async throws {
        let key = try PrivateKey.generate()
        let sender = try await self.network.host { $0.key = key }
        let receiver = try await self.network.host()
        let connection = try await sender.connect(to: receiver.peerID, at: receiver.addresses)
        let inbound = try #require(await receiver.swarm.connections(to: sender.peerID).first)
        _ = try await receiver.identify.info(of: inbound)
        func record(_ sequence: UInt64, _ number: UInt64, by signer: PrivateKey) throws -> IdentifyInfo {
            let record = PeerRecord(
                peerID: PeerID(signer.publicKey), sequence: sequence,
                addresses: [Multiaddr(components: [.memory(number)])])
            var info = IdentifyInfo()
            info.signedPeerRecord = try record.seal(with: signer).bytes
            return info
        }
        func known() -> [Multiaddr] { receiver.peerStore.addresses(of: sender.peerID) }
        #expect(known() == sender.addresses)
        for (sequence, number, expected) in [(UInt64.max - 1, 50, 50), (5, 51, 50), (.max, 52, 52)]
            as [(UInt64, UInt64, UInt64)]
        {
            try await self.push(try record(sequence, number, by: key), from: sender, to: receiver, on: connection)
            #expect(known() == [Multiaddr(components: [.memory(expected)])])
        }
        // Somebody else's record says nothing of this peer, nor here of its signer.
        let stranger = try PrivateKey.generate()
        try await self.push(try record(.max, 60, by: stranger), from: sender, to: receiver, on: connection)
        #expect(known() == [Multiaddr(components: [.memory(52)])])
        #expect(receiver.peerStore.addresses(of: PeerID(stranger.publicKey)).isEmpty)
        for host in [sender, receiver] { await host.shutDown() }
    }

    @Test func pushesAtOnceAreBounded() async throws {
        let teller = try await self.network.host()
        let held = Journal<any LibP2PCore.Stream>()
        var others: [Host] = []
        for _ in 0..<IdentifyService.maximumConcurrentPushes + 3 {
            let host = try await self.network.host()
            // Takes a push and neither reads nor closes.
            host.accept(IdentifyService.pushProtocolID) { stream in
                stream.receiver = RecordingReceiver()
                held.write(stream)
            }
            let connection = try await teller.connect(to: host.peerID, at: host.addresses)
            _ = try await teller.identify.info(of: connection)
            others.append(host)
        }
        let push = Task { await teller.identify.push() }
        await held.wait(forCount: IdentifyService.maximumConcurrentPushes)
        await self.network.settle()
        #expect(held.entries.count == IdentifyService.maximumConcurrentPushes)
        // One that ends makes room for one.
        try await held.entries[0].onLoop { $0.reset(.unspecified) }
        await held.wait(forCount: IdentifyService.maximumConcurrentPushes + 1)
        await self.network.settle()
        #expect(held.entries.count == IdentifyService.maximumConcurrentPushes + 1)
        // The others are given up in the end.
        await self.network.advance(by: IdentifyService.timeout)
        await held.wait(forCount: IdentifyService.maximumConcurrentPushes + 3)
        await self.network.advance(by: IdentifyService.timeout)
        await push.value
        for host in others + [teller] { await host.shutDown() }
    }

    @Test(arguments: [IdentifyService.protocolID, IdentifyService.pushProtocolID])
    func questionsOfOnePeerAreBounded(protocolID: ProtocolID) async throws {
        let hosts = try await self.identified()
        var receivers: [RecordingReceiver] = []
        for _ in 0...IdentifyService.maximumStreamsPerPeer {
            // Neither read to the end nor closed.
            let stream = try await hosts.outbound.openStream([protocolID]).get()
            receivers.append(try await stream.record())
        }
        let surplus = try #require(receivers.last)
        let error = await surplus.closed() as? StreamResetError
        #expect(error == StreamResetError(code: .resourceLimitExceeded, byRemote: true))
        // Those that hang are given up, and their places are free again.
        await self.network.advance(by: IdentifyService.timeout)
        for receiver in receivers.dropLast() { _ = await receiver.closed() }
        let next = try await hosts.outbound.openStream([protocolID]).get().record()
        await self.network.settle()
        #expect(!next.calls.entries.contains { if case .closed = $0 { true } else { false } })
        await hosts.shutDown()
    }
}

extension Result {
    /// The error, if it is one.
    var failure: Failure? { if case .failure(let error) = self { error } else { nil } }
}
