internal import CLinux
internal import CNgtcp2
internal import LibP2PCore
internal import Multiformats
internal import NIOCore

/// Inbound handshakes under way, and where they come from.
struct PendingHandshakes {
    private(set) var count = 0
    private var perSource: [UInt64: Int] = [:]

    /// What may be done with one who begins a handshake.
    enum Verdict {
        case accept
        /// Only when it has proven its address.
        case prove
        case ignore
    }

    func judge(_ remote: UDPAddress, hasProven: Bool, _ options: QUICOptions) -> Verdict {
        guard self.count < options.maximumPendingInbound else { return .ignore }
        let fromSource = remote.ip.isLoopback ? 0 : self.perSource[remote.prefix] ?? 0
        if hasProven { return fromSource < options.maximumPendingPerSource ? .accept : .ignore }
        return self.count < options.retryThreshold && fromSource < max(1, options.maximumPendingPerSource / 4)
            ? .accept : .prove
    }

    mutating func begin(_ remote: UDPAddress) {
        self.count += 1
        self.perSource[remote.prefix, default: 0] += 1
    }

    mutating func end(_ remote: UDPAddress) {
        self.count -= 1
        guard let left = self.perSource[remote.prefix] else { return }
        self.perSource[remote.prefix] = left > 1 ? left - 1 : nil
    }
}

/// How many packets may be answered without a connection: more help nobody but an attacker.
struct StatelessReplies {
    private static let perPeriod = 100
    private static let period: UInt64 = 100_000_000

    private var left = perPeriod
    private var began: UInt64 = 0

    mutating func take(now: UInt64) -> Bool {
        if now - min(self.began, now) >= Self.period {
            self.began = now
            self.left = Self.perPeriod
        }
        guard self.left > 0 else { return false }
        self.left -= 1
        return true
    }
}

extension QUICSocket {
    private static let tokenLifetime: UInt64 = 10_000_000_000

    /// A packet that belongs to no connection: perhaps it begins one.
    func begin(_ packet: UnsafeRawBufferPointer, local: UDPAddress, remote: UDPAddress, now: UInt64) {
        guard let accept = self.accept else { return }
        var header = ngtcp2_pkt_hd()
        let bytes = packet.baseAddress?.assumingMemoryBound(to: UInt8.self)
        // Early data before a first packet, as others' libraries may ask about, is nothing that libp2p has.
        guard ngtcp2_accept(&header, bytes, packet.count) == 0 else { return }
        let original: ngtcp2_cid?
        do throws(BadToken) {
            original = try self.original(of: &header, remote: remote, now: now)
        } catch {
            return self.refuse(header, local: local, remote: remote, now: now)
        }
        switch self.handshakes.judge(remote, hasProven: original != nil, self.options) {
        case .ignore: return
        case .prove: return self.replyWithRetry(to: header, local: local, remote: remote, now: now)
        case .accept: break
        }
        var request = QUICSession.Request(role: .listener, local: local, remote: remote)
        request.initial = QUICSession.Request.Initial(
            version: header.version, destination: header.dcid, source: header.scid, original: original)
        if original != nil {
            request.initial?.token = [UInt8](UnsafeBufferPointer(start: header.token.base, count: header.token.len))
        }
        let session = try? QUICSession(request, socket: self, credentials: self.credentials) { outcome in
            if case .success(let connection) = outcome { accept(connection) }
        }
        guard let session else { return }
        session.isPending = true
        self.handshakes.begin(session.remote)
    }

    /// The handshake is done, or has failed.
    func handshakeEnded(_ session: QUICSession) {
        guard session.isPending else { return }
        session.isPending = false
        self.handshakes.end(session.remote)
    }

    /// A Retry token that proves nothing.
    private struct BadToken: Error {}

    /// Where the client has come back with a token of ours: the ID that its first packet was for.
    private func original(of header: inout ngtcp2_pkt_hd, remote: UDPAddress, now: UInt64) throws(BadToken)
        -> ngtcp2_cid?
    {
        guard header.token.len > 0, header.token.base?.pointee == UInt8(NGTCP2_CRYPTO_TOKEN_MAGIC_RETRY) else {
            return nil
        }
        var (original, remote) = (ngtcp2_cid(), remote)
        let result = withUnsafeMutablePointer(to: &remote) { remote in
            self.secrets.token.withUnsafeBufferPointer { key in
                ngtcp2_crypto_verify_retry_token(
                    &original, header.token.base, header.token.len, key.baseAddress, key.count, header.version,
                    remote.libraryAddress.addr, remote.libraryAddress.addrlen, &header.dcid, Self.tokenLifetime, now)
            }
        }
        guard result == 0 else { throw BadToken() }
        return original
    }

