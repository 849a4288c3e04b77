/// Why a call to the daemon came to nothing.
package enum ControlError: OperatorError, Equatable, Sendable {
    /// Nothing listens at the socket.
    case daemonNotRunning(socket: String)
    /// The socket's permissions keep this user out.
    case socketNotPermitted(socket: String)
    /// The path does not fit a socket address.
    case socketPathTooLong(socket: String, limit: Int)
    /// A system call failed.
    case socketFailed(socket: String, call: String, errno: Int32)
    /// The daemon took the connection but said nothing for this long.
    case timedOut(socket: String, Duration)
    /// The response is not HTTP as we speak it, or ended too soon.
    case unreadable(socket: String, HTTPResponseParser.Failure)
    /// The body, or one line of it, is longer than this many bytes.
    case replyTooLarge(socket: String, limit: Int)
    /// The body is not the JSON this endpoint answers with.
    case unexpectedReply(socket: String, endpoint: String)
    /// The daemon refused, with its reason.
    case refused(status: Int, ErrorBody)

    /// 3 without a daemon, 2 for a configuration the daemon refused, else 1.
    package var exitStatus: ExitStatus {
        switch self {
        case .daemonNotRunning: .daemonNotRunning
        case .refused(status: 422, _): .usage
        default: .failed
        }
    }

    /// One line: what is wrong, then the fix.
    package var description: String {
        switch self {
        case .daemonNotRunning(let socket):
            return "no daemon at \(socket): start it with 'systemctl start warren', or name its socket with --socket"
        case .socketNotPermitted(let socket):
            return "not allowed to open \(socket): run this as root, or check the permissions of its directory"
        case .socketPathTooLong(let socket, let limit):
            return "the socket path \(OperatorText.quoted(socket)) is longer than \(limit) bytes: choose a shorter one"
        case .socketFailed(let socket, let call, let errno):
            return "\(socket): \(call) failed with errno \(errno): see the daemon's log with 'journalctl -u warren'"
        case .timedOut(let socket, let budget):
            return "the daemon at \(socket) did not answer within \(budget / .seconds(1)) s: see 'journalctl -u warren'"
        case .unreadable(let socket, let failure):
            return "the answer from \(socket) cannot be read (\(failure)): is it a warren daemon's socket?"
        case .replyTooLarge(let socket, let limit):
            return "the answer from \(socket) is longer than \(limit) bytes: is it a warren daemon's socket?"
        case .unexpectedReply(let socket, let endpoint):
            return
                "the answer from \(socket) to \(endpoint) is not understood: do daemon and command have the same version?"
        case .refused(_, let body):
            let parts = [body.error, body.fix].filter { !$0.isEmpty }
            return OperatorText.singleLine(parts.joined(separator: ": "), limit: 2048)
        }
    }
}
