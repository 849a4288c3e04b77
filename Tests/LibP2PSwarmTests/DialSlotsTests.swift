import Multiformats
import PeerIdentity
import Testing

@testable import LibP2PSwarm

@Suite struct DialSlotsTests {
    static func ticket(_ number: UInt64, of peer: Int = 1) throws -> DialTicket {
        DialTicket(
            key: DialKey(peer: try PeerStoreTests.peer(peer)), number: number,
            address: PeerStoreTests.address(Int(number)))
    }

    @Test func startsThoseThatWaitInTheirOrder() throws {
        var slots = DialSlots(total: 2, perPeer: 2)
        let tickets = try (1...5).map { try Self.ticket($0, of: Int($0)) }
        #expect(tickets.map { slots.enter($0) } == [true, true, false, false, false])
        #expect(slots.runningCount == 2 && slots.waitingCount == 3)
        #expect(slots.leave(tickets[1]) == [tickets[2]])
        #expect(slots.leave(tickets[0]) == [tickets[3]])
        #expect(slots.leave(tickets[2]) == [tickets[4]])
        #expect(slots.leave(tickets[3]) == [])
        #expect(slots.leave(tickets[4]) == [])
        #expect(slots.runningCount == 0 && slots.waitingCount == 0)
    }

    @Test func aFullPeerDoesNotHoldUpOthers() throws {
        var slots = DialSlots(total: 3, perPeer: 1)
        let (first, second) = (try Self.ticket(1), try Self.ticket(2))
        let other = try Self.ticket(3, of: 2)
        #expect(slots.enter(first) && !slots.enter(second) && slots.enter(other))
        #expect(slots.leave(other) == [])
        #expect(slots.leave(first) == [second])
    }

    @Test func whatIsWithdrawnDoesNotStart() throws {
        var slots = DialSlots(total: 1, perPeer: 1)
        let tickets = try (1...3).map { try Self.ticket($0) }
        #expect(tickets.map { slots.enter($0) } == [true, false, false])
        #expect(slots.isWaiting(tickets[1]) && !slots.isWaiting(tickets[0]))
        slots.withdraw(2)
        #expect(!slots.isWaiting(tickets[1]))
        #expect(slots.leave(tickets[0]) == [tickets[2]])
        // Nobody leaves twice.
        #expect(slots.leave(tickets[2]) == [] && slots.leave(tickets[2]) == [] && slots.runningCount == 0)
    }
}
