/// What several daemons on one machine must agree on: which table and priority each network has, and what each has to undo.
///
/// A pure value; ``NetworkState`` keeps it in a file. Routes, rules and settings live in one network namespace until the next boot, so records of
/// another boot are void, and records of another namespace do not collide with ours.
package struct NetworkRecords: Hashable, Sendable, Codable {
    /// One network of one daemon.
    package struct Record: Hashable, Sendable, Codable {
        package var key: RecordKey
        package var place: MachinePlace
        package var interface: String
        package var table: UInt32
        package var priority: UInt32
        /// Textual addresses the interface was given.
        package var addresses: [String]

        package var allocation: TableAllocation { TableAllocation(table: self.table, priority: self.priority) }
    }

    /// An interface in loose mode, and the networks that need it so.
    struct LooseInterface: Hashable, Sendable, Codable {
        var place: MachinePlace
        var loosening: Loosening
        var holders: Set<RecordKey>
    }

    /// The format's version; a file of another version is refused.
    static let currentVersion = 1
    /// The first table; slot *n* has this plus *n*. Above the 255 classic tables, and away from what wg-quick (51820), VRF and
    /// systemd-networkd set-ups commonly take.
    static let firstTable: UInt32 = 41_170
    /// The first priority: before Tailscale's (5210) and wg-quick's (32765 and down), so that a full tunnel of theirs does
    /// not swallow our members' addresses.
    static let firstPriority: UInt32 = 4_117
    /// How many networks can be up in one network namespace.
    static let slotCount: UInt32 = 256
    /// How many records are kept in all, over all namespaces.
    static let maximumRecords = 1_024

    var version = Self.currentVersion
    package private(set) var records: [Record] = []
    var looseInterfaces: [LooseInterface] = []

    package init() {}

    /// Voids what did not survive the last boot.
    package mutating func forgetOtherBoots(than place: MachinePlace) {
        self.records.removeAll { $0.place.bootID != place.bootID }
        self.looseInterfaces.removeAll { $0.place.bootID != place.bootID }
    }

    /// The record of one network.
    package func record(_ key: RecordKey, in place: MachinePlace) -> Record? {
        self.records.first { $0.key == key && $0.place == place }
    }

    /// All records of one daemon, in this namespace.
    package func records(ofOwner owner: String, in place: MachinePlace) -> [Record] {
        self.records.filter { $0.key.owner == owner && $0.place == place }
    }

    /// The interfaces of all networks in this namespace.
    package func interfaces(in place: MachinePlace) -> Set<String> {
        Set(self.records.filter { $0.place == place }.map(\.interface))
    }

    /// The record of a network, made if there is none, with the lowest slot that neither a record nor the kernel uses.
    ///
    /// - Parameters:
    ///   - usedTables: Tables that have routes or that a rule leads to, in this namespace.
    ///   - usedPriorities: Priorities of rules of either family.
    /// - Throws: ``NetworkStateError/noFreeTable`` or ``NetworkStateError/interfaceRecorded(interface:owner:)``.
    package mutating func allocate(
        _ key: RecordKey, interface: String, in place: MachinePlace, usedTables: Set<UInt32>,
        usedPriorities: Set<UInt32>
    ) throws(NetworkStateError) -> Record {
        let here = self.records.filter { $0.place == place }
        if let other = here.first(where: { $0.interface == interface && $0.key != key && $0.key.owner == key.owner }) {
            throw .interfaceRecorded(interface: interface, network: other.key.network)
        }
        if let index = self.records.firstIndex(where: { $0.key == key && $0.place == place }) {
            self.records[index].interface = interface
            return self.records[index]
        }
        let tables = usedTables.union(here.map(\.table))
        let priorities = usedPriorities.union(here.map(\.priority))
        let slot = (0..<Self.slotCount).first {
            !tables.contains(Self.firstTable + $0) && !priorities.contains(Self.firstPriority + $0)
        }
        guard let slot else { throw .noFreeTable }
        // Oldest first: they belong to daemons of namespaces that are most likely gone.
        if self.records.count >= Self.maximumRecords {
            guard let oldest = self.records.firstIndex(where: { $0.place != place }) else { throw .noFreeTable }
            self.records.remove(at: oldest)
        }
        let record = Record(
            key: key, place: place, interface: interface, table: Self.firstTable + slot,
            priority: Self.firstPriority + slot, addresses: [])
        self.records.append(record)
        return record
    }

    /// Records which addresses the interface of a network has been given.
    package mutating func setAddresses(_ addresses: [String], of key: RecordKey, in place: MachinePlace) {
        guard let index = self.records.firstIndex(where: { $0.key == key && $0.place == place }) else { return }
        self.records[index].addresses = addresses
    }

    /// Forgets a network.
    package mutating func release(_ key: RecordKey, in place: MachinePlace) {
        self.records.removeAll { $0.key == key && $0.place == place }
    }

    /// Records that a network needs interfaces in loose mode: those in `found`, strict until now, and all that are loose for another network's sake.
    package mutating func loosen(_ found: [Loosening], for key: RecordKey, in place: MachinePlace) {
        for index in self.looseInterfaces.indices where self.looseInterfaces[index].place == place {
            self.looseInterfaces[index].holders.insert(key)
        }
        for loosening in found {
            let known = self.looseInterfaces.firstIndex {
                $0.place == place && $0.loosening.interface == loosening.interface
            }
            if let known {
                // Somebody made it strict again meanwhile: that is what we will restore.
                self.looseInterfaces[known].loosening = loosening
            } else {
                self.looseInterfaces.append(LooseInterface(place: place, loosening: loosening, holders: [key]))
            }
        }
    }

    /// Records that a network does not need loose mode any more. Returns the interfaces that nobody needs loose now.
    package mutating func unloosen(for key: RecordKey, in place: MachinePlace) -> [Loosening] {
        var freed: [Loosening] = []
        for index in self.looseInterfaces.indices where self.looseInterfaces[index].place == place {
            guard self.looseInterfaces[index].holders.remove(key) != nil,
                self.looseInterfaces[index].holders.isEmpty
            else { continue }
            freed.append(self.looseInterfaces[index].loosening)
        }
        self.looseInterfaces.removeAll { $0.holders.isEmpty }
        return freed
    }
}

/// Names a network of a daemon on this machine.
package struct RecordKey: Hashable, Sendable, Codable {
    /// The daemon: something that stays the same over restarts and differs between daemons, such as its state directory.
    package var owner: String
    /// The network's ID.
    package var network: String

    package init(owner: String, network: String) {
        self.owner = owner
        self.network = network
    }
}

/// Where and for how long the kernel's network configuration holds.
package struct MachinePlace: Hashable, Sendable, Codable {
    /// Random per boot.
    package var bootID: String
    /// Identifies the network namespace, `device:inode`.
    package var namespace: String

    package init(bootID: String, namespace: String) {
        self.bootID = bootID
        self.namespace = namespace
    }
}
