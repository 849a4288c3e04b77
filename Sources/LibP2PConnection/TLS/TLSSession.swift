import COpenSSL
import LibP2PCore
import NIOCore
import PeerIdentity

/// One TLS connection without its I/O: bytes in, bytes out.
///
/// OpenSSL reads and writes through a BIO of ours, straight from the input at hand and straight into the outgoing buffer.
///
/// Handshake: ``start()`` once, then ``receive(_:)`` for all input until it answers with `finished` or `fail`. After that it is a
/// ``RecordProtection``.
///
/// It serves two purposes: libp2p's own security, where both sides prove their peer IDs, and the TLS of the web, in which a WebSocket hides
/// (``WebTLSOpening``).
final class TLSSession: SecurityHandshake {
    /// What can be agreed on above TLS when the muxer is negotiated later.
    static let noMuxer: ProtocolID = "libp2p"
    /// The longest part of a record that OpenSSL keeps: header, ciphertext, expansion.
    static let maximumCarriedBytes = 5 + 16384 + 256
    /// With AES-GCM some 24 million full records are safe under one key; the key changes well before.
    ///
    /// Spec: RFC 8446 § 5.5.
    static let recordsPerKey = 1 << 23

    private enum Failure {
        case tls(TLSError)
        case transport(TransportError)

        var error: any Error {
            switch self {
            case .tls(let error): error
            case .transport(let error): error
            }
        }
    }

    private enum Purpose {
        case libp2p(TLSContext, expecting: PeerID?)
        case web(WebTLSContext)
    }

    private let purpose: Purpose
    private let ssl: OpaquePointer
    private let role: Role
    /// What may be spoken above TLS. For libp2p, our muxers and ``noMuxer`` behind them.
    private let protocols: [ProtocolID]
    private var recordsPerKey: Int

    /// Why one of our callbacks said no.
    private var refusal: Failure?
    private(set) var remoteKey: PublicKey?
    private var isEstablished = false
    private var isBroken = false
    private var hasEndedInput = false

    // What the BIO reads and writes. Valid only within a call of OpenSSL.
    private var input = UnsafeRawBufferPointer(start: nil, count: 0)
    private var output = UnsafeMutableRawBufferPointer(start: nil, count: 0)
    private var outputCount = 0
    /// What OpenSSL wrote where there was no room for it: messages of its own.
    private var messages = ByteBuffer()

    private var packer: TLSRecordPacker?
    private var gathered = ByteBuffer()
    private var recordsUnderKey = 0

    convenience init(
        _ context: TLSContext, role: Role, expecting expected: PeerID?, muxers: [ProtocolID],
        recordsPerKey: Int = TLSSession.recordsPerKey
    ) throws(TLSError) {
        try self.init(
            context.pointer, .libp2p(context, expecting: expected), role: role,
            protocols: muxers.filter { (1...255).contains($0.rawValue.utf8.count) } + [Self.noMuxer],
            recordsPerKey: recordsPerKey)
    }

    /// A connection of the web, without a peer ID. Driven by a ``WebTLSOpening``.
    ///
    /// - Parameter server: Whom the certificate must name; for the dialer.
    convenience init(_ context: WebTLSContext, role: Role, server: WebTLSContext.ServerName?) throws(TLSError) {
        try self.init(
            context.pointer, .web(context), role: role, protocols: ["http/1.1"], recordsPerKey: Self.recordsPerKey)
        guard let server else { return }
        guard server.isRequired(by: self.ssl) else { throw OpenSSLErrors.engineFailure() }
    }

