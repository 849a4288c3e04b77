#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#endif

/// Who may change things through the socket.
enum Operators {
    /// Whether a user is root or in one of `groups`. Groups that the machine does not know have no members.
    static func mayChange(user: UInt32, groups: [String]) -> Bool {
        if user == 0 { return true }
        guard let entry = getpwuid(user) else { return false }
        var count: Int32 = 256
        var ids = [gid_t](repeating: 0, count: Int(count))
        guard getgrouplist(entry.pointee.pw_name, entry.pointee.pw_gid, &ids, &count) >= 0 else { return false }
        let own = Set(ids.prefix(Int(max(count, 0))))
        return groups.contains { name in getgrnam(name).map { own.contains($0.pointee.gr_gid) } ?? false }
    }
}
