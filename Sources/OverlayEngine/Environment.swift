internal import OverlayCore

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#endif

/// The process's environment and host name.
enum Environment {
    static func value(of name: String) -> String? { getenv(name).map { String(cString: $0) } }

    /// When connections are replaced: `WARREN_KEY_LIFETIME=<bytes>,<seconds>`, of which each may be left out, shortens it.
    static var keyLifetime: KeyLifetime {
        var lifetime = KeyLifetime.standard
        let parts = (self.value(of: "WARREN_KEY_LIFETIME") ?? "").split(
            separator: ",", maxSplits: 1, omittingEmptySubsequences: false)
        if let bytes = parts.first.flatMap({ UInt64($0) }), bytes > 0 { lifetime.bytes = min(bytes, lifetime.bytes) }
        if parts.count == 2, let seconds = UInt64(parts[1]), (1...43_200).contains(seconds) {
            lifetime.nanoseconds = seconds * 1_000_000_000
        }
        return lifetime
    }

    /// The machine's name up to the first dot, as far as it is a name we take.
    static var hostName: String {
        var buffer = [CChar](repeating: 0, count: 256)
        guard gethostname(&buffer, buffer.count - 1) == 0 else { return "machine" }
        let text = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let label = text.lowercased().prefix { $0 != "." }.filter {
            $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-")
        }
        return label.isEmpty ? "machine" : String(label.prefix(63))
    }
}