    private func replyWithRetry(to header: ngtcp2_pkt_hd, local: UDPAddress, remote: UDPAddress, now: UInt64) {
        guard self.stateless.take(now: now) else { return }
        var (header, remoteCopy, own) = (header, remote, self.newConnectionID())
        var token = [UInt8](repeating: 0, count: 256)
        let length = withUnsafeMutablePointer(to: &remoteCopy) { remote in
            self.secrets.token.withUnsafeBufferPointer { key in
                ngtcp2_crypto_generate_retry_token(
                    &token, key.baseAddress, key.count, header.version, remote.libraryAddress.addr,
                    remote.libraryAddress.addrlen, &own, &header.dcid, now)
            }
        }
        guard length > 0 else { return }
        var (client, original) = (header.scid, header.dcid)
        let written = ngtcp2_crypto_write_retry(
            self.sendBuffer.baseAddress?.assumingMemoryBound(to: UInt8.self), 1200, header.version, &client, &own,
            &original, token, length)
        self.reply(written, local: local, remote: remote)
    }

    /// Says that the token is not good, so that the client does not wait.
    private func refuse(_ header: ngtcp2_pkt_hd, local: UDPAddress, remote: UDPAddress, now: UInt64) {
        guard self.stateless.take(now: now) else { return }
        var (client, own) = (header.scid, header.dcid)
        let written = ngtcp2_crypto_write_connection_close(
            self.sendBuffer.baseAddress?.assumingMemoryBound(to: UInt8.self), 1200, header.version, &client, &own,
            UInt64(NGTCP2_INVALID_TOKEN), nil, 0)
        self.reply(written, local: local, remote: remote)
    }

    /// The client speaks a version that we do not.
    func replyWithVersions(
        to packet: UnsafeRawBufferPointer, _ header: ngtcp2_version_cid, local: UDPAddress, remote: UDPAddress,
        now: UInt64
    ) {
        // What is too short for a first packet is not answered: the answer could be larger.
        guard self.accept != nil, packet.count >= 1200, self.stateless.take(now: now) else { return }
        let versions = [cngtcp2_version_1]
        let written = ngtcp2_pkt_write_version_negotiation(
            self.sendBuffer.baseAddress?.assumingMemoryBound(to: UInt8.self), 1200, UInt8.random(in: 0...255),
            header.scid, header.scidlen, header.dcid, header.dcidlen, versions, versions.count)
        self.reply(written, local: local, remote: remote)
    }

    /// The remote has a connection that we do not know. Always shorter than what it answers, so that two who know of nothing do not
    /// answer one another for ever.
    func replyWithReset(to packet: UnsafeRawBufferPointer, local: UDPAddress, remote: UDPAddress, now: UInt64) {
        let minimum = Int(NGTCP2_MIN_STATELESS_RESET_RANDLEN) + Int(NGTCP2_STATELESS_RESET_TOKENLEN)
        guard packet.count > minimum, self.stateless.take(now: now) else { return }
        var id = ngtcp2_cid()
        id.datalen = Self.ownIDLength
        withUnsafeMutableBytes(of: &id.data) {
            $0.copyMemory(from: UnsafeRawBufferPointer(rebasing: packet[1...Self.ownIDLength]))
        }
        var token = [UInt8](repeating: 0, count: Int(NGTCP2_STATELESS_RESET_TOKENLEN))
        token.withUnsafeMutableBytes { self.secrets.writeResetToken(for: id, into: $0) }
        let filler = (0..<min(packet.count - 1 - token.count, 27)).map { _ in UInt8.random(in: 0...255) }
        let written = ngtcp2_pkt_write_stateless_reset(
            self.sendBuffer.baseAddress?.assumingMemoryBound(to: UInt8.self), packet.count - 1, token, filler,
            filler.count)
        self.reply(written, local: local, remote: remote)
    }

    private func reply(_ written: Int, local: UDPAddress, remote: UDPAddress) {
        guard written > 0 else { return }
        self.send(
            UnsafeRawBufferPointer(rebasing: self.sendBuffer[..<written]), local: local, remote: remote, ecn: 0,
            segment: 0)
    }
}
