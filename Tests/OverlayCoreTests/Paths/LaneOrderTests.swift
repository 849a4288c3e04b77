import Testing

@testable import OverlayCore

private let hold = LaneOrder.maximumHold

@Suite struct LaneOrderTests {
    /// Lane n has epoch 10 n.
    private func order(_ lanes: UInt64...) -> LaneOrder {
        var order = LaneOrder()
        for lane in lanes { order.opened(lane, epoch: lane * 10) }
        return order
    }

    @Test func theFirstLaneToCarryPacketsIsCurrent() {
        var order = self.order(1, 2)
        #expect(order.current == nil)
        #expect(order.packets(on: 2, now: 0) == .deliver)
        #expect(order.current == 2)
        #expect(order.packets(on: 1, now: 0) == .deliver, "a lower epoch waits for nobody")
        #expect(order.nextDeadline == nil)
    }

    @Test func aNewerLaneWaitsForTheMove() {
        var order = self.order(1, 2)
        #expect(order.packets(on: 1, now: 5) == .deliver)
        #expect(order.packets(on: 2, now: 7) == .hold)
        #expect(order.packets(on: 2, now: 9) == .hold)
        #expect(order.nextDeadline == 7 + hold, "the first packet counts")
        #expect(order.packets(on: 1, now: 9) == .deliver)
        #expect(order.moved(from: 1, to: 20, now: 9) == [2])
        #expect(order.current == 2 && order.nextDeadline == nil)
        #expect(order.packets(on: 2, now: 10) == .deliver)
    }

    @Test func theMoveMayComeFirst() {
        var order = self.order(1, 2)
        #expect(order.packets(on: 1, now: 0) == .deliver)
        #expect(order.moved(from: 1, to: 20, now: 0) == [], "nothing is held")
        #expect(order.packets(on: 2, now: 0) == .deliver)
        // Even before the lane that it names is open.
        #expect(order.moved(from: 2, to: 30, now: 0) == [])
        order.opened(3, epoch: 30)
        #expect(order.packets(on: 3, now: 0) == .deliver)
        #expect(order.current == 3)
    }

    @Test func aMoveWaitsForWhatIsHeldBeforeIt() {
        var order = self.order(1, 2, 3)
        #expect(order.packets(on: 1, now: 0) == .deliver)
        #expect(order.packets(on: 3, now: 0) == .hold)
        #expect(order.moved(from: 2, to: 30, now: 0) == [], "lane 2 itself has to wait")
        #expect(order.moved(from: 1, to: 20, now: 0) == [2, 3])
        #expect(order.current == 3)
    }

    @Test func aLaneThatClosesLetsOthersGo() {
        var order = self.order(1, 2, 3)
        #expect(order.packets(on: 1, now: 0) == .deliver)
        #expect(order.packets(on: 3, now: 0) == .hold)
        #expect(order.packets(on: 2, now: 0) == .hold)
        #expect(order.closed(1) == [2, 3], "older epochs first")
        #expect(order.current == 3)
        #expect(order.packets(on: 2, now: 0) == .deliver)
    }

    @Test func aHeldLaneThatClosesIsForgotten() {
        var order = self.order(1, 2)
        #expect(order.packets(on: 1, now: 0) == .deliver)
        #expect(order.packets(on: 2, now: 0) == .hold)
        #expect(order.closed(2) == [])
        #expect(order.nextDeadline == nil && order.current == 1)
        #expect(order.tick(now: .max) == [])
    }

    @Test func nothingIsHeldForever() {
        var order = self.order(1, 2)
        #expect(order.packets(on: 1, now: 0) == .deliver)
        #expect(order.packets(on: 2, now: 100) == .hold)
        #expect(order.tick(now: 99 + hold) == [])
        #expect(order.tick(now: 100 + hold) == [2])
        #expect(order.current == 2)
        #expect(order.packets(on: 1, now: 101 + hold) == .deliver, "what comes late still comes")
    }

    @Test func lanesThatNobodyKnows() {
        var order = LaneOrder()
        #expect(order.packets(on: 9, now: 0) == .deliver)
        #expect(order.current == nil)
        #expect(order.closed(9) == [] && order.tick(now: .max) == [])
        order.opened(1, epoch: .max)
        #expect(order.packets(on: 1, now: .max) == .deliver)
        order.opened(2, epoch: .max)
        #expect(order.packets(on: 2, now: .max) == .deliver)
    }

    /// A sender that moves as it should, over lanes of any delay within the bound: its packets come out in order.
    @Test(arguments: 0..<200)
    func keepsTheOrderOfAnyPlannedMoves(seed: Int) {
        var random = SeededGenerator(state: UInt64(seed))
        struct Event {
            let time: UInt64
            let lane: UInt64
            let content: Content
        }
        enum Content {
            case packet(Int)
            case move(UInt64)
        }
        // Each lane delivers in order, after a delay of its own that wanders.
        var events: [Event] = []
        var lane: UInt64 = 1
        var now: UInt64 = 0
        var lastArrival: [UInt64: UInt64] = [:]
        func send(_ content: Content) {
            let delay = random.next() % (hold / 2)
            let arrival = max(now + delay, lastArrival[lane] ?? 0)
            lastArrival[lane] = arrival
            events.append(Event(time: arrival, lane: lane, content: content))
        }
        // The first lane is known to be the current one by the time of the first move.
        send(.packet(0))
        now += hold
        for number in 1..<300 {
            now += random.next() % (hold / 50)
            send(.packet(number))
            if random.next() % 40 == 0, lane < 9 {
                send(.move((lane + 1) * 10))
                lane += 1
            }
        }
        var order = LaneOrder()
        for lane in UInt64(1)...9 { order.opened(lane, epoch: lane * 10) }
        var held: [UInt64: [Int]] = [:]
        var delivered: [Int] = []
        let arrivals = events.enumerated().sorted { ($0.element.time, $0.offset) < ($1.element.time, $1.offset) }
        for (_, event) in arrivals {
            for lane in order.tick(now: event.time) { delivered += held.removeValue(forKey: lane) ?? [] }
            switch event.content {
            case .packet(let number):
                switch order.packets(on: event.lane, now: event.time) {
                case .deliver: delivered.append(number)
                case .hold: held[event.lane, default: []].append(number)
                }
            case .move(let epoch):
                for lane in order.moved(from: event.lane, to: epoch, now: event.time) {
                    delivered += held.removeValue(forKey: lane) ?? []
                }
            }
        }
        for lane in order.tick(now: .max) { delivered += held.removeValue(forKey: lane) ?? [] }
        let firstWrong = delivered.indices.first { delivered[$0] != $0 }
        #expect(delivered.count == 300 && firstWrong == nil)
    }
}
