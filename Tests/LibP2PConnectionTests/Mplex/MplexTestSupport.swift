import LibP2PCore
import NIOCore

@testable import LibP2PConnection

/// A message with a header of two bytes: number below 16, data below 128 bytes.
func mplex(_ flag: UInt8, _ number: UInt8, _ data: [UInt8] = []) -> [UInt8] {
    [number << 3 | flag, UInt8(data.count)] + data
}

/// A session under a clock that moves by hand.
struct MplexSide {
    typealias StreamID = MplexSession.StreamID

    var session: MplexSession
    var now = NIODeadline.uptimeNanoseconds(1_000_000_000)

    init(_ role: Role, _ configuration: MplexConfiguration = MplexConfiguration()) {
        self.session = MplexSession(role: role, configuration: configuration)
    }

    /// Everything to be told to those above.
    mutating func actions() -> [MplexSession.Action] {
        var actions: [MplexSession.Action] = []
        while let action = self.session.nextAction(now: self.now) { actions.append(action) }
        return actions
    }

    mutating func receive(_ bytes: [UInt8]) -> [MplexSession.Action] {
        self.session.receive(ByteBuffer(bytes: bytes))
        return self.actions()
    }

    /// Everything to be sent.
    mutating func written() -> [UInt8] {
        var bytes: [UInt8] = []
        while let piece = self.session.nextWrite() { bytes += piece.readableBytesView }
        return bytes
    }

    /// A stream of this side that the remote knows of.
    mutating func announced() throws -> StreamID {
        let id = try self.session.openStream()
        self.session.flush(id)
        _ = self.written()
        return id
    }

    static func theirs(_ number: UInt64) -> StreamID { StreamID(number: number, isOurs: false) }
    static func ours(_ number: UInt64) -> StreamID { StreamID(number: number, isOurs: true) }
}
