internal import ControlAPI
internal import LibP2P
internal import Logging
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix
internal import OverlayCore
internal import Synchronization
internal import TunnelDevice

/// The running VPN: host, networks, kernel. What the local API and signals act on.
///
/// Starting, changing and stopping happen one after the other; packets never come here.
actor DaemonCore {
    nonisolated let host: LibP2P.Host
    nonisolated let overlay: Overlay

    private let options: DaemonOptions
    private let logger: Logger
    private let installer: NetworkInstaller
    private let choices: NetworkChoices
    private let overlayPrefixes: OverlayPrefixes
    private var monitor: RouteMonitor?
    private var configuration: DaemonConfiguration
    private var added: [String: [NetworkPlan.AddedRoute]] = [:]
    private var removed: [String: Set<IPPrefix>] = [:]
    private var indices: [String: [PeerID: PeerIndex]] = [:]
    private var operators: [String]
    private var isStopped = false

    /// Brings everything up. What was changed before a failure is undone.
    static func start(
        _ options: DaemonOptions, group: MultiThreadedEventLoopGroup, logger: Logger,
        onFailure: @escaping @Sendable (String) -> Void
    ) async throws -> DaemonCore {
        // 1. What can be wrong without the machine having to change.
        let key = try DaemonSetup.identity(in: options.statePath)
        let parsed = try DaemonSetup.configuration(options, ownPeerID: PeerID(key.publicKey))
        for warning in parsed.warnings { logger.warning("\(warning)") }
        let configuration = parsed.configuration
        let plans = try DaemonSetup.plans(configuration, localPeer: PeerID(key.publicKey), file: options.configPath)

        // 2. The ports.
        let membership = Membership()
        let prefixes = OverlayPrefixes()
        prefixes.set(plans.flatMap { $0.plan.addresses.prefixes })
        let host = LibP2P.Host(
            DaemonSetup.hostConfiguration(
                configuration, key: key, options: options, membership: membership, prefixes: prefixes, logger: logger),
            group: group)
        // Who belongs is known before anybody comes in: until a network is up its members hear that it is down.
        let eventLoop = group.next()
        let overlay = Overlay(
            host: host, membership: membership, eventLoop: eventLoop, keyLifetime: Environment.keyLifetime,
            logger: logger
        ) { name, error in onFailure("network \(name): \(error)") }
        try await eventLoop.submit {
            overlay.start()
            for plan in plans { overlay.hold(plan.plan) }
        }.get()
        do {
            try await host.start()
        } catch let error as ListenError {
            throw DaemonSetup.explain(error, file: options.configPath)
        }

        // 3. The kernel.
        let installer: NetworkInstaller
        do {
            installer = NetworkInstaller(
                state: try NetworkState(directory: DaemonSetup.lockDirectory, owner: options.statePath),
                links: try LinkConfigurator())
            let swept = try installer.sweep()
            if !swept.performed.isEmpty {
                logger.notice("undid what the last run left", metadata: ["changes": "\(swept.performed.count)"])
            }
        } catch {
            await host.shutDown()
            throw DaemonError.system(String(describing: error))
        }
        let core = DaemonCore(
            options: options, configuration: configuration, host: host, overlay: overlay, installer: installer,
            prefixes: prefixes, logger: logger)
        do {
            try await core.bringUp(plans)
        } catch {
            await core.stop()
            throw error
        }
        return core
    }

    private init(
        options: DaemonOptions, configuration: DaemonConfiguration, host: LibP2P.Host, overlay: Overlay,
        installer: NetworkInstaller, prefixes: OverlayPrefixes, logger: Logger
    ) {
        self.options = options
        self.configuration = configuration
        self.host = host
        self.overlay = overlay
        self.installer = installer
        self.overlayPrefixes = prefixes
        self.choices = NetworkChoices(directory: options.statePath)
        self.operators = configuration.operators
        self.logger = logger
    }

    private func bringUp(_ plans: [DaemonSetup.Plan]) async throws {
        for plan in plans {
            self.indices[plan.plan.configuration.name] = plan.indices
            if !self.choices.isDown(plan.plan.configuration.name) { try await self.open(plan.plan) }
        }
        let monitor: RouteMonitor
        do {
            monitor = try RouteMonitor { [weak self] change in
                guard let self else { return }
                Task { await self.machineChanged(change) }
            }
            monitor.setOverlayInterfaces(try await self.onLoop { Set($0.networks.map(\.device.index)) })
            try monitor.start()
        } catch {
            throw DaemonError.system("cannot watch the machine's network: \(error)")
        }
        self.monitor = monitor
    }

    /// Undoes everything. Safe to repeat.
    func stop() async {
        guard !self.isStopped else { return }
        self.isStopped = true
        self.monitor?.stop()
        for network in self.configuration.networks { self.remove(network.name) }
        try? await self.onLoop { $0.stop() }
        await self.host.shutDown()
    }

    // MARK: Networks

    private func open(_ plan: NetworkPlan) async throws {
        let interface = plan.configuration.interface
        let device: LinuxTUN
        do {
            device = try LinuxTUN.open(
                name: interface, offload: Environment.value(of: "WARREN_OFFLOAD") != "off")
        } catch {
            throw DaemonError.system(error.description)
        }
        try self.install(plan)
        try await self.onLoop { try $0.add(device: device, plan: plan) }
        self.logger.notice(
            "network up",
            metadata: [
                "network": "\(plan.configuration.name)", "interface": "\(interface)",
                "ips": "\(plan.ownIPs.map(\.description))", "offload": "\(device.offload)",
            ])
    }

    private func install(_ plan: NetworkPlan) throws {
        do {
            let report = try self.installer.install(network: plan.configuration.name, plan.desired)
            for failure in report.failures {
                self.logger.error(
                    "kernel refused", metadata: ["network": "\(plan.configuration.name)", "reason": "\(failure)"])
            }
        } catch {
            throw DaemonError.system(String(describing: error))
        }
    }

    private func remove(_ network: String) {
        do {
            let report = try self.installer.remove(network: network)
            for failure in report.failures {
                self.logger.warning("not undone", metadata: ["network": "\(network)", "reason": "\(failure)"])
            }
        } catch {
            self.logger.warning("not undone", metadata: ["network": "\(network)", "reason": "\(error)"])
        }
    }

    /// Other programs remove rules that are not theirs, links go and come.
    private func machineChanged(_ change: NetworkChange) async {
        guard !self.isStopped else { return }
        let plans = (try? await self.onLoop { $0.networks.map(\.plan) }) ?? []
        for plan in plans {
            do { try self.install(plan) } catch { self.logger.error("\(error)") }
        }
        guard !change.kinds.isDisjoint(with: [.links, .addresses, .routes]) else { return }
        self.logger.debug("the machine's network changed")
        try? await self.onLoop { $0.networkChanged() }
    }

    /// Computes a network's plan anew and puts it to work.
    private func replan(_ name: String) async throws {
        guard let network = self.configuration.networks.first(where: { $0.name == name }) else { return }
        var indices = self.indices[name] ?? [:]
        let plan: NetworkPlan
        do {
            plan = try NetworkPlan(
                network, localPeer: self.host.peerID, localName: self.configuration.name, indices: &indices,
                added: self.added[name] ?? [], removed: self.removed[name] ?? [])
        } catch {
            throw ControlRefusal(.unprocessableEntity, String(describing: error))
        }
        self.indices[name] = indices
        let isUp = try await self.onLoop { overlay in
            guard overlay.network(name) != nil else {
                overlay.hold(plan)
                return false
            }
            overlay.apply(plan)
            return true
        }
        if isUp { try self.install(plan) }
    }

    private func onLoop<Value: Sendable>(_ body: @escaping @Sendable (Overlay) throws -> Value) async throws -> Value {
        let overlay = self.overlay
        return try await overlay.eventLoop.submit { try body(overlay) }.get()
    }
}

