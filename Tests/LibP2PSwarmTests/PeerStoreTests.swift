import Foundation
import LibP2PSwarm
import Multiformats
import NIOCore
import PeerIdentity
import Synchronization
import Testing

@Suite struct PeerStoreTests {
    static func address(_ number: Int) -> Multiaddr { .tcp(IPAddress(ipv4: UInt32(0x0a00_0000 + number)), port: 4117) }
    static func addresses(_ numbers: some Sequence<Int>) -> [Multiaddr] { numbers.map { self.address($0) } }
    /// Cheap: an Ed25519 peer ID is its key, and any 32 bytes will do.
    static func peer(_ number: Int) throws -> PeerID {
        let key =
            [0x00, 0x24, 0x08, 0x01, 0x12, 0x20] + (0..<32).map { UInt8(truncatingIfNeeded: number >> ($0 % 4 * 8)) }
        return try PeerID(bytes: key)
    }

    @Test func keepsTheCallersOrder() throws {
        let (store, peer) = (PeerStore(), try Self.peer(1))
        store.add(Self.addresses(1...3), of: peer, from: .configured)
        #expect(store.addresses(of: peer) == Self.addresses(1...3))
        #expect(store.addresses(of: try Self.peer(2)) == [])
    }

    @Test func ranksLastGoodFirstThenBySource() throws {
        let (store, peer) = (PeerStore(), try Self.peer(1))
        store.add(Self.addresses([1, 2]), of: peer, from: .identify)
        store.add(Self.addresses([3]), of: peer, from: .configured)
        store.add(Self.addresses([4]), of: peer, from: .signedRecord)
        store.recordSuccess(Self.address(2), of: peer)
        #expect(store.addresses(of: peer) == Self.addresses([2, 3, 4, 1]))
        // A lower source does not take a rank away.
        store.add(Self.addresses([3, 2]), of: peer, from: .identify)
        #expect(store.addresses(of: peer) == Self.addresses([2, 3, 4, 1]))
    }

    @Test func anAddressIsKeptWithoutItsPeer() throws {
        let (store, peer) = (PeerStore(), try Self.peer(1))
        store.add([Self.address(1).appending(peer), Self.address(1)], of: peer, from: .configured)
        #expect(store.addresses(of: peer) == [Self.address(1)])
    }

    @Test func setReplacesOneSourceOnly() throws {
        let (store, peer) = (PeerStore(), try Self.peer(1))
        store.add(Self.addresses([1]), of: peer, from: .configured)
        store.set(Self.addresses([2, 3]), of: peer, from: .identify)
        store.set(Self.addresses([4]), of: peer, from: .identify)
        #expect(store.addresses(of: peer) == Self.addresses([1, 4]))
    }

    @Test func theLowestAndOldestGiveWay() throws {
        let (store, peer) = (PeerStore(), try Self.peer(1))
        let limit = PeerStore.maximumAddressesPerPeer
        store.add(Self.addresses([1]), of: peer, from: .configured)
        store.add(Self.addresses(100..<100 + limit), of: peer, from: .identify)
        #expect(store.addresses(of: peer) == Self.addresses([1] + Array(100..<99 + limit)))
        store.add(Self.addresses([200]), of: peer, from: .signedRecord)
        #expect(store.addresses(of: peer) == Self.addresses([1, 200] + Array(100..<98 + limit)))
        store.add(Self.addresses(300..<300 + limit), of: peer, from: .configured)
        #expect(store.addresses(of: peer) == Self.addresses(300..<300 + limit))
    }

    @Test func strangersDoNotPushOutConfiguredPeers() throws {
        let (store, configured) = (PeerStore(), try Self.peer(1))
        store.add([Self.address(1)], of: configured, from: .configured)
        for number in 2..<PeerStore.maximumPeers + 10 {
            store.add([Self.address(1)], of: try Self.peer(number), from: .identify)
        }
        #expect(store.addresses(of: configured) == [Self.address(1)])
        #expect(store.addresses(of: try Self.peer(10)) == [])
        #expect(store.addresses(of: try Self.peer(11)) == [Self.address(1)])
        #expect(store.addresses(of: try Self.peer(PeerStore.maximumPeers + 9)) == [Self.address(1)])
    }

