import LibP2P
import LibP2PCore
import Multiformats
import NIOCore
import PeerIdentity

/// What the node can be told to do. Arguments and results are named as in the drivers of the other implementations' peers.
struct Commands: Sendable {
    let host: Host

    enum Failure: Error {
        case unknownCommand(String)
        case missing(String)
        case notConnected
        case differentBytes
        case expectedReset(String)
    }

    func perform(_ request: [String: JSON]) async throws -> JSON {
        func text(_ key: String) throws -> String {
            guard let value = request[key]?.text else { throw Failure.missing(key) }
            return value
        }
        switch try text("cmd") {
        case "dial": return try await self.dial(try Multiaddr(text("addr")))
        case "ping": return try await self.ping(try PeerID(text("peer")), count: request["count"]?.integer ?? 3)
        case "identify": return try await self.identify(try PeerID(text("peer")))
        case "peers": return await self.peers()
        case "echo_server":
            self.serveEcho(ProtocolID(rawValue: try text("proto")))
            return .null
        case "echo":
            return try await self.echo(
                try PeerID(text("peer")), ProtocolID(rawValue: try text("proto")),
                bytes: request["size"]?.integer ?? 100_000)
        case "half_close":
            return try await self.halfClose(
                try PeerID(text("peer")), ProtocolID(rawValue: try text("proto")),
                bytes: request["size"]?.integer ?? 100_000)
        case "reset": return try await self.reset(try PeerID(text("peer")), ProtocolID(rawValue: try text("proto")))
        case "unknown_protocol": return try await self.unknownProtocol(try PeerID(text("peer")))
        case "disconnect":
            self.host.swarm.disconnect(try PeerID(text("peer")))
            return .null
        case let other: throw Failure.unknownCommand(other)
        }
    }

    private func dial(_ address: Multiaddr) async throws -> JSON {
        let (place, peer) = address.splittingPeerID()
        guard let peer else { throw Failure.missing("/p2p/… at the end of addr") }
        return Self.describe(try await self.host.connect(to: peer, at: [place]))
    }

    private func peers() async -> JSON {
        var peers: [String: JSON] = [:]
        for connection in await self.host.swarm.connections() {
            peers[connection.remotePeer.description] = Self.describe(connection)
        }
        return .object(peers)
    }

    private func ping(_ peer: PeerID, count: Int) async throws -> JSON {
        let times = try await self.host.ping.ping(self.connection(to: peer), count: count)
        return .object(["rtt_us": .array(times.map { .number(Double($0.nanoseconds) / 1000) })])
    }

    private func identify(_ peer: PeerID) async throws -> JSON {
        let info = try await self.host.identify.info(of: self.connection(to: peer))
        var fields: [String: JSON] = [
            "listen_addrs": .array(info.listenAddresses.map { .string($0.description) }),
            "protocols": .array(info.protocols.map { .string($0) }),
            "signed_peer_record": .bool(info.signedPeerRecord != nil),
        ]
        fields["public_key"] = info.publicKey.map { .string(PeerID($0).description) }
        fields["observed_addr"] = info.observedAddress.map { .string($0.description) }
        fields["protocol_version"] = info.protocolVersion.map { .string($0) }
        fields["agent_version"] = info.agentVersion.map { .string($0) }
        if let bytes = info.signedPeerRecord {
            let (record, _) = try PeerRecord.open(bytes)
            fields["record_peer"] = .string(record.peerID.description)
            fields["record_addrs"] = .array(record.addresses.map { .string($0.description) })
        }
        return .object(fields)
    }

    /// Sends while it reads, until as much has come back; the answer is compared byte by byte.
    private func echo(_ peer: PeerID, _ protocolID: ProtocolID, bytes: Int) async throws -> JSON {
        let (stream, buffered) = try await self.open(peer, protocolID)
        defer { buffered.close() }
        let sent = Self.pattern(bytes)
        stream.eventLoop.execute {
            stream.write(sent)
            stream.flush()
        }
        let back = try await buffered.read(exactly: bytes)
        guard back == sent else { throw Failure.differentBytes }
        return .object(["equal": .bool(true), "proto": .string(protocolID.rawValue)])
    }