extension DaemonCore: ControlService {
    func mayChange(user: UInt32) -> Bool { Operators.mayChange(user: user, groups: self.operators) }

    func status() async -> StatusReport {
        let host = self.host
        let order = self.configuration.networks.map(\.name)
        var report = (try? await self.onLoop { StatusReporter($0, host: host).report() })
        report?.networks.sort { (order.firstIndex(of: $0.name) ?? 0) < (order.firstIndex(of: $1.name) ?? 0) }
        return report
            ?? StatusReport(
                peerID: host.peerID.description, uptimeSeconds: 0, listen: [], observed: [], reachability: .unknown,
                relays: [], networks: [])
    }

    func peers() async -> PeerList {
        let report = await self.status()
        var details: [PeerDetail] = []
        for network in report.networks {
            for peer in network.peers {
                guard let id = try? PeerID(peer.id) else { continue }
                var agent = ""
                if let connection = await self.host.swarm.connections(to: id).last,
                    let info = try? await self.host.identify.info(of: connection)
                {
                    agent = info.agentVersion ?? ""
                }
                let configured =
                    self.configuration.networks.first { $0.name == network.name }?
                    .peers.first { $0.id == id }?.addresses ?? []
                let addresses = AddressReporter.report(
                    configured: configured, known: self.host.peerStore.report(of: id), now: .now())
                details.append(
                    PeerDetail(
                        network: network.name, peer: peer, agent: agent,
                        protocols: self.host.peerStore.protocols(of: id), addresses: addresses))
            }
        }
        return PeerList(peers: details, dialling: AddressReporter.report(await self.host.swarm.dialReport()))
    }

