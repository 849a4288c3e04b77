import LibP2PCore
import NIOCore

@testable import LibP2PConnection

extension FuzzTarget {
    private static let multistreamSeeds: @Sendable () throws -> [[UInt8]] = {
        let messages = try Vectors.libp2p.get()["multistream"].members ?? [:]
        func message(_ text: String) throws -> [UInt8] { try messages[text]?.bytes ?? [] }
        let header = try message("/multistream/1.0.0")
        let (noise, refusal) = try (message("/noise"), message("na"))
        let conversations = try [
            header, header + noise, header + refusal, header + refusal + noise, header + message("ls"),
            header + message("/yamux/1.0.0"),
        ]
        var seeds: [[UInt8]] = []
        for text in conversations {
            for start: [UInt8] in [[1, 0, 0, 0, 0], [1, 1, 2, 3, 5], [2, 20, 0, 0, 0]] {
                seeds.append(start + text + Array("rest".utf8))
            }
        }
        return seeds
    }

    /// A dialer agrees only to what it proposed, and how its input is cut does not matter.
    static let multistreamDialer = FuzzTarget(
        name: "multistream-dialer", maximumBytes: 4096, seeds: multistreamSeeds,
        run: { input in
            var choices = Choices(input)
            let count = Int(choices.byte() % 4)
            let proposals = (["/noise", "/yamux/1.0.0", "/x"] as [ProtocolID]).prefix(count)
            let (whole, pieces) = choices.pieces()
            let cut = try dial(Array(proposals), pieces)
            // Where several are proposed, an answer that comes before its question is a mistake: there the cut matters.
            if proposals.count <= 1 {
                try holdEqual(cut, try dial(Array(proposals), [whole]))
            }
        })

    /// A listener agrees only to what it accepts, and how its input is cut does not matter.
    static let multistreamListener = FuzzTarget(
        name: "multistream-listener", maximumBytes: 4096, seeds: multistreamSeeds,
        run: { input in
            var choices = Choices(input)
            let listed = (["/noise", "/yamux/1.0.0", "/x"] as [ProtocolID]).prefix(Int(choices.byte() % 4))
            let (whole, pieces) = choices.pieces()
            let cut = try listen(Array(listed), pieces)
            let atOnce = try listen(Array(listed), [whole])
            try holdEqual(cut.ending, atOnce.ending)
            // Answers that were not yet written when a mistake was found are not given.
            try hold(cut.answers.starts(with: atOnce.answers))
            if case .failed = cut.ending { return }
            try holdEqual(cut.answers, atOnce.answers)
        })

    private enum Ending: Equatable {
        case negotiated(ProtocolID, leftover: [UInt8])
        case failed(NegotiationError)
        case open
    }

    private static func dial(_ proposals: [ProtocolID], _ pieces: [[UInt8]]) throws -> Ending {
        var dialer = MultistreamDialer(proposing: proposals)
        guard case .send = dialer.start() else {
            try hold(proposals.isEmpty)
            return .failed(.noProtocolsProposed)
        }
        for (index, piece) in pieces.enumerated() {
            switch dialer.receive(ByteBuffer(bytes: piece)) {
            case .wait: break
            case .send(let bytes): try hold(bytes.readableBytes > 0)
            case .negotiated(let agreed, let reply, let leftover):
                try hold(proposals.contains(agreed) && reply == nil)
                return .negotiated(
                    agreed, leftover: Array(leftover.readableBytesView) + pieces[(index + 1)...].joined())
            case .fail(let error): return .failed(error)
            }
        }
        return .open
    }

    private static func listen(
        _ listed: [ProtocolID], _ pieces: [[UInt8]]
    ) throws -> (ending: Ending, answers: [UInt8]) {
        var listener = MultistreamListener(listed: listed)
        var answers = Array(listener.start().readableBytesView)
        for (index, piece) in pieces.enumerated() {
            switch listener.receive(ByteBuffer(bytes: piece), accepts: listed.contains) {
            case .wait: break
            case .send(let bytes): answers += bytes.readableBytesView
            case .negotiated(let agreed, let reply, let leftover):
                try hold(listed.contains(agreed))
                answers += reply.map { Array($0.readableBytesView) } ?? []
                let rest = Array(leftover.readableBytesView) + pieces[(index + 1)...].joined()
                return (.negotiated(agreed, leftover: rest), answers)
            case .fail(let error): return (.failed(error), answers)
            }
        }
        return (.open, answers)
    }
}