    private init(
        _ context: OpaquePointer, _ purpose: Purpose, role: Role, protocols: [ProtocolID], recordsPerKey: Int
    ) throws(TLSError) {
        ERR_clear_error()
        guard let method = Self.bioMethod, let ssl = SSL_new(context) else {
            throw OpenSSLErrors.engineFailure()
        }
        self.ssl = ssl
        self.purpose = purpose
        self.role = role
        self.protocols = protocols
        self.recordsPerKey = recordsPerKey
        guard let bio = BIO_new(method) else { throw OpenSSLErrors.engineFailure() }
        let me = Unmanaged.passUnretained(self).toOpaque()
        BIO_set_data(bio, me)
        SSL_set_bio(ssl, bio, bio)  // which takes it
        guard SSL_set_ex_data(ssl, Self.ownIndex, me) == 1 else { throw OpenSSLErrors.engineFailure() }
        switch role {
        case .listener:
            SSL_set_accept_state(ssl)
        case .dialer:
            SSL_set_connect_state(ssl)
            let offer = self.protocols.flatMap { [UInt8($0.rawValue.utf8.count)] + Array($0.rawValue.utf8) }
            // Other than everywhere else 0 is success.
            guard SSL_set_alpn_protos(ssl, offer, UInt32(offer.count)) == 0 else {
                throw OpenSSLErrors.engineFailure()
            }
        }
    }

    deinit { SSL_free(self.ssl) }

    // MARK: Handshake

    /// Begins: a client speaks first.
    func start() -> HandshakeStep { self.receive(ByteBuffer()) }

    /// Consumes bytes from the remote.
    func receive(_ bytes: ByteBuffer) -> HandshakeStep {
        guard !self.isBroken, !self.isEstablished else {
            return .fail(TLSError.engineFailed(reason: "out of turn"), alert: nil)
        }
        switch self.advance(bytes) {
        case .wait:
            return .proceed(self.takeMessages())
        case .done(let leftover):
            do throws(TLSError) {
                return try self.finish(leftover: leftover)
            } catch {
                return self.fail(.tls(error))
            }
        case .failed(let failure):
            return self.fail(failure)
        }
    }

    private enum Progress {
        case wait
        case done(leftover: ByteBuffer?)
        case failed(Failure)
    }

    /// Goes on with the handshake as far as `bytes` reach.
    private func advance(_ bytes: ByteBuffer) -> Progress {
        ERR_clear_error()
        var status: Int32 = 0
        var rest = 0
        bytes.withUnsafeReadableBytes { input in
            self.input = input
            status = SSL_do_handshake(self.ssl)
            rest = self.input.count
            self.input = UnsafeRawBufferPointer(start: nil, count: 0)
        }
        if status == 1 { return .done(leftover: bytes.getSlice(at: bytes.writerIndex - rest, length: rest)) }
        if SSL_get_error(self.ssl, status) == SSL_ERROR_WANT_READ { return .wait }
        return .failed(self.refusal ?? .tls(OpenSSLErrors.connectionFailure(ours: self.protocols)))
    }

    /// The input has ended before the handshake; returns what that means.
    func inputEnded() -> any Error {
        self.isBroken = true
        return TLSError.handshakeCutOff
    }

    private func finish(leftover: ByteBuffer?) throws(TLSError) -> HandshakeStep {
        guard let key = self.remoteKey else { throw .badCertificate(.wrongChainLength(0)) }
        var muxer: ProtocolID?
        var chosen: UnsafePointer<UInt8>?
        var count: UInt32 = 0
        SSL_get0_alpn_selected(self.ssl, &chosen, &count)
        if let chosen, count > 0 {
            let bytes = UnsafeBufferPointer(start: chosen, count: Int(count))
            let agreed = ProtocolID(rawValue: String(decoding: bytes, as: UTF8.self))
            guard self.protocols.contains(agreed) else { throw .unexpectedProtocol(agreed) }
            if agreed != Self.noMuxer { muxer = agreed }
        }
        self.isEstablished = true
        return .finished(peer: PeerID(key), muxer: muxer, reply: self.takeMessages()) { base in
            TLSStream(base, protection: self, earlyInput: leftover ?? ByteBuffer())
        }
    }

    private func fail(_ failure: Failure) -> HandshakeStep {
        self.isBroken = true
        return .fail(failure.error, alert: self.takeMessages())
    }

