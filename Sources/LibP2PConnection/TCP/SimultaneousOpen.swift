internal import LibP2PCore

/// When both ends dial each other from their listening ports at the same moment, TCP joins the two dials into one connection that nobody
/// has accepted: two dialers, who both speak first and wait for an answer.
enum SimultaneousOpen {
    /// Whether an upgrade in the dialer's role has failed with `error` because the far end is a dialer, too.
    static func explains(_ error: any Error) -> Bool {
        switch error {
        // Both propose the same security protocol, and take that for each other's consent. Then the first message of Noise, a bare
        // key, comes where the second is due.
        case NoiseError.handshakeMessageTooShort(message: 2, bytes: 32): true
        // Different proposals: a listener would have answered with ours or with "na".
        case NegotiationError.unexpectedReply(let text): text.hasPrefix("/")
        default: false
        }
    }
}
