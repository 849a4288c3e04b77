// swift-tools-version: 6.1
import PackageDescription

// A target imports only targets that stand above it in this file. `Tests/HouseTests` holds that order.

let settings: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
]

let asn1 = Target.Dependency.product(name: "SwiftASN1", package: "swift-asn1")
let collections = Target.Dependency.product(name: "Collections", package: "swift-collections")
let crypto = Target.Dependency.product(name: "Crypto", package: "swift-crypto")
let cryptoExtras = Target.Dependency.product(name: "CryptoExtras", package: "swift-crypto")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioEmbedded = Target.Dependency.product(name: "NIOEmbedded", package: "swift-nio")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let nioHTTP1 = Target.Dependency.product(name: "NIOHTTP1", package: "swift-nio")
let protobuf = Target.Dependency.product(name: "SwiftProtobuf", package: "swift-protobuf")
let x509 = Target.Dependency.product(name: "X509", package: "swift-certificates")

let package = Package(
    name: "warren",
    products: [
        .library(name: "LibP2P", targets: ["LibP2P"]),
        .executable(name: "warren", targets: ["warren"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-asn1", from: "1.7.4"),
        .package(url: "https://github.com/apple/swift-certificates", from: "1.21.1"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-protobuf", from: "1.39.0"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    ],
    targets: [
        // What Swift cannot see, and the system's own libraries.
        .target(name: "CLinux", linkerSettings: [.linkedLibrary("resolv")]),
        .systemLibrary(
            name: "CNgtcp2", path: "Sources/System/CNgtcp2", pkgConfig: "libngtcp2_crypto_gnutls",
            providers: [.apt(["libngtcp2-dev", "libngtcp2-crypto-gnutls-dev", "libgnutls28-dev"])]),
        .systemLibrary(
            name: "COpenSSL", path: "Sources/System/COpenSSL", pkgConfig: "openssl",
            providers: [.apt(["libssl-dev"])]),
        .systemLibrary(
            name: "CSodium", path: "Sources/System/CSodium", pkgConfig: "libsodium",
            providers: [.apt(["libsodium-dev"])]),
        .systemLibrary(
            name: "CNetlink", path: "Sources/System/CNetlink", pkgConfig: "libnl-route-3.0",
            providers: [.apt(["libnl-3-dev", "libnl-route-3-dev"])]),

        // The libp2p stack.
        .target(name: "Multiformats", swiftSettings: settings),
        .target(
            name: "PeerIdentity",
            dependencies: ["COpenSSL", "Multiformats", crypto, cryptoExtras, protobuf],
            exclude: ["Protos"], swiftSettings: settings),
        .target(
            name: "LibP2PCore",
            dependencies: ["Multiformats", "PeerIdentity", nioCore, logging],
            swiftSettings: settings),
        .target(
            name: "LibP2PConnection",
            dependencies: [
                "CLinux", "COpenSSL", "CSodium", "Multiformats", "PeerIdentity", "LibP2PCore", asn1, collections,
                crypto, logging, nioCore, nioPosix, protobuf, x509,
            ],
            exclude: ["Noise/Protos"], swiftSettings: settings),
        .target(
            name: "LibP2PQUIC",
            dependencies: [
                "CLinux", "CNgtcp2", "Multiformats", "PeerIdentity", "LibP2PCore", "LibP2PConnection", collections,
                crypto, nioCore, nioPosix,
            ],
            swiftSettings: settings),
        .target(
            name: "LibP2PSwarm",
            dependencies: ["Multiformats", "PeerIdentity", "LibP2PCore", collections, logging, nioCore],
            swiftSettings: settings),
        .target(
            name: "LibP2PProtocols",
            dependencies: [
                "Multiformats", "PeerIdentity", "LibP2PCore", "LibP2PSwarm", logging, nioCore, protobuf,
            ],
            exclude: ["Protos"], swiftSettings: settings),
        .target(
            name: "LibP2P",
            dependencies: [
                "CLinux", "Multiformats", "PeerIdentity", "LibP2PCore", "LibP2PConnection", "LibP2PQUIC",
                "LibP2PSwarm", "LibP2PProtocols", logging, nioCore, nioPosix,
            ],
            swiftSettings: settings),

        // The VPN on top of it.
        .target(
            name: "OverlayCore", dependencies: ["Multiformats", "PeerIdentity", crypto, protobuf],
            exclude: ["Wire/Protos"], swiftSettings: settings),
        .target(
            name: "TunnelDevice", dependencies: ["CLinux", "CNetlink", "Multiformats"], swiftSettings: settings),
        .target(name: "ControlAPI", swiftSettings: settings),
        .target(
            name: "OverlayEngine",
            dependencies: [
                "CLinux", "Multiformats", "PeerIdentity", "LibP2P", "LibP2PCore", "OverlayCore",
                "TunnelDevice", "ControlAPI", "Yams", collections, logging, nioCore, nioPosix, nioHTTP1, protobuf,
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
            ],
            swiftSettings: settings),
        .executableTarget(
            name: "warren",
            dependencies: [
                "Multiformats", "PeerIdentity", "OverlayCore", "ControlAPI", "OverlayEngine",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: settings),

        // For tests only.
        .target(
            name: "TestKit",
            dependencies: [
                "Multiformats", "PeerIdentity", "LibP2PCore", "LibP2PConnection", "LibP2P", nioCore, nioEmbedded,
                protobuf,
            ],
            exclude: ["Plaintext/Protos"], swiftSettings: settings),

        .executableTarget(
            name: "interop-node",
            dependencies: [
                "Multiformats", "PeerIdentity", "LibP2PCore", "LibP2P", "TestKit", logging, nioCore,
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            path: "Tests/Interop/Node", swiftSettings: settings),
        .executableTarget(
            name: "lab-peer",
            dependencies: [
                "Multiformats", "PeerIdentity", "LibP2PCore", "LibP2P", "OverlayCore", logging, nioCore,
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            path: "Tests/Lab/HostilePeer", swiftSettings: settings),

        .testTarget(name: "HouseTests", swiftSettings: settings),
        .testTarget(
            name: "FuzzTests",
            dependencies: [
                "Multiformats", "PeerIdentity", "LibP2PCore", "LibP2PConnection", "LibP2PProtocols", "OverlayCore",
                "ControlAPI", "OverlayEngine", "TestKit", nioCore, crypto, x509,
            ],
            swiftSettings: settings),
        .testTarget(name: "MultiformatsTests", dependencies: ["Multiformats"], swiftSettings: settings),
        .testTarget(
            name: "PeerIdentityTests", dependencies: ["Multiformats", "PeerIdentity", crypto], swiftSettings: settings),
        .testTarget(name: "CLinuxTests", dependencies: ["CLinux"], swiftSettings: settings),
        .testTarget(
            name: "TunnelDeviceTests", dependencies: ["CLinux", "CNetlink", "Multiformats", "TunnelDevice"],
            swiftSettings: settings),
        .testTarget(
            name: "OverlayCoreTests", dependencies: ["Multiformats", "PeerIdentity", "OverlayCore", crypto],
            swiftSettings: settings),
        .testTarget(name: "ControlAPITests", dependencies: ["ControlAPI"], swiftSettings: settings),
        .testTarget(
            name: "OverlayEngineTests",
            dependencies: [
                "Multiformats", "PeerIdentity", "LibP2P", "OverlayCore", "TunnelDevice", "ControlAPI", "OverlayEngine",
                logging, nioCore, nioPosix,
            ],
            swiftSettings: settings),
        .testTarget(
            name: "WarrenTests", dependencies: ["Multiformats", "PeerIdentity", "ControlAPI", "warren"],
            swiftSettings: settings),
        .testTarget(
            name: "LibP2PCoreTests",
            dependencies: [
                "Multiformats", "PeerIdentity", "LibP2PCore", "LibP2PConnection", "TestKit", nioCore, nioEmbedded,
            ],
            swiftSettings: settings),
        .testTarget(
            name: "LibP2PSwarmTests",
            dependencies: [
                "Multiformats", "PeerIdentity", "LibP2PCore", "LibP2PSwarm", "TestKit", logging, nioCore, nioEmbedded,
            ],
            swiftSettings: settings),
        .testTarget(
            name: "LibP2PProtocolsTests",
            dependencies: [
                "Multiformats", "PeerIdentity", "LibP2P", "LibP2PCore", "LibP2PConnection", "LibP2PSwarm",
                "LibP2PProtocols", "TestKit", nioCore, nioEmbedded, protobuf,
            ],
            swiftSettings: settings),
        .testTarget(
            name: "LibP2PTests",
            dependencies: [
                "Multiformats", "PeerIdentity", "LibP2P", "LibP2PCore", "LibP2PConnection", "LibP2PSwarm", "TestKit",
                logging, nioCore, nioEmbedded, nioPosix,
            ],
            swiftSettings: settings),
        .testTarget(
            name: "LibP2PQUICTests",
            dependencies: [
                "CLinux", "CNgtcp2", "Multiformats", "PeerIdentity", "LibP2P", "LibP2PCore", "LibP2PConnection",
                "LibP2PQUIC", "TestKit", nioCore, nioPosix,
            ],
            swiftSettings: settings),
        .testTarget(
            name: "LibP2PConnectionTests",
            dependencies: [
                "COpenSSL", "Multiformats", "PeerIdentity", "LibP2PCore", "LibP2PConnection", "TestKit", asn1, crypto,
                nioCore, nioEmbedded, nioPosix, x509,
            ],
            swiftSettings: settings),
    ],
    swiftLanguageModes: [.v6]
)
