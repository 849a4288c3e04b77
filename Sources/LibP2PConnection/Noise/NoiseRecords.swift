import NIOCore

/// The layout of the transport phase: each record is its length, two bytes, big-endian, then ciphertext and tag.
///
/// Spec: `noise/README.md` § Wire Format.
enum NoiseRecord {
    static let lengthBytes = 2
    /// The longest ciphertext and tag together.
    static let maximumBytes = 65_535
    /// The most plaintext that one record holds.
    static let maximumPlaintextBytes = maximumBytes - RecordCipher.tagBytes
    /// What a record takes beyond its plaintext.
    static let overheadBytes = lengthBytes + RecordCipher.tagBytes
}

/// Packs buffers into records, in order.
///
/// A buffer goes whole into the record at hand if it fits. If not, it is split when it is larger than ``splitBytes``, so that bulk
/// fills its records; a smaller one starts the next record, so that a header stays together with what it announces.
struct NoiseRecordPacker: ~Copyable {
    /// Buffers up to this size are never split.
    static let splitBytes = 16_384
    /// How many records share an outgoing buffer. Four full ones are about 256 KiB.
    static let recordsPerBuffer = 4

    private let buffers: [ByteBuffer]
    private var index = 0
    /// How much of `buffers[index]` is packed already.
    private var offset = 0
    private var remainingBytes: Int

    init(_ buffers: [ByteBuffer]) {
        self.buffers = buffers
        self.remainingBytes = buffers.reduce(0) { $0 + $1.readableBytes }
    }

    /// Whether all is packed.
    var isEmpty: Bool { self.remainingBytes == 0 }

    /// Room that certainly suffices for the next outgoing buffer.
    var nextBufferCapacity: Int {
        // Every record but the last holds more than this, or it would have taken one more buffer.
        let leastBytes = NoiseRecord.maximumPlaintextBytes - Self.splitBytes
        let records = min(self.remainingBytes / leastBytes + 1, Self.recordsPerBuffer)
        let plaintext = min(self.remainingBytes, records * NoiseRecord.maximumPlaintextBytes)
        return plaintext + records * NoiseRecord.overheadBytes
    }

    /// Appends sealed records to `out` until `capacity` is used or nothing is left.
    ///
    /// - Returns: How much plaintext went into them.
    mutating func fill(_ out: inout ByteBuffer, capacity: Int, sealer: inout RecordSealer) throws(NoiseError) -> Int {
        var packed = 0
        var failure: NoiseError?
        out.writeWithUnsafeMutableBytes(minimumWritableBytes: capacity) { room in
            guard let start = room.baseAddress?.assumingMemoryBound(to: UInt8.self) else { return 0 }
            var used = 0
            var records = 0
            while self.remainingBytes > 0, records < Self.recordsPerBuffer {
                let free = min(capacity, room.count) - used - NoiseRecord.overheadBytes
                guard free > 0 else { break }
                let record = start + used
                let plaintext = record + NoiseRecord.lengthBytes
                let count = self.gather(into: plaintext, room: min(free, NoiseRecord.maximumPlaintextBytes))
                do throws(NoiseError) {
                    try sealer.seal(plaintext, count: count)
                } catch {
                    failure = error
                    break
                }
                let length = UInt16(truncatingIfNeeded: count + RecordCipher.tagBytes)
                record[0] = UInt8(truncatingIfNeeded: length >> 8)
                record[1] = UInt8(truncatingIfNeeded: length)
                used += count + NoiseRecord.overheadBytes
                packed += count
                records += 1
            }
            return used
        }
        if let failure { throw failure }
        return packed
    }

    /// Copies the next record's plaintext.
    private mutating func gather(into target: UnsafeMutablePointer<UInt8>, room: Int) -> Int {
        var count = 0
        while self.index < self.buffers.count {
            let rest = self.buffers[self.index].readableBytes - self.offset
            let free = room - count
            let taken: Int
            if rest <= free {
                taken = rest
            } else if free > 0, rest > Self.splitBytes || count == 0 {
                taken = free
            } else {
                break
            }
            self.buffers[self.index].withUnsafeReadableBytes { bytes in
                guard let source = bytes.baseAddress else { return }
                UnsafeMutableRawPointer(target + count).copyMemory(from: source + self.offset, byteCount: taken)
            }
            count += taken
            if taken == rest {
                self.index += 1
                self.offset = 0
            } else {
                self.offset += taken
                break
            }
        }
        self.remainingBytes -= count
        return count
    }
}

