import ControlAPI

/// `warren status` for people.
enum StatusText {
    static func render(_ report: StatusReport) -> String {
        var text = "\(line(report.peerID))  \(line(report.agent)), up \(Quantity.span(seconds: report.uptimeSeconds))\n"
        text += "listening  \(list(report.listen))\n"
        text += "reachable  \(report.reachability.rawValue)"
        if !report.observed.isEmpty { text += ", seen as \(list(report.observed))" }
        if !report.relays.isEmpty { text += ", through relays \(list(report.relays))" }
        text += "\n"
        if report.networks.isEmpty { text += "\nno network: name one in the configuration\n" }
        for network in report.networks { text += "\n" + render(network) }
        return text
    }

    private static func render(_ network: NetworkReport) -> String {
        var text = ([network.name, network.interface] + network.ips).map(line).joined(separator: "  ")
        text += "  mtu \(network.mtu)\(drops(network.dropped))\n"
        guard !network.peers.isEmpty else {
            return text + "no peer: add one under networks.\(line(network.name)).peers\n"
        }
        let table = TextTable.render(
            header: ["PEER", "IP", "STATE", "PATH", "RTT", "SENT", "RECEIVED"],
            rows: network.peers.map { peer in
                let path = peer.paths.first(where: \.sending) ?? peer.paths.first
                return [
                    peer.name, peer.ips.first ?? "-", peer.state.rawValue, path.map(PathText.short) ?? "-",
                    path?.rttMilliseconds.map(Quantity.milliseconds) ?? "-", Quantity.bytes(peer.sentBytes),
                    Quantity.bytes(peer.receivedBytes),
                ]
            })
        // A peer's reason and drops stand below its row.
        var lines = table.split(separator: "\n").map { $0 + "\n" }
        for (index, peer) in network.peers.enumerated().reversed() {
            let notes = [peer.state == .direct ? "" : line(peer.reason), drops(peer.dropped, separator: "")]
                .filter { !$0.isEmpty }
            lines.insert(contentsOf: notes.map { "  \($0)\n" }, at: index + 2)
        }
        return text + lines.joined()
    }

    /// `dropped: noRoute 3, stranger 1`; nothing when nothing was dropped.
    private static func drops(_ counts: [String: UInt64], separator: String = "  ") -> String {
        let shown = counts.filter { $0.value > 0 }.sorted { $0.key < $1.key }.map { "\(line($0.key)) \($0.value)" }
        return shown.isEmpty ? "" : "\(separator)dropped: \(shown.joined(separator: ", "))"
    }

    private static func line(_ text: String) -> String { OperatorText.singleLine(text, limit: 400) }
    private static func list(_ texts: [String]) -> String {
        texts.isEmpty ? "-" : texts.map(line).joined(separator: ", ")
    }
}

/// A path in few words.
enum PathText {
    /// `/ip4/192.0.2.7/tcp/4117`, or `via 12D3…` for a relayed one.
    static func short(_ path: PathReport) -> String {
        guard let relay = path.relay else { return path.address }
        return "via \(relay.prefix(4))…\(relay.suffix(6))\(path.limited ? " (limited)" : "")"
    }

    /// All of it, for `peers --verbose`.
    static func long(_ path: PathReport) -> String {
        var words = [path.address, path.security, path.muxer]
        if let congestion = path.congestion { words.append(congestion) }
        if let relay = path.relay { words.append("relay \(relay)\(path.limited ? ", limited" : "")") }
        words.append("lanes \(path.lanes.isEmpty ? "-" : path.lanes.joined(separator: "+"))")
        switch (path.sending, path.receiving) {
        case (true, true): words.append("in use")
        case (true, false): words.append("sending")
        case (false, true): words.append("receiving")
        case (false, false): words.append("spare")
        }
        if let rtt = path.rttMilliseconds { words.append(Quantity.milliseconds(rtt)) }
        words.append("since \(path.since)")
        return OperatorText.singleLine(words.joined(separator: ", "), limit: 1000)
    }
}

/// `warren peers` for people.
enum PeerText {
    static func render(_ peers: [PeerDetail], dialling: PeerList.Dialling? = nil, isVerbose: Bool) -> String {
        guard !peers.isEmpty else { return "no peer\n" }
        guard isVerbose else {
            return TextTable.render(
                header: ["NETWORK", "PEER", "IP", "STATE", "ID"],
                rows: peers.map {
                    [$0.network, $0.peer.name, $0.peer.ips.first ?? "-", $0.peer.state.rawValue, $0.peer.id]
                })
        }
        let end = dialling.map { "\n" + AddressText.line($0) + "\n" } ?? ""
        return peers.map(Self.verbose).joined(separator: "\n") + end
    }

