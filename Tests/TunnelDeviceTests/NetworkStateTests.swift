import FoundationEssentials
import Glibc
import Synchronization
import Testing

@testable import TunnelDevice

@Suite struct NetworkRecordsTests {
    static let here = MachinePlace(bootID: "boot", namespace: "4:1")
    static let elsewhere = MachinePlace(bootID: "boot", namespace: "4:2")

    static func key(_ owner: String, _ network: String = "home") -> RecordKey {
        RecordKey(owner: owner, network: network)
    }

    @Test func givesEachNetworkItsOwnPairAndKeepsIt() throws {
        var records = NetworkRecords()
        let first = try records.take(Self.key("a"), "warren0")
        let second = try records.take(Self.key("a", "work"), "warren1")
        let third = try records.take(Self.key("b"), "warren2")
        #expect([first.table, second.table, third.table] == [41_170, 41_171, 41_172])
        #expect([first.priority, second.priority, third.priority] == [4_117, 4_118, 4_119])
        #expect(try records.take(Self.key("a", "work"), "warren1") == second)
        records.release(Self.key("a"), in: Self.here)
        #expect(try records.take(Self.key("c"), "warren3").table == 41_170)
    }

    @Test func avoidsWhatTheKernelHasAlready() throws {
        var records = NetworkRecords()
        let record = try records.take(Self.key("a"), "warren0", tables: [41_170], priorities: [4_118])
        #expect(record.table == 41_172)
        #expect(record.priority == 4_119)
    }

    @Test func otherNamespacesAndBootsDoNotMatter() throws {
        var records = NetworkRecords()
        let first = try records.take(Self.key("a"), "warren0")
        #expect(try records.take(Self.key("b"), "warren0", in: Self.elsewhere).table == first.table)
        #expect(records.records(ofOwner: "b", in: Self.here).isEmpty)
        records.forgetOtherBoots(than: MachinePlace(bootID: "next", namespace: "4:1"))
        #expect(records.records.isEmpty)
    }

    @Test func anInterfaceServesOneNetworkOfADaemon() throws {
        var records = NetworkRecords()
        _ = try records.take(Self.key("a"), "warren0")
        #expect(throws: NetworkStateError.interfaceRecorded(interface: "warren0", network: "home")) {
            try records.take(Self.key("a", "work"), "warren0")
        }
        // A daemon that died elsewhere does not block the name: the kernel says what is in use.
        _ = try records.take(Self.key("b"), "warren0")
    }

    @Test func isBounded() throws {
        var records = NetworkRecords()
        for slot in 0..<256 { _ = try records.take(Self.key("a", "\(slot)"), "if\(slot)") }
        #expect(throws: NetworkStateError.noFreeTable) { try records.take(Self.key("b"), "warren0") }
        for index in 0..<2_000 {
            let place = MachinePlace(bootID: "boot", namespace: "5:\(index)")
            _ = try records.take(Self.key("c"), "warren0", in: place)
        }
        #expect(records.records.count <= NetworkRecords.maximumRecords)
        #expect(records.records(ofOwner: "a", in: Self.here).count <= 256)
    }

    @Test func anInterfaceStaysLooseWhileAnybodyNeedsIt() {
        var records = NetworkRecords()
        let eth0 = Loosening(interface: "eth0", original: "1")
        let eth1 = Loosening(interface: "eth1", original: "0")
        records.loosen([eth0], for: Self.key("a"), in: Self.here)
        // The second finds eth0 loose already, but depends on it as much.
        records.loosen([eth1], for: Self.key("b"), in: Self.here)
        #expect(records.unloosen(for: Self.key("b"), in: Self.elsewhere) == [])
        #expect(records.unloosen(for: Self.key("a"), in: Self.here) == [])
        #expect(Set(records.unloosen(for: Self.key("b"), in: Self.here)) == [eth0, eth1])
        #expect(records.unloosen(for: Self.key("b"), in: Self.here) == [])
        #expect(records == NetworkRecords())
    }
}

extension NetworkRecords {
    fileprivate mutating func take(
        _ key: RecordKey, _ interface: String, in place: MachinePlace = NetworkRecordsTests.here,
        tables: Set<UInt32> = [], priorities: Set<UInt32> = []
    ) throws -> Record {
        try self.allocate(key, interface: interface, in: place, usedTables: tables, usedPriorities: priorities)
    }
}

@Suite final class NetworkStateTests {
    private let directory: String

    init() throws {
        var template = Array("/tmp/warren-state-XXXXXX".utf8CString)
        self.directory = try #require(mkdtemp(&template).map { String(cString: $0) })
    }

    deinit { try? FileManager.default.removeItem(atPath: self.directory) }

