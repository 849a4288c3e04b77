import ControlAPI
import Foundation
import Synchronization

/// A Unix socket server that takes one connection, plays its script on a thread, and closes.
final class ScriptedServer: Sendable {
    enum Step: Sendable {
        /// Reads until the request is complete.
        case readRequest
        case send(String)
        /// Sends until the client has gone.
        case sendForever(String)
        /// Reads until the client has gone.
        case waitForClose
    }

    struct SetupError: Error { var call: String }

    let path: String
    private let transcript: Transcript
    var client: ControlClient { ControlClient(socketPath: self.path, timeout: .seconds(60)) }

    /// What the thread leaves behind once it is done.
    private final class Transcript: Sendable {
        let done = DispatchSemaphore(value: 0)
        let request = Mutex<[UInt8]>([])
    }

    init(_ script: [Step]) throws {
        self.path = "/tmp/warren-test-\(UUID().uuidString.prefix(8)).sock"
        let listener = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { [path] in $0.copyBytes(from: path.utf8) }
        let bound = withUnsafePointer(to: address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(listener, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard bound == 0, listen(listener, 1) == 0 else { throw SetupError(call: "bind or listen") }
        let transcript = Transcript()
        self.transcript = transcript
        let thread = Thread {
            if !script.isEmpty {
                let connection = accept(listener, nil, nil)
                for step in script { Self.play(step, on: connection, into: transcript) }
                close(connection)
            }
            close(listener)
            transcript.done.signal()
        }
        thread.start()
    }

    /// Waits until the script has been played; the request that was read.
    @discardableResult func finish() -> String {
        self.transcript.done.wait()
        return String(decoding: self.transcript.request.withLock { $0 }, as: UTF8.self)
    }

    deinit { unlink(self.path) }

    private static func play(_ step: Step, on connection: Int32, into transcript: Transcript) {
        func send(_ text: String) -> Bool {
            let bytes = Array(text.utf8)
            var sent = 0
            while sent < bytes.count {
                let count = bytes[sent...].withUnsafeBytes {
                    Glibc.send(connection, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
                }
                guard count > 0 else { return false }
                sent += count
            }
            return true
        }
        var buffer = [UInt8](repeating: 0, count: 4096)
        switch step {
        case .readRequest:
            while !transcript.request.withLock({ Self.isComplete($0) }) {
                let count = recv(connection, &buffer, buffer.count, 0)
                guard count > 0 else { return }
                transcript.request.withLock { $0 += buffer[..<count] }
            }
        case .send(let text): _ = send(text)
        case .sendForever(let text):
            let burst = String(repeating: text, count: 64)
            while send(burst) {}
        case .waitForClose:
            while recv(connection, &buffer, buffer.count, 0) > 0 {}
        }
    }

    private static func isComplete(_ request: [UInt8]) -> Bool {
        let text = String(decoding: request, as: UTF8.self)
        guard let end = text.range(of: "\r\n\r\n") else { return false }
        guard let key = text.range(of: "Content-Length: ") else { return true }
        return text[end.upperBound...].utf8.count >= Int(text[key.upperBound...].prefix { $0.isNumber }) ?? 0
    }
}
