import Testing

/// Which target may know which other.
@Suite struct DependencyTests {
    /// From the bottom up: a target imports only targets that stand above it here. Package.swift keeps the same order.
    static let order = [
        "CLinux", "COpenSSL", "CSodium", "CNetlink", "CCap", "CNgtcp2",
        "Multiformats", "PeerIdentity", "LibP2PCore", "LibP2PConnection", "LibP2PQUIC", "LibP2PSwarm",
        "LibP2PProtocols", "LibP2PKademlia", "LibP2PGossipSub", "LibP2P",
        "OverlayCore", "TunnelDevice", "ControlAPI", "OverlayEngine", "warren", "TestKit",
    ]

    /// An import that the order would allow, and why there must be none.
    struct Ban: Sendable, CustomStringConvertible {
        let from: String
        let to: [String]
        let reason: String

        var description: String { "\(self.from) without \(self.to.joined(separator: ", "))" }
    }

    static let libp2p = order.filter { $0.hasPrefix("LibP2P") }

    static let bans = [
        Ban(
            from: "Multiformats", to: ["NIOCore", "Foundation", "FoundationEssentials", "Crypto", "Dispatch"],
            reason: "values that everybody uses bring nothing along"),
        Ban(from: "PeerIdentity", to: ["NIOCore", "Logging"], reason: "a key does not need a network"),
        Ban(
            from: "LibP2PCore", to: ["NIOPosix", "COpenSSL", "Crypto", "SwiftProtobuf"],
            reason: "contracts are free of any implementation"),
        Ban(
            from: "LibP2PSwarm", to: ["LibP2PConnection", "LibP2PQUIC", "NIOPosix", "Crypto", "COpenSSL"],
            reason: "which connections exist does not depend on what they are made of: transports are injected"),
        Ban(
            from: "LibP2PProtocols", to: ["LibP2PConnection", "LibP2PQUIC", "NIOPosix"],
            reason: "a protocol runs over any stream"),
        Ban(
            from: "LibP2PKademlia", to: ["LibP2PConnection", "LibP2PQUIC", "NIOPosix"],
            reason: "a protocol runs over any stream"),
        Ban(
            from: "LibP2PGossipSub", to: ["LibP2PConnection", "LibP2PQUIC", "NIOPosix"],
            reason: "a protocol runs over any stream"),
        Ban(
            from: "OverlayCore",
            to: libp2p + [
                "CLinux", "CNetlink", "COpenSSL", "NIOCore", "NIOPosix", "Logging", "Foundation", "Dispatch",
            ],
            reason: "the VPN's decisions are pure: no I/O, no clock, no threads"),
        Ban(
            from: "TunnelDevice", to: libp2p + ["OverlayCore", "PeerIdentity", "NIOCore"],
            reason: "the device knows packets and addresses, not peers"),
        Ban(
            from: "ControlAPI",
            to: libp2p + ["OverlayCore", "TunnelDevice", "Multiformats", "PeerIdentity", "NIOCore", "NIOHTTP1"],
            reason: "other programs can take it as it is: a client of the daemon, and nothing of the daemon"),
        Ban(
            from: "OverlayEngine", to: ["LibP2PConnection", "COpenSSL", "CNetlink", "Crypto"],
            reason: "the library is used through its own face, the device through its own"),
        Ban(
            from: "warren", to: libp2p + ["TunnelDevice", "CLinux", "CNetlink", "COpenSSL", "NIOCore", "NIOPosix"],
            reason: "the command line talks to the daemon, and starts it"),
    ]

    /// Targets that Package.swift declares, in its order; those for tests alone and the tests left out.
    private static func declared() throws -> [String] {
        let package = try #require(Checkout.files.first { $0.path == "Package.swift" })
        let pattern = /\.(?:target|systemLibrary|executableTarget)\(\s*name: "([^"]+)"/
        return package.code.matches(of: pattern).map { String($0.1) }
    }

    @Test func packageKeepsTheOrder() throws {
        let declared = try Self.declared().filter { Self.order.contains($0) }
        #expect(declared.count > 10)
        // System libraries have no order among themselves.
        let known = Self.order.filter { declared.contains($0) && !$0.hasPrefix("C") || $0 == "ControlAPI" }
        #expect(declared.filter { known.contains($0) } == known)
    }

    @Test func everySourceFolderIsATarget() throws {
        let declared = try Self.declared()
        let folders = Set(Checkout.swift("Sources").compactMap { $0.path.split(separator: "/").dropFirst().first })
        for folder in folders {
            #expect(Self.order.contains(String(folder)), "\(folder) has no place in the order")
            #expect(declared.contains(String(folder)), "\(folder) is not built")
        }
    }

    @Test func importsPointUpwards() {
        var count = 0
        for (file, target, module) in Self.imports {
            guard let own = Self.order.firstIndex(of: target), let other = Self.order.firstIndex(of: module) else {
                continue
            }
            count += 1
            #expect(other < own, "\(file): \(target) imports \(module)")
        }
        #expect(count > 100)
    }

    @Test(arguments: bans)
    func banned(_ ban: Ban) {
        for (file, target, module) in Self.imports where target == ban.from && ban.to.contains(module) {
            Issue.record("\(file): \(target) imports \(module), but \(ban.reason)")
        }
    }

    @Test func nobodyShipsWhatIsForTests() {
        for (file, target, module) in Self.imports {
            #expect(module != "Testing" && module != "XCTest" && module != "TestKit", "\(file)")
            #expect(module != "NIOEmbedded" || target == "TestKit", "\(file): \(module) is for tests")
        }
    }

    /// Connections without encryption are for tests; the daemon cannot have them by any configuration.
    @Test func nothingShipsThatDoesNotEncrypt() {
        let shipped = Checkout.swift("Sources").filter { !$0.path.hasPrefix("Sources/TestKit/") }
        #expect(shipped.count > 100)
        #expect(Checkout.places(of: /\/plaintext\/|PlaintextUpgrader/, in: shipped).isEmpty)
    }

    /// Every import in the sources. Generated files import what their generator wants.
    private static let imports: [(file: String, target: String, module: String)] = {
        let pattern =
            /^\s*(?:@\w+(?:\([^)]*\))? )*(?:(?:public|package|internal|fileprivate|private) )?import (?:(?:struct|class|enum|func|protocol|typealias|var|let) )?(\w+)/
            .anchorsMatchLineEndings()
        return Checkout.swift("Sources").filter { !$0.isGenerated }.flatMap { file in
            let target = file.path.split(separator: "/").dropFirst().first.map(String.init) ?? ""
            return file.code.matches(of: pattern).map { (file.path, target, String($0.1)) }
        }
    }()
}
