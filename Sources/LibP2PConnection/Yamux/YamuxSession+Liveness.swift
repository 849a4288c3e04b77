import LibP2PCore
import NIOCore

extension YamuxSession {
    /// A ping that awaits its answer.
    struct Ping {
        let token: UInt32
        let requested: NIODeadline
        /// When it was handed to the stream beneath; `nil` until then.
        var sent: NIODeadline?
    }

    /// Pings of ours that may await their answers; go-yamux queues as many.
    static let maximumPings = 32

    /// Pings the remote; ``Action/completePing(_:_:)`` or ``Action/failPing(_:_:)`` tells the outcome, or the session's end does.
    mutating func ping(now: NIODeadline) throws(YamuxError) -> UInt32 {
        guard !self.isEnded, self.pings.count < Self.maximumPings else { throw .tooManyPings }
        let token = self.nextPing
        self.nextPing &+= 1
        self.pings.append(Ping(token: token, requested: now))
        return token
    }

    /// When ``tick(now:)`` is to be called at the latest; it may come later than this says at another time.
    var nextDeadline: NIODeadline? {
        guard !self.isEnded else { return nil }
        if let oldest = self.pings.first { return oldest.requested + self.configuration.pingTimeout }
        let since = self.hasHeardData ? min(self.lastHeard, self.lastMeasured) : self.lastHeard
        return since + self.configuration.keepaliveInterval
    }

    /// Time has passed: an unanswered ping counts, or a new one is due.
    mutating func tick(now: NIODeadline) {
        while !self.isEnded, let oldest = self.pings.first, now - oldest.requested >= self.configuration.pingTimeout {
            let waited = now - oldest.requested
            guard self.lastHeard > oldest.requested else {
                self.end(.failure(.keepaliveTimedOut(after: waited)), farewell: nil)
                return
            }
            self.pings.removeFirst()
            self.lastMeasured = now
            self.actions.append(.failPing(oldest.token, .pingTimedOut(after: waited)))
        }
        guard self.pings.isEmpty, let due = self.nextDeadline, now >= due else { return }
        _ = try? self.ping(now: now)
    }

    /// An answer has come; one that nobody asked for is ignored.
    mutating func pingAnswered(_ token: UInt32) {
        guard
            let index = self.pings.firstIndex(where: { $0.token == token }), let sent = self.pings[index].sent
        else { return }
        self.pings.remove(at: index)
        let sample = self.lastHeard - sent
        self.roundTripTime =
            self.roundTripTime.map { .nanoseconds(($0.nanoseconds + sample.nanoseconds) / 2) } ?? sample
        self.lastMeasured = self.lastHeard
        self.hasHeardData = false
        self.actions.append(.completePing(token, sample))
    }

    /// Writes answers to pings, and pings of our own.
    mutating func writePings(now: NIODeadline) {
        for token in self.pingAnswers {
            self.control.writeYamuxFrame(YamuxFrame(.ping, .ack, length: token))
        }
        self.pingAnswers.removeAll(keepingCapacity: true)
        for index in self.pings.indices where self.pings[index].sent == nil {
            self.pings[index].sent = now
            self.control.writeYamuxFrame(YamuxFrame(.ping, .syn, length: self.pings[index].token))
        }
    }
}
