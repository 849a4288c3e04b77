internal import Synchronization

/// What has happened so far, in order. Written from anywhere; a test waits until it says what the test waits for.
package final class Journal<Entry: Sendable>: Sendable {
    private struct Waiter {
        var isSatisfied: @Sendable ([Entry]) -> Bool
        var continuation: CheckedContinuation<[Entry], Never>
    }

    private struct State {
        var entries: [Entry] = []
        var waiters: [Waiter] = []
        /// A time limit ended the waiting.
        var isOver = false
    }

    private let state = Mutex(State())

    /// An empty journal.
    package init() {}

    /// Adds an entry, and wakes who has waited for it.
    package func write(_ entry: Entry) {
        let (entries, woken) = self.state.withLock { state in
            state.entries.append(entry)
            let woken = state.waiters.filter { $0.isSatisfied(state.entries) }
            state.waiters.removeAll { $0.isSatisfied(state.entries) }
            return (state.entries, woken.map(\.continuation))
        }
        for continuation in woken { continuation.resume(returning: entries) }
    }

    /// All entries so far.
    package var entries: [Entry] { self.state.withLock { $0.entries } }

    /// Returns the entries as soon as `isSatisfied` holds for them. When the suite's time limit comes first, the tests end there, and say
    /// what there was.
    @discardableResult
    package func wait(until isSatisfied: @escaping @Sendable ([Entry]) -> Bool) async -> [Entry] {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let ready: [Entry]? = self.state.withLock { state in
                    if state.isOver || isSatisfied(state.entries) { return state.entries }
                    state.waiters.append(Waiter(isSatisfied: isSatisfied, continuation: continuation))
                    return nil
                }
                if let ready { continuation.resume(returning: ready) }
            }
        } onCancel: {
            // Waited in vain: what there is goes to the test, whose expectations then say what is missing.
            let (entries, waiting) = self.state.withLock { state in
                state.isOver = true
                let waiting = state.waiters.map(\.continuation)
                state.waiters = []
                return (state.entries, waiting)
            }
            for continuation in waiting { continuation.resume(returning: entries) }
        }
    }

    /// Returns as soon as there are `count` entries.
    @discardableResult
    package func wait(forCount count: Int) async -> [Entry] { await self.wait { $0.count >= count } }

    /// Returns the first entry of which `choose` makes something.
    package func first<Value: Sendable>(_ choose: @escaping @Sendable (Entry) -> Value?) async -> Value {
        while true {
            let entries = await self.wait { $0.contains { choose($0) != nil } }
            if let value = entries.lazy.compactMap(choose).first { return value }
        }
    }
}
