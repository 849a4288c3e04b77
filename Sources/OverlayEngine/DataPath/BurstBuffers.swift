internal import NIOCore

/// Buffers that are used in turn: by the time one's turn comes again the stream below has mostly let it go, and then its storage is
/// used again; else `clear` takes new storage by itself. So a steady flow allocates nothing.
struct BurstBuffers {
    /// Room for one muxer frame that fills one security record.
    static let bytes = 65_507

    private var ring: [ByteBuffer]
    private var next = 0

    init(count: Int = 4) {
        self.ring = Array(repeating: ByteBuffer(), count: count)
    }

    /// An empty buffer with room for ``bytes``. The caller returns it with ``put(_:)`` when it has been handed on.
    mutating func take() -> ByteBuffer {
        var buffer = ByteBuffer()
        swap(&buffer, &self.ring[self.next])
        buffer.clear(minimumCapacity: Self.bytes)
        return buffer
    }

    /// Keeps `buffer` for a later turn.
    mutating func put(_ buffer: ByteBuffer) {
        self.ring[self.next] = buffer
        self.next = (self.next + 1) % self.ring.count
    }

    /// Lets all storage go.
    mutating func release() {
        for index in self.ring.indices { self.ring[index] = ByteBuffer() }
    }
}
