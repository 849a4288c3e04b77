import Crypto
import Testing

@testable import LibP2PConnection

@Suite struct NoiseXXTests {
    @Test(arguments: NoiseVector.all)
    func vectors(vector: NoiseVector) throws {
        var initiator = try NoiseXX(
            isInitiator: true, prologue: bytes(vector.prologue), staticKey: key(vector.initiatorStatic),
            ephemeralKey: key(vector.initiatorEphemeral))
        var responder = try NoiseXX(
            isInitiator: false, prologue: bytes(vector.prologue), staticKey: key(vector.responderStatic),
            ephemeralKey: key(vector.responderEphemeral))
        for (index, message) in vector.messages.prefix(3).enumerated() {
            let payload = bytes(message.payload)
            let ciphertext: [UInt8]
            let opened: [UInt8]
            if index.isMultiple(of: 2) {
                ciphertext = try initiator.writeMessage(payload: payload)
                opened = try responder.readMessage(ciphertext)
            } else {
                ciphertext = try responder.writeMessage(payload: payload)
                opened = try initiator.readMessage(ciphertext)
            }
            #expect(ciphertext == bytes(message.ciphertext), "message \(index) of \(vector.source)")
            #expect(opened == payload)
        }
        #expect(initiator.handshakeHash == responder.handshakeHash)
        if let hash = vector.handshakeHash { #expect(initiator.handshakeHash == bytes(hash)) }
        #expect(
            try initiator.remoteStaticKey?.rawRepresentation == key(vector.responderStatic).publicKey.rawRepresentation)
        #expect(
            try responder.remoteStaticKey?.rawRepresentation == key(vector.initiatorStatic).publicKey.rawRepresentation)

        let (ours, theirs) = (try initiator.split(), try responder.split())
        #expect(ours.sending == theirs.receiving && ours.receiving == theirs.sending && ours.sending != ours.receiving)
        var sealers = Sealers(
            initiator: try RecordSealer(key: ours.sending), responder: try RecordSealer(key: theirs.sending))
        var openers = Openers(
            initiator: try RecordOpener(key: ours.receiving), responder: try RecordOpener(key: theirs.receiving))
        for (index, message) in vector.messages.enumerated().dropFirst(3) {
            let fromInitiator = index.isMultiple(of: 2)
            let sealed = try sealers.seal(bytes(message.payload), fromInitiator: fromInitiator)
            #expect(sealed == bytes(message.ciphertext), "message \(index) of \(vector.source)")
            #expect(try openers.open(sealed, fromInitiator: fromInitiator) == bytes(message.payload))
        }
    }

    @Test func anotherPrologueFails() throws {
        var initiator = NoiseXX(isInitiator: true, prologue: [1], staticKey: .init(), ephemeralKey: .init())
        var responder = NoiseXX(isInitiator: false, prologue: [2], staticKey: .init(), ephemeralKey: .init())
        _ = try responder.readMessage(initiator.writeMessage(payload: []))
        let second = try responder.writeMessage(payload: [])
        #expect(throws: NoiseError.handshakeMessageNotAuthentic(message: 2)) { try initiator.readMessage(second) }
    }

    @Test func turnsAreKept() throws {
        var initiator = NoiseXX(isInitiator: true, prologue: [], staticKey: .init(), ephemeralKey: .init())
        var responder = NoiseXX(isInitiator: false, prologue: [], staticKey: .init(), ephemeralKey: .init())
        #expect(throws: NoiseError.handshakeOutOfTurn) { try responder.writeMessage(payload: []) }
        #expect(throws: NoiseError.handshakeOutOfTurn) { try initiator.readMessage([]) }
        #expect(throws: NoiseError.handshakeOutOfTurn) { try initiator.split() }
        _ = try responder.readMessage(initiator.writeMessage(payload: []))
        #expect(throws: NoiseError.handshakeOutOfTurn) { try initiator.writeMessage(payload: []) }
        #expect(throws: NoiseError.handshakeOutOfTurn) { try responder.readMessage([]) }
    }

    /// Every prefix of a message is too short, except that an unauthenticated payload may be cut.
    @Test func shortMessages() throws {
        var initiator = NoiseXX(isInitiator: true, prologue: [], staticKey: .init(), ephemeralKey: .init())
        var responder = NoiseXX(isInitiator: false, prologue: [], staticKey: .init(), ephemeralKey: .init())
        let first = try initiator.writeMessage(payload: [])
        #expect(first.count == 32)
        for count in 0..<32 {
            var copy = responder
            #expect(throws: NoiseError.handshakeMessageTooShort(message: 1, bytes: count)) {
                try copy.readMessage(Array(first.prefix(count)))
            }
        }
        _ = try responder.readMessage(first)
        let second = try responder.writeMessage(payload: [])
        #expect(second.count == 96)
        for count in 0..<96 {
            var copy = initiator
            #expect(throws: NoiseError.handshakeMessageTooShort(message: 2, bytes: count)) {
                try copy.readMessage(Array(second.prefix(count)))
            }
        }
        _ = try initiator.readMessage(second)
        let third = try initiator.writeMessage(payload: [])
        #expect(third.count == 64)
        for count in 0..<64 {
            var copy = responder
            #expect(throws: NoiseError.handshakeMessageTooShort(message: 3, bytes: count)) {
                try copy.readMessage(Array(third.prefix(count)))
            }
        }
    }

    /// The example of RFC 8439 has other nonces, so this one is made with another implementation of the same AEAD.
    @Test func recordsAgreeWithAnotherLibrary() throws {
        let key = SymmetricKey(data: [UInt8](1...32))
        for count in [0, 1, 15, 16, 17, 63, 64, 65, 8_191, 8_192, 8_193, 65_519] {
            let plaintext = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7) }
            let record: UInt64 = 0x0102_0304_0506_0708
            let box = try ChaChaPoly.seal(
                plaintext, using: key, nonce: .init(data: [0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1] as [UInt8]))
            let expected = Array(box.ciphertext) + Array(box.tag)
            var sealer = try RecordSealer(key: key, firstRecord: record)
            #expect(try sealer.seal(plaintext) == expected)
            #expect(sealer.nextRecord == record + 1)
            for cut in Set([0, 1, count / 2, count, count + 1, count + 15, count + 16]) {
                var opener = try RecordOpener(key: key, firstRecord: record)
                #expect(try opener.open(expected, cut: cut) == plaintext)
                #expect(opener.nextRecord == record + 1)
                #expect(throws: NoiseError.recordNotAuthentic(number: record + 1)) {
                    try opener.open(expected, cut: cut)
                }
            }
        }
        #expect(throws: NoiseError.cipherFailed) { _ = try RecordSealer(key: SymmetricKey(size: .bits128)) }
    }

    /// With these as its key, the far end would make every secret zero.
    @Test(arguments: [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ])
    func lowOrderKeysAreRefused(hex: String) throws {
        var responder = NoiseXX(isInitiator: false, prologue: [], staticKey: .init(), ephemeralKey: .init())
        _ = try responder.readMessage(bytes(hex))
        #expect(throws: NoiseError.weakRemoteKey(message: 2)) { try responder.writeMessage(payload: []) }
        var initiator = NoiseXX(isInitiator: true, prologue: [], staticKey: .init(), ephemeralKey: .init())
        _ = try initiator.writeMessage(payload: [])
        #expect(throws: NoiseError.weakRemoteKey(message: 2)) {
            try initiator.readMessage(bytes(hex) + [UInt8](repeating: 0, count: 64))
        }
    }
}