    private static func verbose(_ detail: PeerDetail) -> String {
        let peer = detail.peer
        let state = peer.reason.isEmpty ? peer.state.rawValue : "\(peer.state.rawValue) (\(peer.reason))"
        var lines = [
            "\(peer.name) in \(detail.network)", "  id        \(peer.id)", "  ips       \(list(peer.ips))",
            "  state     \(state)",
        ]
        if !peer.routes.isEmpty { lines.append("  routes    \(list(peer.routes))") }
        if !detail.agent.isEmpty { lines.append("  agent     \(detail.agent)") }
        if !detail.protocols.isEmpty { lines.append("  protocols \(list(detail.protocols))") }
        lines += peer.paths.map { "  path      \(PathText.long($0))" }
        lines += detail.addresses.map { "  address   \(AddressText.line($0))" }
        lines.append("  sent      \(Quantity.bytes(peer.sentBytes)) in \(peer.sentPackets) packets")
        lines.append("  received  \(Quantity.bytes(peer.receivedBytes)) in \(peer.receivedPackets) packets")
        for (reason, count) in peer.dropped.sorted(by: { $0.key < $1.key }) where count > 0 {
            lines.append("  dropped   \(reason) \(count)")
        }
        return lines.map { OperatorText.singleLine($0, limit: 2000) + "\n" }.joined()
    }

    private static func list(_ texts: [String]) -> String { texts.isEmpty ? "-" : texts.joined(separator: ", ") }
}

/// An address and its dials in one line, for `peers --verbose`.
enum AddressText {
    static func line(_ address: PeerDetail.KnownAddress) -> String {
        let source = [address.source, address.name].compactMap { $0 }.joined(separator: " ")
        var facts: [String] = []
        if let error = address.lastError {
            let times = address.failures > 1 ? ", \(address.failures) times" : ""
            facts.append("\(error)\(times)\(address.failedAt.map { ", last at \($0)" } ?? "")")
            if let wait = address.retryInSeconds { facts.append("left alone for \(Quantity.span(seconds: wait))") }
        }
        if let reachedAt = address.reachedAt {
            let time = address.handshakeMilliseconds.map { " in \(Quantity.milliseconds($0))" } ?? ""
            facts.append("reached\(time) at \(reachedAt)")
        }
        return "\(address.address) (\(source))" + (facts.isEmpty ? "" : ": " + facts.joined(separator: "; "))
    }

    static func line(_ dialling: PeerList.Dialling) -> String {
        let holes = dialling.blackHoles.map { hole in
            "\(hole.name) \(hole.blocked ? "blocked" : "open") (\(hole.successes) of \(hole.dials) dials succeeded)"
        }
        let parts = ["\(dialling.underWay) under way", "\(dialling.waiting) waiting"] + holes
        return OperatorText.singleLine("dialling  \(parts.joined(separator: ", "))", limit: 400)
    }
}

/// `warren ping` for people.
enum PingText {
    static func line(_ reply: PingReply) -> String {
        let peer = "\(reply.name) (\(reply.ip))"
        guard let rtt = reply.rttMilliseconds else {
            return OperatorText.singleLine("no answer from \(peer): seq=\(reply.sequence) \(reply.error ?? "")")
        }
        let path = reply.relay.map { "relayed by \($0)" } ?? "direct"
        let lane = reply.lane.map { ", \($0)" } ?? ""
        return OperatorText.singleLine(
            "answer from \(peer): seq=\(reply.sequence) time=\(Quantity.milliseconds(rtt)) \(path) \(reply.address ?? "-")\(lane)"
        )
    }

    static func summary(sent: Int, received: [Double]) -> String {
        var text = "\(sent) sent, \(received.count) answered"
        if let least = received.min(), let most = received.max() {
            let mean = received.reduce(0, +) / Double(received.count)
            text +=
                ", "
                + [("min", least), ("mean", mean), ("max", most)]
                .map { "\($0.0) \(Quantity.milliseconds($0.1))" }.joined(separator: ", ")
        }
        return text
    }
}

/// `warren perf` for people.
enum PerfText {
    static func line(_ reply: PerfReply) -> String {
        let way = reply.direction == "upload" ? "to" : "from"
        if let error = reply.error { return OperatorText.singleLine("\(way) \(reply.name): failed: \(error)") }
        let rate =
            "\(Quantity.bytes(reply.bytes)) in \(Quantity.seconds(reply.seconds)), \(Quantity.bitRate(reply.bitsPerSecond))"
        guard reply.done else { return OperatorText.singleLine("\(way) \(reply.name): \(rate)") }
        let path = reply.relay.map { "relayed by \($0)" } ?? "direct"
        return OperatorText.singleLine("\(way) \(reply.name), all: \(rate), \(path) \(reply.address ?? "-")")
    }
}
