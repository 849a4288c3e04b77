/// The body of every refusal.
package struct ErrorBody: Codable, Equatable, Sendable {
    /// What is wrong, without a full stop.
    package var error: String
    /// What to do about it. Empty when there is nothing to say.
    package var fix: String

    /// Creates a body.
    package init(error: String, fix: String) {
        self.error = error
        self.fix = fix
    }
}

/// The reply to a change that has nothing to report.
package struct Done: Codable, Equatable, Sendable {
    /// What was done, one line for the operator; empty when it was so before.
    package var message: String

    /// Creates a reply.
    package init(message: String) { self.message = message }
}

/// Asks for probes through the tunnel.
package struct PingRequest: Codable, Equatable, Sendable {
    /// A name, a peer ID or a unique prefix of either.
    package var peer: String
    /// The network, when the peer is in several.
    package var network: String?
    /// How many probes, 1…``maximumCount``.
    package var count: Int
    /// Milliseconds from one probe to the next, 10…60,000.
    package var intervalMilliseconds: Int
    /// Milliseconds to wait for each answer, 10…60,000.
    package var timeoutMilliseconds: Int

    /// The most probes one request may ask for.
    package static let maximumCount = 1_000_000
    /// What both spans of time may be.
    package static let millisecondsRange = 10...60_000

    /// Creates a request.
    package init(
        peer: String, network: String? = nil, count: Int, intervalMilliseconds: Int = 1000,
        timeoutMilliseconds: Int = 5000
    ) {
        self.peer = peer
        self.network = network
        self.count = count
        self.intervalMilliseconds = intervalMilliseconds
        self.timeoutMilliseconds = timeoutMilliseconds
    }
}

/// One line of the answer to ``PingRequest``: a probe that came back, or one that did not.
package struct PingReply: Codable, Equatable, Sendable {
    /// Counts from 1.
    package var sequence: Int
    /// The peer's ID.
    package var peer: String
    /// The peer's name.
    package var name: String
    /// The peer's first overlay address.
    package var ip: String
    /// The multiaddr of the path the probe took; `null` when none was there.
    package var address: String?
    /// The transport of that path.
    package var transport: String?
    /// The relay's peer ID, for a relayed path.
    package var relay: String?
    /// The lane it went on: `stream` or `datagram`.
    package var lane: String?
    /// Round-trip time in milliseconds; `null` when nothing came back.
    package var rttMilliseconds: Double?
    /// Why nothing came back; `null` when something did.
    package var error: String?

    /// Creates a reply.
    package init(
        sequence: Int, peer: String, name: String, ip: String, address: String? = nil, transport: String? = nil,
        relay: String? = nil, lane: String? = nil, rttMilliseconds: Double? = nil, error: String? = nil
    ) {
        self.sequence = sequence
        self.peer = peer
        self.name = name
        self.ip = ip
        self.address = address
        self.transport = transport
        self.relay = relay
        self.lane = lane
        self.rttMilliseconds = rttMilliseconds
        self.error = error
    }

    /// Writes every key, `null` where there is no value.
    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(self.sequence, forKey: .sequence)
        try container.encode(self.peer, forKey: .peer)
        try container.encode(self.name, forKey: .name)
        try container.encode(self.ip, forKey: .ip)
        try container.encode(self.address, forKey: .address)
        try container.encode(self.transport, forKey: .transport)
        try container.encode(self.relay, forKey: .relay)
        try container.encode(self.lane, forKey: .lane)
        try container.encode(self.rttMilliseconds, forKey: .rttMilliseconds)
        try container.encode(self.error, forKey: .error)
    }
}

/// Asks for the throughput of the connection to a peer, first to it, then from it. Exactly one of `bytes` and `milliseconds` is set.
package struct PerfRequest: Codable, Equatable, Sendable {
    /// A name, a peer ID or a unique prefix of either.
    package var peer: String
    /// The network, when the peer is in several.
    package var network: String?
    /// How many bytes go each way, 1…``maximumBytes``.
    package var bytes: UInt64?
    /// How long each way is measured, in ``millisecondsRange``.
    package var milliseconds: Int?

    /// The most bytes one request may ask for: 1 PiB.
    package static let maximumBytes: UInt64 = 1 << 50
    /// How long each way may take.
    package static let millisecondsRange = 100...3_600_000

    /// Creates a request.
    package init(peer: String, network: String? = nil, bytes: UInt64? = nil, milliseconds: Int? = nil) {
        self.peer = peer
        self.network = network
        self.bytes = bytes
        self.milliseconds = milliseconds
    }
}

