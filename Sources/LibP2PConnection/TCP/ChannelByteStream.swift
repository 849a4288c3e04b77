internal import LibP2PCore
internal import NIOCore

#if canImport(Glibc)
    internal import Glibc
#endif

/// A NIO channel as a ``ByteStream``: the last handler of the channel's pipeline.
final class ChannelByteStream: ByteStream, ChannelInboundHandler, @unchecked Sendable {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    let eventLoop: any EventLoop
    // Everything below is owned by the event loop.
    /// Called once when the channel is connected. Before that nothing can be read or sent.
    var onActive: (() -> Void)?
    var receiver: (any ByteStreamReceiver)? {
        didSet {
            // Whoever comes late is told of the end all the same.
            if self.receiver != nil, self.isClosed { self.eventLoop.execute { self.deliverWaiting() } }
        }
    }
    private var context: ChannelHandlerContext?
    private var reading = false
    private var readPending = false
    private var inBurst = false
    /// Whether the receiver has got bytes of the burst, and is to be told of its end.
    private var hasDelivered = false
    private var waitingInput: [ByteBuffer] = []
    private var inputHasEnded = false
    private var toldInputEnded = false
    private var failure: (any Error)?
    private var isClosed = false
    private var toldClosed = false

    init(eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
    }

    // MARK: ByteStream

    var isWritable: Bool { self.context?.channel.isWritable ?? false }

    func write(_ bytes: ByteBuffer) {
        self.context?.write(self.wrapOutboundOut(bytes), promise: nil)
    }

    func flush() {
        self.context?.flush()
    }

    func setReading(_ wanted: Bool) {
        guard wanted != self.reading else { return }
        self.reading = wanted
        guard wanted else { return }
        if self.waitingInput.isEmpty, !self.inputHasEnded, !self.isClosed {
            self.requestRead()
        } else {
            // From a later tick: the caller may still be in the middle of its own change of state.
            self.eventLoop.execute { self.deliverWaiting() }
        }
    }

    func closeWrite() {
        self.context?.flush()
        self.context?.close(mode: .output, promise: nil)
    }

    func close(_ error: (any Error)?) {
        if self.failure == nil { self.failure = error }
        if case TransportError.aborted? = error, let provider = self.context?.channel as? any SocketOptionProvider {
            // Closing resets the connection: the kernel forgets what it has not delivered, and the remote learns it with its next segment.
            provider.setSoLinger(linger(l_onoff: 1, l_linger: 0)).whenComplete { _ in self.context?.close(promise: nil)
            }
            return
        }
        self.context?.close(promise: nil)
    }

    /// Bytes that were received and are somebody else's: they come again, before all others. Nobody receives the stream at the moment, or
    /// reading is off.
    func putBack(_ bytes: ByteBuffer) {
        guard bytes.readableBytes > 0 else { return }
        self.waitingInput.insert(bytes, at: 0)
    }

    // MARK: ChannelInboundHandler

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
    }

    func channelActive(context: ChannelHandlerContext) {
        self.onActive.take()?()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        self.inBurst = true
        let bytes = self.unwrapInboundIn(data)
        if self.reading, self.waitingInput.isEmpty, let receiver = self.receiver {
            self.hasDelivered = true
            receiver.received(bytes)
        } else {
            self.waitingInput.append(bytes)
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        self.inBurst = false
        self.readPending = false
        self.completeDelivery()
        self.requestRead()
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        self.receiver?.writabilityChanged()
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .some(.inputClosed) = event as? ChannelEvent {
            self.inputHasEnded = true
            self.deliverWaiting()
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if self.failure == nil { self.failure = error }
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        self.isClosed = true
        self.context = nil
        self.deliverWaiting()
    }

    // MARK: Details

    private func requestRead() {
        guard self.reading, !self.readPending, !self.inBurst, !self.inputHasEnded, let context = self.context else {
            return
        }
        self.readPending = true
        context.read()
    }

    private func completeDelivery() {
        guard self.hasDelivered else { return }
        self.hasDelivered = false
        self.receiver?.receiveComplete()
    }

    /// Input keeps its order: bytes, then the end of input, then the end of all. The end of all does not wait for a reader.
    private func deliverWaiting() {
        while self.reading || self.isClosed, !self.waitingInput.isEmpty, let receiver = self.receiver {
            self.hasDelivered = true
            receiver.received(self.waitingInput.removeFirst())
        }
        if !self.inBurst { self.completeDelivery() }
        if self.reading, self.waitingInput.isEmpty, self.inputHasEnded, !self.toldInputEnded, !self.isClosed {
            self.toldInputEnded = true
            self.receiver?.inputEnded()
        }
        if self.isClosed, !self.toldClosed, let receiver = self.receiver {
            self.toldClosed = true
            self.receiver = nil
            receiver.closed(self.failure)
        }
        self.requestRead()
    }
}
