import ArgumentParser
import Glibc
import LibP2P
import LibP2PCore
import NIOCore
import OverlayCore

/// What a hostile peer does.
enum Attack: String, CaseIterable, ExpressibleByArgument {
    case wrongSource = "wrong-source"
    case wrongDestination = "wrong-destination"
    case forgedOffload = "forged-offload"
    case malformedFrame = "malformed-frame"
    case oversizeFrame = "oversize-frame"
    case neverReads = "never-reads"
    case openStreams = "open-streams"
    case halfOpen = "half-open"
    case garbage
    case wrongNetwork = "wrong-network"
    case probeFlood = "probe-flood"

    var summary: String {
        switch self {
        case .wrongSource: "packets from addresses that belong to others"
        case .wrongDestination: "packets to addresses that are not the daemon's"
        case .forgedOffload: "super-packets that lie about themselves, then an honest packet"
        case .malformedFrame: "frames too short for their kind"
        case .oversizeFrame: "frames longer than allowed"
        case .neverReads: "asks for echoes on four streams and reads none"
        case .openStreams: "opens streams without end and says nothing on them"
        case .halfOpen: "connects over TCP, --count times, and says nothing"
        case .garbage: "random bytes in place of a handshake, and of a hello"
        case .wrongNetwork: "hellos for a network that the daemon does not have, and broken ones"
        case .probeFlood: "probes as fast as the daemon takes them"
        }
    }

    /// Does it, and tells what came of it.
    func run(_ plan: AttackPlan, _ session: Session) async throws -> String {
        switch self {
        case .wrongSource: return try await Self.inject(Self.wrongSources(plan), plan, session)
        case .wrongDestination: return try await Self.inject(Self.wrongDestinations(plan), plan, session)
        case .forgedOffload:
            var frames = Forge.lies(from: plan.from, to: plan.to).map(\.frame)
            frames.append(Self.honestPacket(plan))
            return try await Self.send(frames, session)
        case .malformedFrame: return try await Self.breakStreams(Forge.brokenFrames, session)
        case .oversizeFrame: return try await Self.breakStreams(Forge.oversizeFrames, session)
        case .neverReads: return try await Self.neverRead(plan, session)
        case .openStreams: return try await Self.openStreams(plan, session)
        case .halfOpen: return try await Self.halfOpen(plan)
        case .garbage: return try await Self.throwGarbage(plan, session)
        case .wrongNetwork: return try await Self.greetWrongly(session)
        case .probeFlood: return try await Self.flood(plan, session)
        }
    }

    // MARK: Packets

    private static func honestPacket(_ plan: AttackPlan) -> [UInt8] {
        Forge.packet(Forge.ipv4(from: plan.from.ipv4, to: plan.to.ipv4, proto: 17, Forge.udp(payload: 64)))
    }

