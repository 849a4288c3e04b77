import CLinux
import Glibc
import Synchronization

/// A thread of the operating system that runs one function.
///
/// Not a task: its function blocks in `poll`, which must never occupy a thread of Swift's pool.
final class WorkerThread: Sendable {
    private final class Start {
        let name: String
        let body: @Sendable () -> Void

        init(name: String, body: @escaping @Sendable () -> Void) {
            self.name = name
            self.body = body
        }
    }

    private let thread: pthread_t
    private let joined = Mutex(false)

    /// Starts a thread. `name` is cut to the 15 bytes the kernel keeps.
    init(name: String, body: @escaping @Sendable () -> Void) throws(WorkerThreadError) {
        var thread = pthread_t()
        let start = Unmanaged.passRetained(Start(name: String(name.prefix(15)), body: body))
        let code = pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                let start = Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
                _ = clinux_name_thread(start.name)
                start.body()
                return nil
            }, start.toOpaque())
        if code != 0 {
            start.release()
            throw .notStarted(errno: code)
        }
        self.thread = thread
    }

    deinit {
        if !self.joined.withLock({ $0 }) { pthread_detach(self.thread) }
    }

    /// Waits for the end of the function; returns at once when it is the caller, or when somebody has waited before.
    func join() {
        if pthread_equal(pthread_self(), self.thread) != 0 { return }
        self.joined.withLock { joined in
            if !joined { pthread_join(self.thread, nil) }
            joined = true
        }
    }
}

/// Why a thread of ours could not be had.
package enum WorkerThreadError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The system has no thread left for us.
    case notStarted(errno: Int32)
    /// The process has no file descriptor left.
    case noEventDescriptor(errno: Int32)

    package var description: String {
        switch self {
        case .notStarted(let code): "cannot start a thread: \(errnoText(code))"
        case .noEventDescriptor(let code): "cannot create an eventfd: \(errnoText(code))"
        }
    }
}
