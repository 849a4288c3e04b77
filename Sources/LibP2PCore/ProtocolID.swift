/// The name of a protocol, as multistream-select negotiates it: `/noise`, `/ipfs/ping/1.0.0`.
public struct ProtocolID: RawRepresentable, Hashable, Sendable, ExpressibleByStringLiteral, CustomStringConvertible {
    /// The name itself.
    public let rawValue: String

    /// Wraps a name; it is not checked.
    public init(rawValue: String) {
        self.rawValue = rawValue
    }

    /// Wraps a literal name.
    public init(stringLiteral value: String) {
        self.rawValue = value
    }

    /// The name itself.
    public var description: String { self.rawValue }
}