    private static func wrongSources(_ plan: AttackPlan) -> [(from: IPAddress, to: IPAddress)] {
        let sources = ["127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "192.0.2.2", "8.8.8.8"]
            .compactMap { IPAddress($0) }
        let sources6 = ["::", "::1", "ff02::1", "fe80::1", "2001:db8::1"].compactMap { IPAddress($0) }
        return (sources + [plan.to.ipv4]).map { ($0, plan.to.ipv4) }
            + (sources6 + [plan.to.ipv6]).map { ($0, plan.to.ipv6) }
    }

    private static func wrongDestinations(_ plan: AttackPlan) -> [(from: IPAddress, to: IPAddress)] {
        let destinations = [
            "127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "192.0.2.1", "192.0.2.2", "8.8.8.8",
        ]
        .compactMap { IPAddress($0) }
        let destinations6 = ["::", "::1", "ff02::1", "fe80::1", "2001:db8::1"].compactMap { IPAddress($0) }
        return (destinations + [plan.from.ipv4]).map { (plan.from.ipv4, $0) }
            + (destinations6 + [plan.from.ipv6]).map { (plan.from.ipv6, $0) }
    }

    /// Sends `--count` packets in turn from the list, each as a finished packet.
    private static func inject(
        _ ways: [(from: IPAddress, to: IPAddress)], _ plan: AttackPlan, _ session: Session
    ) async throws -> String {
        let frames = (0..<plan.count).map { index in
            let (from, to) = ways[index % ways.count]
            let datagram = Forge.udp(payload: 64)
            return Forge.packet(
                from.family == .ipv4
                    ? Forge.ipv4(from: from, to: to, proto: 17, datagram)
                    : Forge.ipv6(from: from, to: to, next: 17, datagram))
        }
        return try await self.send(frames, session)
    }

    private static func send(_ frames: [[UInt8]], _ session: Session) async throws -> String {
        let stream = try await session.openPacketStream(on: session.connect())
        for frame in frames { try await stream.send(frame) }
        return "\(frames.count) frames, \(try await stream.fate(within: 1))"
    }

    // MARK: Streams

    /// Each on a stream of its own; the daemon must end each.
    private static func breakStreams(
        _ frames: [(name: String, frame: [UInt8])], _ session: Session
    ) async throws -> String {
        let connection = try await session.connect()
        var survivors: [String] = []
        for (index, frame) in frames.enumerated() {
            let stream = try await session.openPacketStream(on: connection, epoch: UInt64(index + 1))
            try await stream.send(frame.frame)
            if try await stream.fate(within: 2) == "the stream lives" { survivors.append(frame.name) }
        }
        return
            "\(frames.count) frames, streams that live: \(survivors.isEmpty ? "none" : survivors.joined(separator: ", "))"
    }

    private static let probes = (0..<1_000).flatMap { Forge.frame(kind: FrameKind.probe.rawValue, Forge.big64($0)) }

    private static func neverRead(_ plan: AttackPlan, _ session: Session) async throws -> String {
        let connection = try await session.connect()
        let sent = try await withThrowingTaskGroup(of: Int.self) { group in
            for epoch in 1...4 {
                group.addTask {
                    let stream = try await session.openPacketStream(on: connection, epoch: UInt64(epoch))
                    try await stream.stopReading()
                    return try await stream.flood(self.probes, seconds: plan.seconds) * 1_000
                }
            }
            return try await group.reduce(0, +)
        }
        return "\(sent) probes on 4 streams"
    }

    private static func flood(_ plan: AttackPlan, _ session: Session) async throws -> String {
        let stream = try await session.openPacketStream(on: session.connect())
        let sent = try await stream.flood(self.probes, seconds: plan.seconds) * 1_000
        let fate = try await stream.fate(within: 1)
        return "\(sent) probes, \(try await stream.received() / 12) echoes, \(fate)"
    }

    private static func openStreams(_ plan: AttackPlan, _ session: Session) async throws -> String {
        let connection = try await session.connect()
        let deadline = NIODeadline.now() + .seconds(plan.seconds)
        var opened: [OpenedStream] = []
        var refused = 0
        while NIODeadline.now() < deadline, opened.count < 20_000 {
            do {
                opened.append(try await session.openPacketStream(on: connection, saying: []))
            } catch {
                refused += 1
                if refused > 1_000 { break }
                try await Task.sleep(for: .milliseconds(5))
            }
        }
        var ended = 0
        for stream in opened {
            let isOver = try await stream.stream.eventLoop.submit { stream.stream.connection == nil }.get()
            if isOver { ended += 1 }
        }
        return "\(opened.count) streams opened, \(refused) refused here, \(ended) without a connection at the end"
    }

    private static func greetWrongly(_ session: Session) async throws -> String {
        let connection = try await session.connect()
        var story: [String] = []
        let stranger = NetworkID(staticName: "another", secret: "network")
        let opened = try await connection.openStream([Session.packetProtocol])
            .map { OpenedStream($0, hello: session.hello(epoch: 1, for: stranger)) }.get()
        switch try await opened.answer.get() {
        case .opened: story.append("another network: opened")
        case .refused(let code): story.append("another network: \(code)")
        case .failed(let reason): story.append("another network: \(reason)")
        }
        let greetings: [(name: String, bytes: [UInt8])] = [
            ("a greeting of 2 GiB", [0xff, 0xff, 0xff, 0xff, 0x07]),
            ("an endless length", [UInt8](repeating: 0xff, count: 20)),
            ("no protobuf", [4, 0xff, 0xff, 0xff, 0xff]), ("an empty greeting", [0]),
        ]
        for (name, bytes) in greetings {
            let stream = try await session.openPacketStream(on: session.connect(), saying: bytes)
            story.append("\(name): \(try await stream.fate(within: 2))")
        }
        return story.joined(separator: "; ")
    }

    // MARK: Sockets

    private static func halfOpen(_ plan: AttackPlan) async throws -> String {
        let sockets = (0..<plan.count).compactMap { _ in Socket(connectedTo: plan.address, port: plan.port) }
        try await Task.sleep(for: .seconds(plan.seconds))
        let closed = sockets.filter(\.isClosedByPeer).count
        return "\(sockets.count) connections, \(closed) closed by the daemon after \(plan.seconds) s"
    }

    private static func throwGarbage(_ plan: AttackPlan, _ session: Session) async throws -> String {
        var generator = SystemRandomNumberGenerator()
        let openings: [[UInt8]] = [
            [], Array("\u{13}/multistream/1.0.0\n\u{07}/noise\n".utf8), Array("GET / HTTP/1.1\r\n\r\n".utf8),
        ]
        var sockets: [Socket] = []
        for index in 0..<plan.count {
            guard let socket = Socket(connectedTo: plan.address, port: plan.port) else { continue }
            socket.send(
                openings[index % openings.count]
                    + (0..<20_000).map { _ in UInt8.random(in: .min ... .max, using: &generator) })
            sockets.append(socket)
        }
        let noise = (0..<5_000).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
        let stream = try await session.openPacketStream(on: session.connect(), saying: noise)
        let fate = try await stream.fate(within: 2)
        let closed = sockets.filter(\.isClosedByPeer).count
        return "\(sockets.count) connections, \(closed) closed by the daemon; in place of a hello: \(fate)"
    }
}

/// A bare TCP connection.
private final class Socket {
    private let descriptor: Int32

    init?(connectedTo address: String, port: UInt16) {
        self.descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard self.descriptor >= 0 else { return nil }
        var place = sockaddr_in()
        place.sin_family = sa_family_t(AF_INET)
        place.sin_port = port.bigEndian
        guard inet_pton(AF_INET, address, &place.sin_addr) == 1 else { return nil }
        let result = withUnsafePointer(to: &place) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(self.descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard result == 0 else { return nil }
    }

    deinit { if self.descriptor >= 0 { close(self.descriptor) } }

    func send(_ bytes: [UInt8]) {
        _ = Glibc.send(self.descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
    }

    /// Reads what has come, until there is an end, an error or nothing.
    var isClosedByPeer: Bool {
        var room = [UInt8](repeating: 0, count: 4_096)
        while true {
            let count = recv(self.descriptor, &room, room.count, Int32(MSG_DONTWAIT))
            if count > 0 { continue }
            return count == 0 || (errno != EAGAIN && errno != EINTR)
        }
    }
}