/// Both directions' sealers.
private struct Sealers: ~Copyable {
    var initiator: RecordSealer
    var responder: RecordSealer

    mutating func seal(_ plaintext: [UInt8], fromInitiator: Bool) throws -> [UInt8] {
        fromInitiator ? try self.initiator.seal(plaintext) : try self.responder.seal(plaintext)
    }
}

/// Both directions' openers.
private struct Openers: ~Copyable {
    var initiator: RecordOpener
    var responder: RecordOpener

    mutating func open(_ record: [UInt8], fromInitiator: Bool) throws -> [UInt8] {
        fromInitiator ? try self.responder.open(record) : try self.initiator.open(record)
    }
}

extension RecordSealer {
    /// A record in one piece, in place.
    mutating func seal(_ plaintext: [UInt8]) throws -> [UInt8] {
        var record = plaintext + [UInt8](repeating: 0, count: RecordCipher.tagBytes)
        try record.withUnsafeMutableBufferPointer { record in
            guard let start = record.baseAddress else { return }
            try self.begin()
            try self.update(start, into: start, count: plaintext.count)
            try self.finish(tag: start + plaintext.count)
        }
        return record
    }
}

extension RecordOpener {
    /// A record that lies in two places.
    mutating func open(_ record: [UInt8], cut: Int = 0) throws -> [UInt8] {
        var plaintext = [UInt8](repeating: 0, count: max(record.count, 1))
        let count = try record.withUnsafeBufferPointer { record in
            try plaintext.withUnsafeMutableBufferPointer { plaintext in
                guard let target = plaintext.baseAddress else { return 0 }
                return try self.open(
                    UnsafeBufferPointer(rebasing: record[..<cut]), UnsafeBufferPointer(rebasing: record[cut...]),
                    into: target)
            }
        }
        return Array(plaintext.prefix(count))
    }
}

func bytes(_ hex: String) -> [UInt8] {
    let digits = hex.utf8.map { UInt8($0 < 0x3a ? $0 - 0x30 : $0 - 0x57) }
    return stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
}

private func key(_ hex: String) throws -> NoiseXX.PrivateKey { try .init(rawRepresentation: bytes(hex)) }
