internal import LibP2PCore
package import NIOCore
package import PeerIdentity
internal import SwiftProtobuf

#if canImport(FoundationEssentials)
    internal import FoundationEssentials
#else
    internal import Foundation
#endif

/// The exchange of Plaintext 2.0: each side says who it is, and nobody proves anything. Bytes in, actions out.
///
/// Spec: `plaintext/README.md` § Exchange.
package struct PlaintextExchange {
    /// What to do next.
    package enum Action: Equatable {
        /// More input is needed.
        case wait
        /// The remote says that it is this peer. `leftover` belongs to what follows.
        case finished(PeerID, leftover: ByteBuffer)
        /// No agreement.
        case fail(PlaintextError)
    }

    /// The longest message taken, the same as go-libp2p.
    package static let maximumMessageBytes = 65_536

    private let key: PublicKey
    private let expected: PeerID?
    private var input = ByteBuffer()

    /// - Parameter expected: Who must be at the far end; `nil` when any peer may be.
    package init(key: PublicKey, expecting expected: PeerID?) {
        self.key = key
        self.expected = expected
    }

    /// Our message, to be sent at once.
    package func start() throws -> ByteBuffer {
        var wire = WirePlaintextExchange()
        wire.id = .init(PeerID(self.key).bytes)
        wire.pubkey = .init(self.key.encoded)
        let message: [UInt8] = try wire.serializedBytes()
        var bytes = ByteBuffer()
        bytes.writeLengthPrefixed(message)
        return bytes
    }

    /// Takes input, up to the end of the exchange.
    package mutating func receive(_ bytes: ByteBuffer) -> Action {
        self.input.writeImmutableBuffer(bytes)
        do {
            guard let message = try self.input.readLengthPrefixed(atMost: Self.maximumMessageBytes) else {
                return .wait
            }
            return try .finished(self.peer(in: Array(message.readableBytesView)), leftover: self.input.slice())
        } catch let error as PlaintextError {
            return .fail(error)
        } catch {
            return .fail(.malformedLength)
        }
    }

    private func peer(in message: [UInt8]) throws(PlaintextError) -> PeerID {
        guard let wire = try? WirePlaintextExchange(serializedBytes: message), wire.hasID, wire.hasPubkey else {
            throw .malformedMessage
        }
        guard let key = try? PublicKey(encoded: Array(wire.pubkey)) else { throw .invalidKey }
        let found = PeerID(key)
        guard let claimed = try? PeerID(bytes: Array(wire.id)), claimed == found else { throw .wrongID(ofKey: found) }
        if let expected, expected != found { throw .unexpectedPeer(expected: expected, found: found) }
        return found
    }
}

/// Why a Plaintext exchange failed.
package enum PlaintextError: Error, Hashable, Sendable {
    /// The length is no varint, or longer than ``PlaintextExchange/maximumMessageBytes``.
    case malformedLength
    /// The message is not the protobuf message it should be, or lacks the ID or the key.
    case malformedMessage
    /// The key is none.
    case invalidKey
    /// The ID is not that of the key.
    case wrongID(ofKey: PeerID)
    /// Another peer than the one dialled says it is there.
    case unexpectedPeer(expected: PeerID, found: PeerID)
    /// The stream ended before the exchange did.
    case cutOff
}
