import LibP2P
import LibP2PCore
import NIOCore
import OverlayCore

/// The hostile peer's connection to the daemon, and the packet streams on it.
struct Session: Sendable {
    static let packetProtocol: ProtocolID = "/warren/packet/1.0.0"

    let host: Host
    let target: PeerID
    let address: Multiaddr
    let networkID: NetworkID

    /// Takes the daemon's own packet streams, as it would leave a connection on which nobody does.
    func start() async throws {
        let answer = self.hello(epoch: 1)
        self.host.accept(Self.packetProtocol) { stream in
            stream.receiver = AcceptedStream(stream, answer: answer)
            stream.setReading(true)
        }
        try await self.host.start()
    }

    func stop() async { await self.host.shutDown() }

    func connect() async throws -> any Connection {
        try await self.host.connect(to: self.target, at: [self.address])
    }

    /// A hello that a daemon takes, for another network when one is named.
    func hello(epoch: UInt64, for other: NetworkID? = nil) -> Hello {
        Hello(
            networkID: other ?? self.networkID, instance: 0x6c61_622d_7065_6572, epoch: epoch,
            capabilities: [.tso4, .tso6, .uso, .checksumPending], innerMTU: 1280)
    }

    /// Opens a packet stream and waits for the daemon's answer to the hello.
    func openPacketStream(on connection: any Connection, epoch: UInt64 = 1, for other: NetworkID? = nil) async throws
        -> OpenedStream
    {
        let hello = self.hello(epoch: epoch, for: other)
        let opened = try await connection.openStream([Self.packetProtocol]).map { OpenedStream($0, hello: hello) }.get()
        _ = try await opened.answer.get()
        return opened
    }

    /// Opens a packet stream and writes `bytes` where the hello belongs.
    func openPacketStream(on connection: any Connection, saying bytes: [UInt8]) async throws -> OpenedStream {
        try await connection.openStream([Self.packetProtocol]).map { stream in
            let opened = OpenedStream(stream, hello: nil)
            opened.write(bytes)
            return opened
        }.get()
    }
}

/// How the daemon answered a hello.
enum HelloAnswer: Sendable {
    case opened
    case refused(RefuseCode)
    case failed(String)
}

/// A packet stream that we opened. Owned by its event loop; `async` methods may be called from anywhere.
final class OpenedStream: ByteStreamReceiver, @unchecked Sendable {
    let stream: any Stream
    /// Completes with the daemon's answer to the hello, and never fails.
    let answer: EventLoopFuture<HelloAnswer>
    /// Completes with the reason when the daemon has ended the stream, and never fails.
    let ending: EventLoopFuture<String>

    private let answerPromise: EventLoopPromise<HelloAnswer>
    private let endingPromise: EventLoopPromise<String>
    private var opener: HelloOpener?
    private var receivedBytes = 0

    /// On the stream's loop. Says `hello`, when there is one, and reads.
    init(_ stream: any Stream, hello: Hello?) {
        self.stream = stream
        self.answerPromise = stream.eventLoop.makePromise()
        self.endingPromise = stream.eventLoop.makePromise()
        self.answer = self.answerPromise.futureResult
        self.ending = self.endingPromise.futureResult
        stream.receiver = self
        stream.setReading(true)
        if let hello {
            var opener = HelloOpener(hello)
            if case .send(let bytes) = opener.start() { self.write(bytes) }
            self.opener = opener
        }
    }

    /// Bytes from the daemon after its answer.
    func received() async throws -> Int { try await self.stream.eventLoop.submit { self.receivedBytes }.get() }

    /// Reads no more from now on.
    func stopReading() async throws { try await self.stream.eventLoop.submit { self.stream.setReading(false) }.get() }

    /// Writes and flushes, however much waits already. On the stream's loop, or from anywhere through ``send(_:)``.
    func write(_ bytes: [UInt8]) {
        self.stream.write(ByteBuffer(bytes: bytes))
        self.stream.flush()
    }

