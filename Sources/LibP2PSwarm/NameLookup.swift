internal import LibP2PCore
internal import Multiformats
internal import PeerIdentity

/// Finds the addresses that an address with a name stands for. Pure: says what to ask, takes the answers in any order.
///
/// - `/dns`, `/dns4`, `/dns6`: the name gives way to each of its IP addresses. Where TLS is to follow, the name stays as `/sni`: the
///   server's certificate is made out to it.
/// - `/dnsaddr`: the TXT records of `_dnsaddr.<name>` hold multiaddrs, behind `dnsaddr=`. Those count that end in what follows the name
///   here, and that are not another peer's. They may hold names again.
///
/// Answers are not to be trusted: they are bounded in number, depth and in what they make us ask.
struct NameLookup: Sendable {
    /// Something to ask a name server.
    enum Query: Hashable, Sendable {
        case addresses(String, IPAddress.Family?)
        case texts(String)
    }

    /// What it said.
    enum Answer: Sendable {
        case addresses([IPAddress])
        case texts([String])
        case failure(String)
    }

    /// Records that are looked at per answer.
    static let maximumAnswers = 32
    /// Addresses found in all.
    static let maximumAddresses = 100
    /// TXT records that lead to TXT records.
    static let maximumDepth = 4
    /// Queries in all.
    static let maximumQueries = 32

    /// What has been found.
    private(set) var addresses: [Multiaddr] = []

    private let peer: PeerID
    /// What follows the name of each query, and how deep that is.
    private var pending: [Query: [(rest: [Multiaddr.Component], depth: Int)]] = [:]
    private var queryCount = 0
    private var firstFailure: String?

    /// - Parameter peer: Whose addresses are wanted.
    init(of peer: PeerID) {
        self.peer = peer
    }

    var isDone: Bool { self.pending.isEmpty }

    /// Why nothing was found, when that is so.
    var failure: String? {
        self.addresses.isEmpty ? self.firstFailure ?? "the name stands for no address of this peer" : nil
    }

    /// Begins. To be called once.
    mutating func start(_ address: Multiaddr) -> [Query] {
        self.follow(address.withoutPeerID.components, depth: 0)
    }

    /// Takes the answer to a query.
    mutating func answered(_ query: Query, _ answer: Answer) -> [Query] {
        guard let places = self.pending.removeValue(forKey: query) else { return [] }
        var queries: [Query] = []
        for (rest, depth) in places {
            switch answer {
            case .failure(let reason):
                self.fail(reason)
            case .addresses(let ips):
                for ip in ips.prefix(Self.maximumAnswers) { self.found([.ip(ip)] + rest) }
            case .texts(let texts):
                for text in texts.prefix(Self.maximumAnswers) {
                    queries += self.follow(text, endingIn: rest, depth: depth + 1)
                }
            }
        }
        return queries
    }

    private mutating func follow(_ text: String, endingIn rest: [Multiaddr.Component], depth: Int) -> [Query] {
        guard text.hasPrefix("dnsaddr="), let address = try? Multiaddr(String(text.dropFirst("dnsaddr=".count))) else {
            return []
        }
        let (components, owner) = (address.withoutPeerID.components, address.removingTrailingP2P().peer)
        guard owner == nil || owner == self.peer.bytes, components.suffix(rest.count) == rest[...] else { return [] }
        return self.follow(components, depth: depth)
    }

    /// An address that is one, or one more name.
    private mutating func follow(_ components: [Multiaddr.Component], depth: Int) -> [Query] {
        guard let first = components.first else { return [] }
        let rest = Array(components.dropFirst())
        switch first.protocol {
        case .dns: return self.ask(.addresses(first.text ?? "", nil), Self.naming(first, before: rest), depth)
        case .dns4: return self.ask(.addresses(first.text ?? "", .ipv4), Self.naming(first, before: rest), depth)
        case .dns6: return self.ask(.addresses(first.text ?? "", .ipv6), Self.naming(first, before: rest), depth)
        case .dnsaddr:
            guard depth < Self.maximumDepth else {
                self.fail("names lead to names more than \(Self.maximumDepth) deep")
                return []
            }
            return self.ask(.texts("_dnsaddr." + (first.text ?? "")), rest, depth)
        default:
            self.found(components)
            return []
        }
    }

    private mutating func ask(_ query: Query, _ rest: [Multiaddr.Component], _ depth: Int) -> [Query] {
        guard self.queryCount < Self.maximumQueries else {
            self.fail("the name leads to more than \(Self.maximumQueries) others")
            return []
        }
        self.queryCount += 1
        self.pending[query, default: []].append((rest, depth))
        return self.pending[query]?.count == 1 ? [query] : []
    }

    private mutating func found(_ components: [Multiaddr.Component]) {
        let address = Multiaddr(components: components)
        guard self.addresses.count < Self.maximumAddresses, address.bytes.count <= Multiaddr.maximumBytes,
            !self.addresses.contains(address)
        else { return }
        self.addresses.append(address)
    }

    private mutating func fail(_ reason: String) { self.firstFailure = self.firstFailure ?? reason }

    /// `…/tls/ws` and `…/wss` behind a name become `…/tls/sni/<name>/ws`.
    private static func naming(_ name: Multiaddr.Component, before rest: [Multiaddr.Component]) -> [Multiaddr.Component]
    {
        guard let text = name.text, let sni = try? Multiaddr.Component(.sni, text: text),
            let tls = try? Multiaddr.Component(.tls, value: []), let ws = try? Multiaddr.Component(.ws, value: []),
            !rest.contains(where: { $0.protocol == .sni })
        else { return rest }
        let end = rest.firstIndex { $0.protocol == .p2pCircuit } ?? rest.endIndex
        if let index = rest[..<end].firstIndex(where: { $0.protocol == .tls }) {
            return rest[...index] + [sni] + rest[(index + 1)...]
        }
        guard let index = rest[..<end].firstIndex(where: { $0.protocol == .wss }) else { return rest }
        return rest[..<index] + [tls, sni, ws] + rest[(index + 1)...]
    }
}
