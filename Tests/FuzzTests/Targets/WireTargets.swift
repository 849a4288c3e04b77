import ControlAPI
import Multiformats
import OverlayCore
import OverlayEngine
import PeerIdentity

extension FuzzTarget {
    /// Frames are the same however the stream is cut, and keep their limits; those we write are read back.
    static let frames = FuzzTarget(
        name: "frames", maximumBytes: 4096,
        seeds: {
            let packet: [UInt8] = [0, 0, 0, 3, 0x45, 1, 2]
            let superPacket: [UInt8] = [1, 0, 0, 6, 5, 0xa0, 1, 0x45, 1, 2]
            let move: [UInt8] = [2, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7]
            let probe: [UInt8] = [3, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9]
            let close: [UInt8] = [5, 0, 0, 2, 0, 1]
            let unknown: [UInt8] = [77, 0, 0, 4, 1, 2, 3, 4, 78, 0, 0, 0]
            let all = packet + superPacket + move + probe + unknown + [4] + probe.dropFirst() + close
            var seeds: [[UInt8]] = []
            for lengths: [UInt8] in [[0, 0, 0, 0], [1, 1, 1, 1], [3, 20, 7, 0]] {
                for body in [all, packet, superPacket, move + unknown, [0, 1, 0, 0x41] + all] {
                    seeds.append(lengths + body)
                }
            }
            return seeds
        },
        run: { input in
            var choices = Choices(input)
            let (whole, pieces) = choices.pieces()
            let cut = try readFrames(pieces)
            try holdEqual(cut, try readFrames([whole]))
            for frame in cut.frames {
                guard case .control(let control) = frame else { continue }
                let bytes = [UInt8](unsafeUninitializedCapacity: FrameWriter.maximumControlFrameBytes) { room, count in
                    count = FrameWriter.write(control, into: UnsafeMutableRawBufferPointer(room))
                }
                try holdEqual(try readFrames([bytes]).frames, [frame])
            }
        })

    /// The packets of a datagram lie in it one behind the other; packed again they make the same datagram, or the shorter form of it.
    static let datagram = FuzzTarget(
        name: "datagram", maximumBytes: 1400,
        seeds: {
            [
                [0, 0x45, 1, 2], [6, 0, 3, 0x45, 1, 2], [6, 0, 3, 0x45, 1, 2, 0, 1, 0x60], [6, 0, 0], [6, 0, 2, 0x45],
                [1, 5, 0xa0, 1, 0x45], [7],
            ]
        },
        run: { input in
            var packets: [[UInt8]] = []
            do {
                try input.withUnsafeBytes { bytes in try DatagramReader.read(bytes) { packets.append(Array($0)) } }
            } catch {
                return try hold(packets.isEmpty, "a broken datagram is dropped whole")
            }
            guard let kind = input.first, DatagramKind(rawValue: kind) != nil else { return try hold(packets.isEmpty) }
            try hold(!packets.isEmpty && packets.allSatisfy { !$0.isEmpty })
            try withUnsafeTemporaryAllocation(
                byteCount: DatagramWriter.roomBytes(forLimit: input.count), alignment: 1
            ) { room in
                var writer = DatagramWriter(room: room, limitBytes: input.count)
                for packet in packets {
                    try holdEqual(packet.withUnsafeBytes { writer.append($0) }, .written)
                }
                let datagram = Array(writer.datagram)
                try holdEqual(datagram, packets.count == 1 ? [0] + packets[0] : input)
            }
        })

    /// Both halves of the opening exchange come to the same end however their input is cut.
    static let hello = FuzzTarget(
        name: "hello", maximumBytes: 4300,
        seeds: {
            var opener = HelloOpener(ownHello)
            guard case .send(let hello) = opener.start() else { return [] }
            var acceptor = HelloAcceptor()
            _ = acceptor.receive(hello)
            guard case .refuse(let refusal, _) = acceptor.refuse(.tooManyStreams) else { return [] }
            var seeds: [[UInt8]] = []
            for lengths: [UInt8] in [[0, 0, 0, 0], [1, 2, 30, 0]] {
                for body in [hello, refusal, hello + [0, 0, 0, 1, 9]] { seeds.append(lengths + body) }
            }
            return seeds
        },
        run: { input in
            var choices = Choices(input)
            let (whole, pieces) = choices.pieces()
            try holdEqual(try open(pieces), try open([whole]))
            try holdEqual(try accept(pieces), try accept([whole]))
        })

    /// A configuration is parsed or its first mistake named, with a line that the file has.
    static let configuration = FuzzTarget(
        name: "configuration", maximumBytes: 4096,
        seeds: {
            let home = """
                name: a
                listen: [ /ip4/0.0.0.0/tcp/4117 ]
                networks:
                  home:
                    mtu: 1280
                    networkSecret: 0123456789abcdef
                    peers:
                      - { name: b, id: 12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq, addresses: [ /dns4/b.example/tcp/1 ] }
                      - id: 12D3KooWCryG7Mon9orvQxcS1rYZjotPgpwoJNHHKcLLfE4Hf5mV
                        routes: [ 10.0.0.0/8 ]
                """
            let odd = [
                "", "a: &x [*x]", "networks: {a: {peers: []}, a: 1}", "? [a]\n: b", "name: \"\\u0000\"", "%YAML 9",
            ]
            return ([home] + odd).map { Array($0.utf8) }
        },
        run: { input in
            let text = String(decoding: input, as: UTF8.self)
            let context = DaemonConfiguration.Context(ownPeerID: nil, defaultName: "a")
            do {
                _ = try DaemonConfiguration.parse(text, file: "f", context: context)
            } catch let error as ConfigurationError {
                // The scanner counts the ends of lines that Unicode knows.
                let ends = text.unicodeScalars.count { "\n\r\u{85}\u{2028}\u{2029}".unicodeScalars.contains($0) }
                try hold((1...ends + 2).contains(error.line ?? 1), "\(error)")
                try hold(!error.description.isEmpty)
            }
        })

