internal import LibP2PCore
internal import NIOCore

/// Sends a number of bytes that mean nothing: as fast as the stream takes them, always the same chunk, and with pauses in which others get
/// their turn on the loop. Event loop only.
final class PerfSource: @unchecked Sendable {
    // Not `Sendable` by the compiler's rules: all state belongs to the stream's event loop.

    /// Written over and over, never copied.
    private static let chunk = ByteBuffer(repeating: 0, count: 64 * 1024)
    /// Bytes written in one turn of the loop.
    static let burstBytes = 1024 * 1024

    private let stream: any Stream
    /// Called once, when the last byte is written.
    private let onEnd: () -> Void
    private var remaining: UInt64
    private var isPumping = false
    private var isWaitingForTurn = false
    private var isOver = false

    /// Bytes handed to the stream so far.
    private(set) var sent: UInt64 = 0

    init(_ stream: any Stream, count: UInt64, onEnd: @escaping () -> Void) {
        self.stream = stream
        self.remaining = count
        self.onEnd = onEnd
    }

    /// Writes as much as may be written now. To be called at the beginning, and when the stream becomes writable.
    func pump() {
        guard !self.isPumping, !self.isWaitingForTurn, !self.isOver else { return }
        self.isPumping = true
        var room = Self.burstBytes
        while self.remaining > 0, room > 0, self.stream.isWritable {
            while self.remaining > 0, room > 0, self.stream.isWritable { room -= self.writeChunk() }
            // May make the stream writable again.
            self.stream.flush()
        }
        self.isPumping = false
        if self.remaining == 0 {
            self.stop()
        } else if room <= 0 {
            self.isWaitingForTurn = true
            self.stream.eventLoop.execute {
                self.isWaitingForTurn = false
                self.pump()
            }
        }
    }

    /// Sends no more: what was written is all.
    func stop() {
        guard !self.isOver else { return }
        self.isOver = true
        self.onEnd()
    }

    /// Sends no more, and tells nobody.
    func abandon() {
        self.isOver = true
    }

    private func writeChunk() -> Int {
        let count = Int(min(self.remaining, UInt64(Self.chunk.readableBytes)))
        self.stream.write(Self.chunk.getSlice(at: Self.chunk.readerIndex, length: count) ?? Self.chunk)
        self.remaining -= UInt64(count)
        self.sent &+= UInt64(count)
        return count
    }
}
