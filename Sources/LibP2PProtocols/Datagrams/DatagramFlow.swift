package import LibP2PCore
package import NIOCore

/// The datagrams of one control stream. Owned by the connection's event loop.
package final class DatagramFlow: ByteStreamReceiver, @unchecked Sendable {
    /// The connection that carries them.
    package let connection: any DatagramConnection
    /// The application's to write to. What comes on it goes to ``receiver``.
    package let control: any Stream
    /// What each datagram begins with: the control stream's number, as QUIC writes numbers.
    package let prefix: [UInt8]
    /// Who gets the datagrams and what comes on the control stream. Held until the stream closes; set once.
    package var receiver: (any DatagramFlowReceiver)? {
        didSet {
            guard oldValue == nil, let receiver = self.receiver else { return }
            self.control.receiver = self
            if self.leftover.readableBytes > 0 {
                receiver.received(self.leftover)
                self.leftover = ByteBuffer()
            }
            self.control.setReading(true)
        }
    }

    private var leftover: ByteBuffer
    private weak var router: DatagramRouter?
    fileprivate var isTouched = false

    fileprivate init(
        _ control: any Stream, of connection: any DatagramConnection, _ router: DatagramRouter, _ leftover: ByteBuffer
    ) {
        self.control = control
        self.connection = connection
        self.router = router
        self.leftover = leftover
        self.prefix = QUICNumber.encode(control.id)
    }

    /// The longest payload that one datagram holds now, behind the prefix.
    package var maximumPayloadBytes: Int { max(self.connection.maximumDatagramSize - self.prefix.count, 0) }

    /// Ends the flow and its control stream.
    package func close(_ code: StreamErrorCode) {
        self.router?.remove(self)
        self.receiver = nil
        self.control.reset(code)
    }

    // MARK: ByteStreamReceiver, of the control stream

    package func received(_ bytes: ByteBuffer) { self.receiver?.received(bytes) }

    package func receiveComplete() { self.receiver?.receiveComplete() }

    package func writabilityChanged() { self.receiver?.writabilityChanged() }

    package func inputEnded() { self.receiver?.inputEnded() }

    package func closed(_ error: (any Error)?) {
        self.router?.remove(self)
        let receiver = self.receiver
        self.receiver = nil
        receiver?.closed(error)
    }
}

/// Takes the datagrams of a flow, and the bytes of its control stream.
package protocol DatagramFlowReceiver: ByteStreamReceiver {
    /// One datagram without its prefix. Borrowed until return.
    func received(datagram: UnsafeRawBufferPointer)
    /// No more datagrams come in this turn of the loop.
    func datagramsComplete()
    /// ``DatagramFlow/maximumPayloadBytes`` has changed.
    func maximumPayloadChanged()
    /// There is room for more datagrams again.
    func datagramsWritable()
}

/// Gives a connection's datagrams to their flows.
final class DatagramRouter: DatagramReceiver, @unchecked Sendable {
    private unowned let connection: any DatagramConnection
    private var flows: [UInt64: DatagramFlow] = [:]
    private var touched: [DatagramFlow] = []
    private var last: (id: UInt64, flow: DatagramFlow)?

    init(_ connection: any DatagramConnection) {
        self.connection = connection
    }

    /// A flow on `control`; `nil` when there are too many.
    func add(_ control: any Stream, leftover: ByteBuffer) -> DatagramFlow? {
        guard self.flows.count < DatagramService.maximumFlows else { return nil }
        let flow = DatagramFlow(control, of: self.connection, self, leftover)
        self.flows[control.id] = flow
        return flow
    }

    func remove(_ flow: DatagramFlow) {
        guard self.flows[flow.control.id] === flow else { return }
        self.flows[flow.control.id] = nil
        self.last = nil
    }

    // MARK: DatagramReceiver

    func received(_ datagrams: borrowing DatagramBatch) {
        datagrams.forEach { datagram in
            guard let (id, length) = QUICNumber.decode(datagram) else {
                // Nobody can tell what it was for.
                return self.connection.close(.protocolViolation)
            }
            guard let flow = self.flow(id) else { return }
            if !flow.isTouched {
                flow.isTouched = true
                self.touched.append(flow)
            }
            flow.receiver?.received(datagram: UnsafeRawBufferPointer(rebasing: datagram[length...]))
        }
        for flow in self.touched {
            flow.isTouched = false
            flow.receiver?.datagramsComplete()
        }
        self.touched.removeAll(keepingCapacity: true)
    }

    func maximumDatagramSizeChanged() {
        for flow in self.flows.values { flow.receiver?.maximumPayloadChanged() }
    }

    func datagramsWritable() {
        for flow in self.flows.values { flow.receiver?.datagramsWritable() }
    }

    private func flow(_ id: UInt64) -> DatagramFlow? {
        if let last = self.last, last.id == id { return last.flow }
        guard let flow = self.flows[id] else { return nil }
        self.last = (id, flow)
        return flow
    }
}

/// Variable-length integers as QUIC writes them. Spec: RFC 9000 § 16.
package enum QUICNumber {
    /// The shortest form of a number below 2⁶²; larger ones, which no stream has, lose their highest bits.
    package static func encode(_ number: UInt64) -> [UInt8] {
        let (length, mark): (Int, UInt64) =
            switch number {
            case 0..<(1 << 6): (1, 0)
            case 0..<(1 << 14): (2, 1)
            case 0..<(1 << 30): (4, 2)
            default: (8, 3)
            }
        let marked = number & (1 << 62 - 1) | mark << UInt64(8 * length - 2)
        return (0..<length).map { UInt8(truncatingIfNeeded: marked >> UInt64(8 * (length - 1 - $0))) }
    }

    /// The number that `bytes` begin with, and how many bytes it takes; `nil` when they are too few.
    package static func decode(_ bytes: UnsafeRawBufferPointer) -> (number: UInt64, length: Int)? {
        guard let first = bytes.first else { return nil }
        let length = 1 << Int(first >> 6)
        guard bytes.count >= length else { return nil }
        var number = UInt64(first & 0x3f)
        for byte in bytes[1..<length] { number = number << 8 | UInt64(byte) }
        return (number, length)
    }
}
