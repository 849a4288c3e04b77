import CLinux

/// The system's text for an errno, such as `Operation not permitted`.
func errnoText(_ code: Int32) -> String {
    withUnsafeTemporaryAllocation(of: CChar.self, capacity: 128) { text in
        guard let start = text.baseAddress else { return "" }
        clinux_error_text(code, start, text.count)
        return String(cString: start)
    }
}
