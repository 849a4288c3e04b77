import LibP2PCore
import NIOCore

/// One stream of an ``MplexConnection``: the face that those above hold. All of its state but theirs is the session's.
///
/// Used on its event loop only, which is what makes it sendable.
final class MplexStream: MuxedStream, @unchecked Sendable {
    let eventLoop: any EventLoop
    let streamID: MplexSession.StreamID
    let id: UInt64
    let role: Role
    var receiver: (any ByteStreamReceiver)?
    weak var connection: (any Connection)?
    var protocolID: ProtocolID? {
        didSet { if self.protocolID != nil { self.session?.negotiated(self.streamID) } }
    }

    /// What runs it; `nil` once it has ended.
    private var session: MplexConnection?
    private var closeReason: (any Error)?

    // The connection's notes.
    /// Whether it has been given bytes and not yet the end of the burst.
    var isReceiving = false
    /// What its owner last learnt of its writability.
    var wasWritable = true

    /// - Parameter isOfDialer: Whether the connection's dialer has opened the stream. Makes numbers of both sides unique, and the same on
    ///   both sides.
    init(_ streamID: MplexSession.StreamID, isOfDialer: Bool, session: MplexConnection) {
        self.streamID = streamID
        self.id = streamID.number << 1 | (isOfDialer ? 0 : 1)
        self.role = streamID.isOurs ? .dialer : .listener
        self.eventLoop = session.eventLoop
        self.session = session
    }

    var isOpen: Bool { self.session != nil }

    var isWritable: Bool { self.session?.isWritable(self) ?? false }

    func write(_ bytes: ByteBuffer) { self.session?.write(bytes, to: self.streamID) }

    func flush() { self.session?.flush(self.streamID) }

    func setReading(_ wanted: Bool) { self.session?.setReading(wanted, on: self.streamID) }

    func closeWrite() { self.session?.closeWrite(self.streamID) }

    func close(_ error: (any Error)?) {
        guard let error else {
            self.session?.closeStream(self.streamID)
            return
        }
        if self.closeReason == nil { self.closeReason = error }
        self.session?.resetStream(self.streamID, (error as? StreamResetError)?.code ?? .unspecified)
    }

    func reset(_ code: StreamErrorCode) { self.session?.resetStream(self.streamID, code) }

    // MARK: For the connection

    /// The burst of input is over.
    func completeReceiving() {
        guard self.isReceiving else { return }
        self.isReceiving = false
        self.receiver?.receiveComplete()
    }

    /// Tells the receiver that the stream is gone.
    func end(_ error: (any Error)?) {
        self.completeReceiving()
        self.session = nil
        let receiver = self.receiver
        self.receiver = nil
        receiver?.closed(self.closeReason ?? error)
    }
}
