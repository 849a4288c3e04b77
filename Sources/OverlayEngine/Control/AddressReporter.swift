internal import ControlAPI
internal import LibP2P
internal import NIOCore

/// Puts together what `warren peers --verbose` shows of addresses and of dialling.
enum AddressReporter {
    /// A peer's addresses: those of the configuration in its order, then the others as the peer store has them.
    static func report(configured: [Multiaddr], known: [PeerStore.AddressReport], now: NIODeadline)
        -> [PeerDetail.KnownAddress]
    {
        var seen = Set<Multiaddr>()
        let first = configured.map(\.withoutPeerID).filter { seen.insert($0).inserted }.map { address in
            let dials = known.first { $0.address == address.unmapped }?.dials
            return Self.entry(address, source: "configuration", dials, now)
        }
        seen.formUnion(seen.map(\.unmapped))
        let rest = known.filter { !seen.contains($0.address) }.map { report in
            Self.entry(report.address, source: Self.source(report), report.dials, now)
        }
        return first + rest
    }

    /// What the swarm says of itself.
    static func report(_ report: DialReport) -> PeerList.Dialling {
        PeerList.Dialling(
            underWay: report.underWay, waiting: report.waiting,
            blackHoles: report.blackHoles.map {
                .init(name: $0.name, blocked: $0.isBlocked, successes: $0.successes, dials: $0.dials)
            })
    }

    private static func source(_ report: PeerStore.AddressReport) -> String {
        switch report.source {
        case .identify: "identify"
        case .signedRecord: "signed record"
        case .lastGood: "last good"
        case .configured: "configuration"
        case nil: report.dials.name == nil ? "dial" : "name"
        }
    }

    private static func entry(_ address: Multiaddr, source: String, _ dials: DialRecord?, _ now: NIODeadline)
        -> PeerDetail.KnownAddress
    {
        var entry = PeerDetail.KnownAddress(address: address.description, source: source, lastError: nil)
        guard let dials else { return entry }
        entry.name = dials.name?.description
        entry.reachedAt = dials.reachedAt.map { WallTime(millisecondsSince1970: $0).rfc3339 }
        entry.handshakeMilliseconds = dials.handshake.map { Double($0.nanoseconds) / 1_000_000 }
        entry.failures = dials.failures
        // An error that a success has outlived is of no more interest.
        guard dials.failures > 0 else { return entry }
        entry.lastError = dials.failure
        entry.failedAt = dials.failedAt.map { WallTime(millisecondsSince1970: $0).rfc3339 }
        if let retryAt = dials.retryAt, retryAt > now {
            entry.retryInSeconds = Double((retryAt - now).nanoseconds / 1_000_000) / 1000
        }
        return entry
    }
}
