import FoundationEssentials
import SwiftProtobuf

/// The protobuf envelope of keys: tag order, minimal varints, both fields and no others.
///
/// Spec: `peer-ids/peer-ids.md` § Keys.
enum KeyEncoding {
    static func encode(_ type: KeyType, _ data: [UInt8]) throws(KeyError) -> [UInt8] {
        var message = WireKey()
        switch type {
        case .rsa: message.type = .rsa
        case .ed25519: message.type = .ed25519
        case .secp256k1: message.type = .secp256K1
        case .ecdsa: message.type = .ecdsa
        }
        message.data = Data(data)
        do {
            return try message.serializedBytes()
        } catch {
            throw .malformedEncoding
        }
    }

    /// Decodes `bytes` only if ``encode(_:_:)`` would have made them.
    static func decode(_ bytes: [UInt8], maximumBytes: Int) throws(KeyError) -> (type: KeyType, data: [UInt8]) {
        guard bytes.count <= maximumBytes else { throw .tooLong(bytes: bytes.count, maximum: maximumBytes) }
        let message: WireKey
        do {
            message = try WireKey(serializedBytes: bytes, partial: true)
        } catch {
            throw .malformedEncoding
        }
        // A type without a name in the .proto file lands among the unknown fields.
        guard message.hasType else { throw message.unknownFields.data.isEmpty ? .malformedEncoding : .unknownType }
        guard message.hasData else { throw .malformedEncoding }
        guard message.unknownFields.data.isEmpty else { throw .notCanonical }
        let type: KeyType =
            switch message.type {
            case .rsa: .rsa
            case .ed25519: .ed25519
            case .secp256K1: .secp256k1
            case .ecdsa: .ecdsa
            }
        let data = Array(message.data)
        guard try self.encode(type, data) == bytes else { throw .notCanonical }
        return (type, data)
    }
}