    // MARK: The handshake of the web

    /// Goes on with a handshake that proves no peer ID.
    func receiveWeb(_ bytes: ByteBuffer) -> OpeningAction<Opened, WebTLSError> {
        switch self.advance(bytes) {
        case .wait:
            return self.takeMessages().map { .send($0) } ?? .wait
        case .done(let leftover):
            self.isEstablished = true
            // TLS 1.2 has no message that changes a key. Its nonces count to 2⁶⁴ under one.
            if SSL_version(self.ssl) != TLS1_3_VERSION { self.recordsPerKey = .max }
            return .done(Opened(), reply: self.takeMessages(), leftover: leftover ?? ByteBuffer())
        case .failed(let failure):
            self.isBroken = true
            let error = self.role == .dialer ? WebTLSError(verification: SSL_get_verify_result(self.ssl)) : nil
            guard case .tls(let reason) = failure else { return .fail(.cutOff, reply: nil) }
            return .fail(error ?? .handshake(reason), reply: self.takeMessages())
        }
    }

    /// The cipher suite agreed on, in OpenSSL's words.
    var cipher: String {
        guard let cipher = SSL_get_current_cipher(self.ssl), let name = SSL_CIPHER_get_name(cipher) else { return "" }
        return String(cString: name)
    }

    // MARK: What OpenSSL asks

    /// Looks at the remote's certificates. Returns what to tell OpenSSL when they are not in order.
    func admit(_ chain: [[UInt8]]) -> Int32? {
        guard case .libp2p(let context, let expected) = self.purpose else { return X509_V_ERR_CERT_REJECTED }
        do throws(PeerCertificateError) {
            let key = try PeerCertificate.verify(chainDER: chain, now: context.now())
            let found = PeerID(key)
            if let expected, expected != found {
                self.refusal = .transport(.peerMismatch(expected: expected, found: found))
                return X509_V_ERR_CERT_REJECTED
            }
            self.remoteKey = key
            return nil
        } catch {
            self.refusal = .tls(.badCertificate(error))
            return if case .expired = error { X509_V_ERR_CERT_HAS_EXPIRED } else { X509_V_ERR_CERT_REJECTED }
        }
    }

    /// The first of the client's protocols that is ours too, as its place in the client's list.
    func chooseProtocol(among offers: UnsafeBufferPointer<UInt8>) -> Range<Int>? {
        var position = 0
        while position < offers.count {
            let start = position + 1
            let end = start + Int(offers[position])
            guard end <= offers.count else { break }
            let name = offers[start..<end]
            if self.protocols.contains(where: { $0.rawValue.utf8.elementsEqual(name) }) { return start..<end }
            position = end
        }
        self.refusal = .tls(.noCommonProtocol(ours: self.protocols))
        return nil
    }

    /// The session that a connection of OpenSSL's belongs to.
    static func of(_ ssl: OpaquePointer) -> TLSSession? {
        SSL_get_ex_data(ssl, self.ownIndex).map { Unmanaged<TLSSession>.fromOpaque($0).takeUnretainedValue() }
    }

    /// The one index that OpenSSL leaves to applications without asking.
    private static let ownIndex: Int32 = 0

    // MARK: BIO

    private func read(into target: UnsafeMutableRawPointer, atMost count: Int) -> Int {
        let count = min(count, self.input.count)
        guard count > 0, let start = self.input.baseAddress else { return 0 }
        target.copyMemory(from: start, byteCount: count)
        self.input = UnsafeRawBufferPointer(rebasing: self.input[count...])
        return count
    }

    private func write(_ bytes: UnsafeRawBufferPointer) {
        // What once went to the messages is followed by all else, or the order would be lost.
        if let start = self.output.baseAddress, self.messages.readableBytes == 0,
            bytes.count <= self.output.count - self.outputCount, let source = bytes.baseAddress
        {
            (start + self.outputCount).copyMemory(from: source, byteCount: bytes.count)
            self.outputCount += bytes.count
        } else {
            self.messages.writeBytes(bytes)
        }
    }