    func routes() async -> RouteList {
        let plans = (try? await self.onLoop { $0.networks.map(\.plan) }) ?? []
        return RouteList(
            routes: plans.flatMap { plan -> [RouteEntry] in
                let added = Set((self.added[plan.configuration.name] ?? []).map(\.prefix))
                func entry(_ prefix: IPPrefix, _ member: Member, _ source: RouteEntry.Source) -> RouteEntry {
                    RouteEntry(
                        network: plan.configuration.name, route: prefix.description, peer: member.peer.description,
                        name: member.name, source: source)
                }
                return plan.members.flatMap { member in
                    member.ips.map { entry(IPPrefix(host: $0), member, .member) }
                }
                    + plan.members.flatMap { member in
                        member.routes.map { entry($0, member, added.contains($0) ? .addedByOperator : .configuration) }
                    }
            })
    }

    func add(_ request: RouteRequest) async throws -> Done {
        let network = try self.network(request.network)
        let prefix = try Self.prefix(request.route)
        guard let wanted = request.peer else { throw ControlRefusal(.badRequest, "a route leads to a peer: name one") }
        let peer = try self.peer(wanted, in: [network])
        for other in self.configuration.networks {
            for entry in other.peers {
                let routes =
                    entry.routes.filter { !(self.removed[other.name] ?? []).contains($0) }
                    + (self.added[other.name] ?? []).filter { $0.peer == entry.id }.map(\.prefix)
                if let overlap = routes.first(where: { $0.overlaps(prefix) }), entry.id != peer.id || overlap == prefix
                {
                    throw ControlRefusal(
                        .conflict, "\(prefix) overlaps \(overlap) of '\(entry.name)' in network '\(other.name)'",
                        fix: "delete that route first")
                }
            }
        }
        if prefix.length == 0 { throw ControlRefusal(.unprocessableEntity, "\(prefix) is the default route") }
        let plans = (try? await self.onLoop { $0.networks.map(\.plan) }) ?? []
        if let covered = plans.flatMap(\.addresses.prefixes).first(where: { $0.overlaps(prefix) }) {
            throw ControlRefusal(.unprocessableEntity, "\(prefix) overlaps \(covered), which holds overlay addresses")
        }
        self.added[network.name, default: []].append(NetworkPlan.AddedRoute(prefix: prefix, peer: peer.id))
        self.removed[network.name]?.remove(prefix)
        try await self.replan(network.name)
        return Done(message: "\(prefix) leads to \(peer.name) until the daemon ends")
    }

