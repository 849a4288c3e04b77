import Multiformats

/// Brings networks up and down: plans, records what will have to be undone, and changes the kernel, in that order.
///
/// All of it happens under the machine-wide lock, so that daemons never see each other half-way. Calls block for milliseconds; they may
/// be repeated at will, and at every ``RouteMonitor`` event should be, because other programs remove rules that are not theirs.
package final class NetworkInstaller: Sendable {
    private let state: NetworkState
    private let links: LinkConfigurator

    package init(state: NetworkState, links: LinkConfigurator) {
        self.state = state
        self.links = links
    }

    /// What was done.
    package struct Report: Sendable {
        /// Changes that were made, in order; none when everything was right already.
        package var performed: [NetworkOperation] = []
        /// Changes that the kernel refused. The others were made all the same: one bad route must not take down a network.
        package var failures: [NetlinkError] = []
        /// The table and priority in use.
        package var allocation: TableAllocation?
    }

    /// Undoes what this daemon's last run left behind. At every start, before the first interface is opened.
    package func sweep() throws -> Report {
        try self.state.transaction { transaction in
            var report = Report()
            for record in transaction.records.records(ofOwner: self.state.owner, in: self.state.place) {
                try self.undo(record, &transaction, &report)
            }
            return report
        }
    }

    /// Makes the kernel look as `desired`, whatever it looks like now.
    ///
    /// - Throws: ``NetlinkError`` when the kernel cannot be asked, `noInterface` when the interface does not exist; ``NetworkStateError``.
    package func install(network: String, _ desired: DesiredNetwork) throws -> Report {
        let key = RecordKey(owner: self.state.owner, network: network)
        let place = self.state.place
        return try self.state.transaction { transaction in
            var current = CurrentNetwork(
                interfaces: try self.links.interfaces(), rules: try self.rules(), hasIPv6: self.links.hasIPv6)
            guard current.interfaces.contains(where: { $0.name == desired.interface }) else {
                throw NetlinkError.noInterface(desired.interface)
            }
            let record = try self.allocate(
                key, interface: desired.interface, &transaction.records, rules: current.rules)
            current.routes = try self.routes(table: record.table)
            current.settings = try self.settings(
                NetworkPlanner.settings(for: desired, interfaces: current.interfaces))

            let recorded = record.addresses.compactMap { IPAddress($0) }
            let loosenings = NetworkPlanner.interfacesToLoosen(
                for: desired, overlays: transaction.records.interfaces(in: place), current: current)
            var operations: [NetworkOperation] = []
            if desired.mayCoverUnderlay {
                transaction.records.loosen(loosenings, for: key, in: place)
                operations += loosenings.map {
                    .set(path: NetworkPlanner.reversePathFilter($0.interface), value: NetworkPlanner.loose)
                }
            } else {
                operations += NetworkPlanner.restore(
                    transaction.records.unloosen(for: key, in: place), settings: current.settings)
            }
            operations += NetworkPlanner.install(desired, record.allocation, recorded: recorded, current: current)

            // Old and new addresses until the change is made, and the new ones from then on.
            let both = Set(record.addresses).union(desired.addresses.map(\.description)).sorted()
            transaction.records.setAddresses(both, of: key, in: place)
            try transaction.commit()
            var report = Report()
            report.allocation = record.allocation
            self.perform(operations, &report)
            if report.failures.isEmpty {
                transaction.records.setAddresses(desired.addresses.map(\.description), of: key, in: place)
                try transaction.commit()
            }
            return report
        }
    }

    /// Undoes `install`. Succeeds when there is nothing to undo, and when the interface is gone.
    package func remove(network: String) throws -> Report {
        let key = RecordKey(owner: self.state.owner, network: network)
        return try self.state.transaction { transaction in
            var report = Report()
            if let record = transaction.records.record(key, in: self.state.place) {
                try self.undo(record, &transaction, &report)
            }
            return report
        }
    }

    private func undo(
        _ record: NetworkRecords.Record, _ transaction: inout NetworkState.Transaction, _ report: inout Report
    ) throws {
        let freed = transaction.records.unloosen(for: record.key, in: record.place)
        let current = CurrentNetwork(
            interfaces: try self.links.interfaces(), routes: try self.routes(table: record.table),
            rules: try self.rules(),
            settings: try self.settings(freed.map { NetworkPlanner.reversePathFilter($0.interface) }),
            hasIPv6: self.links.hasIPv6)
        let operations =
            NetworkPlanner.remove(
                interface: record.interface, record.allocation,
                recorded: record.addresses.compactMap { IPAddress($0) }, current: current)
            + NetworkPlanner.restore(freed, settings: current.settings)
        let failures = report.failures.count
        self.perform(operations, &report)
        // What could not be undone stays recorded, for the next start.
        if report.failures.count == failures {
            transaction.records.release(record.key, in: record.place)
            try transaction.commit()
        }
    }

    private func perform(_ operations: [NetworkOperation], _ report: inout Report) {
        for operation in operations {
            do {
                try self.links.perform(operation)
                report.performed.append(operation)
            } catch {
                report.failures.append(error)
            }
        }
    }

    private var families: [IPAddress.Family] { self.links.hasIPv6 ? [.ipv4, .ipv6] : [.ipv4] }

    private func rules() throws(NetlinkError) -> [PolicyRule] {
        var rules: [PolicyRule] = []
        for family in self.families { rules += try self.links.rules(family) }
        return rules
    }

    private func routes(table: UInt32) throws(NetlinkError) -> [Route] {
        var routes: [Route] = []
        for family in self.families { routes += try self.links.routes(family, table: table) }
        return routes
    }

    /// The record of a network, with a table in which nobody else has routes.
    private func allocate(
        _ key: RecordKey, interface: String, _ records: inout NetworkRecords, rules: [PolicyRule]
    ) throws -> NetworkRecords.Record {
        let isKnown = records.record(key, in: self.state.place) != nil
        var usedTables = Set(rules.map(\.table))
        while true {
            var trial = records
            let record = try trial.allocate(
                key, interface: interface, in: self.state.place, usedTables: usedTables,
                usedPriorities: Set(rules.map(\.priority)))
            if try isKnown || self.routes(table: record.table).isEmpty {
                records = trial
                return record
            }
            usedTables.insert(record.table)
        }
    }

    private func settings(_ paths: [String]) throws(NetlinkError) -> [String: String] {
        var values: [String: String] = [:]
        for path in paths { values[path] = try self.links.setting(path) }
        return values
    }
}
