/// The exit codes of the `warren` command.
package enum ExitStatus: Int32, Sendable {
    /// What was asked for is done.
    case done = 0
    /// It failed; standard error says why.
    case failed = 1
    /// Wrong usage or configuration. Nothing on the machine has changed.
    case usage = 2
    /// No daemon answers at the socket.
    case daemonNotRunning = 3
}

/// An error that ends a command with one line on standard error: what is wrong, then what to do about it.
package protocol OperatorError: Error, CustomStringConvertible {
    /// How the process ends.
    var exitStatus: ExitStatus { get }
}

/// Text that came from elsewhere, made fit for one line of a terminal or a log.
package enum OperatorText {
    /// `text` with every control and formatting character replaced by a space, cut to `limit` characters.
    package static func singleLine(_ text: String, limit: Int = 512) -> String {
        var line = String.UnicodeScalarView()
        var count = 0
        for scalar in text.unicodeScalars {
            guard count < limit else {
                line.append("…")
                break
            }
            line.append(isPrintable(scalar) ? scalar : " ")
            count += 1
        }
        return String(line)
    }

    /// A value from a file or a command line, quoted and short.
    package static func quoted(_ text: String) -> String { "'\(singleLine(text, limit: 64))'" }

    private static func isPrintable(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate, .privateUse, .unassigned: false
        default: true
        }
    }
}
