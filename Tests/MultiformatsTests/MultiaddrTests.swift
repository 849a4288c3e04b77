import Foundation
import Testing

@testable import Multiformats

@Suite struct MultiaddrTests {
    static let peer = "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC"

    @Test func matchesTheVectors() throws {
        let pairs = try Vectors.libp2p.get().multiaddrValid.pairs
        let more = try Vectors.multiformats.get().multiaddr.pairs
        #expect(pairs.count == 44)
        #expect(more.count == 5)
        for (text, hex) in pairs.merging(more, uniquingKeysWith: { first, _ in first }) {
            let encoded = try #require(bytes(hex: hex))
            let address = try Multiaddr(text)
            #expect(address.bytes == encoded, "\(text)")
            #expect(address.description == text)
            #expect(try Multiaddr(bytes: encoded) == address)
            #expect(Multiaddr(components: address.components) == address)
        }
    }

    @Test func parsesWhatOthersParse() throws {
        let texts = try Vectors.libp2p.get().multiaddrParseOK + Vectors.multiformats.get().multiaddr.valid
        #expect(texts.count == 93)
        for text in texts {
            let address = try Multiaddr(text)
            #expect(try Multiaddr(bytes: address.bytes) == address)
            #expect(try Multiaddr(address.description) == address)
            // Peer IDs, hashes and names have several spellings; all else comes back as it was.
            let isOneSpelling = !["/ipfs/", "/p2p/", "/certhash/", "/garlic32/"].contains { text.contains($0) }
            if isOneSpelling { #expect(address.description == (text.hasSuffix("/") ? String(text.dropLast()) : text)) }
        }
    }

    @Test func refusesWhatOthersRefuse() throws {
        let texts = try Vectors.libp2p.get().multiaddrInvalid.items + Vectors.multiformats.get().multiaddr.invalid
        #expect(texts.count > 60)
        for text in texts {
            #expect(throws: MultiaddrError.self, "\(text)") { try Multiaddr(text) }
        }
    }

    /// Findings of another implementation's fuzzer: nothing traps, and what is accepted keeps its meaning.
    @Test func survivesFuzzFindings() throws {
        let fuzz = try Vectors.multiformats.get().multiaddrFuzz
        for hex in fuzz.bytesHex { Self.expectStable(bytes: try #require(bytes(hex: hex))) }
        for hex in fuzz.textHex {
            guard let address = try? Multiaddr(String(decoding: try #require(bytes(hex: hex)), as: UTF8.self)) else {
                continue
            }
            Self.expectStable(bytes: address.bytes)
        }
    }

    @Test(arguments: [
        ("/ip4/300.1.1.1", "/ip4/300.1.1.1: not an IPv4 address"),
        ("/ip4/::1/tcp/1", "/ip4/::1: not an IPv4 address"),
        ("/ip6/1.2.3.4", "/ip6/1.2.3.4: not an IPv6 address"),
        ("/ip4/192.0.2.7/tcp/65536", "/tcp/65536: not a port (0 to 65535)"),
        ("/ip4/192.0.2.7/tcp/+1", "/tcp/+1: not a port (0 to 65535)"),
        ("/ip4/192.0.2.7/tcp", "/tcp: the value is missing"),
        ("/ip4//tcp/1", "/ip4: the value is missing"),
        ("/ip4/192.0.2.7/quic-v1/1", "/1: not a known protocol"),
        ("/ip4/192.0.2.7/TCP/1", "/TCP: not a known protocol"),
        ("//ip4/192.0.2.7", "/: not a known protocol"),
        ("192.0.2.7:4117", "192.0.2.7:4117: an address begins with a slash"),
        ("", "the address is empty"),
        ("//", "the address is empty"),
        ("/onion/aaimaq4ygg2iegci:0", "/onion/aaimaq4ygg2iegci:0: the port is 0"),
        ("/onion/aaimaq4ygg2iegci", "/onion/aaimaq4ygg2iegci: not a port (0 to 65535)"),
        ("/onion/aaimaq4y:80", "/onion/aaimaq4y:80: 7 bytes are not the right length"),
        ("/garlic64/jT~I", "/garlic64/jT~I: 3 bytes are not the right length"),
        ("/memory/18446744073709551616", "/memory/18446744073709551616: not a number below 2^64"),
        ("/ip6/::/ipcidr/129", "/ipcidr/129: not a prefix length (0 to 128)"),
        ("/http-path/a%", "/http-path/a%: a % is not followed by two hexadecimal digits"),
        ("/http-path/a%2", "/http-path/a%2: a % is not followed by two hexadecimal digits"),
        ("/http-path/a%zz", "/http-path/a%zz: a % is not followed by two hexadecimal digits"),
        ("/dns4/a\u{1b}[2Jb", "/dns4/a\\u{1B}[2Jb: contains a control character"),
        ("/dns4/a\u{9b}b", "/dns4/a\\u{009B}b: contains a control character"),
        ("/unix/a\u{0}b", "/unix/a\\0b: contains a control character"),
        ("/\u{202e}pi", "/\\u{202E}pi: not a known protocol"),
        ("/certhash/uEiA", "/certhash/uEiA: the digest should have 32 bytes and has 0"),
        ("/certhash/xyz", "/certhash/xyz: no base has the prefix x"),
        ("/p2p/16Uiu", "/p2p/16Uiu: "),
        (
            "/p2p/bafkreievd6mwe6vcwnkwo3eizs3h7w3a34opszbyfxziqdxguhjw7imdve",
            "/p2p/bafkreievd6mwe6vcwnkwo3eizs3h7w3a34opszbyfxziqdxguhjw7imdve: not a peer ID: the CID names raw, not a libp2p key"
        ),
        ("/p2p/x", "/p2p/x: not a peer ID: no base has the prefix x"),
    ])
    func namesComponentAndReason(text: String, description: String) {
        let error = #expect(throws: MultiaddrError.self) { try Multiaddr(text) }
        #expect(error?.description.hasPrefix(description) == true, "\(error?.description ?? "nothing")")
        if !description.hasSuffix(" ") { #expect(error?.description == description) }
    }

    @Test(arguments: [
        ("", MultiaddrError.empty),
        ("01020304", .unknownProtocolCode(1)),
        ("8400", .malformedVarint(.nonMinimal, offset: 0)),
        ("0401020304ff", .malformedVarint(.truncated, offset: 5)),
        ("ffffffffffffffffff7f", .malformedVarint(.tooLong, offset: 0)),
        ("04010203", .truncatedValue(.ip4, expected: 4, found: 3)),
        ("350461", .truncatedValue(.dns, expected: 4, found: 1)),
        ("3500", .missingValue(.dns)),
        ("358002", .invalidValue(.dns, "", .tooLong(bytes: 256, maximum: 255))),
        ("35ffffffffffffffff7f", .invalidValue(.dns, "", .tooLong(bytes: .max, maximum: 255))),
        ("35816100", .invalidValue(.dns, "", .tooLong(bytes: 12417, maximum: 255))),
        ("3581", .malformedVarint(.truncated, offset: 1)),
        ("3503612f62", .invalidValue(.dns, "0x612f62", .containsSlash)),
        ("3502c328", .invalidValue(.dns, "0xc328", .notUTF8)),
        ("3503610a62", .invalidValue(.dns, "0x610a62", .containsControlCharacter)),
        ("2bff", .invalidValue(.ipcidr, "0xff", .notPrefixLength)),
        ("a503021105", .invalidValue(.p2p, "0x1105", .notMultihash(.lengthMismatch(stated: 5, found: 0)))),
        ("a503031101aa", .invalidValue(.p2p, "0x1101aa", .notPeerHash(Multicodec(rawValue: 0x11)))),
        (
            "a503031201aa",
            .invalidValue(.p2p, "0x1201aa", .notMultihash(.wrongDigestLength(.sha256, bytes: 1, expected: 32)))
        ),
        ("d20300", .missingValue(.certhash)),
        ("900301ff", .invalidValue(.unix, "0xff", .notPath)),
        ("9003012f", .invalidValue(.unix, "0x2f", .notPath)),
        ("9003032f612f", .invalidValue(.unix, "0x2f612f", .notPath)),
        ("9003022f610601bb", .componentAfterPath(.unix)),
        ("bc03000000000000000000000000", .invalidValue(.onion, "0x000000000000000000000000", .zeroPort)),
    ])
    func namesWhatIsWrongInBinary(hex: String, error: MultiaddrError) throws {
        let encoded = try #require(bytes(hex: hex))
        #expect(throws: error) { try Multiaddr(bytes: encoded) }
        #expect(!error.description.isEmpty)
    }

    @Test func everyProtocolHasItsRowOfTheTable() throws {
        // Code, size in bits (V: -1), name: multiformats/multiaddr protocols.csv; memory as go and rust have it.
        let table: [(UInt64, Int, String)] = [
            (4, 32, "ip4"), (6, 16, "tcp"), (273, 16, "udp"), (33, 16, "dccp"), (41, 128, "ip6"), (42, -1, "ip6zone"),
            (43, 8, "ipcidr"), (53, -1, "dns"), (54, -1, "dns4"), (55, -1, "dns6"), (56, -1, "dnsaddr"),
            (132, 16, "sctp"),
            (301, 0, "udt"), (302, 0, "utp"), (400, -1, "unix"), (421, -1, "p2p"), (444, 96, "onion"),
            (445, 296, "onion3"),
            (446, -1, "garlic64"), (447, -1, "garlic32"), (448, 0, "tls"), (449, -1, "sni"), (454, 0, "noise"),
            (460, 0, "quic"), (461, 0, "quic-v1"), (465, 0, "webtransport"), (466, -1, "certhash"), (480, 0, "http"),
            (481, -1, "http-path"), (443, 0, "https"), (477, 0, "ws"), (478, 0, "wss"), (479, 0, "p2p-websocket-star"),
            (277, 0, "p2p-stardust"), (275, 0, "p2p-webrtc-star"), (276, 0, "p2p-webrtc-direct"),
            (280, 0, "webrtc-direct"),
            (281, 0, "webrtc"), (290, 0, "p2p-circuit"), (777, 64, "memory"),
        ]
        #expect(table.count == Multiaddr.ProtocolCode.allCases.count)
        for (code, bits, name) in table {
            let found = try #require(Multiaddr.ProtocolCode(rawValue: code))
            #expect(found.name == name)
            #expect(found.code == code)
            #expect(Multiaddr.ProtocolCode(name: name) == found)
            switch found.size {
            case .none: #expect(bits == 0)
            case .fixed(let length): #expect(bits == length * 8)
            case .lengthPrefixed: #expect(bits == -1)
            }
        }
        #expect(Multiaddr.ProtocolCode(name: "ipfs") == .p2p)
    }

    @Test func bothOrdersOfZoneAndAddressParse() throws {
        for text in ["/ip6zone/eth0/ip6/fe80::1/tcp/1", "/ip6/fe80::1/ip6zone/eth0/tcp/1"] {
            let address = try Multiaddr(text)
            #expect(address.description == text)
            #expect(address.ipAddress == IPAddress("fe80::1"))
            #expect(address.tcpPort == 1)
        }
    }

    @Test(arguments: [
        ("/ipfs/\(peer)", "/p2p/\(peer)"),
        ("/p2p/bafzbeigvf25ytwc3akrijfecaotc74udrhcxzh2cx3we5qqnw5vgrei4bm", "/p2p/\(peer)"),
        ("/p2p/k2k4r8oqamigqdo6o7hsbfwd45y70oyynp98usk7zmyfrzpqxh1pohl7", "/p2p/\(peer)"),
        ("/ip4/127.0.0.1/tcp/0080//", "/ip4/127.0.0.1/tcp/80"),
        ("/ip6/2001:DB8:0::1", "/ip6/2001:db8::1"),
        ("/onion/AAIMAQ4YGG2IEGCI:80", "/onion/aaimaq4ygg2iegci:80"),
        ("/http-path/a b+é", "/http-path/a%20b%2B%C3%A9"),
        ("/http-path/%7e%2f%00%ff", "/http-path/~%2F%00%FF"),
        ("/unix/a//b/", "/unix/a//b"),
        ("/unix//a", "/unix//a"),
        (
            "/certhash/f1220c3ab8ff13720e8ad9047dd39466b3c8974e592c2fa383d4a3960714caef0c4f2",
            "/certhash/uEiDDq4_xNyDorZBH3TlGazyJdOWSwvo4PUo5YHFMrvDE8g"
        ),
    ])
    func writesTheCanonicalText(text: String, canonical: String) throws {
        #expect(try Multiaddr(text).description == canonical)
    }

    @Test func handsOutWhatTransportsNeed() throws {
        let ip = try #require(IPAddress("192.0.2.7"))
        let ipv6 = try #require(IPAddress("2001:db8::7"))
        #expect(Multiaddr.tcp(ip, port: 4117).description == "/ip4/192.0.2.7/tcp/4117")
        #expect(Multiaddr.udp(ipv6, port: 65535).appending(.quicV1).description == "/ip6/2001:db8::7/udp/65535/quic-v1")
        #expect(Multiaddr(components: [.memory(7), .p2pCircuit]).description == "/memory/7/p2p-circuit")

        let relayed = try Multiaddr("/ip4/192.0.2.7/udp/4117/quic-v1/p2p/\(Self.peer)/p2p-circuit/ip6/::1/tcp/258")
        #expect(relayed.ipAddress == ip)
        #expect(relayed.udpPort == 4117)
        #expect(relayed.tcpPort == 258)
        #expect(relayed.contains(.p2pCircuit))
        #expect(!relayed.contains(.ws))
        #expect(relayed.protocols == [.ip4, .udp, .quicV1, .p2p, .p2pCircuit, .ip6, .tcp])
        #expect(relayed.components.map(\.text) == ["192.0.2.7", "4117", nil, Self.peer, nil, "::1", "258"])
        #expect(try Multiaddr("/dns4/example.com").ipAddress == nil)
        #expect(try Multiaddr("/dns4/example.com").tcpPort == nil)
    }

    @Test func takesTheFinalPeerOff() throws {
        let multihash = try Base58.decode(Self.peer)
        let direct = try Multiaddr("/ip4/192.0.2.7/tcp/4117")
        let withPeer = try direct.appending(Multiaddr("/p2p/\(Self.peer)"))
        #expect(withPeer == direct.appending(try Multiaddr.Component(.p2p, value: multihash)))
        #expect(withPeer.removingTrailingP2P() == (direct, multihash))
        #expect(direct.removingTrailingP2P() == (direct, nil))
        let circuit = withPeer.appending(.p2pCircuit)
        #expect(circuit.removingTrailingP2P() == (circuit, nil))
        let target = try circuit.appending(
            Multiaddr.Component(.p2p, text: "12D3KooWCryG7Mon9orvQxcS1rYZjotPgpwoJNHHKcLLfE4Hf5mV"))
        #expect(target.removingTrailingP2P().address == circuit)
        let alone = try Multiaddr("/p2p/\(Self.peer)").removingTrailingP2P()
        #expect(alone.address.isEmpty)
        #expect(alone.peer == multihash)
    }

    @Test func anEmptyAddressIsNeverParsed() throws {
        let empty = Multiaddr(components: [])
        #expect(empty.isEmpty && empty.bytes.isEmpty && empty.components.isEmpty)
        #expect(throws: MultiaddrError.empty) { try Multiaddr(empty.description) }
        #expect(throws: MultiaddrError.empty) { try Multiaddr(bytes: empty.bytes) }
        let address = try Multiaddr("/tcp/1")
        #expect(empty.appending(address) == address)
        #expect(address.appending(empty) == address)
    }

    @Test func nothingFollowsAPath() throws {
        let path = try Multiaddr("/unix/run/x.sock")
        #expect(path.components.map(\.value) == [Array("/run/x.sock".utf8)])
        #expect(path.appending(.tcp(1)) == path)
        #expect(Multiaddr(components: [.tcp(1)] + path.components + [.tcp(2)]).description == "/tcp/1/unix/run/x.sock")
    }

    @Test func componentsAreAlwaysValid() {
        #expect(throws: MultiaddrError.invalidValue(.tcp, "0x01", .wrongLength(bytes: 1))) {
            try Multiaddr.Component(.tcp, value: [1])
        }
        #expect(throws: MultiaddrError.invalidValue(.ws, "0x01", .takesNoValue)) {
            try Multiaddr.Component(.ws, value: [1])
        }
        #expect(throws: MultiaddrError.invalidValue(.ws, "x", .takesNoValue)) {
            try Multiaddr.Component(.ws, text: "x")
        }
        #expect(throws: MultiaddrError.missingValue(.dns)) { try Multiaddr.Component(.dns, value: []) }
        #expect(throws: MultiaddrError.missingValue(.dns)) { try Multiaddr.Component(.dns, text: "") }
        #expect(throws: MultiaddrError.invalidValue(.dns, "a/b", .containsSlash)) {
            try Multiaddr.Component(.dns, text: "a/b")
        }
        #expect(throws: MultiaddrError.invalidValue(.unix, "a", .notPath)) { try Multiaddr.Component(.unix, text: "a") }
    }

    @Test func boundsItsInput() throws {
        let name = String(repeating: "a", count: 255)
        let long = String(repeating: "/dns/\(name)", count: 7)
        #expect(try Multiaddr(long).components.count == 7)
        #expect(throws: MultiaddrError.tooLong(bytes: 2064, maximum: 2048)) { try Multiaddr(long + "/dns/\(name)") }
        #expect(throws: MultiaddrError.self) { try Multiaddr("/dns/a\(name)") }
        #expect(throws: MultiaddrError.tooLong(bytes: 9000, maximum: 8192)) {
            try Multiaddr(String(repeating: "/ws", count: 3000))
        }
        let twice = try Multiaddr(long).appending(Multiaddr(long))
        #expect(twice.components.count == 14)
        #expect(throws: MultiaddrError.tooLong(bytes: 3612, maximum: 2048)) { try Multiaddr(bytes: twice.bytes) }
        for text in ["/unix/", "/http-path/", "/p2p/1", "/garlic64/", "/garlic32/", "/certhash/f00", "/ip6zone/"] {
            let error = #expect(throws: MultiaddrError.self) {
                try Multiaddr(text + String(repeating: "a", count: 1800))
            }
            #expect((error?.description.utf8.count ?? 0) < 200)
        }
    }

    @Test func everyTruncationIsRefusedOrEndsAtAComponent() throws {
        let texts =
            try Array(Vectors.libp2p.get().multiaddrValid.pairs.keys) + Vectors.multiformats.get().multiaddr.valid
        for text in Set(texts) {
            let address = try Multiaddr(text)
            var ends: Set<Int> = []
            for component in address.components {
                ends.insert((ends.max() ?? 0) + Multiaddr(components: [component]).bytes.count)
            }
            #expect(ends.max() == address.bytes.count)
            for length in 0..<address.bytes.count {
                let cut = try? Multiaddr(bytes: address.bytes.prefix(length))
                #expect((cut != nil) == ends.contains(length), "\(text) cut to \(length)")
            }
            // As text, every prefix parses or throws.
            for length in 0..<text.count { _ = try? Multiaddr(String(text.prefix(length))) }
        }
    }

    @Test func randomBytesNeverTrap() throws {
        var random = SplitMix64(state: 7)
        let codes = Multiaddr.ProtocolCode.allCases.map { Varint.encode($0.rawValue) }
        let seeds = try Vectors.libp2p.get().multiaddrValid.pairs.keys.sorted().map { try Multiaddr($0).bytes }
        var accepted = 0
        for round in 0..<30_000 {
            var input: [UInt8]
            switch round % 3 {
            case 0: input = random.bytes(Int.random(in: 0...40, using: &random))
            case 1:
                input =
                    (codes.randomElement(using: &random) ?? []) + random.bytes(Int.random(in: 0...40, using: &random))
                input += (codes.randomElement(using: &random) ?? [])
            default:
                input = seeds.randomElement(using: &random) ?? []
                for _ in 0..<Int.random(in: 1...3, using: &random) {
                    input[Int.random(in: 0..<input.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
                }
            }
            if Self.expectStable(bytes: input) { accepted += 1 }
        }
        #expect(accepted > 1000)
    }

    @Test func randomTextNeverTraps() {
        var random = SplitMix64(state: 8)
        let names = Multiaddr.ProtocolCode.allCases.map(\.name)
        let values = [
            "1.2.3.4", "::1", "80", "x", "", "/", "%2F", "%", Self.peer, "a:1", "\u{0}", "\u{301}", "é", "uEiA", "1",
            "Qm",
            "=====", "18446744073709551615", "\u{202e}",
        ]
        var accepted = 0
        for _ in 0..<20_000 {
            var text = ""
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                text += "/" + (names.randomElement(using: &random) ?? "")
                if Bool.random(using: &random) { text += "/" + (values.randomElement(using: &random) ?? "") }
            }
            guard let address = try? Multiaddr(text) else { continue }
            accepted += 1
            Self.expectStable(bytes: address.bytes)
        }
        #expect(accepted > 1000)
    }

    @Test func isCodedAsText() throws {
        let address = try Multiaddr("/ip4/0.0.0.0/tcp/0/tls")
        let json = try JSONEncoder().encode([address])
        #expect(String(decoding: json, as: UTF8.self).replacing("\\/", with: "/") == #"["/ip4/0.0.0.0/tcp/0/tls"]"#)
        #expect(try JSONDecoder().decode([Multiaddr].self, from: json) == [address])
        #expect {
            try JSONDecoder().decode([Multiaddr].self, from: Data(#"["/ip4/300.1.1.1"]"#.utf8))
        } throws: { error in
            guard case DecodingError.dataCorrupted(let context) = error else { return false }
            return context.debugDescription == "/ip4/300.1.1.1: not an IPv4 address"
        }
    }

    /// What is accepted comes back the same from its text, its bytes and its components.
    @discardableResult
    private static func expectStable(bytes: [UInt8]) -> Bool {
        guard let address = try? Multiaddr(bytes: bytes) else { return false }
        #expect(address.bytes == bytes)
        #expect((try? Multiaddr(address.description)) == address, "\(address)")
        #expect(Multiaddr(components: address.components) == address)
        for component in address.components {
            #expect((try? Multiaddr.Component(component.protocol, value: component.value)) == component)
        }
        _ = (address.ipAddress, address.tcpPort, address.udpPort, address.removingTrailingP2P())
        return true
    }
}
