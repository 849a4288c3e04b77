import LibP2PCore
package import NIOCore

/// A stream secured with Noise.
package typealias NoiseStream = RecordStream<NoiseProtection>

/// The transport phase of Noise.
///
/// What is queued is encrypted straight into outgoing buffers that have room for each record's length and tag, after gathering what is
/// small (``NoiseRecordPacker``).
///
/// Spec: `noise/README.md` § Wire Format; Noise protocol framework § 3.
package struct NoiseProtection: RecordProtection, ~Copyable {
    private var sealer: RecordSealer
    private var packer: NoiseRecordPacker?
    private var records: NoiseRecordReader

    init(keys: NoiseTransportKeys, firstRecord: UInt64 = 0) throws(NoiseError) {
        let sealer = try RecordSealer(key: keys.sending, firstRecord: firstRecord)
        let opener = try RecordOpener(key: keys.receiving, firstRecord: firstRecord)
        self.sealer = sealer
        self.records = NoiseRecordReader(opener: opener)
    }

    package mutating func startSealing(_ batch: [ByteBuffer]) { self.packer = NoiseRecordPacker(batch) }

    package mutating func sealNext(_ outgoing: inout BufferRing) throws -> ByteBuffer? {
        guard self.packer?.isEmpty == false, let capacity = self.packer?.nextBufferCapacity else {
            self.packer = nil
            return nil
        }
        return try outgoing.fill(minimumCapacity: capacity) { (buffer) throws(NoiseError) in
            _ = try self.packer?.fill(&buffer, capacity: capacity, sealer: &self.sealer)
        }
    }

    package mutating func open(_ bytes: ByteBuffer, _ plaintext: inout BufferRing) -> OpenedRecords {
        var opened = OpenedRecords()
        guard let capacity = self.records.plaintextCapacity(with: bytes) else {
            self.records.carry(bytes)
            return opened
        }
        opened.plaintext = plaintext.fill(minimumCapacity: capacity) { buffer in
            if let failure = self.records.read(bytes, into: &buffer) { opened.end = .failed(failure) }
        }
        return opened
    }

    package mutating func takeMessages() -> ByteBuffer? { nil }

    package mutating func endOutput() -> ByteBuffer? { nil }

    package mutating func endInput() -> (any Error)? {
        self.records.isWithinRecord ? NoiseError.recordCutOff : nil
    }

    package mutating func shrink() { self.records.shrink() }
}

extension RecordStream where Protection == NoiseProtection {
    /// - Parameters:
    ///   - base: The stream beneath. Whoever makes this stream installs it there as the receiver, with reading off.
    ///   - earlyInput: What the handshake has read beyond its own messages.
    convenience init(
        _ base: any ByteStream, keys: NoiseTransportKeys, earlyInput: ByteBuffer = ByteBuffer(), firstRecord: UInt64 = 0
    ) throws(NoiseError) {
        self.init(
            base, protection: try NoiseProtection(keys: keys, firstRecord: firstRecord), earlyInput: earlyInput)
    }
}
