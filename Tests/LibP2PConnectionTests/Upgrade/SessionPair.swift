import LibP2PCore
import NIOCore
import NIOEmbedded
import Testing

@testable import LibP2PConnection

/// Two sessions over one pipe.
final class SessionPair {
    let loop = EmbeddedEventLoop()
    let dialerPipe: MemoryByteStream
    let listenerPipe: MemoryByteStream
    let dialer: any MuxerSession
    let listener: any MuxerSession
    let nearDelegate = SessionRecorder()
    let farDelegate = SessionRecorder()

    convenience init(
        capacity: Int = 64 * 1024, pieces: MemoryByteStream.Pieces = .whole,
        configuration: YamuxConfiguration = YamuxConfiguration()
    ) {
        self.init(muxer: YamuxMuxer(configuration: configuration), capacity: capacity, pieces: pieces)
    }

    init(
        muxer: any MuxerUpgrader, capacity: Int = 64 * 1024, pieces: MemoryByteStream.Pieces = .whole
    ) {
        (self.dialerPipe, self.listenerPipe) = MemoryByteStream.pair(on: self.loop, capacity: capacity, pieces: pieces)
        self.dialer = muxer.multiplex(self.dialerPipe, role: .dialer)
        self.listener = muxer.multiplex(self.listenerPipe, role: .listener)
        self.dialer.delegate = self.nearDelegate
        self.listener.delegate = self.farDelegate
        self.dialer.start()
        self.listener.start()
        self.run()
    }

    func run() { self.loop.run() }

    /// A stream opened by the dialer, from both sides, with reading on.
    func stream() throws -> (near: StreamRecorder, far: StreamRecorder) {
        let near = StreamRecorder(try self.dialer.openStream())
        near.stream.flush()
        self.run()
        let far = self.farDelegate.accepted.popLast()
        return (near, try #require(far))
    }

    /// Ends both sessions.
    func end() {
        self.dialer.close(.none)
        self.run()
        #expect(self.nearDelegate.isClosed && self.farDelegate.isClosed)
    }
}

final class SessionRecorder: MuxerSessionDelegate {
    var takesStreams = true
    var accepted: [StreamRecorder] = []
    var onAccepted: ((any MuxedStream) -> Void)?
    var isClosed = false
    var error: (any Error)?
    var streamsOpenAtEnd: Int?

    func session(_ session: any MuxerSession, accepted stream: any MuxedStream) {
        guard self.takesStreams else { return }
        if let onAccepted = self.onAccepted {
            onAccepted(stream)
            return
        }
        self.accepted.append(StreamRecorder(stream))
    }

    func session(_ session: any MuxerSession, closed error: (any Error)?) {
        #expect(!self.isClosed)
        self.isClosed = true
        self.error = error
        self.streamsOpenAtEnd = session.streamCount
    }
}

/// Notes what a stream tells it.
final class StreamRecorder: ByteStreamReceiver {
    let stream: any MuxedStream
    var bytes: [UInt8] = []
    var count = 0
    var events: [String] = []
    var error: (any Error)?
    var onReceived: ((StreamRecorder) -> Void)?
    var onWritable: ((StreamRecorder) -> Void)?
    var onClosed: ((StreamRecorder) -> Void)?

    init(_ stream: any MuxedStream, takesOver: Bool = true) {
        self.stream = stream
        guard takesOver else { return }
        stream.receiver = self
        stream.setReading(true)
    }

    var text: String { String(decoding: self.bytes, as: UTF8.self) }

    func send(_ text: String) {
        self.stream.write(ByteBuffer(string: text))
        self.stream.flush()
    }

    func received(_ bytes: ByteBuffer) {
        #expect(bytes.readableBytes > 0)
        #expect(!self.events.contains("ended") && !self.events.contains("closed"))
        self.bytes += bytes.readableBytesView
        self.count += bytes.readableBytes
        if self.events.last != "received" { self.events.append("received") }
        self.onReceived?(self)
    }

    func receiveComplete() {
        self.events.append("complete")
    }

    func writabilityChanged() {
        self.events.append("writability")
        self.onWritable?(self)
    }

    func inputEnded() { self.events.append("ended") }

    func closed(_ error: (any Error)?) {
        #expect(!self.events.contains("closed"))
        self.events.append("closed")
        self.error = error
        self.onClosed?(self)
        (self.onReceived, self.onWritable, self.onClosed) = (nil, nil, nil)
    }
}

/// Reads the end of a pipe that no session holds.
final class PipeTap: ByteStreamReceiver {
    var bytes: [UInt8] = []
    var hasEnded = false

    init(_ stream: any ByteStream) {
        stream.receiver = self
        stream.setReading(true)
    }

    func received(_ bytes: ByteBuffer) { self.bytes += bytes.readableBytesView }
    func receiveComplete() {}
    func writabilityChanged() {}
    func inputEnded() { self.hasEnded = true }
    func closed(_ error: (any Error)?) {}
}
