import Crypto
import LibP2PCore
import NIOCore
import PeerIdentity

@testable import LibP2PConnection

/// The keys of both sides. Fixed, so that an input always does the same.
private enum Keys {
    static let ours = Result { try PeerIdentity.PrivateKey(ed25519Seed: [UInt8](repeating: 1, count: 32)) }
    static let theirs = Result { try PeerIdentity.PrivateKey(ed25519Seed: [UInt8](repeating: 2, count: 32)) }
    static let ourStatic = Result { try Self.noise(3) }
    static let ourEphemeral = Result { try Self.noise(4) }
    static let theirStatic = Result { try Self.noise(5) }
    static let theirEphemeral = Result { try Self.noise(6) }

    static var theirStaticBytes: [UInt8] {
        get throws { try Array(Self.theirStatic.get().publicKey.rawRepresentation) }
    }

    /// What the remote would say.
    static func payload(_ muxers: [ProtocolID]) throws -> [UInt8] {
        try NoisePayload(identity: Self.theirs.get(), staticKey: Self.theirStaticBytes, muxers: muxers).encode()
    }

    private static func noise(_ byte: UInt8) throws -> NoiseXX.PrivateKey {
        try NoiseXX.PrivateKey(rawRepresentation: [UInt8](repeating: byte, count: 32))
    }
}

extension FuzzTarget {
    /// A payload that is accepted vouches for the static key, and says the same once encoded by us.
    static let noisePayload = FuzzTarget(
        name: "noise-payload", maximumBytes: 4096,
        seeds: { try [Keys.payload([]), Keys.payload(["/yamux/1.0.0", "/mplex/6.7.0"])] },
        run: { input in
            guard let payload = try? NoisePayload(encoded: input, vouchingFor: Keys.theirStaticBytes) else { return }
            try holdEqual(payload.identityKey, Keys.theirs.get().publicKey)
            let again = try NoisePayload(encoded: payload.encode(), vouchingFor: Keys.theirStaticBytes)
            try holdEqual(again, payload)
            for isInitiator in [true, false] {
                let ours: [ProtocolID] = ["/yamux/1.0.0"]
                guard let muxer = try? NoisePayload.muxer(ours: ours, theirs: payload.muxers, isInitiator: isInitiator)
                else { continue }
                try hold(ours.contains(muxer) && payload.muxers.contains(muxer))
            }
        })

    /// A handshake whose remote keeps to Noise but puts the input into its payload, or sends the input as it is. Only what vouches for
    /// the remote's key is let in, and how it is cut does not matter.
    static let noiseHandshake = FuzzTarget(
        name: "noise-handshake", maximumBytes: 4096,
        seeds: {
            var seeds: [[UInt8]] = [[4, 0, 0, 0, 0, 0, 32] + [UInt8](repeating: 9, count: 32)]
            for mode: UInt8 in 0...3 {
                for lengths: [UInt8] in [[0, 0, 0, 0], [1, 7, 40, 200]] {
                    seeds.append(try [mode] + lengths + Keys.payload([]))
                    seeds.append(try [mode] + lengths + Keys.payload(["/yamux/1.0.0"]))
                }
            }
            return seeds
        },
        run: { input in
            var choices = Choices(input)
            let mode = choices.byte()
            let role = mode & 1 == 0 ? Role.dialer : .listener
            let lengths = (0..<4).map { _ in Int(choices.byte()) }
            var machine = try NoiseHandshake(
                .init(
                    role: role, identity: Keys.ours.get(), expected: nil,
                    muxers: mode & 2 == 0 ? [] : ["/yamux/1.0.0"]),
                staticKey: Keys.ourStatic.get(), ephemeralKey: Keys.ourEphemeral.get())
            let opening = machine.start()
            if mode & 4 != 0 {
                let raw = choices.remainder()
                let other = machine
                try holdEqual(outcome(of: machine, fed: cut(raw, lengths: lengths)), outcome(of: other, fed: [raw]))
                return
            }

            let payload = choices.remainder()
            var remote = try NoiseXX(
                isInitiator: role == .listener, prologue: [], staticKey: Keys.theirStatic.get(),
                ephemeralKey: Keys.theirEphemeral.get())
            if role == .dialer {
                guard case .send(let first) = opening else { throw Violation(description: "the dialer is silent") }
                _ = try remote.readMessage(Array(first.readableBytesView.dropFirst(2)))
            } else {
                let first = try remote.writeMessage(payload: [])
                guard case .send(let second) = machine.receive(ByteBuffer(bytes: framed(first))) else {
                    throw Violation(description: "the listener is silent")
                }
                _ = try remote.readMessage(Array(second.readableBytesView.dropFirst(2)))
            }
            let message = framed(try remote.writeMessage(payload: payload))
            let ending = outcome(of: machine, fed: cut(message, lengths: lengths))
            switch ending {
            case .finished(let peer):
                try holdEqual(peer, PeerID(Keys.theirs.get().publicKey))
                _ = try NoisePayload(encoded: payload, vouchingFor: Keys.theirStaticBytes)
            case .failed(.noCommonMuxer):
                _ = try NoisePayload(encoded: payload, vouchingFor: Keys.theirStaticBytes)
            case .failed:
                try hold((try? NoisePayload(encoded: payload, vouchingFor: Keys.theirStaticBytes)) == nil)
            case .open:
                throw Violation(description: "a complete message has no effect")
            }
        })

