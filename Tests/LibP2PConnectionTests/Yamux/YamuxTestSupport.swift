import LibP2PCore
import NIOCore

@testable import LibP2PConnection

/// A header, byte by byte: type, flags, stream, length.
func yamux(_ type: UInt8, _ flags: UInt8, _ stream: UInt32, _ length: UInt32) -> [UInt8] {
    [0, type, 0, flags] + [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: stream >> $0) }
        + [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: length >> $0) }
}

/// A session under a clock that moves by hand.
struct YamuxSide {
    var session: YamuxSession
    var now = NIODeadline.uptimeNanoseconds(1_000_000_000)

    init(_ role: Role, _ configuration: YamuxConfiguration = YamuxConfiguration()) {
        self.session = YamuxSession(role: role, configuration: configuration, now: self.now)
    }

    /// Everything to be told to those above.
    mutating func actions() -> [YamuxSession.Action] {
        var actions: [YamuxSession.Action] = []
        while let action = self.session.nextAction() { actions.append(action) }
        return actions
    }

    mutating func receive(_ bytes: [UInt8]) -> [YamuxSession.Action] {
        self.session.receive(ByteBuffer(bytes: bytes), now: self.now)
        return self.actions()
    }

    /// Everything to be sent.
    mutating func written() -> [UInt8] {
        var bytes: [UInt8] = []
        while let piece = self.session.nextWrite(now: self.now) { bytes += piece.readableBytesView }
        return bytes
    }

    /// A stream of this side that the remote knows of.
    mutating func announced() throws -> UInt32 {
        let id = try self.session.openStream(now: self.now)
        self.session.flush(id)
        _ = self.written()
        return id
    }
}
