import LibP2PCore
import NIOCore
import PeerIdentity

@testable import LibP2PProtocols
@testable import TestKit

extension FuzzTarget {
    /// A Plaintext exchange comes to the same end however its input is cut, and believes only an ID that is the key's.
    static let plaintext = FuzzTarget(
        name: "plaintext", maximumBytes: 4096,
        seeds: {
            let keys = try Vectors.keys("public").map { try PublicKey(encoded: $0) }
            let messages = try keys.map {
                try Array(PlaintextExchange(key: $0, expecting: nil).start().readableBytesView)
            }
            return messages.flatMap { message in [[0, 0, 0, 0], [1, 2, 3, 0]].map { $0 + message + [1, 2] } }
        },
        run: { input in
            var choices = Choices(input)
            let (whole, pieces) = choices.pieces()
            try holdEqual(try exchange(pieces), try exchange([whole]))
        })

    private enum ExchangeEnd: Equatable {
        case finished(PeerID, leftover: [UInt8])
        case failed(PlaintextError)
        case open
    }

    private static func exchange(_ pieces: [[UInt8]]) throws -> ExchangeEnd {
        let own = try PrivateKey(ed25519Seed: [UInt8](repeating: 1, count: 32)).publicKey
        var exchange = PlaintextExchange(key: own, expecting: nil)
        for (index, piece) in pieces.enumerated() {
            switch exchange.receive(ByteBuffer(bytes: piece)) {
            case .wait: break
            case .finished(let peer, let leftover):
                return .finished(peer, leftover: Array(leftover.readableBytesView) + pieces[(index + 1)...].joined())
            case .fail(let error): return .failed(error)
            }
        }
        return .open
    }

    /// A perf server reads the same request however it is cut.
    static let perfServer = FuzzTarget(
        name: "perf-server", maximumBytes: 256,
        seeds: {
            let request: [UInt8] = [0x80, 0, 0, 0, 0, 0, 0, 7]
            return [[0, 0, 0, 0], [1, 1, 1, 1], [5, 4, 0, 0]].map { $0 + request + [1, 2, 3] }
        },
        run: { input in
            var choices = Choices(input)
            let (whole, pieces) = choices.pieces()
            var (cut, atOnce) = (PerfServerSession(), PerfServerSession())
            for piece in pieces { cut.receive(ByteBuffer(bytes: piece)) }
            atOnce.receive(ByteBuffer(bytes: whole))
            try holdEqual(cut, atOnce)
            try holdEqual(cut.uploaded, UInt64(max(whole.count - PerfServerSession.headerBytes, 0)))
            let wanted = try? cut.inputEnded()
            try holdEqual(wanted != nil, whole.count >= PerfServerSession.headerBytes)
            try holdEqual(wanted, wanted.map { _ in whole.prefix(8).reduce(0) { $0 << 8 | UInt64($1) } })
        })
}
