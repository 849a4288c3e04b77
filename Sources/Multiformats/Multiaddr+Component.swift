extension Multiaddr {
    /// One part of an address: a protocol and its value, which is valid for it.
    public struct Component: Hashable, Sendable, CustomStringConvertible {
        /// The protocol.
        public let `protocol`: ProtocolCode
        /// The value in binary, without its length; empty for protocols that have none.
        public let value: [UInt8]

        /// Pairs a protocol with its binary value.
        ///
        /// - Throws: ``MultiaddrError/invalidValue(_:_:_:)``, or ``MultiaddrError/missingValue(_:)`` for an empty one.
        public init(_ protocol: ProtocolCode, value: some Collection<UInt8>) throws(MultiaddrError) {
            try Self.check(`protocol`, value: value)
            self.init(unchecked: `protocol`, value: Array(value))
        }

        /// Pairs a protocol with the text of its value. A path comes with its leading slash.
        ///
        /// - Throws: ``MultiaddrError/invalidValue(_:_:_:)``, or ``MultiaddrError/missingValue(_:)`` for an empty one.
        public init(_ protocol: ProtocolCode, text: String) throws(MultiaddrError) {
            if text.isEmpty, `protocol`.size != .none { throw .missingValue(`protocol`) }
            let value: [UInt8]
            do throws(MultiaddrError.Fault) {
                guard text.utf8.count <= Multiaddr.maximumTextBytes else {
                    throw .tooLong(bytes: text.utf8.count, maximum: Multiaddr.maximumTextBytes)
                }
                value = try `protocol`.form.parse(text)
                if let fault = `protocol`.form.fault(in: value) { throw fault }
            } catch {
                throw .invalidValue(`protocol`, text, error)
            }
            self.init(unchecked: `protocol`, value: value)
        }

        /// Throws what ``init(_:value:)`` would.
        static func check(_ protocol: ProtocolCode, value: some Collection<UInt8>) throws(MultiaddrError) {
            if value.isEmpty, `protocol`.size != .none { throw .missingValue(`protocol`) }
            guard let fault = `protocol`.form.fault(in: value) else { return }
            let shown = value.prefix(Multiaddr.maximumBytes)
            throw .invalidValue(`protocol`, "0x" + Multibase.base16.encodeWithoutPrefix(shown), fault)
        }

        /// The caller knows that `value` is valid.
        init(unchecked protocol: ProtocolCode, value: [UInt8]) {
            self.protocol = `protocol`
            self.value = value
        }

        /// The canonical text of the value; `nil` for protocols that have none.
        public var text: String? { self.protocol.size == .none ? nil : self.protocol.form.text(of: self.value) }

        /// `/protocol` or `/protocol/value`.
        public var description: String {
            guard let text = self.text else { return "/" + self.protocol.name }
            return "/" + self.protocol.name + (self.protocol.isPath ? "" : "/") + text
        }

        func append(to bytes: inout [UInt8]) {
            Varint.append(self.protocol.rawValue, to: &bytes)
            if case .lengthPrefixed = self.protocol.size { Varint.append(UInt64(self.value.count), to: &bytes) }
            bytes += self.value
        }
    }
}

extension Multiaddr.Component {
    /// `/ip4/…` or `/ip6/…`.
    public static func ip(_ address: IPAddress) -> Self {
        Self(unchecked: address.family == .ipv4 ? .ip4 : .ip6, value: address.bytes)
    }

    /// `/tcp/…`.
    public static func tcp(_ port: UInt16) -> Self { Self(unchecked: .tcp, value: port.networkOrder) }

    /// `/udp/…`.
    public static func udp(_ port: UInt16) -> Self { Self(unchecked: .udp, value: port.networkOrder) }

    /// `/memory/…`.
    public static func memory(_ number: UInt64) -> Self { Self(unchecked: .memory, value: number.networkOrder) }

    /// `/p2p-circuit`.
    public static let p2pCircuit = Self(unchecked: .p2pCircuit, value: [])

    /// `/quic-v1`.
    public static let quicV1 = Self(unchecked: .quicV1, value: [])
}

extension FixedWidthInteger {
    /// The bytes, most significant first.
    var networkOrder: [UInt8] { withUnsafeBytes(of: self.bigEndian) { Array($0) } }
}
