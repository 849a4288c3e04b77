internal import CLinux
internal import CNgtcp2
internal import LibP2PCore
internal import NIOCore

#if canImport(Glibc)
    internal import Glibc
#endif

// MARK: - What the library is told at the beginning

extension QUICSession {
    func makeLibrary(_ request: Request) throws(QUICError) -> OpaquePointer {
        var settings = self.settings()
        var parameters = self.transportParameters()
        var library: OpaquePointer?
        let own = self.socket.newConnectionID()
        let result: Int32
        if let initial = request.initial {
            result = self.makeServer(initial, own: own, &settings, &parameters, &library)
        } else {
            result = self.makeClient(own: own, &settings, &parameters, &library)
        }
        guard result == 0, let library else {
            throw .failed(reason: ngtcp2_strerror(result).map { String(cString: $0) } ?? "\(result)")
        }
        self.socket.register(own, for: self)
        if let initial = request.initial { self.socket.register(initial.destination, for: self) }
        return library
    }

    private func settings() -> ngtcp2_settings {
        var settings = ngtcp2_settings()
        ngtcp2_settings_default_versioned(NGTCP2_SETTINGS_VERSION, &settings)
        settings.initial_ts = QUICClock.now()
        settings.cc_algo =
            switch self.options.congestion {
            case .cubic: NGTCP2_CC_ALGO_CUBIC
            case .bbr: NGTCP2_CC_ALGO_BBR
            case .bbr2: NGTCP2_CC_ALGO_BBR2
            }
        settings.max_window = self.options.connectionWindow.maximum
        settings.max_stream_window = self.options.streamWindow.maximum
        settings.handshake_timeout = UInt64(clamping: self.options.handshakeTimeout.nanoseconds)
        return settings
    }

    private func transportParameters() -> ngtcp2_transport_params {
        var parameters = ngtcp2_transport_params()
        ngtcp2_transport_params_default_versioned(NGTCP2_TRANSPORT_PARAMS_VERSION, &parameters)
        parameters.initial_max_stream_data_bidi_local = self.options.streamWindow.initial
        parameters.initial_max_stream_data_bidi_remote = self.options.streamWindow.initial
        parameters.initial_max_data = self.options.connectionWindow.initial
        parameters.initial_max_streams_bidi = UInt64(clamping: self.options.maximumInboundStreams)
        parameters.max_idle_timeout = UInt64(clamping: self.options.idleTimeout.nanoseconds)
        parameters.active_connection_id_limit = 7
        // The largest frame there is: a limit of the path's, not of ours.
        parameters.max_datagram_frame_size = 65535
        return parameters
    }

    private func makeClient(
        own: ngtcp2_cid, _ settings: inout ngtcp2_settings, _ parameters: inout ngtcp2_transport_params,
        _ library: inout OpaquePointer?
    ) -> Int32 {
        var (own, destination) = (own, QUICSocket.randomConnectionID(length: 16))
        return self.local.withPath(to: self.remote) { path in
            var table = Callbacks.table
            return ngtcp2_conn_client_new_versioned(
                &library, &destination, &own, path, cngtcp2_version_1, NGTCP2_CALLBACKS_VERSION, &table,
                NGTCP2_SETTINGS_VERSION, &settings, NGTCP2_TRANSPORT_PARAMS_VERSION, &parameters, nil,
                Unmanaged.passUnretained(self).toOpaque())
        }
    }

    private func makeServer(
        _ initial: Request.Initial, own: ngtcp2_cid, _ settings: inout ngtcp2_settings,
        _ parameters: inout ngtcp2_transport_params, _ library: inout OpaquePointer?
    ) -> Int32 {
        var (own, source) = (own, initial.source)
        parameters.original_dcid = initial.original ?? initial.destination
        if initial.original != nil {
            parameters.retry_scid = initial.destination
            parameters.retry_scid_present = 1
        }
        parameters.stateless_reset_token_present = 1
        withUnsafeMutableBytes(of: &parameters.stateless_reset_token) { token in
            self.socket.secrets.writeResetToken(for: own, into: token)
        }
        var token = initial.token
        return token.withUnsafeMutableBufferPointer { token in
            if !token.isEmpty { settings.token = ngtcp2_vec(base: token.baseAddress, len: token.count) }
            return self.local.withPath(to: self.remote) { path in
                var table = Callbacks.table
                return ngtcp2_conn_server_new_versioned(
                    &library, &source, &own, path, initial.version, NGTCP2_CALLBACKS_VERSION, &table,
                    NGTCP2_SETTINGS_VERSION, &settings, NGTCP2_TRANSPORT_PARAMS_VERSION, &parameters, nil,
                    Unmanaged.passUnretained(self).toOpaque())
            }
        }
    }
}

extension UDPAddress {
    /// Lends the library a path, for the time of the call.
    func withPath<Value>(to remote: UDPAddress, _ body: (UnsafePointer<ngtcp2_path>) -> Value) -> Value {
        var (local, remote) = (self, remote)
        return withUnsafeMutablePointer(to: &local) { local in
            withUnsafeMutablePointer(to: &remote) { remote in
                var path = ngtcp2_path(
                    local: local.libraryAddress, remote: remote.libraryAddress, user_data: nil)
                return body(&path)
            }
        }
    }
}

extension UnsafeMutablePointer<UDPAddress> {
    /// The socket address is the first member.
    var libraryAddress: ngtcp2_addr {
        ngtcp2_addr(
            addr: UnsafeMutableRawPointer(self).assumingMemoryBound(to: sockaddr.self),
            addrlen: ngtcp2_socklen(self.pointee.length))
    }
}

// MARK: - Keys and paths

extension QUICSession {
    /// Begins to use new keys. Not before the handshake is confirmed, and not while the last change is under way.
    func updateKeys() -> Bool {
        guard self.state == .open, let library = self.library else { return false }
        let isDone = ngtcp2_conn_initiate_key_update(library, QUICClock.now()) == 0
        self.settle()
        return isDone
    }

    /// Leaves from `local` from now on. Only who dialled can do that.
    func migrate(to local: UDPAddress) -> Bool {
        guard self.state == .open, self.role == .dialer, let library = self.library, let path = self.currentPath else {
            return false
        }
        let isDone = local.withPath(to: path.remote) {
            ngtcp2_conn_initiate_immediate_migration(library, $0, QUICClock.now()) == 0
        }
        self.settle()
        return isDone
    }

    /// Where packets go now; it follows the remote.
    var currentPath: (local: UDPAddress, remote: UDPAddress)? {
        guard let library = self.library, let path = ngtcp2_conn_get_path(library)?.pointee else { return nil }
        return (UDPAddress(path.local), UDPAddress(path.remote))
    }
}

extension UDPAddress {
    init(_ address: ngtcp2_addr) {
        self.init()
        let length = min(Int(address.addrlen), MemoryLayout.size(ofValue: self.socket))
        withUnsafeMutableBytes(of: &self.socket) {
            $0.copyMemory(from: UnsafeRawBufferPointer(start: address.addr, count: length))
        }
        self.length = UInt32(length)
    }
}
