import CNetlink
import Glibc
package import Multiformats
import Synchronization

/// Reads and changes links, addresses, routes and rules of the network namespace it was made in.
///
/// Control plane only: calls block while the kernel answers, one at a time.
package final class LinkConfigurator: Sendable {
    private let socket: Mutex<NetlinkSocket>

    /// - Throws: ``NetlinkError/unavailable(reason:)`` where the process may not open a routing socket.
    package init() throws(NetlinkError) {
        self.socket = Mutex(try NetlinkSocket())
    }

    /// Whether the kernel has IPv6. Booted with `ipv6.disable=1` it has not, and every IPv6 address or route would fail.
    package var hasIPv6: Bool { access("/proc/sys/net/ipv6", F_OK) == 0 }

    /// All interfaces with their addresses, by index.
    package func interfaces() throws(NetlinkError) -> [NetworkInterface] {
        let links = try self.dump(NetlinkRequest.listLinks()) { NetworkInterface($0) }
        let addresses = try self.dump(NetlinkRequest.listAddresses()) { InterfaceAddress.read($0) }
        let grouped = Dictionary(grouping: addresses, by: \.index)
        return links.map { link in
            var link = link
            link.addresses = grouped[link.index, default: []].map(\.address)
            return link
        }.sorted { $0.index < $1.index }
    }

    /// The policy rules of one family, in the order they apply.
    package func rules(_ family: IPAddress.Family) throws(NetlinkError) -> [PolicyRule] {
        try self.dump(NetlinkRequest.listRules(family)) { PolicyRule($0) }.filter { $0.family == family }
    }

    /// The routes of one family in one table.
    package func routes(_ family: IPAddress.Family, table: UInt32) throws(NetlinkError) -> [Route] {
        let routes: [Route]
        do {
            routes = try self.dump(NetlinkRequest.listRoutes(family, table: table)) {
                Route($0) { self.name(of: $0) }
            }
        } catch .refused(_, ENOENT, _) {
            // The kernel makes a table with its first route.
            return []
        }
        return routes.filter { $0.table == table && $0.prefix.address.family == family }
    }

    /// The value of a file under `/proc/sys`; `nil` when there is no such file.
    package func setting(_ path: String) throws(NetlinkError) -> String? { try KernelSetting.read(path) }

    /// Makes one change. Adding what is there and deleting what is gone succeed.
    package func perform(_ operation: NetworkOperation) throws(NetlinkError) {
        switch operation {
        case .set(let path, let value):
            try KernelSetting.write(path, value)
        case .setLink(let name, let up):
            try self.send(NetlinkRequest.changeLink(self.index(of: name), up: up, for: operation))
        case .setMTU(let name, let bytes):
            try self.send(NetlinkRequest.changeLink(self.index(of: name), mtu: bytes, for: operation))
        case .setQueueLength(let name, let packets):
            try self.send(NetlinkRequest.changeLink(self.index(of: name), queueLength: packets, for: operation))
        case .addAddress(let address, let name):
            try self.send(NetlinkRequest.addAddress(address, index: self.index(of: name), for: operation))
        case .addRoute(let route):
            let index = try route.interface.map { name throws(NetlinkError) in try self.index(of: name) }
            try self.send(NetlinkRequest.addRoute(route, index: index, for: operation))
        case .addRule(let rule):
            try self.send(NetlinkRequest.rule(rule, adding: true, for: operation), tolerating: [EEXIST])
        case .deleteAddress(let address, let name):
            guard let index = self.existingIndex(of: name) else { return }
            try self.send(
                NetlinkRequest.deleteAddress(address, index: index, for: operation),
                tolerating: [EADDRNOTAVAIL, ENODEV])
        case .deleteRoute(let route):
            let index = route.interface.flatMap { self.existingIndex(of: $0) }
            if route.interface != nil, index == nil { return }
            try self.send(
                NetlinkRequest.deleteRoute(route, index: index, for: operation), tolerating: [ESRCH, ENODEV, ENOENT])
        case .deleteRule(let rule):
            try self.send(NetlinkRequest.rule(rule, adding: false, for: operation), tolerating: [ENOENT, ESRCH])
        }
    }

    private func send(
        _ request: borrowing NetlinkRequest, tolerating accepted: [Int32] = []
    ) throws(NetlinkError) {
        do {
            try self.socket.withLock { socket throws(NetlinkError) in try socket.perform(request) }
        } catch .refused(_, let code, _) where accepted.contains(code) {
            return
        }
    }

    private func dump<Element: Sendable>(
        _ request: borrowing NetlinkRequest, _ transform: (NetlinkMessage) -> Element?
    ) throws(NetlinkError) -> [Element] {
        try self.socket.withLock { socket throws(NetlinkError) in try socket.dump(request, transform) }
    }

    private func index(of name: String) throws(NetlinkError) -> Int32 {
        guard let index = self.existingIndex(of: name) else { throw .noInterface(name) }
        return index
    }

    private func existingIndex(of name: String) -> Int32? {
        let index = if_nametoindex(name)
        return index == 0 ? nil : Int32(bitPattern: index)
    }

    private func name(of index: Int32) -> String? {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(IF_NAMESIZE)) { text in
            guard let start = text.baseAddress,
                if_indextoname(UInt32(bitPattern: index), start) != nil
            else { return nil }
            return String(cString: start)
        }
    }
}

/// The interfaces of this machine.
package enum NetworkInterfaces {
    /// All interfaces with their addresses, by index. Needs no privileges.
    package static func current() throws(NetlinkError) -> [NetworkInterface] {
        try LinkConfigurator().interfaces()
    }
}