    /// Ends our direction at once; the other side must still answer everything before it ends its own.
    private func halfClose(_ peer: PeerID, _ protocolID: ProtocolID, bytes: Int) async throws -> JSON {
        let (stream, buffered) = try await self.open(peer, protocolID)
        defer { buffered.close() }
        let sent = Self.pattern(bytes)
        stream.eventLoop.execute {
            stream.write(sent)
            stream.flush()
            stream.closeWrite()
        }
        let back = try await buffered.readToEnd(atMost: bytes + 1)
        guard back == sent else { throw Failure.differentBytes }
        return .object(["equal": .bool(true)])
    }

    /// Resets a stream in the middle of an echo, then shows that the connection lives on.
    private func reset(_ peer: PeerID, _ protocolID: ProtocolID) async throws -> JSON {
        let (stream, buffered) = try await self.open(peer, protocolID)
        buffered.write(Self.pattern(1000))
        _ = try await buffered.read(exactly: 1000)
        stream.eventLoop.execute { stream.reset(.unspecified) }
        do {
            _ = try await buffered.read(exactly: 1)
            throw Failure.expectedReset("a byte came")
        } catch is StreamResetError {
        }
        return try await self.ping(peer, count: 1)
    }

    /// A protocol that nobody speaks is refused, and the connection lives on.
    private func unknownProtocol(_ peer: PeerID) async throws -> JSON {
        let (_, buffered) = try await self.open(peer, "/nobody/speaks/this/1.0.0")
        do {
            buffered.write(ByteBuffer(string: "hello"))
            _ = try await buffered.read(exactly: 1)
            throw Failure.expectedReset("a byte came")
        } catch let error as NegotiationError {
            return .object(["refused": .string(String(describing: error))])
        }
    }

    /// Answers every byte with itself, and the end with the end.
    func serveEcho(_ protocolID: ProtocolID) {
        self.host.accept(protocolID) { Echo.start(on: $0) }
    }

    private func connection(to peer: PeerID) async throws -> any Connection {
        guard let connection = await self.host.swarm.connections(to: peer).last else { throw Failure.notConnected }
        return connection
    }

    private func open(_ peer: PeerID, _ protocolID: ProtocolID) async throws -> (any LibP2PCore.Stream, BufferedStream) {
        let stream = try await self.connection(to: peer).openStream([protocolID]).get()
        return (stream, try await stream.eventLoop.submit { BufferedStream(stream) }.get())
    }

    private static func pattern(_ count: Int) -> ByteBuffer {
        var state: UInt64 = 0x9e37_79b9_7f4a_7c15
        var bytes = ByteBuffer()
        bytes.reserveCapacity(count + 8)
        while bytes.readableBytes < count {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            bytes.writeInteger(state)
        }
        bytes.moveWriterIndex(to: count)
        return bytes
    }

    private static func describe(_ connection: any Connection) -> JSON {
        .object([
            "remote": .string(connection.remoteAddress.description), "local": .string(connection.localAddress.description),
            "security": .string(connection.details.security.rawValue),
            "muxer": .string(connection.details.muxer.rawValue),
        ])
    }
}

/// The echo protocol's server side.
private final class Echo: ByteStreamReceiver {
    private let stream: any LibP2PCore.Stream

    private init(_ stream: any LibP2PCore.Stream) {
        self.stream = stream
    }

    static func start(on stream: any LibP2PCore.Stream) {
        stream.receiver = Echo(stream)
        stream.setReading(true)
    }

    func received(_ bytes: ByteBuffer) {
        self.stream.write(bytes)
        if !self.stream.isWritable { self.stream.setReading(false) }
    }

    func receiveComplete() { self.stream.flush() }

    func writabilityChanged() { self.stream.setReading(self.stream.isWritable) }

    func inputEnded() {
        self.stream.flush()
        self.stream.closeWrite()
    }

    func closed(_ error: (any Error)?) {}
}