/// One line of the answer to ``PerfRequest``: how far one way is, once a second, and at its end what came of it.
package struct PerfReply: Codable, Equatable, Sendable {
    /// The peer's ID.
    package var peer: String
    /// The peer's name.
    package var name: String
    /// The multiaddr of the connection that is measured; `null` when none was there.
    package var address: String?
    /// The transport of that connection.
    package var transport: String?
    /// The relay's peer ID, for a relayed connection.
    package var relay: String?
    /// `upload` to the peer, `download` from it.
    package var direction: String
    /// Bytes since this way began. An upload's count is exact at its end; before, some may still be queued here.
    package var bytes: UInt64
    /// Seconds since this way began.
    package var seconds: Double
    /// Whether this way is over.
    package var done: Bool
    /// Why it failed; nothing follows then. `null` when it did not.
    package var error: String?

    /// Creates a reply.
    package init(
        peer: String, name: String, address: String? = nil, transport: String? = nil, relay: String? = nil,
        direction: String, bytes: UInt64 = 0, seconds: Double = 0, done: Bool = false, error: String? = nil
    ) {
        self.peer = peer
        self.name = name
        self.address = address
        self.transport = transport
        self.relay = relay
        self.direction = direction
        self.bytes = bytes
        self.seconds = seconds
        self.done = done
        self.error = error
    }

    /// Bits a second; 0 where no time has passed.
    package var bitsPerSecond: Double { self.seconds > 0 ? Double(self.bytes) * 8 / self.seconds : 0 }

    /// Writes every key, `null` where there is no value, and the rate that follows from the others.
    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: WrittenKeys.self)
        try container.encode(self.peer, forKey: .peer)
        try container.encode(self.name, forKey: .name)
        try container.encode(self.address, forKey: .address)
        try container.encode(self.transport, forKey: .transport)
        try container.encode(self.relay, forKey: .relay)
        try container.encode(self.direction, forKey: .direction)
        try container.encode(self.bytes, forKey: .bytes)
        try container.encode(self.seconds, forKey: .seconds)
        try container.encode(self.bitsPerSecond, forKey: .bitsPerSecond)
        try container.encode(self.done, forKey: .done)
        try container.encode(self.error, forKey: .error)
    }

    private enum WrittenKeys: CodingKey {
        case peer, name, address, transport, relay, direction, bytes, seconds, bitsPerSecond, done, error
    }
}

/// Every peer with all that is known about it.
package struct PeerList: Codable, Equatable, Sendable {
    /// One entry per network and peer.
    package var peers: [PeerDetail]
    /// How the daemon's dialling goes; `null` when it does not say.
    package var dialling: Dialling?

    /// Creates a list.
    package init(peers: [PeerDetail], dialling: Dialling? = nil) {
        self.peers = peers
        self.dialling = dialling
    }

    /// Writes every key, `null` where there is no value.
    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(self.peers, forKey: .peers)
        try container.encode(self.dialling, forKey: .dialling)
    }

    /// What is under way, and what does not get through where this machine is.
    package struct Dialling: Codable, Equatable, Sendable {
        /// Addresses that are being dialled.
        package var underWay: Int
        /// Addresses that wait until others are done.
        package var waiting: Int
        /// Kinds of public addresses that networks sometimes swallow.
        package var blackHoles: [BlackHole]

        /// Creates a report.
        package init(underWay: Int, waiting: Int, blackHoles: [BlackHole]) {
            self.underWay = underWay
            self.waiting = waiting
            self.blackHoles = blackHoles
        }
    }

    /// A kind of public address, and how dials of it went.
    package struct BlackHole: Codable, Equatable, Sendable {
        /// `UDP` or `IPv6`.
        package var name: String
        /// Whether such addresses are left out, but for a probe now and then.
        package var blocked: Bool
        /// Successes among ``dials``.
        package var successes: Int
        /// The last dials, at most 100.
        package var dials: Int

        /// Creates an entry.
        package init(name: String, blocked: Bool, successes: Int, dials: Int) {
            self.name = name
            self.blocked = blocked
            self.successes = successes
            self.dials = dials
        }
    }
}

