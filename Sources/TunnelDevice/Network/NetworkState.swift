import FoundationEssentials
import Glibc

/// The file in which the daemons of a machine record what they did to its network configuration, see ``NetworkRecords``.
///
/// In the machine-wide directory (`/run/warren`) there are `networks.json`, `networks.lock`, which is held while the former is read and changed, and
/// `owners/<owner>.lock`, held by each daemon for life: it proves that what is recorded under our own name is the
/// leftover of a crash, not the work of a daemon that runs. Locks are `flock`s, which the kernel releases when a process dies.
package final class NetworkState: Sendable {
    /// The daemon whose state this is.
    package let owner: String
    /// The network namespace and boot of this process.
    package let place: MachinePlace
    private let directory: String
    private let ownerLock: FileLock

    /// The largest file that is believed to be ours, in bytes.
    static let maximumFileBytes = 4 << 20
    /// How long another daemon may hold the lock. It does so for the milliseconds that changes to the kernel take.
    static let lockPatience: Duration = .seconds(10)

    /// Takes the owner's lock, and keeps it until the object goes.
    ///
    /// - Parameters:
    ///   - directory: One for all daemons of the machine; created when missing (mode 0755).
    ///   - owner: 1…200 bytes, unique on this machine and the same after a restart: the daemon's state directory.
    /// - Throws: ``NetworkStateError/alreadyRunning(owner:)`` when a living process has the lock.
    package init(directory: String, owner: String) throws(NetworkStateError) {
        guard (1...200).contains(owner.utf8.count) else { throw .invalidOwner(owner) }
        self.directory = directory
        self.owner = owner
        self.place = try Self.currentPlace()
        do {
            try FileManager.default.createDirectory(
                atPath: directory + "/owners", withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o755])
        } catch {
            throw .file(path: directory + "/owners", reason: "\(error)")
        }
        let name = owner.utf8.map { byte in
            let isPlain = UInt8(ascii: "0")...UInt8(ascii: "9") ~= byte || UInt8(ascii: "a")...UInt8(ascii: "z") ~= byte
            return isPlain ? String(UnicodeScalar(byte)) : "%" + String(byte, radix: 16)
        }
        // File names end at 255 bytes. Two long owners that end alike would only exclude each other, not mix.
        let path = "\(directory)/owners/\(name.joined().suffix(240)).lock"
        guard let lock = try FileLock(path: path, patience: .zero) else { throw .alreadyRunning(owner: owner) }
        self.ownerLock = lock
    }

    /// Locks the records against all other daemons and calls `body` with them. Nothing is stored but by ``Transaction/commit()``.
    ///
    /// - Throws: ``NetworkStateError``, or what `body` throws.
    package func transaction<Result>(_ body: (inout Transaction) throws -> Result) throws -> Result {
        let path = self.directory + "/networks.lock"
        guard let lock = try FileLock(path: path, patience: Self.lockPatience) else {
            throw NetworkStateError.busy(path)
        }
        return try withExtendedLifetime(lock) {
            var transaction = Transaction(path: self.directory + "/networks.json", records: NetworkRecords())
            try transaction.load()
            transaction.records.forgetOtherBoots(than: self.place)
            return try body(&transaction)
        }
    }

    /// The records while they are locked.
    package struct Transaction {
        private let path: String
        package var records: NetworkRecords

        fileprivate init(path: String, records: NetworkRecords) {
            self.path = path
            self.records = records
        }

        /// Replaces the file by the records. Before a change is made that they must be able to undo.
        package func commit() throws(NetworkStateError) {
            do {
                let encoder = JSONEncoder()
                encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
                try encoder.encode(self.records).write(to: URL(filePath: self.path), options: .atomic)
            } catch {
                throw .file(path: self.path, reason: "\(error)")
            }
        }

        fileprivate mutating func load() throws(NetworkStateError) {
            guard access(self.path, F_OK) == 0 else { return }
            let records: NetworkRecords
            do {
                let data = try Data(contentsOf: URL(filePath: self.path))
                guard data.count <= NetworkState.maximumFileBytes else {
                    throw NetworkStateError.file(path: self.path, reason: "\(data.count) bytes long")
                }
                records = try JSONDecoder().decode(NetworkRecords.self, from: data)
            } catch {
                throw .file(path: self.path, reason: "\(error)")
            }
            guard records.version == NetworkRecords.currentVersion else {
                throw .file(path: self.path, reason: "written by another version of warren")
            }
            self.records = records
        }
    }

    private static func currentPlace() throws(NetworkStateError) -> MachinePlace {
        var status = stat()
        let namespace = "/proc/self/ns/net"
        guard stat(namespace, &status) == 0 else { throw .file(path: namespace, reason: errnoText(errno)) }
        let boot: String?
        do {
            boot = try KernelSetting.read("kernel/random/boot_id")
        } catch {
            throw .file(path: "/proc/sys/kernel/random/boot_id", reason: "\(error)")
        }
        return MachinePlace(bootID: boot ?? "", namespace: "\(status.st_dev):\(status.st_ino)")
    }
}

/// An exclusive `flock` on a file of its own, held until the object goes.
final class FileLock: Sendable {
    private let descriptor: Int32

    /// `nil` when another holder does not let go within `patience`. The file is created when missing, and stays: removing it would let two
    /// processes lock two files of one name.
    init?(path: String, patience: Duration) throws(NetworkStateError) {
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o644)
        if descriptor < 0 { throw .file(path: path, reason: errnoText(errno)) }
        let deadline = ContinuousClock.now + patience
        while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            let code = errno
            guard code == EWOULDBLOCK || code == EINTR else {
                close(descriptor)
                throw .file(path: path, reason: errnoText(code))
            }
            guard ContinuousClock.now < deadline else {
                close(descriptor)
                return nil
            }
            usleep(5_000)
        }
        self.descriptor = descriptor
    }

    deinit { close(self.descriptor) }
}

/// Why the machine-wide state cannot be used.
package enum NetworkStateError: Error, Hashable, Sendable, CustomStringConvertible {
    /// Empty or longer than 200 bytes.
    case invalidOwner(String)
    /// A living process works under the same name.
    case alreadyRunning(owner: String)
    /// Another daemon has held the lock for too long.
    case busy(String)
    /// All tables that Warren uses are taken in this network namespace.
    case noFreeTable
    /// Another network of this daemon has the interface.
    case interfaceRecorded(interface: String, network: String)
    /// A file cannot be read, understood or written.
    case file(path: String, reason: String)

    package var description: String {
        switch self {
        case .invalidOwner(let owner): return "\"\(owner)\" cannot name a daemon: 1 to 200 bytes"
        case .alreadyRunning(let owner): return "a daemon with the state \(owner) is running already"
        case .busy(let path): return "another daemon holds \(path) and does not let go"
        case .noFreeTable:
            let last = NetworkRecords.firstTable + NetworkRecords.slotCount - 1
            return """
                all routing tables \(NetworkRecords.firstTable)…\(last) are in use: \
                see `ip rule`, and stop daemons that are not needed
                """
        case .interfaceRecorded(let interface, let network):
            return "the interface \(interface) belongs to the network \(network) already"
        case .file(let path, let reason):
            return "\(path): \(reason)"
        }
    }
}
