import LibP2PCore
import Multiformats
import NIOCore

@testable import LibP2PConnection

extension FuzzTarget {
    /// How a stream of frames is cut does not matter, no payload comes from nowhere, and every header can be written again.
    static let webSocketFrames = FuzzTarget(
        name: "websocket-frames", maximumBytes: 4096,
        seeds: {
            func frame(
                _ opcode: WebSocketFrameHeader.Opcode, _ payload: [UInt8], isFinal: Bool = true, mask: UInt32?
            ) -> [UInt8] {
                let mask = mask.map { WebSocketMask(key: $0) }
                var frame = ByteBuffer()
                frame.writeWebSocketHeader(
                    WebSocketFrameHeader(isFinal: isFinal, opcode: opcode, mask: mask, length: payload.count))
                frame.writeBuffer(ByteBuffer(bytes: payload), mask: mask ?? WebSocketMask(key: 0))
                return Array(frame.readableBytesView)
            }
            return ([nil, 0x3d21_fa37] as [UInt32?]).flatMap { mask -> [[UInt8]] in
                let conversation =
                    frame(.binary, Array("Hello".utf8), mask: mask) + frame(.ping, [1, 2], mask: mask)
                    + frame(.binary, [], isFinal: false, mask: mask)
                    + frame(.continuation, [UInt8](repeating: 7, count: 300), mask: mask)
                    + frame(.pong, [], mask: mask) + frame(.close, [0x03, 0xe8] + Array("bye".utf8), mask: mask)
                let long = frame(.binary, [UInt8](repeating: 9, count: 126), mask: mask) + [0x82, 0x7f, 0, 0, 0, 0, 1]
                return [conversation, long].flatMap { text in
                    [[0, 0, 0, 0], [1, 1, 2, 3], [20, 0, 0, 0]].map { [mask == nil ? 0 : 1] + $0 + text }
                }
            }
        },
        run: { input in
            var choices = Choices(input)
            let remote: Role = choices.byte() & 1 == 0 ? .listener : .dialer
            let (whole, pieces) = choices.pieces()
            let cut = try WebSocketReading(pieces, from: remote)
            try holdEqual(cut, try WebSocketReading([whole], from: remote))
            try hold(cut.data.count + cut.pings.joined().count <= whole.count)

            var bytes = ByteBuffer(bytes: whole)
            if let header = try? bytes.readWebSocketHeader() {
                var again = ByteBuffer()
                again.writeWebSocketHeader(header)
                try hold(again.readableBytes <= WebSocketFrameHeader.maximumBytes)
                try hold(again.readableBytesView.elementsEqual(whole.prefix(again.readableBytes)))
            }
        })

    /// How a request or an answer is cut does not matter, and nothing of what comes behind it is lost.
    static let webSocketOpening = FuzzTarget(
        name: "websocket-opening", maximumBytes: 9000,
        seeds: {
            let request = """
                GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\nrest
                """
            let answer = """
                HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r
                Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nrest
                """
            let refusal = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
            return [(0, request), (1, answer), (1, refusal)].flatMap { kind, text in
                [[0, 0, 0, 0], [1, 1, 2, 3], [60, 0, 0, 0]].map { [UInt8(kind)] + $0 + Array(text.utf8) }
            }
        },
        run: { input in
            var choices = Choices(input)
            if choices.byte() & 1 == 0 {
                try OpeningEnding.check(WebSocketOpeningListener(), &choices)
            } else {
                let nonce = Array("the sample nonce".utf8)
                try OpeningEnding.check(WebSocketOpeningDialer(host: "server.example.com", nonce: nonce), &choices)
            }
        })

