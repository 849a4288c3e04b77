extension Multiaddr {
    /// The protocols of the multiaddr table. A raw value is the protocol's code.
    ///
    /// Spec: `multiformats/multiaddr`, `protocols.csv`.
    public enum ProtocolCode: UInt64, CaseIterable, Hashable, Sendable, CustomStringConvertible {
        case ip4 = 4
        case tcp = 6
        case dccp = 33
        case ip6 = 41
        case ip6zone = 42
        case ipcidr = 43
        case dns = 53
        case dns4 = 54
        case dns6 = 55
        case dnsaddr = 56
        case sctp = 132
        case udp = 273
        /// Deprecated.
        case p2pWebRTCStar = 275
        /// Deprecated in favour of ``webrtcDirect``.
        case p2pWebRTCDirect = 276
        /// Deprecated.
        case p2pStardust = 277
        case webrtcDirect = 280
        case webrtc = 281
        case p2pCircuit = 290
        case udt = 301
        case utp = 302
        case unix = 400
        case p2p = 421
        /// Deprecated alias of `/tls/http`.
        case https = 443
        case onion = 444
        case onion3 = 445
        case garlic64 = 446
        case garlic32 = 447
        case tls = 448
        case sni = 449
        case noise = 454
        /// QUIC draft 29, no longer spoken.
        case quic = 460
        case quicV1 = 461
        case webtransport = 465
        case certhash = 466
        case ws = 477
        /// Deprecated alias of `/tls/ws`.
        case wss = 478
        /// Deprecated.
        case p2pWebSocketStar = 479
        case http = 480
        case httpPath = 481
        case memory = 777

        /// How long a value is.
        public enum Size: Hashable, Sendable {
            /// There is no value.
            case none
            /// Always this many bytes.
            case fixed(Int)
            /// The length precedes the value as a varint; more than `maximum` bytes are refused.
            case lengthPrefixed(maximum: Int)
        }

        /// The protocol with this name. `ipfs` is the old name of `p2p`.
        public init?(name: String) {
            guard let code = Self.codes[name] else { return nil }
            self = code
        }

        /// The code, as in the binary form.
        public var code: UInt64 { self.rawValue }

        /// The name, as in the text form.
        public var name: String { self.entry.name }

        /// How long a value is.
        public var size: Size { self.form.size }

        /// Whether the value is a path, which takes up the rest of the address.
        public var isPath: Bool { self.form == .path }

        /// The name.
        public var description: String { self.name }

        var form: ValueForm { self.entry.form }

        private static let codes: [String: ProtocolCode] = {
            var codes: [String: ProtocolCode] = ["ipfs": .p2p]
            for code in Self.allCases { codes[code.name] = code }
            return codes
        }()

        private var entry: (name: String, form: ValueForm) {
            switch self {
            case .ip4: ("ip4", .ipv4)
            case .tcp: ("tcp", .port)
            case .dccp: ("dccp", .port)
            case .ip6: ("ip6", .ipv6)
            case .ip6zone: ("ip6zone", .name(maximumBytes: 64))
            case .ipcidr: ("ipcidr", .prefixLength)
            case .dns: ("dns", .domain)
            case .dns4: ("dns4", .domain)
            case .dns6: ("dns6", .domain)
            case .dnsaddr: ("dnsaddr", .domain)
            case .sctp: ("sctp", .port)
            case .udp: ("udp", .port)
            case .p2pWebRTCStar: ("p2p-webrtc-star", .none)
            case .p2pWebRTCDirect: ("p2p-webrtc-direct", .none)
            case .p2pStardust: ("p2p-stardust", .none)
            case .webrtcDirect: ("webrtc-direct", .none)
            case .webrtc: ("webrtc", .none)
            case .p2pCircuit: ("p2p-circuit", .none)
            case .udt: ("udt", .none)
            case .utp: ("utp", .none)
            case .unix: ("unix", .path)
            case .p2p: ("p2p", .peer)
            case .https: ("https", .none)
            case .onion: ("onion", .onion(hostBytes: 10))
            case .onion3: ("onion3", .onion(hostBytes: 35))
            case .garlic64: ("garlic64", .garlic64)
            case .garlic32: ("garlic32", .garlic32)
            case .tls: ("tls", .none)
            case .sni: ("sni", .domain)
            case .noise: ("noise", .none)
            case .quic: ("quic", .none)
            case .quicV1: ("quic-v1", .none)
            case .webtransport: ("webtransport", .none)
            case .certhash: ("certhash", .certificateHash)
            case .ws: ("ws", .none)
            case .wss: ("wss", .none)
            case .p2pWebSocketStar: ("p2p-websocket-star", .none)
            case .http: ("http", .none)
            case .httpPath: ("http-path", .httpPath)
            case .memory: ("memory", .number)
            }
        }
    }
}
