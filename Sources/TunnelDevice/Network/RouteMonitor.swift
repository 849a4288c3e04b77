import CLinux
import CNetlink
import Glibc
import Synchronization

/// Watches links, addresses, routes and rules of this network namespace, on a thread of its own.
///
/// Events are coalesced (``ChangeCoalescer``), so a laptop that wakes up is one change, not fifty; nothing is queued but a few bits, so a
/// flood costs no memory. Links and addresses are compared with how they were before: a refreshed lifetime is no change.
package final class RouteMonitor: Sendable {
    private let handler: @Sendable (NetworkChange) -> Void
    private let events: NetlinkEvents
    private let links: LinkConfigurator
    private let wake: Int32
    private let stopping = Atomic<Bool>(false)
    private let thread = Mutex<WorkerThread?>(nil)
    private let overlays = Mutex<Set<Int32>>([])

    /// A monitor that sees from now on, and tells from ``start()`` on.
    ///
    /// - Parameter handler: Called on the monitor's thread, which waits for it.
    /// - Throws: ``NetlinkError`` or ``WorkerThreadError``.
    package init(handler: @escaping @Sendable (NetworkChange) -> Void) throws {
        self.handler = handler
        self.events = try NetlinkEvents()
        self.links = try LinkConfigurator()
        let wake = clinux_eventfd()
        if wake < 0 { throw WorkerThreadError.noEventDescriptor(errno: -wake) }
        self.wake = wake
    }

    deinit { close(self.wake) }

    /// Says which interfaces (by index) are our own tunnels: what happens to them is ``NetworkChange/Kinds/overlay``.
    /// To be called as soon as one is opened, before it gets addresses.
    package func setOverlayInterfaces(_ indices: Set<Int32>) {
        self.overlays.withLock { $0 = indices }
    }

    /// Starts the thread. It holds the monitor until ``stop()``. A second call does nothing.
    package func start() throws(WorkerThreadError) {
        try self.thread.withLock { thread throws(WorkerThreadError) in
            if thread == nil { thread = try WorkerThread(name: "warren-routes") { self.run() } }
        }
    }

    /// Ends the thread and waits for it: afterwards the handler is not called any more. Safe to repeat, and from the handler.
    package func stop() {
        self.stopping.store(true, ordering: .releasing)
        _ = clinux_eventfd_signal(self.wake)
        self.thread.withLock { $0 }?.join()
    }

    private func run() {
        var coalescer = ChangeCoalescer()
        var interfaces = (try? self.links.interfaces()) ?? []
        var waits = [
            pollfd(fd: self.events.descriptor, events: Int16(POLLIN), revents: 0),
            pollfd(fd: self.wake, events: Int16(POLLIN), revents: 0),
        ]
        while !self.stopping.load(ordering: .acquiring) {
            let wait = coalescer.deadline.map { ContinuousClock.now.duration(to: $0) }
            if poll(&waits, nfds_t(waits.count), wait.map(Self.milliseconds) ?? -1) > 0, waits[0].revents != 0 {
                coalescer.record(
                    self.events.read(overlays: self.overlays.withLock { $0 }), now: ContinuousClock.now)
            }
            guard let kinds = coalescer.takeIfDue(now: ContinuousClock.now) else { continue }
            let before = interfaces
            // Without a new listing the events themselves must do.
            let listing = try? self.links.interfaces()
            interfaces = listing ?? before
            let change = NetworkChange(
                events: kinds, before: listing == nil ? nil : before, after: interfaces,
                overlays: self.overlays.withLock { $0 })
            if !change.kinds.isEmpty, !self.stopping.load(ordering: .acquiring) { self.handler(change) }
        }
    }

    /// Rounded up, so that the deadline has passed when `poll` returns.
    private static func milliseconds(_ duration: Duration) -> Int32 {
        let (seconds, attoseconds) = duration.components
        return Int32(clamping: max(0, seconds * 1_000 + attoseconds / 1_000_000_000_000_000 + 1))
    }
}

/// What has changed in the network configuration of this machine.
package struct NetworkChange: Hashable, Sendable {
    /// Kinds of change.
    package struct Kinds: OptionSet, Hashable, Sendable {
        package let rawValue: UInt8

        package init(rawValue: UInt8) { self.rawValue = rawValue }

        /// A physical interface came, went, or was switched on or off, by hand or by its cable.
        package static let links = Self(rawValue: 1)
        /// An address of a physical interface came, went, or became usable.
        package static let addresses = Self(rawValue: 2)
        /// A route or rule that is not ours came or went.
        package static let routes = Self(rawValue: 4)
        /// Something of ours may have been taken away or altered: install again.
        package static let overlay = Self(rawValue: 8)
    }

    package var kinds: Kinds
    /// All interfaces as they are now, our own included.
    package var interfaces: [NetworkInterface]

    /// - Parameters:
    ///   - before: How interfaces were at the last change; `nil` when comparing is impossible, so that events count as they are.
    ///   - overlays: The indices of our own interfaces.
    init(events: Kinds, before: [NetworkInterface]?, after: [NetworkInterface], overlays: Set<Int32>) {
        self.kinds = events
        self.interfaces = after
        guard let before else { return }
        let old = before.filter { !overlays.contains($0.index) }
        let new = after.filter { !overlays.contains($0.index) }
        self.kinds.subtract([.links, .addresses])
        if Self.links(of: old) != Self.links(of: new) { self.kinds.insert(.links) }
        if Self.addresses(of: old) != Self.addresses(of: new) { self.kinds.insert(.addresses) }
    }

    private struct Link: Hashable {
        let index: Int32
        let name: String
        let isUp: Bool
        let isRunning: Bool
        let mtu: Int
    }

    private static func links(of interfaces: [NetworkInterface]) -> Set<Link> {
        Set(
            interfaces.map {
                Link(index: $0.index, name: $0.name, isUp: $0.isUp, isRunning: $0.isRunning, mtu: $0.mtu)
            })
    }

    private static func addresses(of interfaces: [NetworkInterface]) -> [Int32: Set<InterfaceAddress>] {
        Dictionary(uniqueKeysWithValues: interfaces.map { ($0.index, Set($0.addresses)) }).filter { !$0.value.isEmpty }
    }
}

