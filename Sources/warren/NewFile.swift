import Foundation

/// Files that must not exist before.
enum NewFile {
    /// Whether something has this name, be it a link that leads nowhere.
    static func exists(_ path: String) -> Bool {
        var status = stat()
        return lstat(path, &status) == 0
    }

    /// The directory a file is in.
    static func directory(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    /// Makes a directory and those above it. One that exists stays as it is.
    static func makeDirectory(_ path: String, mode: Int) throws {
        do {
            try FileManager.default.createDirectory(
                atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: mode])
        } catch {
            throw CommandError(
                description: "\(path): cannot make the directory: run this as root, or choose another path")
        }
    }

    /// Writes a file that does not exist yet, whole or not at all.
    static func write(_ text: String, to path: String, mode: mode_t) throws {
        let temporary = "\(path).\(String(UInt64.random(in: .min ... .max), radix: 36)).new"
        func failure(_ operation: String) -> CommandError {
            CommandError(description: "\(path): cannot \(operation): \(String(cString: strerror(errno)))")
        }
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode)
        guard descriptor >= 0 else { throw failure("create") }
        defer { unlink(temporary) }
        defer { close(descriptor) }
        guard fchmod(descriptor, mode) == 0 else { throw failure("chmod") }
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw failure("write") }
            rest = rest.dropFirst(count)
        }
        guard fsync(descriptor) == 0 else { throw failure("fsync") }
        guard link(temporary, path) == 0 else { throw failure("create") }
    }
}