    private nonisolated(unsafe) static let bioMethod: OpaquePointer? = {
        guard let method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "byte buffers") else { return nil }
        BIO_meth_set_create(method) { bio in
            BIO_set_init(bio, 1)
            return 1
        }
        BIO_meth_set_read(method) { bio, target, count in
            BIO_clear_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY)
            guard let target, let data = BIO_get_data(bio) else { return -1 }
            let session = Unmanaged<TLSSession>.fromOpaque(data).takeUnretainedValue()
            let read = session.read(into: target, atMost: Int(count))
            if read == 0 { BIO_set_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY) }
            return read == 0 ? -1 : Int32(read)
        }
        BIO_meth_set_write(method) { bio, source, count in
            guard let source, count > 0, let data = BIO_get_data(bio) else { return -1 }
            Unmanaged<TLSSession>.fromOpaque(data).takeUnretainedValue()
                .write(UnsafeRawBufferPointer(start: source, count: Int(count)))
            return count
        }
        BIO_meth_set_ctrl(method) { _, command, _, _ in command == BIO_CTRL_FLUSH ? 1 : 0 }
        return method
    }()
}

// MARK: - Records

extension TLSSession: RecordProtection {
    func startSealing(_ batch: [ByteBuffer]) { self.packer = TLSRecordPacker(batch) }

    func sealNext(_ outgoing: inout BufferRing) throws -> ByteBuffer? {
        if let message = self.takeMessages() { return message }
        guard var packer = self.packer.take(), !packer.isEmpty else { return nil }
        ERR_clear_error()
        let capacity = packer.nextBufferCapacity
        let sealed = try outgoing.fill(minimumCapacity: capacity) { (buffer) throws(TLSError) in
            var failure: TLSError?
            buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: capacity) { room in
                self.output = room
                self.outputCount = 0
                defer { self.output = UnsafeMutableRawBufferPointer(start: nil, count: 0) }
                do throws(TLSError) {
                    try packer.fillBuffer(gathering: &self.gathered) { (bytes) throws(TLSError) in
                        try self.seal(bytes)
                    }
                } catch {
                    failure = error
                }
                return self.outputCount
            }
            if let failure { throw failure }
        }
        self.packer = packer
        return sealed
    }

    /// Makes records of `bytes`, of ``TLSRecordPacker/recordBytes`` each but the last.
    private func seal(_ bytes: UnsafeRawBufferPointer) throws(TLSError) {
        if self.recordsUnderKey >= self.recordsPerKey {
            self.recordsUnderKey = 0
            guard SSL_key_update(self.ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1 else {
                throw OpenSSLErrors.engineFailure()
            }
        }
        self.recordsUnderKey += (bytes.count - 1) / TLSRecordPacker.recordBytes + 1
        var written = 0
        guard SSL_write_ex(self.ssl, bytes.baseAddress, bytes.count, &written) == 1, written == bytes.count else {
            throw OpenSSLErrors.engineFailure()
        }
    }

    func open(_ bytes: ByteBuffer, _ plaintext: inout BufferRing) -> OpenedRecords {
        var opened = OpenedRecords()
        let capacity = bytes.readableBytes + Self.maximumCarriedBytes
        ERR_clear_error()
        opened.plaintext = plaintext.fill(minimumCapacity: capacity) { buffer in
            buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: capacity) { room in
                bytes.withUnsafeReadableBytes { input in
                    self.input = input
                    defer { self.input = UnsafeRawBufferPointer(start: nil, count: 0) }
                    var written = 0
                    var status: Int32
                    repeat {
                        var count = 0
                        status = SSL_read_ex(
                            self.ssl, room.baseAddress.map { $0 + written }, room.count - written, &count)
                        written += count
                    } while status == 1
                    opened.end = self.end(of: status)
                    return written
                }
            }
        }
        return opened
    }

    private func end(of status: Int32) -> OpenedRecords.End? {
        switch SSL_get_error(self.ssl, status) {
        case SSL_ERROR_WANT_READ:
            return nil
        case SSL_ERROR_ZERO_RETURN:
            self.hasEndedInput = true
            return .orderly
        default:
            self.isBroken = true
            return .failed(OpenSSLErrors.connectionFailure(ours: self.protocols))
        }
    }

    func takeMessages() -> ByteBuffer? {
        guard self.messages.readableBytes > 0 else { return nil }
        defer { self.messages = ByteBuffer() }
        return self.messages
    }

    func endOutput() -> ByteBuffer? {
        guard !self.isBroken else { return nil }
        ERR_clear_error()
        SSL_shutdown(self.ssl)
        ERR_clear_error()
        return self.takeMessages()
    }

    func endInput() -> (any Error)? { self.hasEndedInput ? nil : TLSError.truncated }

    func shrink() {
        self.gathered = ByteBuffer()
        // Does nothing while the beginning of a record is held.
        SSL_free_buffers(self.ssl)
    }
}

