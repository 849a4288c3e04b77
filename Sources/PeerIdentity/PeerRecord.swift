import FoundationEssentials
public import Multiformats
import SwiftProtobuf

/// The addresses of a peer, as the peer itself says.
///
/// It travels in a ``SignedEnvelope``; the envelope's signer is the peer. Of two records the one with the greater sequence
/// number holds.
///
/// Spec: `RFC/0003-routing-records.md`.
public struct PeerRecord: Hashable, Sendable {
    /// The envelope's domain.
    public static let domain = "libp2p-peer-record"
    /// The envelope's payload type: two raw bytes, not a varint.
    public static let payloadType: [UInt8] = [0x03, 0x01]
    /// The longest envelope around a record, in bytes. Others refuse longer ones too.
    public static let maximumEnvelopeBytes = 8192
    /// The most addresses in a record. Of a received record the first ones are kept.
    public static let maximumAddresses = 128

    /// Whose addresses these are.
    public let peerID: PeerID
    /// Grows with every new record. By custom the nanoseconds since 1970; see ``PeerRecordSequence``.
    public let sequence: UInt64
    /// The addresses, in the peer's order.
    public let addresses: [Multiaddr]

    /// Makes a record, ready to be sealed.
    public init(peerID: PeerID, sequence: UInt64, addresses: [Multiaddr]) {
        self.peerID = peerID
        self.sequence = sequence
        self.addresses = addresses
    }

    /// Decodes the payload of an envelope, whose signature is valid because the envelope exists.
    ///
    /// Addresses that do not parse are skipped, as are those beyond ``maximumAddresses``.
    public init(_ envelope: SignedEnvelope) throws(PeerRecordError) {
        guard envelope.bytes.count <= Self.maximumEnvelopeBytes else {
            throw .envelope(.tooLong(bytes: envelope.bytes.count, maximum: Self.maximumEnvelopeBytes))
        }
        guard envelope.domain == Self.domain else { throw .wrongDomain(envelope.domain) }
        guard envelope.payloadType == Self.payloadType else { throw .wrongPayloadType(envelope.payloadType) }
        let message: WirePeerRecord
        do {
            message = try WirePeerRecord(serializedBytes: envelope.payload)
        } catch {
            throw .malformedPayload
        }
        let signer = envelope.signer
        guard message.peerID.elementsEqual(signer.bytes) else {
            throw .peerIDMismatch(claimed: try? PeerID(bytes: Array(message.peerID)), signer: signer)
        }
        self.peerID = signer
        self.sequence = message.seq
        self.addresses = Array(
            message.addresses.lazy.compactMap { try? Multiaddr(bytes: $0.multiaddr) }.prefix(Self.maximumAddresses))
    }

    /// Opens an envelope that holds a record: the signature is verified first, then the payload decoded.
    public static func open(
        _ bytes: [UInt8]
    ) throws(PeerRecordError) -> (record: PeerRecord, envelope: SignedEnvelope) {
        let envelope: SignedEnvelope
        do {
            envelope = try SignedEnvelope.open(bytes, domain: self.domain, maximumBytes: self.maximumEnvelopeBytes)
        } catch {
            throw .envelope(error)
        }
        return (try PeerRecord(envelope), envelope)
    }

    /// Signs the record with the key of its peer.
    public func seal(with key: PrivateKey) throws(PeerRecordError) -> SignedEnvelope {
        guard self.peerID.matches(key.publicKey) else {
            throw .peerIDMismatch(claimed: self.peerID, signer: PeerID(key.publicKey))
        }
        guard self.addresses.count <= Self.maximumAddresses else {
            throw .tooManyAddresses(self.addresses.count, maximum: Self.maximumAddresses)
        }
        var message = WirePeerRecord()
        message.peerID = Data(self.peerID.bytes)
        message.seq = self.sequence
        message.addresses = self.addresses.map { address in
            var info = WirePeerRecord.AddressInfo()
            info.multiaddr = Data(address.bytes)
            return info
        }
        let envelope: SignedEnvelope
        do throws(SignedEnvelopeError) {
            guard let payload: [UInt8] = try? message.serializedBytes() else { throw .malformedEncoding }
            envelope = try SignedEnvelope.seal(payload, type: Self.payloadType, domain: Self.domain, with: key)
            guard envelope.bytes.count <= Self.maximumEnvelopeBytes else {
                throw .tooLong(bytes: envelope.bytes.count, maximum: Self.maximumEnvelopeBytes)
            }
        } catch {
            throw .envelope(error)
        }
        return envelope
    }

    /// Whether this record takes the place of `other`: of the same peer, and strictly newer.
    public func supersedes(_ other: PeerRecord) -> Bool {
        self.peerID == other.peerID && self.sequence > other.sequence
    }
}

/// Sequence numbers for our own records: the clock, except that they always grow.
public struct PeerRecordSequence: Hashable, Sendable {
    /// The last number given out; 0 before the first.
    public private(set) var last: UInt64

    /// - Parameter last: The last number given out by an earlier run, where that is known.
    public init(after last: UInt64 = 0) {
        self.last = last
    }

    /// The next number.
    ///
    /// - Parameter nanoseconds: Now, in nanoseconds since 1970.
    public mutating func next(at nanoseconds: UInt64) -> UInt64 {
        let (following, overflow) = self.last.addingReportingOverflow(1)
        self.last = max(nanoseconds, overflow ? .max : following)
        return self.last
    }
}

/// Why something is no peer record, or could not be sealed.
public enum PeerRecordError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The envelope around it is at fault.
    case envelope(SignedEnvelopeError)
    /// The envelope was opened for another purpose.
    case wrongDomain(String)
    /// The envelope holds something else.
    case wrongPayloadType([UInt8])
    /// The payload is not the protobuf message.
    case malformedPayload
    /// A peer signed a record about another one; `claimed` is `nil` when that is not even a peer ID.
    case peerIDMismatch(claimed: PeerID?, signer: PeerID)
    /// More addresses than a record may have.
    case tooManyAddresses(Int, maximum: Int)

    /// The fact in words.
    public var description: String {
        switch self {
        case .envelope(let error): "\(error)"
        case .wrongDomain(let domain): "the envelope was signed for \(domain), not for a peer record"
        case .wrongPayloadType(let type):
            "the envelope's payload type is 0x\(Multibase.base16.encodeWithoutPrefix(type.prefix(16))), not a peer record's"
        case .malformedPayload: "the peer record is not a protobuf message of that kind"
        case .peerIDMismatch(let claimed, let signer):
            "the peer record is about \(claimed.map { "\($0)" } ?? "no valid peer ID") and signed by \(signer)"
        case .tooManyAddresses(let count, let maximum):
            "the peer record has \(count) addresses; at most \(maximum) are allowed"
        }
    }
}