    func send(_ bytes: [UInt8]) async throws { try await self.stream.eventLoop.submit { self.write(bytes) }.get() }

    /// Writes `bytes` again and again for `seconds`, as fast as the daemon takes them, and tells how often.
    func flood(_ bytes: [UInt8], seconds: Int64) async throws -> Int {
        let deadline = NIODeadline.now() + .seconds(seconds)
        var times = 0
        while NIODeadline.now() < deadline {
            let written = try await self.stream.eventLoop.submit { () -> Int in
                var written = 0
                while written < 16, self.stream.isWritable {
                    self.stream.write(ByteBuffer(bytes: bytes))
                    written += 1
                }
                self.stream.flush()
                return written
            }.get()
            times += written
            if written == 0 { try await Task.sleep(for: .milliseconds(5)) }
        }
        return times
    }

    /// What became of the stream within `seconds`.
    func fate(within seconds: Int64) async throws -> String {
        let loop = self.stream.eventLoop
        let promise = loop.makePromise(of: String.self)
        let timer = loop.scheduleTask(in: .seconds(seconds)) { promise.succeed("the stream lives") }
        self.ending.whenSuccess {
            timer.cancel()
            promise.succeed($0)
        }
        return try await promise.futureResult.get()
    }

    // MARK: ByteStreamReceiver

    func received(_ bytes: ByteBuffer) {
        guard var opener = self.opener else {
            self.receivedBytes += bytes.readableBytes
            return
        }
        let action = opener.receive(Array(bytes.readableBytesView))
        self.opener = opener
        switch action {
        case .wait, .send: return
        case .open(_, let leftover):
            self.receivedBytes += leftover.count
            self.answerPromise.succeed(.opened)
        case .refused(let code): self.answerPromise.succeed(.refused(code))
        case .fail(let error): self.answerPromise.succeed(.failed(error.description))
        }
        self.opener = nil
    }

    func receiveComplete() {}

    func writabilityChanged() {}

    func inputEnded() { self.end("ended by the daemon") }

    func closed(_ error: (any Error)?) { self.end(error.map { String(describing: $0) } ?? "closed") }

    private func end(_ reason: String) {
        self.opener = nil
        self.answerPromise.succeed(.failed(reason))
        self.endingPromise.succeed(reason)
    }
}

/// A packet stream that the daemon opened: gets its hello and its probes answered, and packets are thrown away.
private final class AcceptedStream: ByteStreamReceiver, @unchecked Sendable {
    private let stream: any Stream
    private let answer: Hello
    private var acceptor: HelloAcceptor? = HelloAcceptor()
    private var reader = FrameReader()

    init(_ stream: any Stream, answer: Hello) {
        self.stream = stream
        self.answer = answer
    }

    func received(_ bytes: ByteBuffer) {
        guard var acceptor = self.acceptor else { return bytes.withUnsafeReadableBytes { self.echo($0) } }
        var action = acceptor.receive(Array(bytes.readableBytesView))
        var early: [UInt8] = []
        if case .decide(_, let leftover) = action {
            early = leftover
            action = acceptor.accept(self.answer)
        }
        self.acceptor = acceptor
        switch action {
        case .wait, .decide: return
        case .open(_, let answer), .refuse(let answer, _), .fail(_, let answer):
            self.acceptor = nil
            self.stream.write(ByteBuffer(bytes: answer))
            self.stream.flush()
            early.withUnsafeBytes { self.echo($0) }
        }
    }

    private func echo(_ bytes: UnsafeRawBufferPointer) {
        try? self.reader.read(bytes) { frame in
            guard case .probe(let id) = frame else { return }
            self.stream.write(ByteBuffer(bytes: Forge.frame(kind: FrameKind.echo.rawValue, Forge.big64(id))))
            self.stream.flush()
        }
    }

    func receiveComplete() {}

    func writabilityChanged() {}

    func inputEnded() { self.stream.closeWrite() }

    func closed(_ error: (any Error)?) {}
}
