#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#endif

/// The process's environment and host name.
enum Environment {
    static func value(of name: String) -> String? { getenv(name).map { String(cString: $0) } }

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
