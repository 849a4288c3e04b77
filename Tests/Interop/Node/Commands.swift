import LibP2P
import LibP2PCore
import Multiformats
import NIOCore
import PeerIdentity

import class Foundation.FileHandle

/// What the node can be told to do. Arguments and results are named as in the drivers of the other implementations' peers.
struct Commands: Sendable {
    private let host: Host
    private let servers = Servers()

    /// Serves the test protocols from now on.
    init(host: Host) {
        self.host = host
        for protocolID in [Servers.echo, Servers.afterEnd, Servers.reset] {
            host.accept(protocolID) { [servers] in servers.serve($0) }
        }
    }

    enum Failure: Error {
        case unknownCommand(String)
        case missing(String)
        case notConnected
        case differentBytes
        case noRandomBytes
        case expectedReset(String)
        case expectedRefusal(String)
    }

    func perform(_ request: [String: JSON]) async throws -> JSON {
        func text(_ key: String) throws -> String {
            guard let value = request[key]?.text else { throw Failure.missing(key) }
            return value
        }
        func proto() throws -> ProtocolID { ProtocolID(rawValue: try text("proto")) }
        func size() throws -> Int {
            let value = request["size"]?.integer ?? 0
            guard (1...1 << 30).contains(value) else { throw Failure.missing("size") }
            return value
        }
        switch try text("cmd") {
        case "dial": return try await self.dial(try Multiaddr(text("addr")))
        case "ping": return try await self.ping(try PeerID(text("peer")), count: request["count"]?.integer ?? 3)
        case "perf": return try await self.perf(try PeerID(text("peer")), bytes: size())
        case "identify": return try await self.identify(try PeerID(text("peer")))
        case "peers": return try await self.peers()
        case "served": return self.served()
        case "echo": return try await self.echo(try PeerID(text("peer")), proto(), bytes: size())
        case "half_close": return try await self.halfClose(try PeerID(text("peer")), proto(), bytes: size())
        case "reset": return try await self.reset(try PeerID(text("peer")), proto(), bytes: size())
        case "expect_reset": return try await self.expectReset(try PeerID(text("peer")), proto())
        case "unknown_protocol": return try await self.unknownProtocol(try PeerID(text("peer")), proto())
        case "disconnect":
            self.host.swarm.disconnect(try PeerID(text("peer")))
            return .null
        case let other: throw Failure.unknownCommand(other)
        }
    }

    private func dial(_ address: Multiaddr) async throws -> JSON {
        let (place, peer) = address.splittingPeerID()
        guard let peer else { throw Failure.missing("/p2p/… at the end of addr") }
        return try await Self.describe(self.host.connect(to: peer, at: [place]))
    }

    /// The connections to each peer.
    private func peers() async throws -> JSON {
        var peers: [String: [JSON]] = [:]
        for connection in await self.host.swarm.connections() {
            peers[connection.remotePeer.description, default: []].append(try await Self.describe(connection))
        }
        return .object(peers.mapValues { .array($0) })
    }

    /// How the streams of each test protocol ended that peers have opened.
    private func served() -> JSON {
        .object(
            Dictionary(
                uniqueKeysWithValues: self.servers.served.map { protocolID, count in
                    let ends = ["opened": count.opened, "ended": count.ended, "reset": count.reset]
                    return (protocolID.rawValue, .object(ends.mapValues { .number(Double($0)) }))
                }))
    }

    private func ping(_ peer: PeerID, count: Int) async throws -> JSON {
        let times = try await self.host.ping.ping(self.connection(to: peer), count: count)
        return .object(["rtt_us": .array(times.map { .number(Double($0.nanoseconds) / 1000) })])
    }

