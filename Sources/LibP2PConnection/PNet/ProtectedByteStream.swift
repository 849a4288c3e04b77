package import LibP2PCore
package import NIOCore

/// A byte stream of a private network: all that goes over it is encrypted with the pre-shared key, the negotiation of the security
/// protocol included.
///
/// Out: 24 random bytes, the nonce, go before the first write. Everything is encrypted as it is written, with one pass from the writer's
/// buffer into one of ours (``BufferRing``), so steady traffic allocates nothing; after ``idleTime`` without any no buffer is held.
///
/// In: the remote's first 24 bytes are its nonce; what follows is decrypted likewise and delivered as it comes.
///
/// Nothing is authenticated. Whether the remote has our key shows in the first words that it says, which are the same on every
/// connection: where they are not, the stream ends with ``PrivateNetworkError/keyMismatch``.
///
/// Spec: `pnet/Private-Networks-PSK-V1.md`.
package final class ProtectedByteStream: ByteStream, ByteStreamReceiver, @unchecked Sendable {
    // Not `Sendable` by the compiler's rules: all state belongs to `eventLoop`.

    /// How long buffers are kept without traffic, at least; at most twice as long.
    package static let idleTime = TimeAmount.seconds(5)

    private enum Phase {
        case open
        /// We end it: the stream beneath is about to be closed, or is.
        case failed(PrivateNetworkError)
        /// Gone, and nobody was there to be told.
        case ended((any Error)?)
        case closed
    }

    package let eventLoop: any EventLoop
    /// The encrypted side.
    package let base: any ByteStream

    private let key: PreSharedKey
    private var phase = Phase.open
    private var owner: (any ByteStreamReceiver)?

    // Out.
    private var sealer: XSalsa20
    /// Empty once it is written.
    private var unsentNonce: ByteBuffer
    private var sealed = BufferRing(count: 4)

    // In.
    private var opener: XSalsa20?
    private var remoteNonce: [UInt8] = []
    private var opened = BufferRing(count: 2)
    /// What the remote still has to say to prove that it has the key.
    private var expected = ProtectedByteStream.greeting[...]

    private var hadTraffic = false
    private var idleTimer: Scheduled<Void>?

    /// What every node says first: the header of multistream-select.
    private static let greeting: [UInt8] = {
        var header = ByteBuffer()
        header.writeMultistreamMessage(Multistream.header)
        return Array(header.readableBytesView)
    }()

    /// Takes over `base` as its receiver. Event loop only.
    package convenience init(_ base: any ByteStream, key: PreSharedKey) throws(PrivateNetworkError) {
        try self.init(base, key: key, nonce: Sodium.randomBytes(XSalsa20.nonceBytes))
    }

    /// - Parameter nonce: Never used before with this key.
    init(_ base: any ByteStream, key: PreSharedKey, nonce: [UInt8]) throws(PrivateNetworkError) {
        self.base = base
        self.eventLoop = base.eventLoop
        self.key = key
        self.sealer = try XSalsa20(key: key, nonce: nonce)
        self.unsentNonce = ByteBuffer(bytes: nonce)
        base.receiver = self
    }

    deinit {
        self.idleTimer?.cancel()
    }

    /// Whether the remote has shown that it has our key.
    package var isProven: Bool { self.expected.isEmpty }

    /// What `error`, which has ended the stream or the negotiation on it, means in a private network.
    package func explain(_ error: any Error) -> any Error {
        switch error {
        case is PrivateNetworkError, TransportError.cancelled: error
        case _ where self.isProven: error
        default: PrivateNetworkError.keyUnproven(reason: String(describing: error))
        }
    }

    // MARK: ByteStream

    package var receiver: (any ByteStreamReceiver)? {
        get { self.owner }
        set {
            switch self.phase {
            case .open, .failed:
                self.owner = newValue
            case .ended(let error):
                // Later: the caller may not be ready for the end while it sets its receiver.
                self.owner = newValue
                self.eventLoop.execute { self.end(error) }
            case .closed:
                break
            }
        }
    }

    package var isWritable: Bool { self.base.isWritable }

    package func write(_ bytes: ByteBuffer) {
        guard case .open = self.phase, bytes.readableBytes > 0 else { return }
        self.noteTraffic()
        if self.unsentNonce.readableBytes > 0 {
            self.base.write(self.unsentNonce)
            self.unsentNonce = ByteBuffer()
        }
        self.base.write(Self.apply(&self.sealer, to: bytes, with: &self.sealed))
    }

    package func flush() { self.base.flush() }

    package func setReading(_ wanted: Bool) { self.base.setReading(wanted) }

    package func closeWrite() { self.base.closeWrite() }

    package func close(_ error: (any Error)?) { self.base.close(error) }

    // MARK: ByteStreamReceiver

    package func received(_ bytes: ByteBuffer) {
        guard case .open = self.phase else { return }
        var bytes = bytes
        // Taken out, so that it is not copied to be changed.
        guard var opener = self.opener.take() ?? self.readNonce(&bytes) else { return }
        self.noteTraffic()
        let plain = Self.apply(&opener, to: bytes, with: &self.opened)
        self.opener = opener
        guard plain.readableBytes > 0 else { return }
        guard self.isProven || self.proves(plain) else { return self.fail(.keyMismatch) }
        self.owner?.received(plain)
    }

    package func receiveComplete() { self.owner?.receiveComplete() }

    package func writabilityChanged() { self.owner?.writabilityChanged() }

    package func inputEnded() {
        guard case .open = self.phase else { return }
        self.owner?.inputEnded()
    }

    package func closed(_ error: (any Error)?) {
        switch self.phase {
        case .open: self.end(error)
        case .failed(let failure): self.end(failure)
        case .ended, .closed: break
        }
    }

    // MARK: Details

    /// The cipher for input, once all of the remote's nonce is there.
    private func readNonce(_ bytes: inout ByteBuffer) -> XSalsa20? {
        let missing = XSalsa20.nonceBytes - self.remoteNonce.count
        self.remoteNonce += bytes.readBytes(length: min(missing, bytes.readableBytes)) ?? []
        guard self.remoteNonce.count == XSalsa20.nonceBytes else { return nil }
        do {
            return try XSalsa20(key: self.key, nonce: self.remoteNonce)
        } catch {
            self.fail(error)
            return nil
        }
    }

    /// Whether the remote goes on as one that has the key.
    private func proves(_ plain: ByteBuffer) -> Bool {
        let words = plain.readableBytesView.prefix(self.expected.count)
        guard self.expected.starts(with: words) else { return false }
        self.expected = self.expected.dropFirst(words.count)
        return true
    }

    private static func apply(_ cipher: inout XSalsa20, to bytes: ByteBuffer, with ring: inout BufferRing) -> ByteBuffer
    {
        ring.fill(minimumCapacity: bytes.readableBytes) { result in
            bytes.withUnsafeReadableBytes { source in
                _ = result.writeWithUnsafeMutableBytes(minimumWritableBytes: source.count) { room in
                    guard let from = source.baseAddress, let to = room.baseAddress else { return 0 }
                    cipher.apply(
                        from.assumingMemoryBound(to: UInt8.self), into: to.assumingMemoryBound(to: UInt8.self),
                        count: source.count)
                    return source.count
                }
            }
        }
    }

    private func fail(_ error: PrivateNetworkError) {
        self.phase = .failed(error)
        self.base.close(error)
    }

    private func end(_ error: (any Error)?) {
        let owner = self.owner.take()
        self.phase = owner == nil ? .ended(error) : .closed
        self.idleTimer?.cancel()
        self.idleTimer = nil
        self.shrink()
        owner?.closed(error)
    }

    // MARK: Memory

    private func noteTraffic() {
        self.hadTraffic = true
        if self.idleTimer == nil { self.startIdleTimer() }
    }

    private func startIdleTimer() {
        self.idleTimer = self.eventLoop.scheduleTask(in: Self.idleTime) { [weak self] in self?.idleTimerFired() }
    }

    private func idleTimerFired() {
        self.idleTimer = nil
        if self.hadTraffic {
            self.hadTraffic = false
            self.startIdleTimer()
        } else {
            self.shrink()
        }
    }

    private func shrink() {
        self.sealed.shrink()
        self.opened.shrink()
    }

    /// Whether large buffers are held at the moment.
    var holdsBuffers: Bool { !self.sealed.isEmpty || !self.opened.isEmpty }
}