    @Test func aRecordReplacesWhatIsOlderOrUnsigned() throws {
        let (store, peer) = (PeerStore(), try Self.peer(1))
        func record(_ sequence: UInt64) -> PeerRecord { PeerRecord(peerID: peer, sequence: sequence, addresses: []) }
        store.set(Self.addresses([1]), of: peer, from: .identify)
        store.add(Self.addresses([2]), of: peer, from: .configured)
        #expect(store.consume(record(5), keeping: Self.addresses([3, 4])))
        #expect(store.addresses(of: peer) == Self.addresses([2, 3, 4]))
        #expect(!store.consume(record(5), keeping: Self.addresses([6])))
        #expect(!store.consume(record(4), keeping: Self.addresses([6])))
        #expect(store.addresses(of: peer) == Self.addresses([2, 3, 4]))
        #expect(store.consume(record(6), keeping: Self.addresses([7])))
        #expect(store.addresses(of: peer) == Self.addresses([2, 7]))
    }

    @Test func knowsWhatAPeerSpeaks() throws {
        let (store, peer) = (PeerStore(), try Self.peer(1))
        #expect(!store.speaks("/a", peer))
        store.setProtocols(["/a", "/b"], of: peer)
        #expect(store.speaks("/a", peer) && store.speaks("/b", peer) && !store.speaks("/c", peer))
        store.setProtocols((0..<2000).map { "/\($0)" }, of: peer)
        #expect(store.speaks("/1023", peer) && !store.speaks("/1024", peer) && !store.speaks("/a", peer))
        store.remove(peer)
        #expect(!store.speaks("/1", peer))
    }

    // MARK: Dials

    @Test func reportsWhatIsKnownThenWhatWasOnlyDialled() throws {
        let clock = Mutex<UInt64>(1000)
        let store = PeerStore(wallClock: { clock.withLock { $0 } })
        let peer = try Self.peer(1)
        store.add(Self.addresses([1, 2]), of: peer, from: .configured)
        store.recordFailure(Self.address(7), of: peer, reason: "refused", now: .uptimeNanoseconds(0), random: 0)
        store.recordFailure(
            Self.address(8).appending(peer), of: peer, reason: "timed out", name: Self.address(9),
            now: .uptimeNanoseconds(0), random: 0)
        clock.withLock { $0 = 2000 }
        store.recordSuccess(Self.address(3), of: peer, handshake: .milliseconds(20))
        let report = store.report(of: peer)
        #expect(report.map(\.address) == Self.addresses([3, 1, 2, 8, 7]))
        #expect(report.map(\.source) == [.lastGood, .configured, .configured, nil, nil])
        #expect(report.map(\.dials.failure) == [nil, nil, nil, "timed out", "refused"])
        #expect(report.map(\.dials.failedAt) == [nil, nil, nil, 1000, 1000])
        #expect(report.map(\.dials.reachedAt) == [2000, nil, nil, nil, nil])
        #expect(report[0].dials.handshake == .milliseconds(20) && report[3].dials.name == Self.address(9))
        #expect(store.lastGoodAddress(of: peer) == Self.address(3))
        // What failed is not thereby known.
        #expect(store.addresses(of: peer) == Self.addresses([3, 1, 2]))
        let stranger = try Self.peer(2)
        #expect(store.report(of: stranger).isEmpty && store.lastGoodAddress(of: stranger) == nil)
        store.remove(peer)
        #expect(store.report(of: peer).isEmpty)
    }

    @Test func aConfiguredAddressIsTheLastGoodOneToo() throws {
        let (store, peer) = (PeerStore(), try Self.peer(1))
        store.add(Self.addresses([1, 2]), of: peer, from: .configured)
        store.recordSuccess(Self.address(2), of: peer)
        #expect(store.lastGoodAddress(of: peer) == Self.address(2))
        #expect(store.report(of: peer).map(\.source) == [.configured, .configured])
    }

    // MARK: The file

    static func withFile<Value>(_ body: (String) throws -> Value) throws -> Value {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        return try body(directory.appendingPathComponent("peers.json").path)
    }

    @Test func lastGoodAddressesSurvive() throws {
        let (a, b) = (try Self.peer(1), try Self.peer(2))
        try Self.withFile { path in
            let store = PeerStore(path: path)
            store.recordSuccess(Self.address(1), of: a)
            store.recordSuccess(Self.address(2), of: a)
            store.add(Self.addresses([3]), of: a, from: .configured)
            store.add(Self.addresses([4]), of: b, from: .identify)
            try store.save()
            let loaded = PeerStore(path: path)
            #expect(loaded.addresses(of: a) == Self.addresses([2, 1]))
            #expect(loaded.addresses(of: b) == [])
        }
    }

