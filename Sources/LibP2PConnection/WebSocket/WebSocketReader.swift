internal import LibP2PCore
internal import NIOCore

/// Reads the remote's frames: bytes in, ``Event`` out.
///
/// Pure: it holds no stream and no clock. Payload is passed on as it arrives and never collected, because to libp2p neither frames nor
/// messages mean anything; only control frames, which are short, are waited for. Nothing is read after a close frame or an error.
///
/// Spec: RFC 6455 § 5; libp2p `websockets/README.md`.
struct WebSocketReader {
    enum Event: Hashable {
        /// The next bytes of the stream, as they came: ``WebSocketMask/apply(_:to:)`` makes them plain.
        case data(ByteBuffer, WebSocketMask?)
        /// To be answered with a pong of the same payload.
        case ping(ByteBuffer)
        /// The remote sends nothing more.
        case close(WebSocketClose)
    }

    /// The longest frame accepted, in bytes. Ours: payload is not collected, so it bounds no memory, only nonsense.
    static let maximumFrameBytes = 1 << 24

    private enum State: Hashable {
        case header
        case data(remaining: Int, WebSocketMask?)
        case control(WebSocketFrameHeader)
        case ended
    }

    /// Who the remote is: a dialer masks, a listener does not.
    private let remote: Role
    private var state = State.header
    /// A data message has begun, and its final frame has not come.
    private var isWithinMessage = false
    /// The beginning of a header or of a control frame.
    private var partial = ByteBuffer()

    init(remote: Role) {
        self.remote = remote
    }

    /// The next event in `input`, of which the bytes that were read are taken. `nil`: all of it is.
    mutating func next(_ input: inout ByteBuffer) throws(WebSocketError) -> Event? {
        while true {
            switch self.state {
            case .ended:
                input.moveReaderIndex(to: input.writerIndex)
                return nil
            case .header:
                guard let header = try self.readHeader(&input) else { return nil }
                try self.check(header)
                if header.opcode.isControl {
                    self.state = .control(header)
                } else {
                    self.isWithinMessage = !header.isFinal
                    self.state = header.length == 0 ? .header : .data(remaining: header.length, header.mask)
                }
            case .data(let remaining, let mask):
                let count = min(remaining, input.readableBytes)
                guard count > 0, let bytes = input.readSlice(length: count) else { return nil }
                self.state =
                    count == remaining ? .header : .data(remaining: remaining - count, mask?.advanced(by: count))
                return .data(bytes, mask)
            case .control(let header):
                guard let payload = self.readControlPayload(header, &input) else { return nil }
                self.state = .header
                switch header.opcode {
                case .ping:
                    return .ping(payload)
                case .close:
                    self.state = .ended
                    return .close(try WebSocketClose(payload: payload))
                case .pong, .continuation, .text, .binary:
                    break
                }
            }
        }
    }

    /// Whether a frame or a message has begun and not ended.
    var isWithinFrame: Bool {
        switch self.state {
        case .ended: false
        case .header: self.partial.readableBytes > 0 || self.isWithinMessage
        case .data, .control: true
        }
    }

    // MARK: Details

    /// What depends on who sent the frame, and after what.
    private mutating func check(_ header: WebSocketFrameHeader) throws(WebSocketError) {
        do throws(WebSocketError) {
            switch (self.remote, header.mask) {
            case (.dialer, nil): throw .unmaskedFrame
            case (.listener, .some): throw .maskedFrame
            case (.dialer, .some), (.listener, nil): break
            }
            guard header.length <= Self.maximumFrameBytes else { throw .frameTooLong(bytes: header.length) }
            switch header.opcode {
            case .text: throw .textFrame
            case .continuation: if !self.isWithinMessage { throw .unexpectedContinuation }
            case .binary: if self.isWithinMessage { throw .continuationExpected }
            case .close, .ping, .pong: break
            }
        } catch {
            self.state = .ended
            throw error
        }
    }

    /// Reads a header that lies in `partial` and `input`.
    private mutating func readHeader(_ input: inout ByteBuffer) throws(WebSocketError) -> WebSocketFrameHeader? {
        do throws(WebSocketError) {
            guard self.partial.readableBytes > 0 else {
                if let header = try input.readWebSocketHeader() { return header }
                self.partial.writeBuffer(&input)
                return nil
            }
            let carried = self.partial.readableBytes
            var both = self.partial
            both.writeImmutableBuffer(
                input.getSlice(
                    at: input.readerIndex,
                    length: min(input.readableBytes, WebSocketFrameHeader.maximumBytes - carried)) ?? ByteBuffer())
            let total = both.readableBytes
            guard let header = try both.readWebSocketHeader() else {
                self.partial.writeBuffer(&input)
                return nil
            }
            input.moveReaderIndex(forwardBy: total - both.readableBytes - carried)
            self.partial.clear()
            return header
        } catch {
            self.state = .ended
            throw error
        }
    }

    /// The payload of a control frame once it is complete, unmasked.
    private mutating func readControlPayload(_ header: WebSocketFrameHeader, _ input: inout ByteBuffer) -> ByteBuffer? {
        let missing = header.length - self.partial.readableBytes
        if var bytes = input.readSlice(length: min(missing, input.readableBytes)) { self.partial.writeBuffer(&bytes) }
        guard self.partial.readableBytes == header.length else { return nil }
        var payload = self.partial
        self.partial = ByteBuffer()
        if let mask = header.mask { payload.applyWebSocketMask(mask) }
        return payload
    }
}
