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

/// Packs buffers into records, in order, and seals them.
///
/// A buffer goes whole into the record at hand if it fits. If not, it is split when it is larger than ``splitBytes``, so that bulk
/// fills its records; a smaller one starts the next record, so that a header stays together with what it announces.
struct NoiseRecordPacker: ~Copyable {
    /// Buffers up to this size are never split.
    static let splitBytes = 16_384
    /// How many records share an outgoing buffer. Four full ones are about 256 KiB.
    static let recordsPerBuffer = 4
    /// From this size on a buffer is encrypted from where it lies. Smaller ones are gathered first: a call of the cipher costs
    /// more than copying them. Copying large ones is not only waste: when source and target lie almost the same distance into
    /// their pages, as fresh large allocations do, it takes as long as the encryption.
    static let directBytes = 4096

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
            do throws(NoiseError) {
                while self.remainingBytes > 0, records < Self.recordsPerBuffer {
                    let free = min(capacity, room.count) - used - NoiseRecord.overheadBytes
                    guard free > 0 else { break }
                    let count = try self.sealRecord(
                        at: start + used, room: min(free, NoiseRecord.maximumPlaintextBytes), sealer: &sealer)
                    used += count + NoiseRecord.overheadBytes
                    packed += count
                    records += 1
                }
            } catch {
                failure = error
            }
            return used
        }
        if let failure { throw failure }
        return packed
    }

    /// Makes the next record, with at most `room` bytes of plaintext; returns how many there are.
    private mutating func sealRecord(
        at record: UnsafeMutablePointer<UInt8>, room: Int, sealer: inout RecordSealer
    ) throws(NoiseError) -> Int {
        let target = record + NoiseRecord.lengthBytes
        var count = 0
        // Encrypted so far, whole blocks; what lies between this and `count` is gathered only.
        var sealed = 0
        try sealer.begin()
        while let taken = self.nextPiece(free: room - count, isFirst: count == 0) {
            let view = self.buffers[self.index]
            var failure: NoiseError?
            view.withUnsafeReadableBytes { bytes in
                guard let start = bytes.baseAddress else { return }
                let source = (start + self.offset).assumingMemoryBound(to: UInt8.self)
                if taken < Self.directBytes {
                    (target + count).update(from: source, count: taken)
                    count += taken
                    return
                }
                // What is gathered is filled up to whole cipher blocks, and what is behind the last one is gathered again.
                let before = RecordCipher.bytesToBlock(count)
                let direct = (taken - before) / RecordCipher.blockBytes * RecordCipher.blockBytes
                let after = taken - before - direct
                (target + count).update(from: source, count: before)
                count += before
                do throws(NoiseError) {
                    try sealer.update(target + sealed, into: target + sealed, count: count - sealed)
                    try sealer.update(source + before, into: target + count, count: direct)
                } catch {
                    failure = error
                }
                count += direct
                sealed = count
                (target + count).update(from: source + before + direct, count: after)
                count += after
            }
            if let failure { throw failure }
            self.remainingBytes -= taken
            self.offset += taken
            if self.offset == view.readableBytes {
                self.index += 1
                self.offset = 0
            }
        }
        try sealer.update(target + sealed, into: target + sealed, count: count - sealed)
        try sealer.finish(tag: target + count)
        let length = count + RecordCipher.tagBytes
        record[0] = UInt8(truncatingIfNeeded: length >> 8)
        record[1] = UInt8(truncatingIfNeeded: length)
        return count
    }

    /// How much of the buffer at hand goes into a record that has room for `free` more; `nil` when the record is complete.
    private func nextPiece(free: Int, isFirst: Bool) -> Int? {
        guard self.index < self.buffers.count else { return nil }
        let rest = self.buffers[self.index].readableBytes - self.offset
        if rest <= free { return rest }
        return free > 0 && (isFirst || rest > Self.splitBytes) ? free : nil
    }
}

/// Cuts input into records and opens them. Input comes in chunks of any size.
struct NoiseRecordReader: ~Copyable {
    /// From this size on the beginning of a record is kept where it lies, at the cost of holding the chunk it came with.
    static let sharedBytes = 4096

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

    /// Keeps `bytes`, which complete no record, for later.
    mutating func carry(_ bytes: ByteBuffer) {
        if self.carried.readableBytes == 0, bytes.readableBytes >= Self.sharedBytes {
            self.carried = bytes.slice()
        } else {
            self.carried.writeImmutableBuffer(bytes)
        }
    }

    /// Opens all records that `bytes` complete, appends their plaintext to `plaintext`, and carries over the rest.
    ///
    /// - Returns: Why the input ends here, in which case `plaintext` has what came before.
    mutating func read(_ bytes: ByteBuffer, into plaintext: inout ByteBuffer) -> NoiseError? {
        let carried = self.carried
        var consumed = 0
        var failure: NoiseError?
        _ = carried.withUnsafeReadableBytes { carried in
            bytes.withUnsafeReadableBytes { bytes in
                plaintext.writeWithUnsafeMutableBytes(minimumWritableBytes: carried.count + bytes.count) { room in
                    var written = 0
                    do throws(NoiseError) {
                        try self.open(
                            carried.assumingMemoryBound(to: UInt8.self), bytes.assumingMemoryBound(to: UInt8.self),
                            into: room.assumingMemoryBound(to: UInt8.self), consumed: &consumed, written: &written)
                    } catch {
                        failure = error
                    }
                    return written
                }
            }
        }
        if let failure { return failure }
        var rest = bytes
        rest.moveReaderIndex(forwardBy: consumed)
        if consumed > 0 { self.carried = ByteBuffer() }
        if rest.readableBytes > 0 { self.carry(rest) }
        return nil
    }

    /// Lets go of memory that is not needed.
    mutating func shrink() {
        self.carried =
            self.carried.readableBytes == 0 ? ByteBuffer() : ByteBuffer(bytes: self.carried.readableBytesView)
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

    /// Opens the complete records of `carried` followed by `bytes`; only the first can lie in both.
    ///
    /// - Parameters:
    ///   - consumed: How much of `bytes` belongs to complete records; when 0, `carried` is still needed.
    ///   - written: How much plaintext there is, also after an error.
    private mutating func open(
        _ carried: UnsafeBufferPointer<UInt8>, _ bytes: UnsafeBufferPointer<UInt8>,
        into plaintext: UnsafeMutableBufferPointer<UInt8>, consumed: inout Int, written: inout Int
    ) throws(NoiseError) {
        guard let target = plaintext.baseAddress else { return }
        let total = carried.count + bytes.count
        /// Position of the next record, as if the two were one.
        var position = 0
        while total - position >= NoiseRecord.lengthBytes {
            let high = position < carried.count ? carried[position] : bytes[position - carried.count]
            let low = position + 1 < carried.count ? carried[position + 1] : bytes[position + 1 - carried.count]
            let start = position + NoiseRecord.lengthBytes
            let end = start + Int(high) << 8 + Int(low)
            guard end <= total else { break }
            let head = UnsafeBufferPointer(rebasing: carried[min(start, carried.count)...])
            let tail = UnsafeBufferPointer(
                rebasing: bytes[max(start - carried.count, 0)..<max(end - carried.count, 0)])
            written += try self.opener.open(head, tail, into: target + written)
            position = end
            consumed = end - carried.count
        }
    }
}
