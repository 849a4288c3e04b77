/// What `GET /v1/status` answers and `warren status --json` prints.
///
/// Its JSON is a contract: keys are added, never renamed, removed or given another meaning. Values that may be absent
/// are written as `null`, so that a reader finds every key.
package struct StatusReport: Codable, Equatable, Sendable {
    /// This machine's peer ID.
    package var peerID: String
    /// The daemon's version.
    package var version: String
    /// The agent string identify sends.
    package var agent: String
    /// Seconds since the daemon started.
    package var uptimeSeconds: Double
    /// Multiaddrs the daemon listens on, wildcards resolved.
    package var listen: [String]
    /// Multiaddrs under which others see this machine.
    package var observed: [String]
    /// Whether strangers could dial this machine.
    package var reachability: Reachability
    /// Peer IDs of the relays that hold a reservation for this machine.
    package var relays: [String]
    /// One entry per network, in the order of the configuration.
    package var networks: [NetworkReport]

    /// Whether strangers could dial this machine.
    package enum Reachability: String, Codable, Sendable {
        case `public`, `private`, unknown
    }

    /// Creates a report.
    package init(
        peerID: String, version: String = BuildVersion.version, agent: String = BuildVersion.agent,
        uptimeSeconds: Double, listen: [String], observed: [String], reachability: Reachability, relays: [String],
        networks: [NetworkReport]
    ) {
        self.peerID = peerID
        self.version = version
        self.agent = agent
        self.uptimeSeconds = uptimeSeconds
        self.listen = listen
        self.observed = observed
        self.reachability = reachability
        self.relays = relays
        self.networks = networks
    }
}

/// One network of a ``StatusReport``.
package struct NetworkReport: Codable, Equatable, Sendable {
    /// Its name in the configuration.
    package var name: String
    /// The network ID, in lower-case hexadecimal.
    package var id: String
    /// The TUN interface.
    package var interface: String
    /// This machine's overlay addresses, IPv4 first.
    package var ips: [String]
    /// The inner MTU in bytes.
    package var mtu: Int
    /// Packets dropped before a peer was known, by reason (`noRoute`, `stranger`, …).
    package var dropped: [String: UInt64]
    /// One entry per peer, this machine not among them.
    package var peers: [PeerReport]

    /// Creates a report.
    package init(
        name: String, id: String, interface: String, ips: [String], mtu: Int, dropped: [String: UInt64],
        peers: [PeerReport]
    ) {
        self.name = name
        self.id = id
        self.interface = interface
        self.ips = ips
        self.mtu = mtu
        self.dropped = dropped
        self.peers = peers
    }
}

/// One peer in one network.
package struct PeerReport: Codable, Equatable, Sendable {
    /// Its peer ID.
    package var id: String
    /// Its name in this network.
    package var name: String
    /// Its overlay addresses, IPv4 first.
    package var ips: [String]
    /// Prefixes reached through it.
    package var routes: [String]
    /// How it is reached at the moment.
    package var state: State
    /// Why it is not reached directly. Empty when it is.
    package var reason: String
    /// Every connection to it.
    package var paths: [PathReport]
    /// Bytes of IP packets sent to it.
    package var sentBytes: UInt64
    /// Bytes of IP packets received from it.
    package var receivedBytes: UInt64
    /// IP packets sent to it.
    package var sentPackets: UInt64
    /// IP packets received from it.
    package var receivedPackets: UInt64
    /// IP packets delivered here before ones that it had sent earlier on another path.
    package var reorderedPackets: UInt64
    /// Packets from or to it that were dropped, by reason (`wrongSource`, `queueFull`, …).
    package var dropped: [String: UInt64]

    /// How a peer is reached.
    package enum State: String, Codable, Sendable, CaseIterable {
        /// Without another peer in between.
        case direct
        /// Through a relay.
        case relayed
        /// A dial is under way.
        case connecting
        /// The last dial failed; `reason` says why.
        case unreachable
        /// Not connected because there is nothing to send.
        case idle
    }

    /// Creates a report.
    package init(
        id: String, name: String, ips: [String], routes: [String], state: State, reason: String, paths: [PathReport],
        sentBytes: UInt64, receivedBytes: UInt64, sentPackets: UInt64, receivedPackets: UInt64,
        reorderedPackets: UInt64, dropped: [String: UInt64]
    ) {
        self.id = id
        self.name = name
        self.ips = ips
        self.routes = routes
        self.state = state
        self.reason = reason
        self.paths = paths
        self.sentBytes = sentBytes
        self.receivedBytes = receivedBytes
        self.sentPackets = sentPackets
        self.receivedPackets = receivedPackets
        self.reorderedPackets = reorderedPackets
        self.dropped = dropped
    }
}

/// One connection to a peer.
package struct PathReport: Codable, Equatable, Sendable {
    /// The remote multiaddr.
    package var address: String
    /// `tcp`, `quic-v1`, `ws`, ….
    package var transport: String
    /// `tls` or `noise`.
    package var security: String
    /// `yamux` or `quic`.
    package var muxer: String
    /// The congestion control the connection got, where it is known.
    package var congestion: String?
    /// The relay's peer ID, for a relayed path.
    package var relay: String?
    /// Whether the relay limits bytes or time.
    package var limited: Bool
    /// Whether this machine sends on it.
    package var sending: Bool
    /// Whether the peer sends on it.
    package var receiving: Bool
    /// The lanes that are open: `stream`, `datagram`.
    package var lanes: [String]
    /// Smoothed round-trip time in milliseconds; nothing before the first sample.
    package var rttMilliseconds: Double?
    /// When the connection was made, RFC 3339.
    package var since: String

    /// Creates a report.
    package init(
        address: String, transport: String, security: String, muxer: String, congestion: String?, relay: String?,
        limited: Bool, sending: Bool, receiving: Bool, lanes: [String], rttMilliseconds: Double?, since: String
    ) {
        self.address = address
        self.transport = transport
        self.security = security
        self.muxer = muxer
        self.congestion = congestion
        self.relay = relay
        self.limited = limited
        self.sending = sending
        self.receiving = receiving
        self.lanes = lanes
        self.rttMilliseconds = rttMilliseconds
        self.since = since
    }

    /// Writes every key, `null` where there is no value: the contract shows them all.
    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(self.address, forKey: .address)
        try container.encode(self.transport, forKey: .transport)
        try container.encode(self.security, forKey: .security)
        try container.encode(self.muxer, forKey: .muxer)
        try container.encode(self.congestion, forKey: .congestion)
        try container.encode(self.relay, forKey: .relay)
        try container.encode(self.limited, forKey: .limited)
        try container.encode(self.sending, forKey: .sending)
        try container.encode(self.receiving, forKey: .receiving)
        try container.encode(self.lanes, forKey: .lanes)
        try container.encode(self.rttMilliseconds, forKey: .rttMilliseconds)
        try container.encode(self.since, forKey: .since)
    }
}
