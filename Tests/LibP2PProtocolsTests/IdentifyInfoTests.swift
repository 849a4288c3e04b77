import Foundation
import Multiformats
import PeerIdentity
import SwiftProtobuf
import Testing

@testable import LibP2PProtocols

@Suite struct IdentifyInfoTests {
    static func full() throws -> IdentifyInfo {
        var info = IdentifyInfo()
        info.publicKey = try PrivateKey(ed25519Seed: Array(repeating: 7, count: 32)).publicKey
        info.listenAddresses = [try Multiaddr("/ip4/192.0.2.1/tcp/4117"), try Multiaddr("/ip6/2001:db8::1/tcp/4117")]
        info.protocols = ["/ipfs/id/1.0.0", "/a"]
        info.observedAddress = try Multiaddr("/ip4/192.0.2.9/tcp/1")
        info.protocolVersion = "ipfs/0.1.0"
        info.agentVersion = "warren/0.1.0"
        info.signedPeerRecord = [1, 2, 3]
        return info
    }

    @Test func everyFieldTravels() throws {
        let info = try Self.full()
        let messages = try info.encoded()
        #expect(messages.count == 1)
        #expect(try IdentifyInfo(merging: messages) == info)
        #expect(try IdentifyInfo(merging: [[UInt8]()]) == IdentifyInfo())
    }

    /// Field numbers as in `identify/README.md`; 8 is the one its text lacks.
    @Test func theFieldsHaveTheirNumbers() throws {
        var info = IdentifyInfo()
        info.listenAddresses = [try Multiaddr("/ip4/1.2.3.4/tcp/5")]
        info.protocols = ["/a"]
        info.observedAddress = try Multiaddr("/ip4/1.2.3.4/tcp/6")
        info.protocolVersion = "p"
        info.agentVersion = "v"
        info.signedPeerRecord = [9]
        let golden: [UInt8] =
            [0x12, 8, 4, 1, 2, 3, 4, 6, 0, 5] + [0x1a, 2, 0x2f, 0x61] + [0x22, 8, 4, 1, 2, 3, 4, 6, 0, 6]
            + [0x2a, 1, 0x70] + [0x32, 1, 0x76] + [0x42, 1, 9]
        #expect(try IdentifyInfo(merging: [golden]) == info)
        #expect(try info.encoded().map { $0.sorted() } == [golden.sorted()])
        #expect(try IdentifyInfo(merging: try info.encoded()) == info)
    }

    @Test func listsAddUpAndOfTheRestTheLastCounts() throws {
        var (first, second) = (IdentifyInfo(), IdentifyInfo())
        first.protocols = ["/a"]
        first.agentVersion = "one"
        first.protocolVersion = "p"
        first.listenAddresses = [try Multiaddr("/ip4/192.0.2.1/tcp/1")]
        second.protocols = ["/b"]
        second.agentVersion = "two"
        second.listenAddresses = [try Multiaddr("/ip4/192.0.2.2/tcp/1")]
        let merged = try IdentifyInfo(merging: try first.encoded() + second.encoded())
        #expect(merged.protocols == ["/a", "/b"])
        #expect(merged.agentVersion == "two" && merged.protocolVersion == "p")
        #expect(merged.listenAddresses == first.listenAddresses + second.listenAddresses)
    }

    @Test func aLargeRecordTravelsInAMessageOfItsOwn() throws {
        var info = try Self.full()
        info.signedPeerRecord = Array(repeating: 1, count: 3000)
        #expect(try info.encoded().count == 1)
        info.protocols = (0..<100).map { "/protocol/number/\($0)" }
        let messages = try info.encoded()
        #expect(messages.count == 2 && messages.allSatisfy { $0.count <= 4096 })
        #expect(try IdentifyInfo(merging: messages) == info)
    }

    @Test func whatDoesNotParseIsLeftOut() throws {
        var message = IdentifyMessage()
        message.publicKey = .init([1, 2, 3])
        message.listenAddrs = [.init([0xff, 0xff, 0x03]), .init(try Multiaddr("/ip4/192.0.2.1/tcp/1").bytes)]
        message.observedAddr = .init([4, 1])
        message.agentVersion = String(repeating: "a", count: IdentifyInfo.maximumTextBytes + 1)
        message.protocolVersion = String(repeating: "a", count: IdentifyInfo.maximumTextBytes)
        message.protocols = [String(repeating: "a", count: IdentifyInfo.maximumTextBytes + 1), "/a"]
        let info = try IdentifyInfo(merging: [try message.serializedBytes()])
        #expect(info.publicKey == nil && info.observedAddress == nil && info.agentVersion == nil)
        #expect(info.protocolVersion?.utf8.count == IdentifyInfo.maximumTextBytes)
        #expect(info.listenAddresses == [try Multiaddr("/ip4/192.0.2.1/tcp/1")])
        #expect(info.protocols == ["/a"])
    }

    @Test func listsAreBoundedOverAllMessages() throws {
        var message = IdentifyMessage()
        message.protocols = (0..<600).map { "/\($0)" }
        let address = try Multiaddr("/ip4/192.0.2.1/tcp/1")
        message.listenAddrs = Array(repeating: .init(address.bytes), count: 300)
        let bytes: [UInt8] = try message.serializedBytes()
        let info = try IdentifyInfo(merging: [bytes, bytes, bytes])
        #expect(info.protocols.count == IdentifyInfo.maximumProtocols)
        #expect(info.listenAddresses.count == IdentifyInfo.maximumAddresses)
    }

    @Test(arguments: [[0xff], [0x0a, 0x05, 1], [0x2a, 1, 0xff]] as [[UInt8]])
    func anythingElseIsMalformed(bytes: [UInt8]) {
        #expect(throws: IdentifyError.malformed) { try IdentifyInfo(merging: [bytes]) }
    }

    /// Any bytes at all are refused or understood, and what is understood stays within its bounds.
    @Test func randomBytesDoNoHarm() throws {
        var generator = SplitMix(state: 1)
        let sample: [UInt8] = try #require(try Self.full().encoded().first)
        for _ in 0..<2000 {
            var bytes = sample
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                bytes[Int.random(in: 0..<bytes.count, using: &generator)] = .random(in: 0...255, using: &generator)
            }
            guard let info = try? IdentifyInfo(merging: [bytes]) else { continue }
            #expect(info.protocols.count <= IdentifyInfo.maximumProtocols)
            #expect((info.agentVersion?.utf8.count ?? 0) <= IdentifyInfo.maximumTextBytes)
        }
    }

    struct SplitMix: RandomNumberGenerator {
        var state: UInt64

        mutating func next() -> UInt64 {
            self.state &+= 0x9e37_79b9_7f4a_7c15
            var z = self.state
            z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
            z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
            return z ^ (z >> 31)
        }
    }
}
