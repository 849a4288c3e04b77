import LibP2PCore
import NIOCore

/// One stream of a ``YamuxConnection``: the face that those above hold. All of its state but theirs is the session's.
///
/// Used on its event loop only, which is what makes it sendable.
final class YamuxStream: MuxedStream, @unchecked Sendable {
    let eventLoop: any EventLoop
    /// The number on the wire.
    let number: UInt32
    let role: Role
    var receiver: (any ByteStreamReceiver)?
    weak var connection: (any Connection)?
    var protocolID: ProtocolID? {
        didSet { if self.protocolID != nil { self.session?.negotiated(self.number) } }
    }

    /// What runs it; `nil` once it has ended.
    private var session: YamuxConnection?
    private var closeReason: (any Error)?

    // The connection's notes.
    /// Whether it has been given bytes and not yet the end of the burst.
    var isReceiving = false
    /// What its owner last learnt of its writability.
    var wasWritable = true
    /// Whether it is on the list of those to be told.
    var isBlocked = false

    init(_ number: UInt32, role: Role, session: YamuxConnection) {
        self.number = number
        self.role = role
        self.eventLoop = session.eventLoop
        self.session = session
    }

    var id: UInt64 { UInt64(self.number) }

    var isOpen: Bool { self.session != nil }

    var isWritable: Bool { self.session?.isWritable(self) ?? false }

    func write(_ bytes: ByteBuffer) {
        self.session?.write(bytes, to: self.number)
    }

    func flush() {
        self.session?.flush(self.number)
    }

    func setReading(_ wanted: Bool) {
        self.session?.setReading(wanted, on: self.number)
    }

    func closeWrite() {
        self.session?.closeWrite(self.number)
    }

    func close(_ error: (any Error)?) {
        guard let error else {
            self.session?.closeStream(self.number)
            return
        }
        if self.closeReason == nil { self.closeReason = error }
        self.session?.resetStream(self.number, (error as? StreamResetError)?.code ?? .unspecified)
    }

    func reset(_ code: StreamErrorCode) {
        self.session?.resetStream(self.number, code)
    }

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