/// Joins events that come close together. Pure: time is a parameter.
struct ChangeCoalescer {
    /// A change is told when nothing has happened for so long.
    static let quiet: Duration = .milliseconds(100)
    /// A change is told at the latest so long after its first event, even while others keep coming.
    static let limit: Duration = .milliseconds(500)

    private var pending: (kinds: NetworkChange.Kinds, first: ContinuousClock.Instant, last: ContinuousClock.Instant)?

    /// When ``takeIfDue(now:)`` will have something.
    var deadline: ContinuousClock.Instant? {
        self.pending.map { min($0.last + Self.quiet, $0.first + Self.limit) }
    }

    /// Notes events; none changes nothing.
    mutating func record(_ kinds: NetworkChange.Kinds, now: ContinuousClock.Instant) {
        if kinds.isEmpty { return }
        self.pending = (self.pending?.kinds.union(kinds) ?? kinds, self.pending?.first ?? now, now)
    }

    /// What is to be told now.
    mutating func takeIfDue(now: ContinuousClock.Instant) -> NetworkChange.Kinds? {
        guard let deadline = self.deadline, deadline <= now else { return nil }
        defer { self.pending = nil }
        return self.pending?.kinds
    }
}

/// A routing socket that the kernel tells about changes.
///
/// Sendable because after `init` only the monitor's thread uses it, and `deinit` comes after that.
private final class NetlinkEvents: @unchecked Sendable {
    private let handle: OpaquePointer

    /// The most datagrams read before others get their turn.
    private static let maximumDatagrams = 256
    /// What the kernel keeps for us, in bytes. Beyond it it drops events and says so.
    private static let bufferBytes: Int32 = 256 * 1024

    init() throws(NetlinkError) {
        guard let handle = nl_socket_alloc() else { throw .outOfMemory }
        self.handle = handle
        var code = nl_connect(handle, NETLINK_ROUTE)
        let groups = [
            RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE,
            RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE,
        ]
        for group in groups where code >= 0 {
            code = nl_socket_add_membership(handle, Int32(truncatingIfNeeded: group.rawValue))
        }
        if code >= 0 { code = nl_socket_set_nonblocking(handle) }
        if code >= 0 { code = nl_socket_set_buffer_size(handle, Self.bufferBytes, 0) }
        if code < 0 { throw .unavailable(reason: String(cString: nl_geterror(code))) }
    }

    deinit { nl_socket_free(self.handle) }

    var descriptor: Int32 { nl_socket_get_fd(self.handle) }

    /// Reads what has come. An overflow counts as every kind of change.
    func read(overlays: Set<Int32>) -> NetworkChange.Kinds {
        var kinds: NetworkChange.Kinds = []
        for _ in 0..<Self.maximumDatagrams {
            var sender = sockaddr_nl()
            var buffer: UnsafeMutablePointer<UInt8>?
            let count = nl_recv(self.handle, &sender, &buffer, nil)
            defer { free(buffer) }
            if count == -NLE_AGAIN || count == 0 { break }
            guard let buffer, count > 0 else { return [.links, .addresses, .routes, .overlay] }
            // Other processes can send to our port; only port 0 is the kernel.
            guard sender.nl_pid == 0 else { continue }
            let datagram = UnsafeMutableRawBufferPointer(start: buffer, count: Int(count))
            kinds = eachMessage(in: datagram) { NetworkChange.Kinds($0, overlays: overlays) }
                .reduce(kinds) { $0.union($1) }
        }
        return kinds
    }
}

extension NetworkChange.Kinds {
    /// What one message of the kernel is about.
    init(_ message: NetlinkMessage, overlays: Set<Int32>) {
        switch message.type {
        case RTM_NEWLINK, RTM_DELLINK:
            guard let body: ifinfomsg = message.body() else { break }
            self = overlays.contains(body.ifi_index) ? .overlay : .links
            return
        case RTM_NEWADDR, RTM_DELADDR:
            guard let body: ifaddrmsg = message.body() else { break }
            self = overlays.contains(Int32(bitPattern: body.ifa_index)) ? .overlay : .addresses
            return
        case RTM_NEWROUTE, RTM_DELROUTE:
            guard let body: rtmsg = message.body(), body.rtm_flags & UInt32(RTM_F_CLONED) == 0,
                // The table of local addresses follows from addresses, of which we hear anyway.
                UInt32(body.rtm_table) != RT_TABLE_LOCAL.rawValue
            else { break }
            let index = message.integer(Int(RTA_OIF.rawValue), after: rtmsg.self).map { Int32(truncatingIfNeeded: $0) }
            if body.rtm_protocol == overlayProtocol || index.map(overlays.contains) == true {
                // What we add ourselves is no news. What we delete ourselves is, once, and leads to an empty plan.
                self = message.type == RTM_DELROUTE ? .overlay : []
            } else {
                self = .routes
            }
            return
        case RTM_NEWRULE, RTM_DELRULE:
            let isOurs = message.byte(FRA_PROTOCOL, after: fib_rule_hdr.self) == overlayProtocol
            self = !isOurs ? .routes : message.type == RTM_DELRULE ? .overlay : []
            return
        default: break
        }
        self = []
    }
}