    /// What is sealed comes out again, however it is packed and cut; of what was tampered with, only what lies before.
    static let noiseRecords = FuzzTarget(
        name: "noise-records", maximumBytes: 2048,
        seeds: {
            let small: [UInt8] = [0, 5, 1, 2, 3, 4, 5, 0, 100] + [UInt8](repeating: 7, count: 100)
            let large: [UInt8] = [1, 0xff, 0xff, 9, 1, 0x50, 0, 8, 1, 0xff, 0xef, 7]
            var seeds: [[UInt8]] = []
            for tampering: UInt8 in 0...3 {
                for body in [small, large, small + large + small] {
                    seeds.append([tampering, 0, 40, 0, 0, 0, 0, 0, 0] + body)
                    seeds.append([tampering, 0x40, 1, 0, 1, 0x20, 0, 0, 3] + body)
                }
            }
            return seeds
        },
        run: { input in
            var choices = Choices(input)
            let tampering = choices.byte() % 4
            let place = Int(choices.uint16())
            let lengths = (0..<3).map { _ in Int(choices.uint16()) }
            let garbage = tampering == 3 ? choices.bytes(atMost: 32) : []
            var plaintext: [UInt8] = []
            var buffers: [ByteBuffer] = []
            while !choices.isEmpty, plaintext.count < 200_000 {
                let piece: [UInt8]
                if choices.byte() % 2 == 0 {
                    piece = choices.bytes(atMost: Int(choices.byte()))
                } else {
                    let count = Int(choices.uint16())
                    piece = [UInt8](repeating: choices.byte(), count: count)
                }
                plaintext += piece
                buffers.append(ByteBuffer(bytes: piece))
            }

            let key = SymmetricKey(data: [UInt8](repeating: 0x4b, count: 32))
            var wire = try seal(buffers, key: key, plaintextBytes: plaintext.count)
            switch tampering {
            case 1 where !wire.isEmpty: wire[place % wire.count] ^= UInt8(1 << (place % 8))
            case 2: wire.removeLast(min(place, wire.count))
            case 3: wire += garbage
            default: break
            }

            var reader = try NoiseRecordReader(opener: RecordOpener(key: key))
            var opened: [UInt8] = []
            var failure: NoiseError?
            // Single bytes of a large record would take all the time there is.
            let enough = wire.count / 512
            for piece in cut(wire, lengths: lengths.map { $0 == 0 ? 0 : max($0, enough) }) where failure == nil {
                let bytes = ByteBuffer(bytes: piece)
                guard let capacity = reader.plaintextCapacity(with: bytes) else {
                    reader.carry(bytes)
                    continue
                }
                var out = ByteBuffer()
                out.reserveCapacity(capacity)
                failure = reader.read(bytes, into: &out)
                opened += out.readableBytesView
            }
            try hold(plaintext.starts(with: opened))
            if tampering == 0 {
                try hold(failure == nil && !reader.isWithinRecord)
                try holdEqual(opened.count, plaintext.count)
            }
        })

    private static func seal(_ buffers: [ByteBuffer], key: SymmetricKey, plaintextBytes: Int) throws -> [UInt8] {
        var sealer = try RecordSealer(key: key)
        var packer = NoiseRecordPacker(buffers)
        var wire: [UInt8] = []
        var packed = 0
        while !packer.isEmpty {
            let capacity = packer.nextBufferCapacity
            var out = ByteBuffer()
            let count = try packer.fill(&out, capacity: capacity, sealer: &sealer)
            try hold(count > 0 && out.readableBytes <= capacity)
            packed += count
            wire += out.readableBytesView
        }
        try holdEqual(packed, plaintextBytes)
        return wire
    }

    private enum Outcome: Equatable {
        case finished(PeerID)
        case failed(NoiseError)
        case open
    }

    private static func outcome(of machine: NoiseHandshake, fed pieces: [[UInt8]]) -> Outcome {
        var machine = machine
        for piece in pieces {
            switch machine.receive(ByteBuffer(bytes: piece)) {
            case .wait, .send: break
            case .finished(let session, _, _): return .finished(session.remotePeer)
            case .fail(let error): return .failed(error)
            }
        }
        return .open
    }

    private static func framed(_ message: [UInt8]) -> [UInt8] {
        [UInt8(truncatingIfNeeded: message.count >> 8), UInt8(truncatingIfNeeded: message.count)] + message
    }
}
