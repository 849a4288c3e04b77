internal import CNgtcp2
internal import DequeModule
internal import LibP2PCore
internal import NIOCore

/// What the library calls. Each takes a note for the session and returns: nothing of ours may call the library from in here.
enum Callbacks {
    /// One set for both roles. Never changed.
    static let table: ngtcp2_callbacks = {
        var table = ngtcp2_callbacks()
        Self.addCryptography(to: &table)
        Self.addHandshake(to: &table)
        Self.addStreams(to: &table)
        Self.addDatagrams(to: &table)
        return table
    }()

    /// The TLS library asks what we think of the remote's certificate.
    static func verify(_ tls: gnutls_session_t?) -> Int32 {
        guard let tls, let pointer = gnutls_session_get_ptr(tls),
            let user = pointer.assumingMemoryBound(to: ngtcp2_crypto_conn_ref.self).pointee.user_data
        else { return -1 }
        return Unmanaged<QUICSession>.fromOpaque(user).takeUnretainedValue().judge(tls) ? 0 : -1
    }

    private static func session(_ user: UnsafeMutableRawPointer?) -> QUICSession? {
        user.map { Unmanaged<QUICSession>.fromOpaque($0).takeUnretainedValue() }
    }

    private static func stream(_ user: UnsafeMutableRawPointer?) -> QUICStream? {
        user.map { Unmanaged<QUICStream>.fromOpaque($0).takeUnretainedValue() }
    }

    private static func addCryptography(to table: inout ngtcp2_callbacks) {
        table.client_initial = ngtcp2_crypto_client_initial_cb
        table.recv_client_initial = ngtcp2_crypto_recv_client_initial_cb
        table.recv_crypto_data = ngtcp2_crypto_recv_crypto_data_cb
        table.encrypt = ngtcp2_crypto_encrypt_cb
        table.decrypt = ngtcp2_crypto_decrypt_cb
        table.hp_mask = ngtcp2_crypto_hp_mask_cb
        table.recv_retry = ngtcp2_crypto_recv_retry_cb
        table.update_key = ngtcp2_crypto_update_key_cb
        table.delete_crypto_aead_ctx = ngtcp2_crypto_delete_crypto_aead_ctx_cb
        table.delete_crypto_cipher_ctx = ngtcp2_crypto_delete_crypto_cipher_ctx_cb
        table.get_path_challenge_data = ngtcp2_crypto_get_path_challenge_data_cb
        table.version_negotiation = ngtcp2_crypto_version_negotiation_cb
        table.rand = { bytes, count, _ in _ = gnutls_rnd(GNUTLS_RND_NONCE, bytes, count) }
    }

    private static func addHandshake(to table: inout ngtcp2_callbacks) {
        table.handshake_completed = { _, user in
            Callbacks.session(user)?.isHandshakeDone = true
            return 0
        }
        table.recv_stateless_reset = { _, _, user in
            Callbacks.session(user)?.wasReset = true
            return 0
        }
        table.get_new_connection_id = { _, id, token, length, user in
            guard let session = Callbacks.session(user), let id, let token,
                session.socket.issue(id, token: token, length: length, for: session)
            else { return NGTCP2_ERR_CALLBACK_FAILURE }
            return 0
        }
        table.remove_connection_id = { _, id, user in
            if let session = Callbacks.session(user), let id { session.socket.retire(id.pointee, of: session) }
            return 0
        }
    }

    private static func addStreams(to table: inout ngtcp2_callbacks) {
        table.stream_open = { library, number, user in
            guard let session = Callbacks.session(user) else { return NGTCP2_ERR_CALLBACK_FAILURE }
            // Streams of one direction are not allowed to the remote at all.
            let stream = session.noteOpened(number)
            ngtcp2_conn_set_stream_user_data(library, number, Unmanaged.passUnretained(stream).toOpaque())
            return 0
        }
        table.recv_stream_data = { _, flags, _, _, data, count, user, streamUser in
            guard let session = Callbacks.session(user), let stream = Callbacks.stream(streamUser) else { return 0 }
            session.noteInput(
                UnsafeRawBufferPointer(start: data, count: count), hasEnded: flags & NGTCP2_STREAM_DATA_FLAG_FIN != 0,
                on: stream)
            return 0
        }
        table.acked_stream_data_offset = { _, _, _, count, _, streamUser in
            Callbacks.stream(streamUser)?.output.acknowledged(Int(clamping: count))
            return 0
        }
        table.extend_max_stream_data = { _, _, _, user, streamUser in
            guard let session = Callbacks.session(user), let stream = Callbacks.stream(streamUser) else { return 0 }
            stream.isFlowBlocked = false
            session.enqueue(stream)
            return 0
        }
        table.stream_reset = { _, _, _, code, user, streamUser in
            guard let session = Callbacks.session(user), let stream = Callbacks.stream(streamUser) else { return 0 }
            stream.ending = .reset(
                StreamResetError(code: StreamErrorCode(rawValue: UInt32(clamping: code)), byRemote: true))
            session.noteReset(stream)
            return 0
        }
        table.stream_close = { _, flags, _, code, user, streamUser in
            guard let session = Callbacks.session(user), let stream = Callbacks.stream(streamUser) else { return 0 }
            session.noteClosed(
                stream,
                code: flags & NGTCP2_STREAM_CLOSE_FLAG_APP_ERROR_CODE_SET != 0
                    ? StreamErrorCode(rawValue: UInt32(clamping: code)) : nil)
            return 0
        }
    }

    private static func addDatagrams(to table: inout ngtcp2_callbacks) {
        table.recv_datagram = { _, _, data, count, user in
            Callbacks.session(user)?.noteDatagram(UnsafeRawBufferPointer(start: data, count: count))
            return 0
        }
        table.ack_datagram = { _, _, user in
            Callbacks.session(user)?.counters.acknowledged += 1
            return 0
        }
        table.lost_datagram = { _, _, user in
            Callbacks.session(user)?.counters.lost += 1
            return 0
        }
    }
}

// MARK: - Notes on streams, from within the library

extension QUICSession {
    func noteInput(_ bytes: UnsafeRawBufferPointer, hasEnded: Bool, on stream: QUICStream) {
        if hasEnded { stream.hasInputEnded = true }
        self.note(stream)
        guard !bytes.isEmpty, !stream.isOver else { return }
        stream.inputBytes += bytes.count
        if let last = stream.input.indices.last, stream.input[last].writableBytes >= bytes.count {
            stream.input[last].writeBytes(bytes)
        } else {
            var buffer = ByteBufferAllocator().buffer(capacity: max(self.expectedBytes, bytes.count))
            buffer.writeBytes(bytes)
            stream.input.append(buffer)
        }
    }

    /// The remote has killed the stream: our direction goes, too, once the library has returned.
    func noteReset(_ stream: QUICStream) {
        stream.output.dropUnsent()
        self.note(stream)
        self.toShutDown.append(stream)
    }

    /// The library is done with the stream: all has been acknowledged, or one side gave up.
    func noteClosed(_ stream: QUICStream, code: StreamErrorCode?) {
        stream.isForgotten = true
        stream.output = SendQueue()
        if stream.ending == nil {
            stream.ending =
                code.map { .refused(StreamResetError(code: $0, byRemote: true)) } ?? .orderly
        }
        self.note(stream)
    }
}