    /// Throughput each way, in bits a second.
    private func perf(_ peer: PeerID, bytes: Int) async throws -> JSON {
        let connection = try await self.connection(to: peer)
        var rates: [String: JSON] = [:]
        for direction in PerfDirection.allCases {
            let total = try await self.host.perf.measure(direction, of: connection, .bytes(UInt64(bytes)))
            rates[direction.rawValue] = .number(total.bitsPerSecond)
        }
        return .object(rates)
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
            fields["record_sequence"] = .number(Double(record.sequence))
            fields["record_addrs"] = .array(record.addresses.map { .string($0.description) })
        }
        return .object(fields)
    }

    /// Sends while it reads, until as much has come back; the answer is compared byte by byte.
    private func echo(_ peer: PeerID, _ protocolID: ProtocolID, bytes: Int) async throws -> JSON {
        let (stream, buffered) = try await self.open(peer, protocolID)
        defer { buffered.close() }
        let sent = try Self.randomBytes(bytes)
        let start = NIODeadline.now()
        stream.eventLoop.execute {
            stream.write(sent)
            stream.flush()
        }
        let back = try await buffered.read(exactly: bytes)
        let time = NIODeadline.now() - start
        guard back == sent else { throw Failure.differentBytes }
        return .object(["seconds": .number(Double(time.nanoseconds) / 1e9)])
    }

    /// Ends our direction at once; the other side must still answer everything before it ends its own.
    private func halfClose(_ peer: PeerID, _ protocolID: ProtocolID, bytes: Int) async throws -> JSON {
        let (stream, buffered) = try await self.open(peer, protocolID)
        defer { buffered.close() }
        let sent = try Self.randomBytes(bytes)
        stream.eventLoop.execute {
            stream.write(sent)
            stream.flush()
            stream.closeWrite()
        }
        let back = try await buffered.readToEnd(atMost: bytes + 1)
        guard back == sent else { throw Failure.differentBytes }
        return .object(["equal": .bool(true)])
    }

    /// Resets a stream in the middle of an echo.
    private func reset(_ peer: PeerID, _ protocolID: ProtocolID, bytes: Int) async throws -> JSON {
        let (stream, buffered) = try await self.open(peer, protocolID)
        buffered.write(try Self.randomBytes(bytes))
        _ = try await buffered.read(exactly: bytes)
        stream.eventLoop.execute { stream.reset(.unspecified) }
        do {
            _ = try await buffered.read(exactly: 1)
            throw Failure.expectedReset("a byte came")
        } catch let error as StreamResetError where !error.byRemote {
            return .null
        }
    }

    /// The peer resets the stream as soon as it has read something.
    private func expectReset(_ peer: PeerID, _ protocolID: ProtocolID) async throws -> JSON {
        let (_, buffered) = try await self.open(peer, protocolID)
        buffered.write(try Self.randomBytes(1000))
        do {
            _ = try await buffered.read(exactly: 1)
            throw Failure.expectedReset("a byte came")
        } catch let error as StreamResetError where error.byRemote {
            return .null
        }
    }

    /// The peer refuses a protocol.
    private func unknownProtocol(_ peer: PeerID, _ protocolID: ProtocolID) async throws -> JSON {
        let (_, buffered) = try await self.open(peer, protocolID)
        do {
            buffered.write(ByteBuffer(string: "hello"))
            _ = try await buffered.read(exactly: 1)
            throw Failure.expectedRefusal("a byte came")
        } catch NegotiationError.unsupported([protocolID]) {
            return .null
        }
    }

    private func connection(to peer: PeerID) async throws -> any Connection {
        guard let connection = await self.host.swarm.connections(to: peer).last else { throw Failure.notConnected }
        return connection
    }

    private func open(_ peer: PeerID, _ protocolID: ProtocolID) async throws -> (any LibP2PCore.Stream, BufferedStream)
    {
        let stream = try await self.connection(to: peer).openStream([protocolID]).get()
        return (stream, try await stream.eventLoop.submit { BufferedStream(stream) }.get())
    }

    private static func randomBytes(_ count: Int) throws -> ByteBuffer {
        guard let source = FileHandle(forReadingAtPath: "/dev/urandom"), let bytes = try source.read(upToCount: count),
            bytes.count == count
        else { throw Failure.noRandomBytes }
        return ByteBuffer(bytes: bytes)
    }

    private static func describe(_ connection: any Connection) async throws -> JSON {
        let streams = try await connection.eventLoop.submit { connection.streamCount }.get()
        return .object([
            "id": .number(Double(connection.id.rawValue)), "streams": .number(Double(streams)),
            "remote": .string(connection.remoteAddress.description),
            "local": .string(connection.localAddress.description),
            "security": .string(connection.details.security.rawValue),
            "muxer": .string(connection.details.muxer.rawValue),
            "early_muxer": .bool(connection.details.hasEarlyMuxer),
        ])
    }
}
