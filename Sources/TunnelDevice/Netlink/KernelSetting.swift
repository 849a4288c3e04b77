import Glibc

/// Files under `/proc/sys`, named relative to it: `net/ipv4/conf/eth0/rp_filter`.
///
/// A path, not a dotted name: interface names may contain dots.
enum KernelSetting {
    /// The value without its newline; `nil` when the kernel has no such setting.
    static func read(_ path: String) throws(NetlinkError) -> String? {
        let descriptor = open("/proc/sys/\(path)", O_RDONLY | O_CLOEXEC)
        if descriptor < 0 {
            let code = Glibc.errno
            if code == ENOENT { return nil }
            throw .setting(path: "/proc/sys/\(path)", value: nil, errno: code)
        }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 256)
        let count = Glibc.read(descriptor, &bytes, bytes.count)
        if count < 0 { throw .setting(path: "/proc/sys/\(path)", value: nil, errno: Glibc.errno) }
        return String(decoding: bytes.prefix(count).prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
    }

    /// Writes `value`, unless it is there already: a read-only `/proc/sys` with the right values is fine.
    static func write(_ path: String, _ value: String) throws(NetlinkError) {
        if try self.read(path) == value { return }
        let descriptor = open("/proc/sys/\(path)", O_WRONLY | O_CLOEXEC)
        if descriptor < 0 {
            throw .setting(path: "/proc/sys/\(path)", value: value, errno: Glibc.errno)
        }
        defer { close(descriptor) }
        let bytes = Array(value.utf8)
        if Glibc.write(descriptor, bytes, bytes.count) < 0 {
            throw .setting(path: "/proc/sys/\(path)", value: value, errno: Glibc.errno)
        }
    }
}
