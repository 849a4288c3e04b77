import Foundation
import Glibc
import Testing

@testable import Multiformats

@Suite struct IPAddressTests {
    @Test(
        arguments: [
            ("0.0.0.0", [0, 0, 0, 0]),
            ("255.255.255.255", [255, 255, 255, 255]),
            ("192.0.2.7", [192, 0, 2, 7]),
            ("::", [UInt8](repeating: 0, count: 16)),
            ("::1", [UInt8](repeating: 0, count: 15) + [1]),
            ("2001:db8::7", [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]),
            ("::ffff:192.0.2.7", [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 7]),
        ] as [(String, [UInt8])])
    func goesBetweenTextAndBytes(text: String, encoded: [UInt8]) throws {
        let address = try #require(IPAddress(text))
        #expect(address.bytes == encoded)
        #expect(address.description == text)
        #expect(address.family.byteCount == encoded.count)
        #expect(address.family.bitCount == encoded.count * 8)
        #expect(IPAddress(bytes: encoded) == address)
        #expect(IPAddress(bytes: ([1, 2] + encoded)[2...]) == address)
    }

    /// RFC 5952 § 4, and § 5 for addresses of `::/96`, which `inet_ntop` writes otherwise.
    @Test(arguments: [
        ("2001:0db8::0001", "2001:db8::1"),
        ("2001:db8:0:0:0:0:2:1", "2001:db8::2:1"),
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
        ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("2001:DB8::AB", "2001:db8::ab"),
        ("1:0:0:0:0:0:0:0", "1::"),
        ("0:0:1:2:3:4:5:6", "::1:2:3:4:5:6"),
        ("1:2:3:4:5:6:0:0", "1:2:3:4:5:6::"),
        ("::1:2", "::1:2"),
        ("::192.0.2.7", "::c000:207"),
        ("::ffff:c000:207", "::ffff:192.0.2.7"),
        ("::fffe:c000:207", "::fffe:c000:207"),
        ("64:ff9b::192.0.2.7", "64:ff9b::c000:207"),
        ("1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:102:304"),
    ])
    func writesTheCanonicalForm(text: String, canonical: String) throws {
        #expect(try #require(IPAddress(text)).description == canonical)
    }

    @Test(arguments: [
        "", " ", "1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "300.1.1.1", "1.2.3.-4", "01.2.3.4", "0x1.2.3.4", "1.2.3.4 ",
        " 1.2.3.4", "1.2.3.4/8", "1.2.3.4\u{0}", "1.2.3.4\u{0}.5", "::1\u{0}", "\u{0}::1", "::1%lo", "fe80::1%eth0",
        "[::1]",
        ":", ":::", "1::2::3", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "12345::", "g::", "::1.2.3", "::ffff:1.2.3.400",
        "１.2.3.4", "localhost", "1.2.3.4\n",
    ])
    func refuses(text: String) {
        #expect(IPAddress(text) == nil)
    }

    @Test(arguments: [0, 1, 3, 5, 15, 17, 100])
    func refusesBytesOfAnotherLength(count: Int) {
        #expect(IPAddress(bytes: [UInt8](repeating: 1, count: count)) == nil)
    }

    @Test func agreesWithTheSystem() throws {
        var random = SplitMix64(state: 4)
        for round in 0..<5000 {
            var encoded = random.bytes(round.isMultiple(of: 4) ? 4 : 16)
            for group in stride(from: 0, to: encoded.count, by: 2)
            where encoded.count == 16 && Bool.random(using: &random) {
                encoded[group] = 0
                encoded[group + 1] = Bool.random(using: &random) ? 0 : 1
            }
            let address = try #require(IPAddress(bytes: encoded))
            #expect(address.bytes == encoded)
            #expect(IPAddress(address.description) == address)
            // `::/96` and IPv4-mapped addresses have cases of their own above.
            if address.family == .ipv6, address.high == 0, address.low >> 48 == 0 { continue }
            var text = [CChar](repeating: 0, count: 64)
            let family = encoded.count == 4 ? AF_INET : AF_INET6
            _ = try #require(inet_ntop(family, encoded, &text, socklen_t(text.count)))
            let expected = String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            #expect(address.description == expected)
        }
    }

    @Test func ordersByFamilyThenValue() throws {
        let sorted = try ["0.0.0.0", "9.255.0.1", "10.0.0.0", "255.255.255.255", "::", "::1", "0:0:0:1::", "ff00::"]
            .map { try #require(IPAddress($0)) }
        var random = SplitMix64(state: 5)
        #expect(sorted.shuffled(using: &random).sorted() == sorted)
        // 0.0.0.0 and :: have the same bits.
        #expect(sorted[0] != sorted[4])
        #expect(IPAddress("1.2.3.4") != IPAddress("::ffff:1.2.3.4"))
    }

    @Test func isCodedAsText() throws {
        let json = try JSONEncoder().encode([IPAddress("192.0.2.7"), IPAddress("2001:DB8::7")])
        #expect(String(decoding: json, as: UTF8.self) == #"["192.0.2.7","2001:db8::7"]"#)
        let decoded = try JSONDecoder().decode([IPAddress].self, from: json)
        #expect(decoded == [IPAddress("192.0.2.7"), IPAddress("2001:db8::7")])
        #expect(throws: DecodingError.self) {
            try JSONDecoder().decode([IPAddress].self, from: Data(#"["1.2.3"]"#.utf8))
        }
    }
}
