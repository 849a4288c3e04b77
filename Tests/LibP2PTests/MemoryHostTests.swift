import Foundation
import LibP2P
import NIOCore
import TestKit
import Testing

/// Whole hosts on a network inside the process, on a clock of the test's.
@Suite(.timeLimit(.minutes(1))) struct MemoryHostTests {
    let network = TestNetwork()

    @Test func opensStreamsToWhoeverListens() async throws {
        let (a, b) = (try await self.network.host(), try await self.network.host())
        b.accept("/echo/1.0.0") { stream in
            stream.receiver = Echo(stream)
            stream.setReading(true)
        }
        let stream = try await a.openStream(to: b.peerID, at: b.addresses, ["/nobody/1.0.0", "/echo/1.0.0"])
        let receiver = try await stream.record()
        try await stream.onLoop {
            $0.write(ByteBuffer(string: "hello"))
            $0.flush()
            $0.closeWrite()
        }
        #expect(await receiver.bytes(atLeast: 5) == Array("hello".utf8))
        #expect(await receiver.closed() == nil)
        #expect(stream.protocolID == "/echo/1.0.0")
        // The connection is there: a second stream takes no second dial, from either side.
        a.accept("/back/1.0.0") { $0.reset(.rateLimited) }
        let back = try await b.openStream(to: a.peerID, ["/back/1.0.0"]).record()
        #expect(
            await back.closed() as? StreamResetError == StreamResetError(code: .rateLimited, byRemote: true))
        #expect(await a.swarm.connections().count == 1)
        for host in [a, b] { await host.shutDown() }
    }

    @Test func handlersAreForThoseWhoAreAdmitted() async throws {
        let (member, stranger) = (try await self.network.host(), try await self.network.host())
        let calls = Journal<PeerID?>()
        let members = Journal<PeerID>()
        members.write(member.peerID)
        let host = try await self.network.host()
        host.accept("/a", from: { members.entries.contains($0) }) { stream in
            calls.write(stream.connection?.remotePeer)
            stream.receiver = RecordingReceiver()
            stream.setReading(true)
            stream.closeWrite()
        }
        for peer in [member, stranger] {
            let stream = try await peer.openStream(to: host.peerID, at: host.addresses, ["/a"])
            let receiver = try await stream.record()
            try await stream.onLoop { $0.closeWrite() }
            #expect((await receiver.closed() == nil) == (peer.peerID == member.peerID))
        }
        #expect(calls.entries == [member.peerID])
        await #expect(throws: NegotiationError.unsupported(["/a", "/b"])) {
            try await stranger.openStream(to: host.peerID, ["/a", "/b"])
        }
        // Admission is asked anew for every stream.
        members.write(stranger.peerID)
        _ = try await stranger.openStream(to: host.peerID, ["/a", "/b"])
        #expect(calls.entries == [member.peerID, stranger.peerID])
        for host in [member, stranger, host] { await host.shutDown() }
    }

    @Test func aStrangerIsClosedBeforeAnyStream() async throws {
        let member = try await self.network.host()
        let host = try await self.network.host { $0.gater = { peer, _, _ in peer == member.peerID } }
        let events = host.swarm.journal()
        let stranger = try await self.network.host()
        let connection = try await stranger.connect(to: host.peerID, at: host.addresses)
        await #expect(throws: (any Error).self) { try await connection.closeFuture.get() }
        #expect(await events.first { $0.refusal } == .gated)
        #expect(await host.swarm.connections().isEmpty)
        _ = try await member.connect(to: host.peerID, at: host.addresses)
        #expect(await events.first { $0.connection }.remotePeer == member.peerID)
        for host in [member, stranger, host] { await host.shutDown() }
    }

    @Test func manyCallersShareOneDial() async throws {
        let (a, b) = (try await self.network.host(), try await self.network.host())
        let events = b.swarm.journal()
        let calls = (0..<10).map { _ in Task { try await a.connect(to: b.peerID, at: b.addresses).id } }
        var ids = Set<ConnectionID>()
        for call in calls { ids.insert(try await call.value) }
        #expect(ids.count == 1)
        _ = await events.first { $0.connection }
        #expect(await b.swarm.connections().count == 1)
        for host in [a, b] { await host.shutDown() }
    }

    @Test func bothDialAtOnce() async throws {
        for _ in 0..<20 {
            let (a, b) = (try await self.network.host(), try await self.network.host())
            let calls = [
                Task { try await a.connect(to: b.peerID, at: b.addresses) },
                Task { try await b.connect(to: a.peerID, at: a.addresses) },
            ]
            for call in calls {
                let connection = try await call.value
                _ = try await connection.probe().get()
            }
            for host in [a, b] { await host.shutDown() }
        }
    }

    @Test func aPeerThatIsElsewhereIsNamed() async throws {
        let (a, b, c) = (try await self.network.host(), try await self.network.host(), try await self.network.host())
        let gone = Multiaddr(components: [.memory(9999)])
        let error = await #expect(throws: DialError.self) {
            try await a.connect(to: c.peerID, at: b.addresses + [gone])
        }
        guard case .allAttemptsFailed(let attempts)? = error else {
            Issue.record("another error")
            return
        }
        #expect(Set(attempts.map(\.address)) == Set(b.addresses + [gone]))
        #expect(attempts.first { $0.address == gone }?.reason == "nobodyListens")
        #expect(attempts.first { $0.address != gone }?.reason.contains("\(b.peerID)") == true)
        #expect(error?.description.contains("\(gone): nobodyListens") == true)
        for host in [a, b, c] { await host.shutDown() }
    }

    @Test func aCopyOfOurKeyElsewhereIsNoticed() async throws {
        let key = try PrivateKey.generate()
        let host = try await self.network.host { $0.key = key }
        let twin = try await self.network.host { $0.key = key }
        let events = host.swarm.journal()
        let wanted = PeerID(try PrivateKey.generate().publicKey)
        await #expect(throws: DialError.self) { try await host.connect(to: wanted, at: twin.addresses) }
        #expect(await events.first { $0.refusal } == .ownIdentity)
        await #expect(throws: DialError.dialToSelf) { try await host.connect(to: twin.peerID, at: twin.addresses) }
        for host in [host, twin] { await host.shutDown() }
    }

    @Test func tellsOnlyTheAddressesItShould() async throws {
        let secret = Multiaddr(components: [.memory(666)])
        let host = try await self.network.host {
            $0.listen = [secret, Multiaddr(components: [.memory(667)])]
            $0.announces = { $0 != secret }
        }
        #expect(host.addresses == [Multiaddr(components: [.memory(667)])])
        let other = try await self.network.host()
        let connection = try await other.connect(to: host.peerID, at: [secret])
        #expect(try await other.identify.info(of: connection).listenAddresses == host.addresses)
        for host in [host, other] { await host.shutDown() }
    }

    @Test func shutDownTellsEveryPeerAndSavesWhatItKnows() async throws {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        let path = directory.appendingPathComponent("peers.json").path
        let a = try await self.network.host { $0.peerStorePath = path }
        let b = try await self.network.host()
        let events = b.swarm.journal()
        _ = try await a.connect(to: b.peerID, at: b.addresses)
        let inbound = await events.first { $0.connection }
        await a.shutDown()
        let end = await #expect(throws: ConnectionClosedError.self) { try await inbound.closeFuture.get() }
        #expect(end?.byRemote == true)
        #expect(await events.first { $0.lost }.id == inbound.id)
        await #expect(throws: DialError.shutDown) { try await a.connect(to: b.peerID) }
        #expect(PeerStore(path: path).addresses(of: b.peerID) == b.addresses)
        // A new start finds the peer by what the file says.
        let again = try await self.network.host { $0.peerStorePath = path }
        #expect(try await again.connect(to: b.peerID).remotePeer == b.peerID)
        for host in [again, b] { await host.shutDown() }
    }

    @Test func aBusyNumberEndsTheStart() async throws {
        let host = try await self.network.host()
        let error = await #expect(throws: ListenError.self) {
            try await self.network.host { $0.listen = [Multiaddr(components: [.memory(0)]), host.addresses[0]] }
        }
        #expect(error?.isPortBusy == true && error?.address == host.addresses[0])
        #expect(error?.description == "\(host.addresses[0]): the port is in use")
        await host.shutDown()
    }

    /// Sends back what comes.
    final class Echo: ByteStreamReceiver {
        private let stream: any LibP2PCore.Stream

        init(_ stream: any LibP2PCore.Stream) {
            self.stream = stream
        }

        func received(_ bytes: ByteBuffer) { self.stream.write(bytes) }
        func receiveComplete() { self.stream.flush() }
        func writabilityChanged() {}
        func inputEnded() { self.stream.closeWrite() }
        func closed(_ error: (any Error)?) {}
    }
}
