internal import SwiftProtobuf

/// What an end of a packet stream takes as a receiver. Bits of newer builds survive.
package struct Capabilities: OptionSet, Hashable, Sendable {
    package let rawValue: UInt64

    package init(rawValue: UInt64) { self.rawValue = rawValue }

    /// TCP over IPv4 in super-packets.
    package static let tso4 = Capabilities(bit: .tso4)
    /// TCP over IPv6 in super-packets.
    package static let tso6 = Capabilities(bit: .tso6)
    /// UDP in super-packets.
    package static let uso = Capabilities(bit: .uso)
    /// Packets whose transport checksum is still to be finished.
    package static let checksumPending = Capabilities(bit: .checksumPending)
    /// Packets in QUIC datagrams of the same connection.
    package static let datagrams = Capabilities(bit: .datagrams)

    private init(bit: Warren_Capability) { self.rawValue = 1 << UInt64(bit.rawValue) }
}

/// The first message of an end of a packet stream: who speaks for which network, and its limits.
package struct Hello: Hashable, Sendable {
    /// The limits of ``maximumBodyBytes``.
    package static let bodyLimits = 1_280...FrameLimits.packetBodyBytes
    /// The limits of ``innerMTU``: IPv6 asks for the lower one.
    package static let mtuLimits = 1_280...65_535

    /// The network whose packets the stream carries.
    package let networkID: NetworkID
    /// Random, new at each start of the daemon.
    package let instance: UInt64
    /// The lane's number; the highest of an instance is current.
    package let epoch: UInt64
    /// The longest body of a packet or super-packet this end takes, in bytes.
    package let maximumBodyBytes: Int
    /// What this end takes besides finished packets.
    package let capabilities: Capabilities
    /// The MTU inside the tunnel, in bytes.
    package let innerMTU: Int

    /// A hello of our own. Numbers beyond ``bodyLimits`` and ``mtuLimits`` are clamped.
    package init(
        networkID: NetworkID, instance: UInt64, epoch: UInt64, maximumBodyBytes: Int = FrameLimits.packetBodyBytes,
        capabilities: Capabilities, innerMTU: Int
    ) {
        self.networkID = networkID
        self.instance = instance
        self.epoch = epoch
        self.maximumBodyBytes = min(max(maximumBodyBytes, Self.bodyLimits.lowerBound), Self.bodyLimits.upperBound)
        self.capabilities = capabilities
        self.innerMTU = min(max(innerMTU, Self.mtuLimits.lowerBound), Self.mtuLimits.upperBound)
    }

    /// A hello from the wire.
    init(_ message: Warren_Hello) throws(HelloError) {
        guard let networkID = NetworkID(bytes: message.networkID) else {
            throw .badNetworkID(bytes: message.networkID.count)
        }
        guard Self.bodyLimits.contains(Int(message.maximumBodyBytes)) else {
            throw .badBodyLimit(message.maximumBodyBytes)
        }
        guard Self.mtuLimits.contains(Int(message.innerMtu)) else { throw .badMTU(message.innerMtu) }
        self.init(
            networkID: networkID, instance: message.instance, epoch: message.epoch,
            maximumBodyBytes: Int(message.maximumBodyBytes),
            capabilities: Capabilities(rawValue: message.capabilities), innerMTU: Int(message.innerMtu))
    }

    var message: Warren_Hello {
        .with {
            $0.networkID = Self.collected(self.networkID.bytes)
            $0.instance = self.instance
            $0.epoch = self.epoch
            $0.maximumBodyBytes = UInt32(truncatingIfNeeded: self.maximumBodyBytes)
            $0.capabilities = self.capabilities.rawValue
            $0.innerMtu = UInt32(truncatingIfNeeded: self.innerMTU)
        }
    }

    /// `bytes` as the type of the generated field, which is Foundation's and stays unnamed here.
    private static func collected<Field: RangeReplaceableCollection<UInt8>>(_ bytes: [UInt8]) -> Field {
        Field(bytes)
    }
}

/// A message of the opening exchange, and its bytes: an unsigned varint of the length, then the protobuf.
enum Greeting: Equatable {
    case hello(Hello)
    case refuse(RefuseCode)

    /// The bytes on the wire. A greeting of ours is far below the limit.
    func encoded() throws(HelloError) -> [UInt8] {
        let message = Warren_Greeting.with {
            switch self {
            case .hello(let hello): $0.hello = hello.message
            case .refuse(let code): $0.refuse.code = Warren_RefuseCode(rawValue: code.rawValue) ?? .unspecified
            }
        }
        guard let body: [UInt8] = try? message.serializedBytes() else { throw .notProtobuf }
        var bytes: [UInt8] = []
        bytes.appendLengthPrefixed(body)
        return bytes
    }

    /// Decodes the protobuf behind the length prefix.
    init(body: ArraySlice<UInt8>) throws(HelloError) {
        guard let message = try? Warren_Greeting(serializedBytes: Array(body)) else { throw .notProtobuf }
        switch message.content {
        case .hello(let hello): self = .hello(try Hello(hello))
        case .refuse(let refuse): self = .refuse(RefuseCode(rawValue: refuse.code.rawValue))
        case nil: throw .empty
        }
    }
}

/// Why the opening exchange of a packet stream failed.
package enum HelloError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The length prefix is malformed or announces more than 4,096 bytes.
    case badLength
    /// The message is not the protobuf it should be.
    case notProtobuf
    /// The message is neither hello nor refusal.
    case empty
    /// A network ID has 32 bytes.
    case badNetworkID(bytes: Int)
    /// The body limit is out of ``Hello/bodyLimits``.
    case badBodyLimit(UInt32)
    /// The MTU is out of ``Hello/mtuLimits``.
    case badMTU(UInt32)
    /// The acceptor answered for another network.
    case otherNetwork(NetworkID)
    /// The two ends give the network different inner MTUs.
    case mtuMismatch(ours: Int, theirs: Int)
    /// An opener refused, or the exchange was driven out of order.
    case outOfOrder

    package var description: String {
        switch self {
        case .badLength: "greeting longer than \(FrameLimits.greetingBytes) bytes, or its length malformed"
        case .notProtobuf: "greeting is not valid protobuf"
        case .empty: "greeting is neither hello nor refusal"
        case .badNetworkID(let bytes): "network ID of \(bytes) bytes"
        case .badBodyLimit(let bytes): "body limit of \(bytes) bytes"
        case .badMTU(let bytes): "inner MTU of \(bytes) bytes"
        case .otherNetwork(let id): "the answer is for another network, \(id)"
        case .mtuMismatch(let ours, let theirs): "inner MTU is \(ours) here and \(theirs) there"
        case .outOfOrder: "message out of order"
        }
    }
}
