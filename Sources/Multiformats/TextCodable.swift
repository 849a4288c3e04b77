// Addresses appear in configuration, state and the control API as the text people write.

extension Multiaddr: Codable {
    /// Decodes the text form.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        do {
            try self.init(container.decode(String.self))
        } catch let error as MultiaddrError {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "\(error)")
        }
    }

    /// Encodes the text form.
    public func encode(to encoder: any Encoder) throws { try encodeText(self, to: encoder) }
}

extension IPAddress: Codable {
    /// Decodes the text form.
    public init(from decoder: any Decoder) throws { self = try decodeText("an IP address", from: decoder) }

    /// Encodes the text form.
    public func encode(to encoder: any Encoder) throws { try encodeText(self, to: encoder) }
}

extension IPPrefix: Codable {
    /// Decodes the text form.
    public init(from decoder: any Decoder) throws { self = try decodeText("an address prefix", from: decoder) }

    /// Encodes the text form.
    public func encode(to encoder: any Encoder) throws { try encodeText(self, to: encoder) }
}

private func encodeText(_ value: some CustomStringConvertible, to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(value.description)
}

private func decodeText<Value: LosslessStringConvertible>(_ kind: String, from decoder: any Decoder) throws -> Value {
    let container = try decoder.singleValueContainer()
    let text = try container.decode(String.self)
    guard let value = Value(text) else {
        let shown = text.unicodeScalars.prefix(64).map { $0.escaped(asASCII: true) }.joined()
        throw DecodingError.dataCorruptedError(in: container, debugDescription: "\(shown): not \(kind)")
    }
    return value
}
