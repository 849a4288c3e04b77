// swift-tools-version: 6.1
import PackageDescription

// The decoders once more, instrumented for libFuzzer. `Sources` and `Driver/Targets` are links into the main package:
// both compile the same files. Of a target only what the fuzzers reach is taken. `run` builds and runs it.

let settings: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
]
// Bounds of raw pointers are only checked by the address sanitizer. The machines are internal to their targets: fuzzers see
// them as unit tests do.
let instrumented = settings + [.unsafeFlags(["-sanitize=fuzzer,address", "-enable-testing"])]

let asn1 = Target.Dependency.product(name: "SwiftASN1", package: "swift-asn1")
let certificates = Target.Dependency.product(name: "X509", package: "swift-certificates")
let collections = Target.Dependency.product(name: "Collections", package: "swift-collections")
let crypto = Target.Dependency.product(name: "Crypto", package: "swift-crypto")
let cryptoExtras = Target.Dependency.product(name: "CryptoExtras", package: "swift-crypto")
let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let protobuf = Target.Dependency.product(name: "SwiftProtobuf", package: "swift-protobuf")

let package = Package(
    name: "fuzz",
    dependencies: [
        .package(url: "https://github.com/apple/swift-asn1", from: "1.7.4"),
        .package(url: "https://github.com/apple/swift-certificates", from: "1.21.1"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-protobuf", from: "1.39.0"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
    ],
    targets: [
        .systemLibrary(name: "COpenSSL", path: "Sources/System/COpenSSL", pkgConfig: "openssl"),
        .target(name: "CLinux"),
        .systemLibrary(name: "CSodium", path: "Sources/System/CSodium", pkgConfig: "libsodium"),
        .target(name: "Multiformats", swiftSettings: instrumented),
        .target(
            name: "PeerIdentity", dependencies: ["COpenSSL", "Multiformats", crypto, cryptoExtras, protobuf],
            exclude: ["Protos"], swiftSettings: instrumented),
        .target(
            name: "LibP2PCore", dependencies: ["Multiformats", "PeerIdentity", nioCore], swiftSettings: instrumented),
        .target(
            name: "LibP2PConnection",
            dependencies: [
                "CLinux", "COpenSSL", "CSodium", "Multiformats", "PeerIdentity", "LibP2PCore", asn1, certificates,
                collections, crypto, nioCore, protobuf,
            ],
            exclude: [
                "Memory", "Noise/Protos", "TCP", "Upgrade", "WebSocket/WebSocketAddress.swift",
                "WebSocket/WebSocketTransport.swift",
            ], swiftSettings: instrumented),
        .target(
            name: "LibP2PProtocols", dependencies: ["Multiformats", "PeerIdentity", nioCore, protobuf],
            path: "Sources/LibP2PProtocols", exclude: ["Protos"],
            sources: ["Identify/IdentifyInfo.swift", "Identify/identify.pb.swift", "Perf/PerfSession.swift"],
            swiftSettings: instrumented),
        .target(
            name: "TestKit", dependencies: ["PeerIdentity", "LibP2PCore", nioCore, protobuf],
            path: "Sources/TestKit/Plaintext", exclude: ["Protos"], swiftSettings: instrumented),
        .target(
            name: "OverlayCore", dependencies: ["Multiformats", "PeerIdentity", crypto, protobuf],
            exclude: ["Wire/Protos"], swiftSettings: instrumented),
        .target(name: "ControlAPI", swiftSettings: instrumented),
        .target(
            name: "OverlayEngine", dependencies: ["Multiformats", "PeerIdentity", "ControlAPI", "Yams"],
            path: "Sources/OverlayEngine/Configuration", swiftSettings: instrumented),

        .target(name: "LibFuzzer", path: "LibFuzzer"),
        .executableTarget(
            name: "fuzz",
            dependencies: [
                "Multiformats", "PeerIdentity", "LibP2PCore", "LibP2PConnection", "LibP2PProtocols", "OverlayCore",
                "ControlAPI", "OverlayEngine", "TestKit", "LibFuzzer", nioCore, certificates, crypto,
            ],
            path: "Driver", swiftSettings: settings + [.unsafeFlags(["-sanitize=address"])],
            linkerSettings: [.linkedLibrary("stdc++"), .unsafeFlags(["-sanitize=address"])]),
    ],
    swiftLanguageModes: [.v6]
)
