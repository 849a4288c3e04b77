internal import CNgtcp2
internal import DequeModule
internal import LibP2PCore
internal import NIOCore

// MARK: - Opening

extension QUICSession {
    /// Opens a stream, ready to be written to; the remote learns of it with the first byte.
    func openStream() throws(MuxerError) -> QUICStream {
        guard self.state == .open, let library = self.library else { throw .sessionClosed }
        var number: Int64 = -1
        guard ngtcp2_conn_open_bidi_stream(library, &number, nil) == 0 else { throw .tooManyStreams }
        let stream = QUICStream(number, role: .dialer, session: self)
        self.streams[number] = stream
        ngtcp2_conn_set_stream_user_data(library, number, Unmanaged.passUnretained(stream).toOpaque())
        return stream
    }
}

// MARK: - Input

extension QUICSession {
    /// Hands on what has arrived, in order: bytes, the end of input, the end of all.
    func deliver(_ stream: QUICStream) {
        guard !stream.isOver else { return self.forgetIfOver(stream) }
        if case .reset(let error) = stream.ending {
            self.dropInput(of: stream)
            stream.end(error)
            return self.forgetIfOver(stream)
        }
        var hasDelivered = false
        while stream.isReading, !stream.isOver, let receiver = stream.receiver, let bytes = stream.input.popFirst() {
            hasDelivered = true
            self.credit(bytes.readableBytes, to: stream)
            receiver.received(bytes)
        }
        if hasDelivered, !stream.isOver { stream.receiver?.receiveComplete() }
        if stream.isReading, stream.input.isEmpty, stream.hasInputEnded, !stream.wasToldInputEnd, !stream.isOver {
            stream.wasToldInputEnd = true
            stream.receiver?.inputEnded()
        }
        if stream.receiver != nil, stream.input.isEmpty, !stream.isOver, let ending = stream.ending {
            switch ending {
            case .orderly where stream.wasToldInputEnd: stream.end(nil)
            case .refused(let error) where stream.wasToldInputEnd || !stream.hasInputEnded: stream.end(error)
            case .orderly, .refused, .reset: break
            }
        }
        self.forgetIfOver(stream)
        if hasDelivered { self.settle() }
    }

    /// Whoever reads makes room for more.
    private func credit(_ count: Int, to stream: QUICStream) {
        stream.inputBytes -= count
        guard let library = self.library else { return }
        if !stream.isForgotten { ngtcp2_conn_extend_max_stream_offset(library, stream.number, UInt64(count)) }
        ngtcp2_conn_extend_max_offset(library, UInt64(count))
    }

    /// Nobody will read it: it no longer takes room in the connection's window.
    private func dropInput(of stream: QUICStream) {
        if stream.inputBytes > 0, let library = self.library {
            ngtcp2_conn_extend_max_offset(library, UInt64(stream.inputBytes))
        }
        stream.inputBytes = 0
        stream.input.removeAll()
    }

    /// A stream is gone when both the library and its owner have let it go; then the remote may open another.
    private func forgetIfOver(_ stream: QUICStream) {
        guard stream.isOver, stream.isForgotten, self.streams.removeValue(forKey: stream.number) != nil else { return }
        guard stream.role == .listener, let library = self.library else { return }
        ngtcp2_conn_extend_max_streams_bidi(library, 1)
    }
}

// MARK: - The end

extension QUICSession {
    /// Both directions at once.
    func reset(_ stream: QUICStream, _ code: StreamErrorCode) {
        self.shutDown(stream, code)
        stream.end(StreamResetError(code: code, byRemote: false))
        self.forgetIfOver(stream)
        self.settle()
    }

    private func shutDown(_ stream: QUICStream, _ code: StreamErrorCode) {
        stream.output.dropUnsent()
        self.dropInput(of: stream)
        guard !stream.isForgotten, let library = self.library else { return }
        let result = ngtcp2_conn_shutdown_stream(library, stream.number, UInt64(code.rawValue))
        if result != 0 { self.fail(result) }
    }

    /// What was written has an end; what would still come is not wanted. With something left unsent it is no orderly end.
    func closeOrderly(_ stream: QUICStream) {
        guard stream.output.unsentBytes == 0 else {
            self.shutDown(stream, .unspecified)
            stream.end(nil)
            self.forgetIfOver(stream)
            return self.settle()
        }
        stream.output.end()
        self.enqueue(stream)
        self.dropInput(of: stream)
        if !stream.isForgotten, let library = self.library {
            let result = ngtcp2_conn_shutdown_stream_read(library, stream.number, 0)
            if result != 0 { self.fail(result) }
        }
        stream.end(nil)
        self.forgetIfOver(stream)
        self.settle()
    }
}

// MARK: - Output

extension QUICSession {
    /// Puts a stream with something to send in line.
    func enqueue(_ stream: QUICStream) {
        guard !stream.isQueued, !stream.isFlowBlocked, !stream.isOutputStopped, !stream.isForgotten,
            stream.output.isSendable
        else { return }
        stream.isQueued = true
        self.sendable.append(stream)
    }

    func isWritable(_ stream: QUICStream) -> Bool {
        stream.output.unsentBytes < self.options.sendQueueBytes
    }

    func watchWritability(of stream: QUICStream) {
        guard !stream.isWatched else { return }
        stream.isWatched = true
        self.watched.append(stream)
    }

    /// Tells streams whose writability has changed.
    func tellWritability() {
        guard !self.watched.isEmpty else { return }
        let watched = self.watched
        self.watched.removeAll(keepingCapacity: true)
        for stream in watched {
            stream.isWatched = false
            guard !stream.isOver else { continue }
            let isWritable = self.isWritable(stream)
            if !isWritable { self.watchWritability(of: stream) }
            guard isWritable != stream.wasWritable else { continue }
            stream.wasWritable = isWritable
            stream.receiver?.writabilityChanged()
        }
    }
}
