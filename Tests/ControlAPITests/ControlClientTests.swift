import Foundation
import Testing

@testable import ControlAPI

/// The client against a server that behaves as told.
@Suite struct ControlClientTests {
    static let version = #"{"version":"9","agent":"warren/9"}"#
    static let ok = "HTTP/1.1 200 OK\r\n"

    static func json(_ body: String, status: String = "200 OK") -> String {
        "HTTP/1.1 \(status)\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
    }

    @Test func sendsWhatTheEndpointSays() throws {
        let server = try ScriptedServer([.readRequest, .send(Self.json(#"{"message":"done"}"#))])
        let request = RouteRequest(route: "192.168.7.0/24", peer: "b", network: nil)
        let done: Done = try server.client.call(.deleteRoute, sending: request)
        #expect(done == Done(message: "done"))
        let body = #"{"peer":"b","route":"192.168.7.0/24"}"#
        #expect(
            server.finish()
                == "DELETE /v1/routes HTTP/1.1\r\nHost: warren\r\nConnection: close\r\nContent-Type: application/json\r\n"
                + "Content-Length: \(body.utf8.count)\r\n\r\n\(body)")
    }

    @Test(arguments: [
        json(version), ok + "\r\n" + version,
        ok + "Transfer-Encoding: chunked\r\n\r\n8\r\n{\"versio\r\n1a\r\n" + version.dropFirst(8) + "\r\n0\r\n\r\n",
    ])
    func readsEveryFraming(response: String) throws {
        // Byte by byte: a slow daemon is no broken one.
        let server = try ScriptedServer([.readRequest] + response.utf8.map { .send(String(UnicodeScalar($0))) })
        let (reply, bytes) = try server.client.json(.version, matching: VersionReport.self)
        #expect(reply == VersionReport(version: "9", agent: "warren/9"))
        #expect(String(decoding: bytes, as: UTF8.self) == Self.version)
        #expect(server.finish() == "GET /v1/version HTTP/1.1\r\nHost: warren\r\nConnection: close\r\n\r\n")
    }

    struct Failing: CustomTestStringConvertible {
        var testDescription: String
        var script: [ScriptedServer.Step]
        var error: @Sendable (String) -> ControlError
    }

    static let failing: [Failing] = [
        Failing(
            testDescription: "refusal",
            script: [.readRequest, .send(json(#"{"error":"no network 'x'","fix":"try y"}"#, status: "404 Not Found"))]
        ) { _ in
            .refused(status: 404, ErrorBody(error: "no network 'x'", fix: "try y"))
        },
        Failing(
            testDescription: "refusal without reading",
            script: [.send(json(#"{"error":"busy","fix":""}"#, status: "500 X"))]
        ) { _ in
            .refused(status: 500, ErrorBody(error: "busy", fix: ""))
        },
        Failing(
            testDescription: "refusal in another language",
            script: [.readRequest, .send(json("<html>", status: "502 X"))]
        ) {
            .unexpectedReply(socket: $0, endpoint: "GET /v1/version")
        },
        Failing(
            testDescription: "endless refusal",
            script: [.readRequest, .send("HTTP/1.1 500 X\r\n\r\n"), .sendForever("x")]
        ) {
            .replyTooLarge(socket: $0, limit: 65_536)
        },
        Failing(testDescription: "no HTTP", script: [.readRequest, .send("SSH-2.0-x\r\n\r\n")]) {
            .unreadable(socket: $0, .malformedStatusLine)
        },
        Failing(testDescription: "nothing", script: [.readRequest]) { .unreadable(socket: $0, .truncated) },
        Failing(testDescription: "truncated", script: [.readRequest, .send(ok + "Content-Length: 99\r\n\r\n{")]) {
            .unreadable(socket: $0, .truncated)
        },
        Failing(testDescription: "other JSON", script: [.readRequest, .send(json("[1]"))]) {
            .unexpectedReply(socket: $0, endpoint: "GET /v1/version")
        },
        Failing(testDescription: "half a JSON", script: [.readRequest, .send(ok + "\r\n" + version.dropLast())]) {
            .unexpectedReply(socket: $0, endpoint: "GET /v1/version")
        },
        Failing(testDescription: "oversized", script: [.readRequest, .send(json(String(repeating: " ", count: 4097)))])
        {
            .replyTooLarge(socket: $0, limit: 4096)
        },
        Failing(testDescription: "endless body", script: [.readRequest, .send(ok + "\r\n"), .sendForever(" ")]) {
            .replyTooLarge(socket: $0, limit: 4096)
        },
        Failing(testDescription: "endless head", script: [.readRequest, .send(ok), .sendForever("A: b\r\n")]) {
            .unreadable(socket: $0, .headTooLarge)
        },
        Failing(testDescription: "silence", script: [.readRequest, .waitForClose]) {
            .timedOut(socket: $0, .milliseconds(100))
        },
        Failing(
            testDescription: "silence in the body",
            script: [.readRequest, .send(ok + "Content-Length: 99\r\n\r\n{"), .waitForClose]
        ) {
            .timedOut(socket: $0, .milliseconds(100))
        },
    ]

    @Test(arguments: failing)
    func namesWhatWentWrong(failing: Failing) throws {
        let server = try ScriptedServer(failing.script)
        var client = server.client
        client.maximumReplyBytes = 4096
        if failing.testDescription.hasPrefix("silence") { client.timeout = .milliseconds(100) }
        let error = #expect(throws: ControlError.self) { try client.call(.version, expecting: VersionReport.self) }
        #expect(error == failing.error(server.path))
        #expect(error?.exitStatus == .failed)
        #expect(error?.description.contains("\n") == false)
        server.finish()
    }

    @Test func noDaemonIsExitCodeThree() throws {
        let path = "/tmp/warren-test-\(UUID().uuidString.prefix(8)).sock"
        let error = #expect(throws: ControlError.self) {
            try ControlClient(socketPath: path).call(.status, expecting: StatusReport.self)
        }
        #expect(error == .daemonNotRunning(socket: path))
        #expect(error?.exitStatus.rawValue == 3)
        #expect(
            error?.description
                == "no daemon at \(path): start it with 'systemctl start warren', or name its socket with --socket")
        // A socket nobody listens at any more, and a file that is none.
        let server = try ScriptedServer([])
        server.finish()
        #expect(throws: ControlError.daemonNotRunning(socket: server.path)) {
            try server.client.call(.status, expecting: StatusReport.self)
        }
        let long = "/tmp/" + String(repeating: "x", count: 200)
        #expect(throws: ControlError.socketPathTooLong(socket: long, limit: 107)) {
            try ControlClient(socketPath: long).call(.status, expecting: StatusReport.self)
        }
    }

    @Test func refusedConfigurationIsExitCodeTwo() {
        let error = ControlError.refused(status: 422, ErrorBody(error: "f:1: k: bad\n", fix: "good"))
        #expect(error.exitStatus == .usage)
        #expect(error.description == "f:1: k: bad : good")
    }

    // MARK: Streams

    static func line(_ sequence: Int) -> String {
        #"{"sequence":\#(sequence),"peer":"p","name":"b","ip":"100.64.0.1","rttMilliseconds":0.5}"#
    }
    static let request = PingRequest(peer: "b", count: 3)

    @Test(arguments: [true, false])
    func streamsLines(isChunked: Bool) throws {
        let lines = [Self.line(1) + "\n" + Self.line(2), "\n\n" + Self.line(3), "\n"]
        var script: [ScriptedServer.Step] = [.readRequest]
        if isChunked {
            script.append(.send(Self.ok + "Transfer-Encoding: chunked\r\n\r\n"))
            script += lines.map { .send("\(String($0.utf8.count, radix: 16))\r\n\($0)\r\n") }
            script.append(.send("0\r\n\r\n"))
        } else {
            script.append(.send(Self.ok + "\r\n"))
            script += lines.map { .send($0) }
        }
        let server = try ScriptedServer(script)
        var sequences: [Int] = []
        try server.client.stream(.ping, sending: Self.request, expecting: PingReply.self) { reply, json in
            sequences.append(reply.sequence)
            return String(decoding: json, as: UTF8.self) == Self.line(reply.sequence)
        }
        #expect(sequences == [1, 2, 3])
        server.finish()
    }

    @Test func aStreamCanBeLeft() throws {
        let server = try ScriptedServer([.readRequest, .send(Self.ok + "\r\n"), .sendForever(Self.line(7) + "\n")])
        var count = 0
        try server.client.stream(.ping, sending: Self.request, expecting: PingReply.self) { _, _ in
            count += 1
            return count < 5
        }
        #expect(count == 5)
        server.finish()
    }

    @Test func aStreamsLinesAreBoundedAndWhole() throws {
        let endless = try ScriptedServer([.readRequest, .send(Self.ok + "\r\n"), .sendForever("x")])
        #expect(throws: ControlError.replyTooLarge(socket: endless.path, limit: 65_536)) {
            try endless.client.stream(.ping, sending: Self.request, expecting: PingReply.self) { _, _ in true }
        }
        endless.finish()
        let cut = try ScriptedServer([.readRequest, .send(Self.ok + "\r\n" + Self.line(1))])
        #expect(throws: ControlError.unreadable(socket: cut.path, .truncated)) {
            try cut.client.stream(.ping, sending: Self.request, expecting: PingReply.self) { _, _ in true }
        }
        cut.finish()
    }
}
