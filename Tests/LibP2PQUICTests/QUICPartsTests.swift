import CNgtcp2
import Multiformats
import NIOCore
import PeerIdentity
import Testing

@testable import LibP2PQUIC

/// The pieces that need no network.
@Suite struct QUICPartsTests {
    /// Against plain arrays: any way of cutting, sending and acknowledging gives the bytes in order.
    @Test(arguments: 0..<20) func theSendQueueKeepsItsBytes(seed: UInt64) {
        var state = seed &* 7919 &+ 1
        func random(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % bound
        }
        var queue = SendQueue()
        var (written, sent, acknowledged) = ([UInt8](), [UInt8](), 0)
        var (flushed, inFlight) = (0, 0)
        let vectors = UnsafeMutableBufferPointer<ngtcp2_vec>.allocate(capacity: 4)
        defer { vectors.deallocate() }
        for step in 0..<2000 {
            switch random(4) {
            case 0 where step < 1500:
                let bytes = pattern(random(50), seed: UInt64(step) + 1)
                written += bytes
                queue.append(ByteBuffer(bytes: bytes))
            case 1:
                queue.flush()
                flushed = written.count
            case 2:
                let (count, reachesEnd) = queue.next(vectors)
                #expect(!reachesEnd)
                let bytes = vectors[..<count].flatMap { UnsafeBufferPointer(start: $0.base, count: $0.len) }
                let taken = bytes.isEmpty ? 0 : random(bytes.count + 1)
                sent += bytes.prefix(taken)
                queue.sent(taken)
                inFlight += taken
                #expect(sent.count <= flushed)
            default:
                let count = inFlight == 0 ? 0 : random(inFlight + 1)
                queue.acknowledged(count)
                acknowledged += count
                inFlight -= count
            }
            #expect(queue.unsentBytes == written.count - sent.count)
            #expect(queue.isSendable == (flushed > sent.count))
        }
        queue.end()
        while queue.unsentBytes > 0 {
            let (count, reachesEnd) = queue.next(vectors)
            let bytes = vectors[..<count].flatMap { UnsafeBufferPointer(start: $0.base, count: $0.len) }
            #expect(reachesEnd == (bytes.count == queue.unsentBytes))
            sent += bytes
            queue.sent(bytes.count)
        }
        #expect(sent == written)
        #expect(queue.isSendable)
        queue.hasSentEnd = true
        #expect(!queue.isSendable)
        queue.append(ByteBuffer(bytes: [1]))
        #expect(queue.unsentBytes == 0)
    }

    @Test func handshakesAreJudgedByNumberAndSource() {
        var options = QUICOptions()
        options.maximumPendingInbound = 10
        options.maximumPendingPerSource = 8
        options.retryThreshold = 5
        var pending = PendingHandshakes()
        func address(_ text: String) -> UDPAddress { UDPAddress(IPAddress(text) ?? IPAddress(ipv4: 0), port: 1) }
        let (a, sameNet, b) = (address("192.0.2.1"), address("192.0.2.200"), address("198.51.100.1"))
        #expect(pending.judge(a, hasProven: false, options) == .accept)
        pending.begin(a)
        pending.begin(sameNet)
        // A quarter of the source's share is taken.
        #expect(pending.judge(a, hasProven: false, options) == .prove)
        #expect(pending.judge(a, hasProven: true, options) == .accept)
        #expect(pending.judge(b, hasProven: false, options) == .accept)
        for _ in 0..<6 { pending.begin(a) }
        #expect(pending.judge(sameNet, hasProven: true, options) == .ignore)
        #expect(pending.judge(b, hasProven: false, options) == .prove)
        #expect(pending.judge(b, hasProven: true, options) == .accept)
        for _ in 0..<2 { pending.begin(b) }
        #expect(pending.judge(b, hasProven: true, options) == .ignore)
        for _ in 0..<8 { pending.end(a) }
        for _ in 0..<2 { pending.end(b) }
        #expect(pending.count == 0)
        #expect(pending.judge(a, hasProven: false, options) == .accept)
        // Those of this machine are not counted by source, only altogether.
        let own = address("127.0.0.1")
        for _ in 0..<4 { pending.begin(own) }
        #expect(pending.judge(own, hasProven: false, options) == .accept)
        pending.begin(own)
        #expect(pending.judge(own, hasProven: false, options) == .prove)
    }

    @Test func answersToStrangersAreRationed() {
        var replies = StatelessReplies()
        func taken(_ wanted: Int, now: UInt64) -> Int { (0..<wanted).count { _ in replies.take(now: now) } }
        #expect(taken(150, now: 1_000_000_000) == 100)
        #expect(taken(1, now: 1_050_000_000) == 0)
        #expect(taken(150, now: 1_100_000_000) == 100)
    }

    @Test func connectionIDsAreKeys() {
        let long = [UInt8](repeating: 7, count: 20)
        func key(_ bytes: [UInt8]) -> ConnectionKey? { bytes.withUnsafeBytes { ConnectionKey($0) } }
        #expect(key(long) != nil)
        #expect(key(long + [7]) == nil)
        #expect(key([]) != key([0]))
        #expect(key([0]) != key([0, 0]))
        let id = QUICSocket.randomConnectionID(length: 8)
        let bytes = withUnsafeBytes(of: id.data) { [UInt8]($0.prefix(8)) }
        #expect(key(bytes) == ConnectionKey(id))
        #expect(Set([key(bytes), ConnectionKey(id)]).count == 1)
    }

    @Test func secretsComeFromTheIdentity() throws {
        let (one, two) = (try PrivateKey.generate(), try PrivateKey.generate())
        let id = QUICSocket.randomConnectionID(length: 8)
        func token(_ key: PrivateKey) -> [UInt8] {
            var token = [UInt8](repeating: 0, count: 16)
            token.withUnsafeMutableBytes { StatelessSecrets(identity: key).writeResetToken(for: id, into: $0) }
            return token
        }
        #expect(token(one) == token(one))
        #expect(token(one) != token(two))
        #expect(StatelessSecrets(identity: one).token != StatelessSecrets(identity: two).token)
    }

    @Test(arguments: ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "fe80::1"]) func addressesSurvive(text: String)
        throws
    {
        let ip = try #require(IPAddress(text))
        let address = UDPAddress(ip, port: 4001)
        #expect(address.ip == ip)
        #expect(address.port == 4001)
        #expect(address.multiaddr == Multiaddr.udp(ip, port: 4001).appending(.quicV1))
        #expect(address.multiaddr.quicAddress?.isEqual(to: address) == true)
        #expect(UDPAddress(try SocketAddress(ipAddress: text, port: 4001))?.isEqual(to: address) == true)
    }
}
