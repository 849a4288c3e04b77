import NIOCore

/// A few byte buffers that take turns, so that steady traffic allocates nothing.
///
/// A buffer whose previous contents nobody holds any more is used again as it is; one that is still held is replaced by a fresh
/// one. So the ring saves allocations as long as a buffer is let go within one turn, and is correct in any case.
package struct BufferRing {
    private var buffers: [ByteBuffer]
    private var next = 0

    /// Whether no memory is held.
    private(set) var isEmpty = true

    init(count: Int) {
        self.buffers = Array(repeating: ByteBuffer(), count: max(count, 1))
    }

    /// Fills the next buffer, which starts empty with room for `minimumCapacity` bytes, and returns its contents.
    mutating func fill<Failure: Error>(
        minimumCapacity: Int, _ body: (inout ByteBuffer) throws(Failure) -> Void
    ) throws(Failure) -> ByteBuffer {
        let index = self.next
        self.next = index + 1 == self.buffers.count ? 0 : index + 1
        self.isEmpty = false
        self.buffers[index].clear(minimumCapacity: minimumCapacity)
        try body(&self.buffers[index])
        return self.buffers[index]
    }

    /// Lets go of all memory.
    mutating func shrink() {
        for index in self.buffers.indices { self.buffers[index] = ByteBuffer() }
        self.isEmpty = true
    }
}
