internal import ControlAPI
internal import LibP2P
internal import NIOCore
internal import NIOHTTP1

/// One request for throughput: both ways, one after the other, over one connection.
struct Measurement: Sendable {
    let peer: PeerConfiguration
    let connection: any Connection
    let amount: PerfAmount
    let service: PerfService

    /// What is asked for.
    /// - Throws: ``ControlRefusal`` for a request that asks for nothing, for too much, or for both kinds.
    static func amount(of request: PerfRequest) throws -> PerfAmount {
        switch (request.bytes, request.milliseconds) {
        case (let bytes?, nil) where (1...PerfRequest.maximumBytes).contains(bytes): return .bytes(bytes)
        case (nil, let milliseconds?) where PerfRequest.millisecondsRange.contains(milliseconds):
            return .time(.milliseconds(Int64(milliseconds)))
        default: throw ControlRefusal(.badRequest, "bytes or milliseconds is missing or out of range")
        }
    }

    /// Measures, and tells of it line by line until `answer` says that nobody listens any more. A way that fails is the last.
    func run(answer: @Sendable (PerfReply) async -> Bool) async {
        for direction in PerfDirection.allCases {
            guard await self.run(direction, answer: answer) else { return }
        }
    }

    /// Whether to go on.
    private func run(_ direction: PerfDirection, answer: @Sendable (PerfReply) async -> Bool) async -> Bool {
        // A reader that is slow misses reports, but not the end.
        let (replies, reports) = AsyncStream.makeStream(of: PerfReply.self, bufferingPolicy: .bufferingNewest(4))
        let measuring = Task {
            do {
                let total = try await self.service.measure(direction, of: self.connection, self.amount) { progress in
                    reports.yield(self.reply(direction, progress.total))
                }
                reports.yield(self.reply(direction, total, isDone: true))
            } catch {
                reports.yield(self.reply(direction, nil, isDone: true, error: Self.explain(error)))
            }
            reports.finish()
        }
        var goesOn = true
        for await reply in replies where goesOn {
            goesOn = await answer(reply) && reply.error == nil
            if !goesOn { measuring.cancel() }
        }
        if Task.isCancelled { measuring.cancel() }
        await measuring.value
        return goesOn && !Task.isCancelled
    }

    private func reply(_ direction: PerfDirection, _ total: PerfTransfer?, isDone: Bool = false, error: String? = nil)
        -> PerfReply
    {
        PerfReply(
            peer: self.peer.id.description, name: self.peer.name, address: self.connection.remoteAddress.description,
            transport: self.connection.details.transport, relay: self.connection.details.relay?.description,
            direction: direction.rawValue, bytes: total?.bytes ?? 0,
            seconds: total.map { Double($0.time.nanoseconds) / 1e9 } ?? 0, done: isDone, error: error)
    }

    private static func explain(_ error: any Error) -> String {
        if case NegotiationError.unsupported = error { return "it does not let this machine measure" }
        return String(describing: error)
    }
}
