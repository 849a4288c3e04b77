import Foundation
import Testing

@testable import Multiformats

@Suite struct IPPrefixTests {
    @Test(arguments: [
        "0.0.0.0/0", "10.0.0.0/8", "192.168.7.0/24", "192.0.2.7/32", "::/0", "fd00::/8", "2001:db8::7/128",
    ])
    func goesToTextAndBack(text: String) throws {
        let prefix = try #require(IPPrefix(text))
        #expect(prefix.description == text)
        #expect(IPPrefix(prefix.address, length: prefix.length) == prefix)
    }

    @Test(arguments: [
        "", "/", "10.0.0.0", "10.0.0.0/", "/8", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8",
        "10.0.0.0/08",
        "10.0.0.0/008", "0.0.0.0/00", "10.0.0.0/8 ", "10.0.0.0 /8", "10.0.0.0/8/8", "10.0.0.0/1000", "10.0.0.0/٨",
        "::/129", "::1/127", "fd00::/999", "10.0.0.0/255.0.0.0", "10.0.0.0\u{0}/8", "10.0.0.0/8\u{0}",
    ])
    func refuses(text: String) {
        #expect(IPPrefix(text) == nil)
    }

    @Test func clearsTheBitsBehindItsLength() throws {
        let address = try #require(IPAddress("192.168.7.9"))
        #expect(IPPrefix(address, length: 24)?.description == "192.168.7.0/24")
        #expect(IPPrefix(address, length: 0)?.description == "0.0.0.0/0")
        #expect(IPPrefix(host: address).description == "192.168.7.9/32")
        #expect(IPPrefix(address, length: 33) == nil)
        #expect(IPPrefix(address, length: -1) == nil)
        let ipv6 = try #require(IPAddress("2001:db8:1:2:3:4:5:6"))
        #expect(IPPrefix(ipv6, length: 65)?.description == "2001:db8:1:2::/65")
        #expect(IPPrefix(ipv6, length: 129) == nil)
        #expect(IPPrefix(host: ipv6).length == 128)
        #expect(ipv6.masked(to: -5) == IPAddress("::"))
        #expect(ipv6.masked(to: 500) == ipv6)
        #expect(address.masked(to: .min) == IPAddress("0.0.0.0"))
        #expect(address.masked(to: .max) == address)
    }

    /// The stupid way: compares bit strings.
    private struct Oracle {
        let family: IPAddress.Family
        let bits: String

        init(_ address: IPAddress, length: Int) {
            self.family = address.family
            self.bits = String(
                address.bytes.flatMap { byte in (0..<8).map { byte >> (7 - $0) & 1 == 1 ? "1" : "0" } }.joined()
                    .prefix(length))
        }

        func contains(_ other: Oracle) -> Bool { self.family == other.family && other.bits.hasPrefix(self.bits) }
    }

    @Test func agreesWithBitByBitComparison() throws {
        var random = SplitMix64(state: 6)
        var inside = 0
        for _ in 0..<20_000 {
            let count = Bool.random(using: &random) ? 4 : 16
            let first = random.bytes(count)
            // The second address shares a random number of leading bits, or has the other family.
            var second = random.bytes(Int.random(in: 0..<20, using: &random) == 0 ? 20 - count : count)
            let shared = Int.random(in: 0...count * 8, using: &random)
            for bit in 0..<shared where second.count == count {
                let mask = UInt8(0x80) >> UInt8(bit % 8)
                second[bit / 8] = second[bit / 8] & ~mask | first[bit / 8] & mask
            }
            let a = try #require(IPAddress(bytes: first))
            let b = try #require(IPAddress(bytes: second))
            // Lengths near the shared part are the ones that can go wrong.
            let near = shared + Int.random(in: -2...2, using: &random)
            let length = min(max(near, 0), a.family.bitCount)
            let otherLength = Int.random(in: 0...b.family.bitCount, using: &random)
            let prefix = try #require(IPPrefix(a, length: length))
            let other = try #require(IPPrefix(b, length: otherLength))
            let oracle = Oracle(a, length: length)
            let otherOracle = Oracle(b, length: otherLength)

            let contains = oracle.contains(Oracle(b, length: 128))
            if contains { inside += 1 }
            #expect(prefix.contains(b) == contains)
            #expect(prefix.contains(a))
            #expect(prefix.contains(other) == oracle.contains(otherOracle))
            #expect(prefix.overlaps(other) == (oracle.contains(otherOracle) || otherOracle.contains(oracle)))
            #expect(other.overlaps(prefix) == prefix.overlaps(other))
            #expect(Oracle(prefix.address, length: length).bits == oracle.bits)
            #expect(!Oracle(prefix.address, length: 128).bits.dropFirst(length).contains("1"))
            #expect(IPPrefix(prefix.description) == prefix)
        }
        #expect((2000...18_000).contains(inside))
    }

    @Test func isCodedAsText() throws {
        let json = try JSONEncoder().encode([IPPrefix("fd00::/8")])
        #expect(try JSONDecoder().decode([IPPrefix].self, from: json) == [IPPrefix("fd00::/8")])
        #expect(throws: DecodingError.self) {
            try JSONDecoder().decode([IPPrefix].self, from: Data(#"["10.0.0.1/8"]"#.utf8))
        }
    }
}