/// Cuts input into records and opens them. Input comes in chunks of any size.
struct NoiseRecordReader: ~Copyable {
    private var opener: RecordOpener
    /// The beginning of a record whose end has not arrived.
    private var carried = ByteBuffer()

    init(opener: consuming RecordOpener) {
        self.opener = opener
    }

    /// Whether the input so far ends within a record.
    var isWithinRecord: Bool { self.carried.readableBytes > 0 }

    /// Room that certainly suffices for what ``read(_:into:)`` opens; `nil` when `bytes` do not complete a record.
    func plaintextCapacity(with bytes: ByteBuffer) -> Int? {
        let total = self.carried.readableBytes + bytes.readableBytes
        guard let length = self.firstLength(with: bytes), NoiseRecord.lengthBytes + length <= total else { return nil }
        return total
    }

    /// Keeps `bytes` for later.
    mutating func carry(_ bytes: ByteBuffer) {
        self.carried.writeImmutableBuffer(bytes)
    }

    /// Opens all records that `bytes` complete, appends their plaintext to `plaintext`, and carries over the rest.
    ///
    /// - Returns: Why the input ends here, in which case `plaintext` has what came before.
    mutating func read(_ bytes: ByteBuffer, into plaintext: inout ByteBuffer) -> NoiseError? {
        var input = bytes
        if self.carried.readableBytes > 0, let length = self.firstLength(with: bytes) {
            // Only what completes this record is copied; the records behind it are opened where they are.
            let missing = NoiseRecord.lengthBytes + length - self.carried.readableBytes
            guard let rest = input.readSlice(length: max(missing, 0)) else {
                self.carry(input)
                return nil
            }
            self.carried.writeImmutableBuffer(rest)
            let failure = self.openRecords(of: self.carried, into: &plaintext).failure
            self.carried.clear()
            if let failure { return failure }
        }
        let (consumed, failure) = self.openRecords(of: input, into: &plaintext)
        if let failure { return failure }
        input.moveReaderIndex(forwardBy: consumed)
        self.carry(input)
        return nil
    }

    /// Lets go of memory that is not needed.
    mutating func shrink() {
        if self.carried.readableBytes == 0 { self.carried = ByteBuffer() }
    }

    /// The length that the first record announces, taken from what is carried and then from `bytes`.
    private func firstLength(with bytes: ByteBuffer) -> Int? {
        let carried = self.carried.readableBytes
        func byte(_ index: Int) -> UInt8? {
            index < carried
                ? self.carried.getInteger(at: self.carried.readerIndex + index)
                : bytes.getInteger(at: bytes.readerIndex + index - carried)
        }
        guard let high = byte(0), let low = byte(1) else { return nil }
        return Int(high) << 8 | Int(low)
    }

    /// Opens the complete records at the start of `input`; `consumed` is how many bytes those took.
    private mutating func openRecords(
        of input: ByteBuffer, into plaintext: inout ByteBuffer
    ) -> (consumed: Int, failure: NoiseError?) {
        var consumed = 0
        var failure: NoiseError?
        input.withUnsafeReadableBytes { source in
            guard let source = source.baseAddress?.assumingMemoryBound(to: UInt8.self) else { return }
            let total = input.readableBytes
            plaintext.writeWithUnsafeMutableBytes(minimumWritableBytes: total) { room in
                guard let target = room.baseAddress?.assumingMemoryBound(to: UInt8.self) else { return 0 }
                var written = 0
                while total - consumed >= NoiseRecord.lengthBytes {
                    let length = Int(source[consumed]) << 8 | Int(source[consumed + 1])
                    guard total - consumed - NoiseRecord.lengthBytes >= length else { break }
                    do throws(NoiseError) {
                        try self.opener.open(
                            source + consumed + NoiseRecord.lengthBytes, count: length, into: target + written)
                    } catch {
                        failure = error
                        break
                    }
                    consumed += NoiseRecord.lengthBytes + length
                    written += length - RecordCipher.tagBytes
                }
                return written
            }
        }
        return (consumed, failure)
    }
}