    @Test func oneOwnerRunsOnce() throws {
        let first = try NetworkState(directory: self.directory, owner: "/var/lib/warren")
        #expect(throws: NetworkStateError.alreadyRunning(owner: "/var/lib/warren")) {
            try NetworkState(directory: self.directory, owner: "/var/lib/warren")
        }
        _ = try NetworkState(directory: self.directory, owner: "/var/lib/warren2")
        _ = try NetworkState(directory: self.directory, owner: "%2fvar")
        withExtendedLifetime(first) {}
    }

    @Test func theOwnerIsFreeAfterItsEnd() throws {
        do { _ = try NetworkState(directory: self.directory, owner: "a") }
        _ = try NetworkState(directory: self.directory, owner: "a")
    }

    @Test(arguments: ["", String(repeating: "a", count: 201)]) func refusesOwnersThatNameNobody(owner: String) {
        #expect(throws: NetworkStateError.invalidOwner(owner)) {
            try NetworkState(directory: self.directory, owner: owner)
        }
    }

    @Test func recordsOutliveTheProcessAndUncommittedOnesDoNot() throws {
        let state = try NetworkState(directory: self.directory, owner: "a")
        try state.transaction { try Self.take("home", state, &$0).commit() }
        try state.transaction { _ = try Self.take("work", state, &$0) }
        let networks = try state.transaction { $0.records.records.map(\.key.network) }
        #expect(networks == ["home"])
    }

    @Test func anErrorReleasesTheLock() throws {
        struct Failure: Error {}
        let state = try NetworkState(directory: self.directory, owner: "a")
        #expect(throws: Failure.self) { try state.transaction { _ in throw Failure() } }
        _ = try state.transaction { $0.records }
    }

    @Test(arguments: ["", "{", "[]", #"{"version": 2, "records": [], "looseInterfaces": []}"#])
    func refusesAFileItDoesNotUnderstand(text: String) throws {
        let state = try NetworkState(directory: self.directory, owner: "a")
        try Data(text.utf8).write(to: URL(filePath: self.directory + "/networks.json"))
        #expect {
            try state.transaction { _ in }
        } throws: { error in
            guard case NetworkStateError.file(let path, _) = error else { return false }
            return path == self.directory + "/networks.json"
        }
    }

    @Test func forgetsTheLastBoot() throws {
        let text = """
            {"version": 1, "looseInterfaces": [], "records": [{"key": {"owner": "a", "network": "home"}, "table": 41170,
            "place": {"bootID": "an older one", "namespace": "4:1"}, "interface": "warren0", "priority": 4117, "addresses": []}]}
            """
        let state = try NetworkState(directory: self.directory, owner: "a")
        try Data(text.utf8).write(to: URL(filePath: self.directory + "/networks.json"))
        #expect(try state.transaction { $0.records.records.count } == 0)
    }

    /// Eight daemons at once: `flock` tells open files apart, so that threads stand for processes.
    @Test func daemonsAtTheSameTimeGetDifferentTables() throws {
        let directory = self.directory
        let taken = Mutex<[UInt32]>([])
        let failures = Mutex<[String]>([])
        let threads = try (0..<8).map { daemon in
            try WorkerThread(name: "daemon") {
                do {
                    let state = try NetworkState(directory: directory, owner: "daemon\(daemon)")
                    for network in 0..<5 {
                        try state.transaction { transaction in
                            let record = try transaction.records.allocate(
                                RecordKey(owner: state.owner, network: "\(network)"), interface: "w\(network)",
                                in: state.place, usedTables: [], usedPriorities: [])
                            try transaction.commit()
                            taken.withLock { $0.append(record.table) }
                        }
                    }
                } catch {
                    failures.withLock { $0.append("\(error)") }
                }
            }
        }
        threads.forEach { $0.join() }
        #expect(failures.withLock { $0 } == [])
        #expect(taken.withLock { $0.sorted() } == (0..<40).map { 41_170 + $0 })
    }

    /// The lock is one that other programs see, and that dies with them.
    @Test func locksAgainstOtherProcesses() throws {
        let path = self.directory + "/owners/a.lock"
        do {
            let state = try NetworkState(directory: self.directory, owner: "a")
            #expect(try Self.flockCommand(path) == 1)
            withExtendedLifetime(state) {}
        }
        #expect(try Self.flockCommand(path) == 0)
    }

    /// The exit code of util-linux' `flock --nonblock`: 1 when the lock is held.
    private static func flockCommand(_ path: String) throws -> Int32 {
        let arguments = ["flock", "--nonblock", path, "true"]
        var pointers = arguments.map { strdup($0) } + [nil]
        defer { pointers.forEach { free($0) } }
        var child = pid_t()
        try #require(posix_spawnp(&child, "flock", nil, nil, &pointers, environ) == 0)
        var status: Int32 = 0
        while waitpid(child, &status, 0) < 0, errno == EINTR {}
        return (status >> 8) & 0xFF
    }

    private static func take(
        _ network: String, _ state: NetworkState, _ transaction: inout NetworkState.Transaction
    ) throws -> NetworkState.Transaction {
        _ = try transaction.records.allocate(
            RecordKey(owner: state.owner, network: network), interface: network, in: state.place, usedTables: [],
            usedPriorities: [])
        return transaction
    }
}