    func delete(_ request: RouteRequest) async throws -> Done {
        let network = try self.network(request.network)
        let prefix = try Self.prefix(request.route)
        let condition = try request.peer.map { try self.peer($0, in: [network]).id }
        if let index = self.added[network.name]?.firstIndex(where: {
            $0.prefix == prefix && (condition == nil || $0.peer == condition)
        }) {
            self.added[network.name]?.remove(at: index)
        } else if network.peers.contains(where: {
            $0.routes.contains(prefix) && (condition == nil || $0.id == condition)
        }), !(self.removed[network.name] ?? []).contains(prefix) {
            self.removed[network.name, default: []].insert(prefix)
        } else {
            throw ControlRefusal(.notFound, "no such route: \(prefix)", fix: "see 'warren route show'")
        }
        try await self.replan(network.name)
        return Done(message: "\(prefix) is gone until the daemon ends")
    }

    func setNetwork(_ name: String, up: Bool) async throws -> Done {
        let network = try self.network(name)
        let isUp = try await self.onLoop { $0.network(name) != nil }
        try self.choices.setDown(!up, name)
        guard isUp != up else { return Done(message: "") }
        if up {
            var indices = self.indices[name] ?? [:]
            let plan = try NetworkPlan(
                network, localPeer: self.host.peerID, localName: self.configuration.name, indices: &indices,
                added: self.added[name] ?? [], removed: self.removed[name] ?? [])
            self.indices[name] = indices
            try await self.open(plan)
        } else {
            self.remove(name)
            try await self.onLoop { $0.takeDown(name) }
        }
        let interfaces = try await self.onLoop { Set($0.networks.map(\.device.index)) }
        self.monitor?.setOverlayInterfaces(interfaces)
        return Done(message: "network \(name) is \(up ? "up" : "down")")
    }

    func reload() async throws -> ReloadReport {
        let parsed = try DaemonSetup.configuration(self.options, ownPeerID: self.host.peerID)
        let difference = self.configuration.difference(to: parsed.configuration)
        let next = self.configuration.reloaded(with: parsed.configuration)
        _ = try DaemonSetup.plans(next, localPeer: self.host.peerID, file: self.options.configPath)
        self.configuration = next
        self.operators = next.operators
        for network in difference.networks { try await self.replan(network.network) }
        return ReloadReport(
            changes: difference.lines, restartRequired: difference.restartRequired,
            warnings: parsed.warnings.map(\.description))
    }

    func ping(_ request: PingRequest, answer: @Sendable (PingReply) async -> Bool) async throws {
        guard (1...PingRequest.maximumCount).contains(request.count),
            PingRequest.millisecondsRange.contains(request.intervalMilliseconds),
            PingRequest.millisecondsRange.contains(request.timeoutMilliseconds)
        else { throw ControlRefusal(.badRequest, "count, interval or timeout is out of range") }
        let networks = try request.network.map { [try self.network($0)] } ?? self.configuration.networks
        let peer = try self.peer(request.peer, in: networks)
        guard let network = networks.first(where: { $0.peers.contains { $0.id == peer.id } }) else { return }
        for sequence in 1...request.count {
            let started = NIODeadline.now()
            let reply = await self.probe(
                peer, in: network.name, sequence: sequence, timeout: .milliseconds(Int64(request.timeoutMilliseconds)))
            guard await answer(reply) else { return }
            guard sequence < request.count else { return }
            let next = started + .milliseconds(Int64(request.intervalMilliseconds))
            let wait = next - .now()
            if wait > .zero { try await Task.sleep(for: .nanoseconds(wait.nanoseconds)) }
        }
    }

