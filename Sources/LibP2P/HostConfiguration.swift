public import LibP2PConnection
public import LibP2PCore
public import LibP2PQUIC
public import LibP2PSwarm
public import Logging
public import Multiformats
public import NIOCore
public import PeerIdentity

/// What a ``Host`` is made of. Every value but the key has a default.
public struct HostConfiguration: Sendable {
    /// Who the node is.
    public var key: PrivateKey
    /// Where it listens. Empty: it only dials.
    public var listen: [Multiaddr] = []
    /// What its TCP sockets are like.
    public var tcp = TCPOptions()
    /// The muxers it speaks, in order of preference. `MplexMuxer` is deprecated: it is for hosts that must reach old peers, behind Yamux.
    public var muxers: [any MuxerUpgrader] = [YamuxMuxer()]
    /// What its WebSockets within TLS need.
    public var webSocket = WebSocketOptions()
    /// The key of the private network that the node is in, if it is in one: it then speaks with those only who have the key too.
    ///
    /// Addresses of transports that cannot be protected by a key (QUIC) are then neither listened on nor dialled: ``Host/start()`` logs
    /// one warning that names them. libp2p programs in general refuse to start without a key where the environment says
    /// `LIBP2P_FORCE_PNET=1`; this library reads no environment, so that is up to the program, which has
    /// ``PrivateNetworkError/keyRequired`` for it.
    public var preSharedKey: PreSharedKey?
    /// How its connections over TCP are secured, in order of preference; not empty. A listener takes each of them.
    public var securities = SecurityProtocol.preferred
    /// What tests put in the place of ``securities``: ones that are weaker, or break.
    package var testSecurities: [any SecurityUpgrader]?
    /// What its QUIC sockets and connections are like. `nil`: it does not speak QUIC.
    public var quic: QUICOptions? = QUICOptions()
    /// A network inside this process, for tests: `/memory/…` addresses.
    public var memoryNetwork: MemoryNetwork?
    /// How many connections it holds.
    public var limits = ConnectionLimits()
    /// How much it dials at the same time.
    public var dialLimits = DialLimits()
    /// Looks up names in addresses. `nil`: they cannot be dialled.
    public var resolver: (any MultiaddrResolver)? = SystemResolver.shared
    /// The whole budget of reaching a peer, over all its addresses.
    public var dialTimeout = TimeAmount.seconds(15)
    /// Where last good addresses are kept. `nil`: nowhere.
    public var peerStorePath: String?
    /// Who may measure throughput to and from the node, which then sends and receives as much as the line carries. Nobody, when `nil`.
    public var perf: ProtocolRegistry.Admission?
    /// What identify says of the program.
    public var agentVersion = "warren"
    /// What identify says of the family of protocols.
    public var protocolVersion = "ipfs/0.1.0"
    /// Which of its own addresses it tells others.
    public var announces: @Sendable (Multiaddr) -> Bool = { _ in true }
    /// Which addresses it dials at all.
    public var dials: @Sendable (Multiaddr) -> Bool = { _ in true }
    /// Who may connect. Asked when a peer is proven; see ``LibP2PSwarm/Swarm/Gater``.
    public var gater: Swarm.Gater = { _, _, _ in true }
    /// Where it logs.
    public var logger = Logger(label: "libp2p")

    /// The defaults for `key`.
    public init(key: PrivateKey) {
        self.key = key
    }
}
