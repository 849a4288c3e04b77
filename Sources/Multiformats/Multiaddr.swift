/// A self-describing network address: `/ip4/192.0.2.7/tcp/4117/p2p/12D3Koo…`.
///
/// A sequence of components, each a protocol and, for most, a value. Two addresses are equal when their binary forms are;
/// text is only a way to write them. Parsing validates every value, so what exists can be read without errors.
///
/// Spec: `multiformats/multiaddr`, `protocols.csv`; `libp2p/specs` `addressing/README.md`.
public struct Multiaddr: Hashable, Sendable, CustomStringConvertible {
    /// The longest binary form parsed, in bytes. Ours: real addresses have a few hundred bytes at most.
    public static let maximumBytes = 2048

    /// The longest text parsed, in bytes.
    public static let maximumTextBytes = 8192

    /// The binary form, always valid: varint code, then the value, for each component.
    public let bytes: [UInt8]

    /// Parses text: `/protocol/value/protocol/value…`. Slashes at the end are ignored.
    ///
    /// - Throws: ``MultiaddrError``, which names the component at fault. An address without components is
    ///   ``MultiaddrError/empty``.
    public init(_ text: String) throws(MultiaddrError) {
        let components = try Self.parse(text)
        self.init(components: components)
        guard self.bytes.count <= Self.maximumBytes else {
            throw .tooLong(bytes: self.bytes.count, maximum: Self.maximumBytes)
        }
    }

    /// Parses the binary form; all of `bytes` must belong to it.
    ///
    /// A protocol this library does not know is ``MultiaddrError/unknownProtocolCode(_:)``: drop that address, not the
    /// message it came in.
    public init(bytes: some Collection<UInt8>) throws(MultiaddrError) {
        let count = bytes.count
        guard count <= Self.maximumBytes else { throw .tooLong(bytes: count, maximum: Self.maximumBytes) }
        guard count > 0 else { throw .empty }
        let bytes = Array(bytes)
        var reader = ComponentReader(bytes: bytes)
        while let raw = try reader.next() {
            // No component is made only to be thrown away: optimized code of Swift 6.3.1 frees an array that a loop discards
            // before it copies the elements into it.
            try Component.check(raw.protocol, value: raw.value)
            guard !raw.protocol.isPath || reader.isAtEnd else { throw .componentAfterPath(raw.protocol) }
        }
        self.bytes = bytes
    }

    /// Joins components.
    ///
    /// Without any, the result is the empty address (``isEmpty``), which is a value like others but never valid on the wire
    /// or in text. Nothing can follow a path (`/unix`): what does is left out. The limits of parsing do not apply.
    public init(components: some Sequence<Component>) {
        var bytes: [UInt8] = []
        for component in components {
            component.append(to: &bytes)
            if component.protocol.isPath { break }
        }
        self.bytes = bytes
    }

    /// Whether there are no components.
    public var isEmpty: Bool { self.bytes.isEmpty }

    /// The components in order.
    public var components: [Component] { self.makeComponentSequence().map { $0 } }

    /// The protocols in order.
    public var protocols: [ProtocolCode] { self.makeComponentSequence().map(\.protocol) }

    /// The canonical text. For the empty address a lone slash, which does not parse.
    public var description: String {
        self.isEmpty ? "/" : self.makeComponentSequence().reduce(into: "") { $0 += $1.description }
    }

    /// The components of this address, then those of `other`. See ``init(components:)`` for paths.
    public func appending(_ other: Multiaddr) -> Multiaddr {
        Multiaddr(components: self.components + other.components)
    }

    /// The components of this address, then `component`. See ``init(components:)`` for paths.
    public func appending(_ component: Component) -> Multiaddr {
        Multiaddr(components: self.components + [component])
    }
}

extension Multiaddr {
    /// `/ip4/…/tcp/…` or `/ip6/…/tcp/…`.
    public static func tcp(_ ip: IPAddress, port: UInt16) -> Multiaddr {
        Multiaddr(components: [.ip(ip), .tcp(port)])
    }

    /// `/ip4/…/udp/…` or `/ip6/…/udp/…`.
    public static func udp(_ ip: IPAddress, port: UInt16) -> Multiaddr {
        Multiaddr(components: [.ip(ip), .udp(port)])
    }

    /// The value of the first `ip4` or `ip6` component.
    public var ipAddress: IPAddress? {
        self.makeComponentSequence().first { $0.protocol == .ip4 || $0.protocol == .ip6 }
            .flatMap { IPAddress(bytes: $0.value) }
    }