/// Cuts buffers into records, in order: all are full but the last.
struct TLSRecordPacker {
    /// The most plaintext that one record holds. Spec: RFC 8446 § 5.1.
    static let recordBytes = 16384
    /// What a record takes beyond its plaintext: header, type, tag.
    static let overheadBytes = 5 + 1 + 16
    /// How many records share an outgoing buffer: full ones are 256 KiB.
    static let recordsPerBuffer = 16
    /// Room for a change of keys between two records.
    static let messageBytes = 64

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
        let plaintext = min(self.remainingBytes, Self.recordsPerBuffer * Self.recordBytes)
        let records = (plaintext + Self.recordBytes - 1) / Self.recordBytes
        return plaintext + records * Self.overheadBytes + Self.messageBytes
    }

    /// Calls `seal` with what fills one outgoing buffer: whole records from where they lie, and gathered what a record takes from
    /// more than one buffer.
    mutating func fillBuffer(
        gathering gathered: inout ByteBuffer, _ seal: (UnsafeRawBufferPointer) throws(TLSError) -> Void
    ) throws(TLSError) {
        var room = min(self.remainingBytes, Self.recordsPerBuffer * Self.recordBytes)
        while room > 0 {
            let rest = self.buffers[self.index].readableBytes - self.offset
            let whole = min(rest, room) / Self.recordBytes * Self.recordBytes
            let direct = whole > 0 ? whole : rest >= room ? room : 0
            if direct > 0 {
                try self.take(direct, seal)
                room -= direct
                continue
            }
            gathered.clear(minimumCapacity: Self.recordBytes)
            var missing = min(room, Self.recordBytes)
            room -= missing
            while missing > 0 {
                let piece = min(missing, self.buffers[self.index].readableBytes - self.offset)
                try self.take(piece) { (bytes) throws(TLSError) in gathered.writeBytes(bytes) }
                missing -= piece
            }
            try Self.withBytes(of: gathered, seal)
        }
    }

    /// Moves `count` bytes of the buffer at hand to `body`.
    private mutating func take(
        _ count: Int, _ body: (UnsafeRawBufferPointer) throws(TLSError) -> Void
    ) throws(TLSError) {
        let buffer = self.buffers[self.index]
        let offset = self.offset
        try Self.withBytes(of: buffer) { (bytes) throws(TLSError) in
            try body(UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count]))
        }
        self.remainingBytes -= count
        self.offset += count
        if self.offset == buffer.readableBytes {
            self.index += 1
            self.offset = 0
        }
    }

    private static func withBytes(
        of buffer: ByteBuffer, _ body: (UnsafeRawBufferPointer) throws(TLSError) -> Void
    ) throws(TLSError) {
        var failure: TLSError?
        buffer.withUnsafeReadableBytes { bytes in
            do throws(TLSError) {
                try body(bytes)
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
    }
}
