/// Cuts the bytes of a packet stream into frames.
///
/// A frame that lies inside one chunk is handed out in place. A frame that spans chunks is put together in one buffer,
/// allocated when the first such frame comes and given back by ``trim()``. Nothing is allocated per frame.
///
/// Pure and owned by one thread: bytes in, frames out, no clock. After an error the stream is unusable: what follows cannot be told apart.
package struct FrameReader: ~Copyable {
    private enum Stage {
        /// Before or inside a header, of which `partial` holds the bytes read so far.
        case header
        /// Inside a body that is being put together.
        case body(FrameHeader)
        /// Inside a body that nobody wants.
        case skip(remaining: Int)
        /// The stream is unusable.
        case failed(FrameError)
    }

    /// The longest body of a packet or super-packet that is accepted, in bytes.
    package let packetBodyLimit: Int

    private var stage = Stage.header
    private var partial: UInt32 = 0
    private var partialBytes = 0
    private var assembly: UnsafeMutableRawPointer?
    private var assembledBytes = 0
    private var assembledSinceTrim = false

    /// - Parameter packetBodyLimit: What both ends agreed on; clamped to the format's 65,600 bytes.
    package init(packetBodyLimit: Int = FrameLimits.packetBodyBytes) {
        self.packetBodyLimit = min(max(packetBodyLimit, 1), FrameLimits.packetBodyBytes)
    }

    deinit { self.assembly?.deallocate() }

    /// Bytes that this reader holds allocated.
    package var allocatedBytes: Int { self.assembly == nil ? 0 : FrameLimits.packetBodyBytes }

    /// Whether the stream may end here: no frame is half read.
    package var isAtFrameBoundary: Bool {
        if case .header = self.stage { return self.partialBytes == 0 }
        return false
    }

    /// Reads all of `chunk` and calls `handle` for each frame that it completes, in order.
    ///
    /// - Parameters:
    ///   - chunk: The stream's next bytes, borrowed until return.
    ///   - handle: Borrows the frame's bytes until it returns.
    /// - Throws: ``FrameError`` once the stream breaks a limit, and again for every chunk after that.
    package mutating func read(_ chunk: UnsafeRawBufferPointer, _ handle: (Frame) -> Void) throws(FrameError) {
        guard let base = chunk.baseAddress else { return }
        let count = chunk.count
        var at = 0
        if case .failed(let error) = self.stage { throw error }
        while at < count {
            if case .header = self.stage, self.partialBytes == 0 {
                // The common case: as many whole frames as the chunk holds, in place.
                at = try self.readWholeFrames(base, from: at, count: count, handle)
                if at == count { return }
            }
            switch self.stage {
            case .header:
                self.partial = self.partial << 8 | UInt32(base.load(fromByteOffset: at, as: UInt8.self))
                self.partialBytes += 1
                at += 1
                if self.partialBytes == FrameLimits.headerBytes {
                    let header = FrameHeader(word: self.partial)
                    self.partial = 0
                    self.partialBytes = 0
                    try self.begin(header)
                }
            case .body(let header):
                let taken = min(header.bodyBytes - self.assembledBytes, count - at)
                let buffer = self.assemblyBuffer()
                (buffer + self.assembledBytes).copyMemory(from: base + at, byteCount: taken)
                self.assembledBytes += taken
                at += taken
                if self.assembledBytes == header.bodyBytes {
                    self.stage = .header
                    self.assembledBytes = 0
                    Self.hand(header, UnsafeRawPointer(buffer), to: handle)
                }
            case .skip(let remaining):
                let taken = min(remaining, count - at)
                at += taken
                self.stage = taken == remaining ? .header : .skip(remaining: remaining - taken)
            case .failed(let error):
                throw error
            }
        }
    }

    /// Gives the assembly buffer back when no frame needed it since the last call. To be called now and then, say every 10 s.
    package mutating func trim() {
        if case .body = self.stage { return }
        if !self.assembledSinceTrim {
            self.assembly?.deallocate()
            self.assembly = nil
        }
        self.assembledSinceTrim = false
    }

    /// Hands out the frames that lie whole in `base[at..<count]`.
    ///
    /// - Returns: Where it stopped: at `count`, inside a last frame whose header was consumed, or before less than a header.
    @inline(__always)
    private mutating func readWholeFrames(
        _ base: UnsafeRawPointer, from start: Int, count: Int, _ handle: (Frame) -> Void
    ) throws(FrameError) -> Int {
        var at = start
        while count - at >= FrameLimits.headerBytes {
            let word = UInt32(bigEndian: base.loadUnaligned(fromByteOffset: at, as: UInt32.self))
            let header = FrameHeader(word: word)
            at += FrameLimits.headerBytes
            guard self.isAcceptable(header), count - at >= header.bodyBytes else {
                try self.begin(header)
                return at
            }
            Self.hand(header, base + at, to: handle)
            at += header.bodyBytes
        }
        return at
    }

    /// Whether the body of `header` may be handed out: lengths are within their limits.
    @inline(__always)
    private func isAcceptable(_ header: FrameHeader) -> Bool {
        switch header.rawKind {
        case FrameKind.packet.rawValue:
            return header.bodyBytes >= 1 && header.bodyBytes <= self.packetBodyLimit
        case FrameKind.superPacket.rawValue:
            return header.bodyBytes > FrameLimits.superPacketPrefixBytes && header.bodyBytes <= self.packetBodyLimit
        default:
            guard header.bodyBytes <= FrameLimits.controlBodyBytes else { return false }
            return header.bodyBytes >= FrameKind(rawValue: header.rawKind)?.minimumBodyBytes ?? 0
        }
    }

    /// Enters the body of a frame that does not lie whole in the chunk.
    private mutating func begin(_ header: FrameHeader) throws(FrameError) {
        guard self.isAcceptable(header) else {
            let limit =
                header.rawKind <= FrameKind.superPacket.rawValue
                ? self.packetBodyLimit : FrameLimits.controlBodyBytes
            let error: FrameError =
                header.bodyBytes > limit
                ? .bodyTooLong(rawKind: header.rawKind, bytes: header.bodyBytes, limit: limit)
                : .bodyTooShort(rawKind: header.rawKind, bytes: header.bodyBytes)
            self.stage = .failed(error)
            throw error
        }
        if FrameKind(rawValue: header.rawKind) != nil {
            self.stage = .body(header)
        } else if header.bodyBytes > 0 {
            self.stage = .skip(remaining: header.bodyBytes)
        }
    }

    private mutating func assemblyBuffer() -> UnsafeMutableRawPointer {
        self.assembledSinceTrim = true
        if let buffer = self.assembly { return buffer }
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: FrameLimits.packetBodyBytes, alignment: 64)
        self.assembly = buffer
        return buffer
    }

    /// Calls `handle` with the frame whose body starts at `body`. Its length has been checked; unknown kinds are skipped.
    @inline(__always)
    private static func hand(_ header: FrameHeader, _ body: UnsafeRawPointer, to handle: (Frame) -> Void) {
        switch header.rawKind {
        case FrameKind.packet.rawValue:
            handle(.packet(UnsafeRawBufferPointer(start: body, count: header.bodyBytes)))
        case FrameKind.superPacket.rawValue:
            let prefix = FrameLimits.superPacketPrefixBytes
            let offload = OffloadMetadata(
                checksumPending: true, segmentSize: UInt16(bigEndian: body.loadUnaligned(as: UInt16.self)),
                flags: OffloadMetadata.Flags(rawValue: body.load(fromByteOffset: 2, as: UInt8.self)))
            handle(
                .superPacket(
                    offload, UnsafeRawBufferPointer(start: body + prefix, count: header.bodyBytes - prefix)))
        case FrameKind.move.rawValue:
            handle(.move(epoch: UInt64(bigEndian: body.loadUnaligned(as: UInt64.self))))
        case FrameKind.probe.rawValue:
            handle(.probe(UInt64(bigEndian: body.loadUnaligned(as: UInt64.self))))
        case FrameKind.echo.rawValue:
            handle(.echo(UInt64(bigEndian: body.loadUnaligned(as: UInt64.self))))
        case FrameKind.close.rawValue:
            handle(.close(CloseCode(rawValue: UInt16(bigEndian: body.loadUnaligned(as: UInt16.self)))))
        default:
            break
        }
    }
}

/// Why a packet stream became unreadable.
package enum FrameError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The header announces more than the kind may carry.
    case bodyTooLong(rawKind: UInt8, bytes: Int, limit: Int)
    /// The body is too short for the fields of its kind.
    case bodyTooShort(rawKind: UInt8, bytes: Int)

    package var description: String {
        switch self {
        case .bodyTooLong(let kind, let bytes, let limit):
            "frame of kind \(kind) announces \(bytes) bytes, the limit is \(limit)"
        case .bodyTooShort(let kind, let bytes):
            "frame of kind \(kind) has a body of only \(bytes) bytes"
        }
    }
}