    /// The body of a response and the way it ends do not depend on how it is cut.
    static let httpResponse = FuzzTarget(
        name: "http-response", maximumBytes: 4096,
        seeds: {
            let bodies = [
                "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody", "HTTP/1.1 204 No Content\r\n\r\n",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nbody\r\n10\r\n0123456789abcdef\r\n0\r\nt: v\r\n\r\n",
                "HTTP/1.1 404 Not Found\r\nDate:  x \r\n\r\nuntil the end",
                "HTTP/1.1 200 \r\nContent-Length: 9\r\n\r\ncut",
            ]
            var seeds: [[UInt8]] = []
            for lengths: [UInt8] in [[0, 0, 0, 0], [1, 1, 2, 3], [17, 40, 3, 0]] {
                for body in bodies { seeds.append(lengths + Array(body.utf8)) }
            }
            return seeds
        },
        run: { input in
            var choices = Choices(input)
            let (whole, pieces) = choices.pieces()
            try holdEqual(try readResponse(pieces), try readResponse([whole]))
        })

    // MARK: Frames

    private enum FrameCopy: Equatable {
        case packet([UInt8])
        case superPacket(OffloadMetadata, [UInt8])
        case control(ControlFrame)
    }

    private struct Frames: Equatable {
        var frames: [FrameCopy] = []
        var error: FrameError?
        var isAtBoundary = true
    }

    private static func readFrames(_ pieces: [[UInt8]]) throws -> Frames {
        var reader = FrameReader()
        var result = Frames()
        func handle(_ frame: Frame) {
            switch frame {
            case .packet(let packet): result.frames.append(.packet(Array(packet)))
            case .superPacket(let offload, let packet): result.frames.append(.superPacket(offload, Array(packet)))
            case .move(let epoch): result.frames.append(.control(.move(epoch: epoch)))
            case .probe(let id): result.frames.append(.control(.probe(id)))
            case .echo(let id): result.frames.append(.control(.echo(id)))
            case .close(let code): result.frames.append(.control(.close(code)))
            }
        }
        for piece in pieces where result.error == nil {
            piece.withUnsafeBytes { bytes in
                do throws(FrameError) {
                    try reader.read(bytes, handle)
                } catch {
                    result.error = error
                }
            }
        }
        result.isAtBoundary = reader.isAtFrameBoundary
        for frame in result.frames {
            switch frame {
            case .packet(let packet), .superPacket(_, let packet):
                try hold((1...FrameLimits.packetBodyBytes).contains(packet.count))
            case .control: break
            }
        }
        try hold(reader.allocatedBytes <= FrameLimits.packetBodyBytes)
        return result
    }

    // MARK: Hello

    private static let ownHello = Hello(
        networkID: NetworkID(staticName: "home", secret: nil), instance: 7, epoch: 1, capabilities: [.tso4, .tso6],
        innerMTU: 1280)

    private static func open(_ pieces: [[UInt8]]) throws -> HelloOpener.Action {
        var opener = HelloOpener(ownHello)
        _ = opener.start()
        for (index, piece) in pieces.enumerated() {
            switch opener.receive(piece) {
            case .wait: continue
            case .open(let agreement, let leftover):
                try hold(agreement.networkID == ownHello.networkID && agreement.innerMTU == ownHello.innerMTU)
                try hold(Hello.bodyLimits.contains(agreement.packetBodyLimit))
                try hold(agreement.capabilities.isSubset(of: ownHello.capabilities))
                return .open(agreement, leftover: leftover + pieces[(index + 1)...].joined())
            case let ending: return ending
            }
        }
        return .wait
    }

    private static func accept(_ pieces: [[UInt8]]) throws -> HelloAcceptor.Action {
        var acceptor = HelloAcceptor()
        for (index, piece) in pieces.enumerated() {
            switch acceptor.receive(piece) {
            case .wait: continue
            case .decide(let hello, let leftover):
                try hold(Hello.bodyLimits.contains(hello.maximumBodyBytes) && Hello.mtuLimits.contains(hello.innerMTU))
                switch acceptor.accept(ownHello) {
                case .open(let agreement, _): try hold(hello.networkID == agreement.networkID)
                case .refuse(_, let code): try holdEqual(code, .mtuMismatch)
                case .fail(let error, _): try holdEqual(error, .otherNetwork(ownHello.networkID))
                case let other: throw Violation(description: "\(other)")
                }
                return .decide(hello, leftover: leftover + pieces[(index + 1)...].joined())
            case let ending: return ending
            }
        }
        return .wait
    }

    // MARK: HTTP

    private struct Response: Equatable {
        var status: Int?
        var body: [UInt8] = []
        var failure: HTTPResponseParser.Failure?
    }

    private static func readResponse(_ pieces: [[UInt8]]) throws -> Response {
        var parser = HTTPResponseParser()
        var response = Response()
        /// Whether the response is over.
        func drain() throws -> Bool {
            while true {
                switch parser.next() {
                case .needMore: return false
                case .head(let status):
                    try hold(response.status == nil && (200...599).contains(status))
                    response.status = status
                case .body(let bytes):
                    try hold(!bytes.isEmpty && response.status != nil)
                    response.body += bytes
                case .end: return true
                case .fail(let failure):
                    response.failure = failure
                    return true
                }
            }
        }
        for piece in pieces {
            parser.receive(piece)
            if try drain() { return response }
        }
        parser.receiveEnd()
        try hold(try drain())
        return response
    }
}
