/// What a frame of `/warren/packet/1.0.0` carries. `Wire/Protos/warren.proto` is the specification.
package enum FrameKind: UInt8, CaseIterable, Sendable {
    /// One IP packet with finished checksums.
    case packet = 0
    /// One IP packet that wants segmentation, or only a checksum.
    case superPacket = 1
    /// The last frame of a lane: names the epoch that follows.
    case move = 2
    /// A question for liveness and round-trip time.
    case probe = 3
    /// The answer to a probe.
    case echo = 4
    /// The lane ends, and why.
    case close = 5

    /// The longest body in bytes of a frame whose kind byte is `rawKind`, known or not.
    @inline(__always)
    package static func bodyLimit(rawKind: UInt8) -> Int {
        rawKind <= FrameKind.superPacket.rawValue ? FrameLimits.packetBodyBytes : FrameLimits.controlBodyBytes
    }

    /// The bytes of a body that its fields need. A shorter body is an error.
    package var minimumBodyBytes: Int {
        switch self {
        case .packet: 1
        case .superPacket: FrameLimits.superPacketPrefixBytes + 1
        case .move, .probe, .echo: 8
        case .close: 2
        }
    }
}

/// The numbers of the frame format.
package enum FrameLimits {
    /// Kind and length.
    package static let headerBytes = 4
    /// Segment size and flags, in front of the packet in a super-packet's body.
    package static let superPacketPrefixBytes = OffloadMetadata.wireByteCount
    /// Header and prefix: what a sender needs as head room in front of any packet.
    package static let headRoomBytes = headerBytes + superPacketPrefixBytes
    /// The longest body of a packet or super-packet.
    package static let packetBodyBytes = 65_600
    /// The longest body of every other kind.
    package static let controlBodyBytes = 4_096
    /// The longest greeting, without its length prefix.
    package static let greetingBytes = 4_096
    /// The longest packet an opener may send before it has read the answer to its hello.
    package static let earlyPacketBytes = 1_280
}

/// Why a packet stream was refused. Codes of newer builds keep their number.
package struct RefuseCode: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    package let rawValue: Int

    package init(rawValue: Int) { self.rawValue = rawValue }

    /// Unknown network, or not a member of it: nobody can ask which.
    package static let unknownNetworkOrMember = RefuseCode(.unknownNetworkOrMember)
    /// More packet streams than we keep for one peer and network.
    package static let tooManyStreams = RefuseCode(.tooManyStreams)
    /// No common revision. This build never sends it, as it speaks one revision only.
    package static let versionMismatch = RefuseCode(.versionMismatch)
    /// The daemon is about to end.
    package static let shuttingDown = RefuseCode(.shuttingDown)
    /// The two ends give the network different inner MTUs.
    package static let mtuMismatch = RefuseCode(.mtuMismatch)
    /// The hello broke a limit.
    package static let malformed = RefuseCode(.malformed)
    /// The interface of the network is down.
    package static let networkDown = RefuseCode(.networkDown)

    /// The codes of this build and their stable names.
    package static let names: [RefuseCode: String] = [
        .unknownNetworkOrMember: "unknownNetworkOrMember", .tooManyStreams: "tooManyStreams",
        .versionMismatch: "versionMismatch", .shuttingDown: "shuttingDown", .mtuMismatch: "mtuMismatch",
        .malformed: "malformed", .networkDown: "networkDown",
    ]

    /// The stable name, or the number of a code this build does not know.
    package var description: String { Self.names[self] ?? "code \(self.rawValue)" }

    private init(_ code: Warren_RefuseCode) { self.rawValue = code.rawValue }
}

/// Why a lane ends. Codes of newer builds keep their number.
package struct CloseCode: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    package let rawValue: UInt16

    package init(rawValue: UInt16) { self.rawValue = rawValue }

    /// The daemon is about to end.
    package static let shuttingDown = CloseCode(.shuttingDown)
    /// The peer is no longer a member.
    package static let removed = CloseCode(.removed)
    /// The lane was superfluous.
    package static let surplus = CloseCode(.surplus)
    /// A newer instance or epoch took over.
    package static let superseded = CloseCode(.superseded)
    /// The other end broke the protocol.
    package static let protocolError = CloseCode(.protocolError)
    /// The interface of the network is down.
    package static let networkDown = CloseCode(.networkDown)

    /// The codes of this build and their stable names.
    package static let names: [CloseCode: String] = [
        .shuttingDown: "shuttingDown", .removed: "removed", .surplus: "surplus", .superseded: "superseded",
        .protocolError: "protocolError", .networkDown: "networkDown",
    ]

    /// The stable name, or the number of a code this build does not know.
    package var description: String { Self.names[self] ?? "code \(self.rawValue)" }

    private init(_ code: Warren_CloseCode) { self.rawValue = UInt16(truncatingIfNeeded: code.rawValue) }
}