    @Test func whenAndHowFastSurvivesToo() throws {
        let peer = try Self.peer(1)
        try Self.withFile { path in
            let clock = Mutex<UInt64>(5_000)
            let store = PeerStore(path: path, wallClock: { clock.withLock { $0 } })
            store.recordSuccess(Self.address(1), of: peer, handshake: .microseconds(31_500))
            clock.withLock { $0 = 4_000 }
            store.recordSuccess(Self.address(2), of: peer)
            try store.save()
            let loaded = PeerStore(path: path)
            #expect(loaded.report(of: peer).map(\.dials.reachedAt) == [4_000, 5_000])
            #expect(loaded.report(of: peer).map(\.dials.handshake) == [nil, .microseconds(31_500)])
            #expect(loaded.lastGoodAddress(of: peer) == Self.address(1))
        }
    }

    @Test(arguments: [#""reachedAt": -1"#, #""reachedAt": 1e300"#, #""handshakeMilliseconds": "x""#])
    func aBrokenRecordCountsAsABrokenFile(text: String) throws {
        let peer = try Self.peer(1)
        try Self.withFile { path in
            let file = #"{"\#(peer)": [{"address": "\#(Self.address(1))", \#(text)}]}"#
            try Data(file.utf8).write(to: URL(fileURLWithPath: path))
            #expect(PeerStore(path: path).report(of: peer).isEmpty)
        }
    }

    @Test(arguments: ["-1", "1e300", "0"]) func anImpossibleTimeIsLeftOut(text: String) throws {
        let peer = try Self.peer(1)
        try Self.withFile { path in
            let file = #"{"\#(peer)": [{"address": "\#(Self.address(1))", "handshakeMilliseconds": \#(text)}]}"#
            try Data(file.utf8).write(to: URL(fileURLWithPath: path))
            let report = PeerStore(path: path).report(of: peer)
            #expect(report.map(\.address) == [Self.address(1)])
            #expect(report.map(\.dials.handshake) == [text == "0" ? .zero : nil])
        }
    }

    @Test func writesOnlyAfterAChange() throws {
        try Self.withFile { path in
            let store = PeerStore(path: path)
            try store.save()
            #expect(!FileManager.default.fileExists(atPath: path))
            store.recordSuccess(Self.address(1), of: try Self.peer(1))
            try store.save()
            try FileManager.default.removeItem(atPath: path)
            try store.save()
            #expect(!FileManager.default.fileExists(atPath: path))
            store.remove(try Self.peer(1))
            try store.save()
            #expect(FileManager.default.fileExists(atPath: path))
            #expect(PeerStore(path: path).addresses(of: try Self.peer(1)) == [])
        }
    }

    @Test func aFailedSaveIsTriedAgain() throws {
        try Self.withFile { path in
            let store = PeerStore(path: path + "/missing")
            store.recordSuccess(Self.address(1), of: try Self.peer(1))
            #expect(throws: (any Error).self) { try store.save() }
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
            try store.save()
            #expect(PeerStore(path: path + "/missing").addresses(of: try Self.peer(1)) == [Self.address(1)])
        }
    }

    @Test(arguments: ["", "{", "[]", "null", #"{"x": ["/ip4/10.0.0.1/tcp/1"]}"#, #"{"x": 1}"#, "\u{0}\u{ff}"])
    func aBrokenFileCountsAsEmpty(text: String) throws {
        try Self.withFile { path in
            try Data(text.utf8).write(to: URL(fileURLWithPath: path))
            let store = PeerStore(path: path)
            store.recordSuccess(Self.address(1), of: try Self.peer(1))
            try store.save()
            #expect(PeerStore(path: path).addresses(of: try Self.peer(1)) == [Self.address(1)])
        }
    }

    @Test func whatIsWellFormedInABrokenEntryIsKept() throws {
        let peer = try Self.peer(1)
        try Self.withFile { path in
            let text = #"{"\#(peer)": ["nonsense", "\#(Self.address(1))"], "nobody": ["\#(Self.address(2))"]}"#
            try Data(text.utf8).write(to: URL(fileURLWithPath: path))
            #expect(PeerStore(path: path).addresses(of: peer) == [Self.address(1)])
        }
    }
}