    func perf(_ request: PerfRequest, answer: @Sendable (PerfReply) async -> Bool) async throws {
        let amount = try Measurement.amount(of: request)
        let networks = try request.network.map { [try self.network($0)] } ?? self.configuration.networks
        let peer = try self.peer(request.peer, in: networks)
        let connection: any Connection
        do {
            connection = try await self.connection(to: peer)
        } catch {
            _ = await answer(
                PerfReply(
                    peer: peer.id.description, name: peer.name, direction: PerfDirection.upload.rawValue, done: true,
                    error: String(describing: error)))
            return
        }
        await Measurement(peer: peer, connection: connection, amount: amount, service: self.host.perf)
            .run(answer: answer)
    }

    // MARK: Details

    /// The connection that packets to the peer go over, otherwise any, otherwise a new one.
    private func connection(to peer: PeerConfiguration) async throws -> any Connection {
        let sending = try await self.onLoop { overlay -> (any Connection)? in
            guard let link = overlay.links[peer.id] else { return nil }
            return link.entries.first { entry in
                link.tunnels.contains { $0.tunnel.sends(on: entry.connection) }
            }?.connection
        }
        if let sending { return sending }
        return try await self.host.connect(to: peer.id, at: peer.addresses)
    }

    private func probe(_ peer: PeerConfiguration, in network: String, sequence: Int, timeout: TimeAmount) async
        -> PingReply
    {
        var reply = PingReply(sequence: sequence, peer: peer.id.description, name: peer.name, ip: "")
        let overlay = self.overlay
        let answer = overlay.eventLoop.flatSubmit { () -> EventLoopFuture<PeerTunnel.PingAnswer> in
            guard let tunnel = overlay.network(network)?.tunnels[peer.id] else {
                return overlay.eventLoop.makeFailedFuture(TunnelError.notConnected("the network is down"))
            }
            if !tunnel.isUp { overlay.links[peer.id]?.trafficWaits() }
            return tunnel.ping(timeout: timeout)
        }
        let plans = (try? await self.onLoop { $0.networks.map(\.plan) }) ?? []
        let member = plans.first { $0.configuration.name == network }?.members.first { $0.peer == peer.id }
        reply.ip = member?.ips.first?.description ?? ""
        do {
            let answer = try await answer.get()
            reply.address = answer.connection.remoteAddress.description
            reply.transport = answer.connection.details.transport
            reply.relay = answer.connection.details.relay?.description
            reply.lane = "stream"
            reply.rttMilliseconds = Double(answer.nanoseconds) / 1_000_000
        } catch {
            reply.error = String(describing: error)
        }
        return reply
    }

    private func network(_ name: String?) throws -> NetworkConfiguration {
        guard let name else {
            guard self.configuration.networks.count == 1, let only = self.configuration.networks.first else {
                throw ControlRefusal(
                    .badRequest, "there are several networks",
                    fix: "name one of \(self.configuration.networks.map(\.name).joined(separator: ", "))")
            }
            return only
        }
        guard let network = self.configuration.networks.first(where: { $0.name == name }) else {
            throw ControlRefusal(
                .notFound, "no network \(OperatorText.quoted(name))",
                fix: "known: \(self.configuration.networks.map(\.name).joined(separator: ", "))")
        }
        return network
    }

    private func peer(_ text: String, in networks: [NetworkConfiguration]) throws -> PeerConfiguration {
        let peers = networks.flatMap(\.peers)
        do {
            let found = try PeerSelection.resolve(
                text, among: peers.map { .init(id: $0.id.description, name: $0.name) })
            guard let peer = peers.first(where: { $0.id.description == found.id }) else {
                throw PeerSelection.SelectionError.unknownPeer(text)
            }
            return peer
        } catch let error as PeerSelection.SelectionError {
            throw ControlRefusal(.notFound, error.fact, fix: error.fix)
        }
    }

    private static func prefix(_ text: String) throws -> IPPrefix {
        guard let prefix = IPPrefix(text) else {
            throw ControlRefusal(
                .badRequest, "\(OperatorText.quoted(text)) is not a prefix", fix: "write it like 192.168.7.0/24")
        }
        return prefix
    }
}