    /// The same for what proxies answer, and for the first bytes on a shared port.
    static let openings = FuzzTarget(
        name: "openings", maximumBytes: 9000,
        seeds: {
            let socks: [UInt8] = [5, 0, 5, 0, 0, 1, 10, 0, 0, 1, 4, 56]
            let login: [UInt8] = [5, 2, 1, 0, 5, 0, 0, 3, 9] + Array("a.example".utf8) + [1, 187]
            let texts: [(UInt8, [UInt8])] = [
                (
                    0,
                    Array(
                        "HTTP/1.1 200 Connection established\r\nProxy-Agent: x\r\n\r\n\u{13}/multistream/1.0.0\n".utf8)
                ),
                (0, Array("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n".utf8)),
                (1, socks + Array("rest".utf8)), (2, login + Array("rest".utf8)), (2, [5, 255]), (1, [5, 0, 5, 5]),
                (3, Array("\u{13}/multistream/1.0.0\n".utf8)), (3, Array("GET / HTTP/1.1\r\n".utf8)),
                (3, [0x16, 0x03, 0x01, 0x02, 0x00, 0x01]),
            ]
            return texts.flatMap { kind, text in [[0, 0, 0, 0], [1, 1, 2, 3]].map { [kind] + $0 + text } }
        },
        run: { input in
            var choices = Choices(input)
            let target = ProxyTarget(ip: IPAddress(ipv4: 0xc000_0207), port: 443, name: "a.example")
            let credentials = Proxy.Credentials(user: "Aladdin", password: "open sesame")
            switch choices.byte() % 4 {
            case 0: try OpeningEnding.check(HTTPConnectOpening(target, credentials), &choices)
            case 1: try OpeningEnding.check(SOCKS5Opening(target, nil), &choices)
            case 2: try OpeningEnding.check(SOCKS5Opening(target, credentials), &choices)
            default: try OpeningEnding.check(PortServiceReader(served: [.plain, .webSocket]), &choices)
            }
        })
}

/// What a reader makes of its input.
private struct WebSocketReading: Equatable {
    var data: [UInt8] = []
    var pings: [[UInt8]] = []
    var close: WebSocketClose?
    var error: WebSocketError?

    init(_ pieces: [[UInt8]], from remote: Role) throws {
        var reader = WebSocketReader(remote: remote)
        for piece in pieces {
            var input = ByteBuffer(bytes: piece)
            do throws(WebSocketError) {
                while let event = try reader.next(&input) {
                    switch event {
                    case .data(var bytes, let mask):
                        if let mask { bytes.applyWebSocketMask(mask) }
                        self.data += bytes.readableBytesView
                    case .ping(let payload): self.pings.append(Array(payload.readableBytesView))
                    case .close(let close): self.close = close
                    }
                }
            } catch {
                self.error = error
                return
            }
            try hold(input.readableBytes == 0, "bytes are left")
        }
    }
}

/// How an opening ends, and what was said until then.
private enum OpeningEnding<Machine: OpeningMachine>: Equatable {
    case done(Machine.Outcome, said: [UInt8], leftover: [UInt8])
    case failed(Machine.Failure, said: [UInt8])
    case open(said: [UInt8])

    static func check(_ machine: Machine, _ choices: inout Choices) throws {
        let (whole, pieces) = choices.pieces()
        let ending = try Self.of(machine, [whole])
        try holdEqual(try Self.of(machine, pieces), ending)
        if case .done(_, _, let leftover) = ending { try hold(whole.suffix(leftover.count) == leftover[...]) }
    }

    private static func of(_ machine: Machine, _ pieces: [[UInt8]]) throws -> OpeningEnding {
        var machine = machine
        var said = machine.start().map { Array($0.readableBytesView) } ?? []
        for (index, piece) in pieces.enumerated() {
            switch machine.receive(ByteBuffer(bytes: piece)) {
            case .wait: break
            case .send(let bytes):
                try hold(bytes.readableBytes > 0)
                said += bytes.readableBytesView
            case .done(let outcome, let reply, let leftover):
                said += reply.map { Array($0.readableBytesView) } ?? []
                let rest = Array(leftover.readableBytesView) + pieces[(index + 1)...].joined()
                return .done(outcome, said: said, leftover: rest)
            case .fail(let error, let reply):
                said += reply.map { Array($0.readableBytesView) } ?? []
                return .failed(error, said: said)
            }
        }
        return .open(said: said)
    }
}