    /// The value of the first `tcp` component.
    public var tcpPort: UInt16? { self.firstPort(of: .tcp) }

    /// The value of the first `udp` component.
    public var udpPort: UInt16? { self.firstPort(of: .udp) }

    /// Whether a component has this protocol.
    public func contains(_ protocol: ProtocolCode) -> Bool {
        self.makeComponentSequence().contains { $0.protocol == `protocol` }
    }

    /// The address without its last component where that is `/p2p`, and the multihash bytes of that component.
    ///
    /// `peer` is `nil`, and `address` the whole address, when it does not end in `/p2p`. `address` is empty
    /// (``isEmpty``) when there was nothing else.
    public func removingTrailingP2P() -> (address: Multiaddr, peer: [UInt8]?) {
        let components = self.components
        guard let last = components.last, last.protocol == .p2p else { return (self, nil) }
        return (Multiaddr(components: components.dropLast()), last.value)
    }

    private func firstPort(of transport: ProtocolCode) -> UInt16? {
        self.makeComponentSequence().first { $0.protocol == transport }
            .map { $0.value.reduce(0) { $0 << 8 | UInt16($1) } }
    }
}

// MARK: - Parsing

extension Multiaddr {
    private static func parse(_ text: String) throws(MultiaddrError) -> [Component] {
        // By bytes, not characters: a combining character after a slash would hide it.
        var rest = text.utf8[...]
        guard rest.count <= Self.maximumTextBytes else {
            throw .tooLong(bytes: rest.count, maximum: Self.maximumTextBytes)
        }
        let slash = UInt8(ascii: "/")
        guard let first = rest.first else { throw .empty }
        guard first == slash else { throw .missingLeadingSlash(text) }
        while rest.last == slash { rest.removeLast() }
        guard !rest.isEmpty else { throw .empty }

        func nextPart() -> Substring.UTF8View? {
            guard rest.popFirst() != nil else { return nil }
            let part = rest.prefix { $0 != slash }
            rest = rest[part.endIndex...]
            return part
        }

        var components: [Component] = []
        while let part = nextPart() {
            let name = String(Substring(part))
            guard let `protocol` = ProtocolCode(name: name) else { throw .unknownProtocol(name: name) }
            if `protocol`.isPath {
                guard !rest.isEmpty else { throw .missingValue(`protocol`) }
                components.append(try Component(`protocol`, text: String(Substring(rest))))
                break
            } else if `protocol`.size == .none {
                components.append(Component(unchecked: `protocol`, value: []))
            } else {
                guard let value = nextPart() else { throw .missingValue(`protocol`) }
                components.append(try Component(`protocol`, text: String(Substring(value))))
            }
        }
        return components
    }

    /// Reads components one by one. The bytes were checked when the address was made.
    private func makeComponentSequence() -> some Sequence<Component> {
        sequence(state: ComponentReader(bytes: self.bytes)) { reader in
            (try? reader.next()).flatMap { $0.map { Component(unchecked: $0.protocol, value: Array($0.value)) } }
        }
    }
}

/// Cuts a binary address into components: framing only, values are not looked at.
private struct ComponentReader {
    let bytes: [UInt8]
    private var offset = 0

    init(bytes: [UInt8]) {
        self.bytes = bytes
    }

    var isAtEnd: Bool { self.offset == self.bytes.count }

    mutating func next() throws(MultiaddrError) -> (protocol: Multiaddr.ProtocolCode, value: ArraySlice<UInt8>)? {
        guard !self.isAtEnd else { return nil }
        let code = try self.varint()
        guard let `protocol` = Multiaddr.ProtocolCode(rawValue: code) else { throw .unknownProtocolCode(code) }
        let length: Int
        switch `protocol`.size {
        case .none: length = 0
        case .fixed(let bytes): length = bytes
        case .lengthPrefixed(let maximum):
            let stated = try self.varint()
            guard stated <= maximum else {
                throw .invalidValue(`protocol`, "", .tooLong(bytes: Int(clamping: stated), maximum: maximum))
            }
            length = Int(stated)
        }
        guard length <= self.bytes.count - self.offset else {
            throw .truncatedValue(`protocol`, expected: length, found: self.bytes.count - self.offset)
        }
        defer { self.offset += length }
        return (`protocol`, self.bytes[self.offset..<self.offset + length])
    }

    private mutating func varint() throws(MultiaddrError) -> UInt64 {
        do throws(VarintError) {
            return try Varint.decode(self.bytes, at: &self.offset)
        } catch {
            throw .malformedVarint(error, offset: self.offset)
        }
    }
}
