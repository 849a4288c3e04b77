internal import Foundation
public import Multiformats
public import PeerIdentity
internal import SwiftProtobuf

/// What a peer says of itself.
///
/// Spec: `identify/README.md`.
public struct IdentifyInfo: Hashable, Sendable {
    /// The peer's key, if it sent one that parses. Whether it is the right one is for the reader to check.
    public var publicKey: PublicKey?
    /// Where the peer listens. Addresses of unknown protocols are left out.
    public var listenAddresses: [Multiaddr] = []
    /// What the peer accepts.
    public var protocols: [String] = []
    /// Where the peer sees the receiver of this message.
    public var observedAddress: Multiaddr?
    /// The family of protocols, such as `ipfs/0.1.0`.
    public var protocolVersion: String?
    /// The program, such as `warren/0.1.0`.
    public var agentVersion: String?
    /// The sealed envelope of the peer's record, not yet verified.
    public var signedPeerRecord: [UInt8]?

    /// Makes an empty message.
    public init() {}

    /// Bytes of one message on the wire; go and py accept more, rust's whole answer may not be larger.
    package static let maximumMessageBytes = 8192
    /// Messages of one answer.
    package static let maximumMessages = 10
    /// Longest list taken from the remote; what is beyond is ignored.
    package static let maximumAddresses = 500
    package static let maximumProtocols = 1024
    package static let maximumTextBytes = 1024

    /// Decodes the messages of one answer and merges them: lists add up, of the rest the last counts.
    /// - Throws: ``IdentifyError/malformed``.
    package init(merging messages: some Sequence<[UInt8]>) throws(IdentifyError) {
        for bytes in messages {
            guard let message = try? IdentifyMessage(serializedBytes: bytes) else { throw .malformed }
            if message.hasPublicKey { self.publicKey = try? PublicKey(encoded: Array(message.publicKey)) }
            let room = Self.maximumAddresses - self.listenAddresses.count
            self.listenAddresses += message.listenAddrs.prefix(max(room, 0)).compactMap { try? Multiaddr(bytes: $0) }
            let places = Self.maximumProtocols - self.protocols.count
            self.protocols += message.protocols.prefix(max(places, 0)).filter { $0.utf8.count <= Self.maximumTextBytes }
            if message.hasObservedAddr { self.observedAddress = try? Multiaddr(bytes: message.observedAddr) }
            if message.hasProtocolVersion { self.protocolVersion = Self.bounded(message.protocolVersion) }
            if message.hasAgentVersion { self.agentVersion = Self.bounded(message.agentVersion) }
            if message.hasSignedPeerRecord { self.signedPeerRecord = Array(message.signedPeerRecord) }
        }
    }

    /// Encodes as one message, or two when the signed record would make the first larger than 4 KiB, which is all that rust reads.
    package func encoded() throws -> [[UInt8]] {
        var message = IdentifyMessage()
        if let key = self.publicKey { message.publicKey = .init(key.encoded) }
        message.listenAddrs = self.listenAddresses.map { .init($0.bytes) }
        message.protocols = self.protocols
        if let observed = self.observedAddress { message.observedAddr = .init(observed.bytes) }
        if let version = self.protocolVersion { message.protocolVersion = version }
        if let version = self.agentVersion { message.agentVersion = version }
        guard let record = self.signedPeerRecord else { return [try message.serializedBytes()] }
        let plain: [UInt8] = try message.serializedBytes()
        if plain.count + record.count + 4 <= 4096 {
            message.signedPeerRecord = .init(record)
            return [try message.serializedBytes()]
        }
        var second = IdentifyMessage()
        second.signedPeerRecord = .init(record)
        return [plain, try second.serializedBytes()]
    }

    private static func bounded(_ text: String) -> String? { text.utf8.count <= Self.maximumTextBytes ? text : nil }
}

/// Why an identify exchange failed, where the stream itself did not.
public enum IdentifyError: Error, Hashable, Sendable {
    /// Not the expected protobuf.
    case malformed
    /// The remote sent more messages than allowed.
    case tooManyMessages
    /// The key in the message is not the one that the handshake proved.
    case wrongPublicKey
}