/// What ``PeerReport`` says, and how the peer could be reached.
package struct PeerDetail: Codable, Equatable, Sendable {
    /// The network.
    package var network: String
    /// The peer's part of the status report.
    package var peer: PeerReport
    /// What identify said; empty before it did.
    package var agent: String
    /// The protocols it speaks, as identify said.
    package var protocols: [String]
    /// Known multiaddrs, with where they come from and how the last dial of each went.
    package var addresses: [KnownAddress]

    /// A multiaddr of a peer.
    package struct KnownAddress: Codable, Equatable, Sendable {
        /// The multiaddr.
        package var address: String
        /// `configuration`, `identify`, `signed record`, `last good`; `name` for what a name was resolved to, `dial` for what only a
        /// dial has brought up.
        package var source: String
        /// The multiaddr whose name was resolved to this one; `null` when none was.
        package var name: String?
        /// When a connection was made there last, RFC 3339; `null` when never.
        package var reachedAt: String?
        /// How long that took, in milliseconds; `null` when not known.
        package var handshakeMilliseconds: Double?
        /// Dials that failed since then.
        package var failures: Int
        /// Why the last dial of it failed; `null` when it did not fail or was never tried.
        package var lastError: String?
        /// When that was, RFC 3339.
        package var failedAt: String?
        /// Seconds for which it is left alone; `null` when it is not.
        package var retryInSeconds: Double?

        /// Creates an entry.
        package init(
            address: String, source: String, name: String? = nil, reachedAt: String? = nil,
            handshakeMilliseconds: Double? = nil, failures: Int = 0, lastError: String?, failedAt: String? = nil,
            retryInSeconds: Double? = nil
        ) {
            self.address = address
            self.source = source
            self.name = name
            self.reachedAt = reachedAt
            self.handshakeMilliseconds = handshakeMilliseconds
            self.failures = failures
            self.lastError = lastError
            self.failedAt = failedAt
            self.retryInSeconds = retryInSeconds
        }

        /// Writes every key, `null` where there is no value.
        package func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(self.address, forKey: .address)
            try container.encode(self.source, forKey: .source)
            try container.encode(self.name, forKey: .name)
            try container.encode(self.reachedAt, forKey: .reachedAt)
            try container.encode(self.handshakeMilliseconds, forKey: .handshakeMilliseconds)
            try container.encode(self.failures, forKey: .failures)
            try container.encode(self.lastError, forKey: .lastError)
            try container.encode(self.failedAt, forKey: .failedAt)
            try container.encode(self.retryInSeconds, forKey: .retryInSeconds)
        }
    }

    /// Creates a detail.
    package init(network: String, peer: PeerReport, agent: String, protocols: [String], addresses: [KnownAddress]) {
        self.network = network
        self.peer = peer
        self.agent = agent
        self.protocols = protocols
        self.addresses = addresses
    }
}

/// The overlay routes of every network.
package struct RouteList: Codable, Equatable, Sendable {
    /// Members' own addresses first, then prefixes behind them.
    package var routes: [RouteEntry]

    /// Creates a list.
    package init(routes: [RouteEntry]) { self.routes = routes }
}

/// One overlay route.
package struct RouteEntry: Codable, Equatable, Sendable {
    /// The network.
    package var network: String
    /// The prefix.
    package var route: String
    /// The ID of the peer it leads to.
    package var peer: String
    /// That peer's name.
    package var name: String
    /// Where it comes from.
    package var source: Source

    /// Where a route comes from.
    package enum Source: String, Codable, Sendable {
        /// The peer's own overlay address.
        case member
        /// The configuration.
        case configuration
        /// `warren route add`: lasts until the daemon ends.
        case addedByOperator = "operator"
    }

    /// Creates an entry.
    package init(network: String, route: String, peer: String, name: String, source: Source) {
        self.network = network
        self.route = route
        self.peer = peer
        self.name = name
        self.source = source
    }
}

/// Adds a route until the daemon ends, or deletes one.
package struct RouteRequest: Codable, Equatable, Sendable {
    /// The prefix.
    package var route: String
    /// The peer it leads to: a name, a peer ID or a unique prefix of either. Needed to add, a condition to delete.
    package var peer: String?
    /// The network, when there are several.
    package var network: String?

    /// Creates a request.
    package init(route: String, peer: String?, network: String?) {
        self.route = route
        self.peer = peer
        self.network = network
    }
}

/// What a reload changed.
package struct ReloadReport: Codable, Equatable, Sendable {
    /// What is different now, one line each (`home: peer c added`).
    package var changes: [String]
    /// Keys whose new value waits for a restart.
    package var restartRequired: [String]
    /// What the configuration says that this build skips.
    package var warnings: [String]

    /// Creates a report.
    package init(changes: [String], restartRequired: [String], warnings: [String]) {
        self.changes = changes
        self.restartRequired = restartRequired
        self.warnings = warnings
    }
}

/// Which daemon answers.
package struct VersionReport: Codable, Equatable, Sendable {
    /// The daemon's version.
    package var version: String
    /// The agent string identify sends.
    package var agent: String

    /// Creates a report.
    package init(version: String = BuildVersion.version, agent: String = BuildVersion.agent) {
        self.version = version
        self.agent = agent
    }
}
