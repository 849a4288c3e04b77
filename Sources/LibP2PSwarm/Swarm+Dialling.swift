internal import LibP2PCore
public import Multiformats
internal import NIOCore
internal import PeerIdentity

/// How a swarm gets to a peer:
/// 1. Known addresses and the caller's, without those that the node's rules, back-off or a black hole forbid (``Swarm/sift(_:_:)``).
/// 2. ``DialPlanner`` orders them, ``DialSession`` says which starts when; names are looked up meanwhile and add theirs.
/// 3. ``DialSlots`` bounds what runs at once.
/// 4. The first connection ends all; every failure is kept with its address.
///
/// Event loop only.
extension Swarm {
    /// One dial and all who wait for it.
    struct Dial {
        /// Tells it from an earlier dial of the same peer, whose attempts may still be ending.
        let number: UInt64
        var session: DialSession
        let promise: EventLoopPromise<any Connection>
        let cancellation: EventLoopPromise<Void>
        let budget: Scheduled<Void>
        var timer: Scheduled<Void>?
        /// What addresses were resolved from.
        var names: [Multiaddr: Multiaddr] = [:]
        /// Names that have been looked up; what they stand for is yet to be added.
        var answers: [NameAnswer] = []
        var lookupsUnderWay = 0
        var answerTimer: Scheduled<Void>?
    }

    /// Somebody's wish for a connection.
    struct DialRequest {
        var key: DialKey
        /// The caller's addresses.
        var named: [Multiaddr]
        var options: DialOptions
    }

    /// What a name turned out to stand for.
    struct NameAnswer {
        var name: Multiaddr
        var addresses: [Multiaddr]
        var failure: String?
        var request: DialRequest
    }

    /// An attempt that has made a connection.
    struct FinishedAttempt {
        var address: Multiaddr
        var time: TimeAmount
        var name: Multiaddr?
    }

    /// The longest that one name is looked up.
    static let lookupTimeout = TimeAmount.seconds(5)
    /// How long the answers to some names wait for those to the others, so that all are ranked together (RFC 8305, section 3).
    static let answerDelay = TimeAmount.milliseconds(50)
    /// Names that one dial looks up.
    static let maximumNames = 8

    /// Begins a dial, or joins one.
    func dial(
        _ peer: PeerID, at hints: [Multiaddr], preferring grade: PathGrade?, _ options: DialOptions, forceNew: Bool
    )
        -> EventLoopFuture<any Connection>
    {
        func fail(_ error: DialError) -> EventLoopFuture<any Connection> { self.eventLoop.makeFailedFuture(error) }
        guard !self.isShutDown else { return fail(.shutDown) }
        guard peer != self.localPeer else { return fail(.dialToSelf) }
        if !forceNew, let connection = self.connections[peer]?.last {
            return self.eventLoop.makeSucceededFuture(connection)
        }
        let request = DialRequest(
            key: DialKey(peer: peer, grade: grade), named: hints.map(\.withoutPeerID.unmapped), options: options)
        let known = self.permitted(
            request.named + self.peerStore.addresses(of: peer).map(\.unmapped), for: request.key)
        if let dial = self.dials[request.key] {
            self.extend(dial.number, self.sift(known, request), request)
            return dial.promise.futureResult
        }
        guard self.connectionCount < self.limits.total, self.connections[peer, default: []].count < self.limits.perPeer
        else { return fail(.tooManyConnections) }

        guard !known.isEmpty else { return fail(.noAddresses(peer)) }
        let candidates = self.sift(known, request)
        guard candidates.hasAny else {
            return fail(
                candidates.refused.isEmpty
                    ? .noTransport(Array(known.prefix(DialPlanner.maximumAddresses)))
                    : .allAttemptsFailed(candidates.refused))
        }
        let dial = self.begin(request.key)
        self.extend(dial.number, candidates, request)
        return dial.promise.futureResult
    }

    private func begin(_ key: DialKey) -> Dial {
        let number = self.nextNumber()
        let dial = Dial(
            number: number, session: DialSession(plan: [], now: self.eventLoop.now),
            promise: self.eventLoop.makePromise(), cancellation: self.eventLoop.makePromise(),
            budget: self.eventLoop.scheduleTask(in: self.dialTimeout) { self.runOut(number, key) })
        self.dials[key] = dial
        return dial
    }

    // MARK: Which addresses

    /// What is to become of some addresses.
    private struct Candidates {
        /// To be dialled in their time.
        var free: [Multiaddr] = []
        /// To be dialled so much later.
        var held: [(address: Multiaddr, wait: TimeAmount)] = []
        /// To be looked up.
        var names: [Multiaddr] = []
        /// Not to be dialled, and why.
        var refused: [DialError.Attempt] = []

        var hasAny: Bool { !self.free.isEmpty || !self.held.isEmpty || !self.names.isEmpty }
    }

    /// Those that this node dials at all, each once.
    private func permitted(_ addresses: [Multiaddr], for key: DialKey) -> [Multiaddr] {
        var seen = Set<Multiaddr>()
        return addresses.filter { address in
            if let grade = key.grade, address.protocols.first != .dnsaddr, PathGrade(address) < grade { return false }
            return seen.insert(address).inserted && self.mayDial(address)
        }
    }

    /// What is to become of `addresses`. Those that no transport can dial are left out without a word: there may be others.
    private func sift(_ addresses: [Multiaddr], _ request: DialRequest) -> Candidates {
        var candidates = Candidates()
        let now = self.eventLoop.now
        let records = self.peerStore.dialRecords(of: request.key.peer)
        for address in addresses where self.canDial(address) {
            if address.ipAddress?.isIPv6LinkLocal == true, !address.contains(.ip6zone) {
                candidates.refused.append(.init(address: address, reason: "a link-local address needs a zone"))
                continue
            }
            var wait: TimeAmount?
            if let record = records[address], let retryAt = record.retryAt, retryAt > now {
                switch request.options.backoff {
                case .ignored: break
                case .respectedUnlessNamed where request.named.contains(address): break
                case .heldAtMost(let limit): wait = min(retryAt - now, limit)
                case .respected, .respectedUnlessNamed:
                    candidates.refused.append(
                        .init(address: address, reason: Self.explain(record, wait: retryAt - now)))
                    continue
                }
            }
            if address.beginsWithName {
                candidates.names.append(address)
            } else if let wait {
                candidates.held.append((address, wait))
            } else {
                candidates.free.append(address)
            }
        }
        let surplus = candidates.names.dropFirst(Self.maximumNames)
        candidates.refused += surplus.map { .init(address: $0, reason: "too many names to look up") }
        candidates.names.removeLast(surplus.count)
        self.leaveOutBlackHoles(&candidates, request.key)
        return candidates
    }

    private func leaveOutBlackHoles(_ candidates: inout Candidates, _ key: DialKey) {
        let isAll = candidates.names.isEmpty && self.dials[key]?.session.isBarren ?? true
        let (_, refused) = self.blackHoles.select(candidates.free + candidates.held.map(\.address), isAll: isAll)
        let addresses = Set(refused.map(\.address))
        candidates.free.removeAll { addresses.contains($0) }
        candidates.held.removeAll { addresses.contains($0.address) }
        candidates.refused += refused.map {
            .init(address: $0.address, reason: "\($0.kind.name) does not get through here, as far as can be told")
        }
    }

    private static func explain(_ record: DialRecord, wait: TimeAmount) -> String {
        let seconds = max(wait.nanoseconds / 1_000_000_000, 1)
        let last = record.failure.map { ", the last: \($0)" } ?? ""
        return
            "left alone for another \(seconds) s after \(record.failures) failure\(record.failures == 1 ? "" : "s")\(last)"
    }

    /// Whether any transport can dial the address, or what its name may stand for. Callable from any thread.
    public func canDial(_ address: Multiaddr) -> Bool {
        guard address.beginsWithName else { return self.transports.contains { $0.canDial(address) } }
        let components = address.components
        guard components.first?.protocol != .dnsaddr else { return true }
        // Addresses for documentation stand for those that the name will have.
        let examples = [IPAddress(ipv4: 0xc000_0201), IPAddress(ipv6High: 0x2001_0db8 << 32, low: 1)]
        return examples.contains { ip in
            let example = Multiaddr(components: [.ip(ip)] + components.dropFirst())
            return self.transports.contains { $0.canDial(example) }
        }
    }

    /// Adds to a dial what it does not have yet, and goes on with it.
    private func extend(_ number: UInt64, _ candidates: Candidates, _ request: DialRequest) {
        let plan = self.plan(candidates, request)
        var names: [Multiaddr] = []
        self.withDial(number, request.key) { dial, now in
            dial.session.add(plan, now: now)
            dial.session.refuse(candidates.refused)
            names = dial.session.lookUp(candidates.names)
            dial.lookupsUnderWay += names.count
            return dial.session.advance(to: now)
        }
        for name in names { self.lookUp(name, number, request) }
    }

    private func plan(_ candidates: Candidates, _ request: DialRequest) -> [DialPlanner.Step] {
        let lastGood = self.peerStore.lastGoodAddress(of: request.key.peer)
        func plan(_ addresses: [Multiaddr]) -> [DialPlanner.Step] {
            DialPlanner.plan(
                addresses, lastGood: lastGood, isSimultaneous: request.options.isSimultaneous,
                startsWithTCP: request.options.startsWithTCP)
        }
        let waits = Dictionary(candidates.held.map { ($0.address, $0.wait) }, uniquingKeysWith: max)
        return plan(candidates.free)
            + plan(Array(candidates.held.map(\.address))).map {
                .init($0.address, after: $0.delay + (waits[$0.address] ?? .zero))
            }
    }

    // MARK: Names

    private func lookUp(_ name: Multiaddr, _ number: UInt64, _ request: DialRequest) {
        guard let resolver = self.resolver, let dial = self.dials[request.key], dial.number == number else {
            let answer = NameAnswer(
                name: name, addresses: [], failure: "this node looks up no names", request: request)
            return self.answered(answer, number)
        }
        let promise = self.eventLoop.makePromise(of: NameLookup.self)
        let peer = request.key.peer
        let task = Task { promise.succeed(await NameLookup.run(name, of: peer, with: resolver)) }
        let timeout = self.eventLoop.scheduleTask(in: Self.lookupTimeout) { task.cancel() }
        dial.cancellation.futureResult.whenComplete { _ in task.cancel() }
        promise.futureResult.whenSuccess { lookup in
            timeout.cancel()
            self.answered(
                NameAnswer(name: name, addresses: lookup.addresses, failure: lookup.failure, request: request), number)
        }
    }

    /// Waits a little for the other names' answers.
    private func answered(_ answer: NameAnswer, _ number: UInt64) {
        let key = answer.request.key
        guard var dial = self.dials[key], dial.number == number else { return }
        dial.answers.append(answer)
        dial.lookupsUnderWay -= 1
        let isLast = dial.lookupsUnderWay == 0
        if !isLast, dial.answerTimer == nil {
            dial.answerTimer = self.eventLoop.scheduleTask(in: Self.answerDelay) { self.takeAnswers(number, key) }
        }
        self.dials[key] = dial
        if isLast { self.takeAnswers(number, key) }
    }

    private func takeAnswers(_ number: UInt64, _ key: DialKey) {
        guard let dial = self.dials[key], dial.number == number else { return }
        let answers = dial.answers
        var names: [Multiaddr: Multiaddr] = [:]
        var steps: [DialPlanner.Step] = []
        var refused: [DialError.Attempt] = []
        var failures: [(name: Multiaddr, failure: String?)] = []
        // Requests differ in their options only; the first decides for the addresses that several names share.
        for (request, answers) in Self.byRequest(answers) {
            var addresses: [Multiaddr] = []
            for answer in answers {
                let mayBePrivate = self.isTrusted(answer.name, request)
                let usable = self.permitted(answer.addresses.map(\.unmapped), for: key).filter {
                    self.canDial($0) && (mayBePrivate || $0.ipAddress?.isPrivate != true)
                }
                for address in usable where names[address] == nil { names[address] = answer.name }
                addresses += usable
                if let failure = answer.failure {
                    self.peerStore.recordFailure(
                        answer.name, of: key.peer, reason: failure, now: self.eventLoop.now, random: self.random())
                    failures.append((answer.name, failure))
                } else {
                    self.peerStore.recordResolution(of: answer.name, of: key.peer)
                    failures.append(
                        (answer.name, usable.isEmpty ? "the name stands for no address that this node dials" : nil))
                }
            }
            var seen = Set<Multiaddr>()
            let candidates = self.sift(addresses.filter { seen.insert($0).inserted }, request)
            steps += self.plan(candidates, request)
            refused += candidates.refused
        }
        self.withDial(number, key) { dial, now in
            dial.answers = []
            dial.answerTimer?.cancel()
            dial.answerTimer = nil
            dial.names.merge(names) { old, _ in old }
            dial.session.add(steps, now: now)
            dial.session.refuse(refused)
            return failures.flatMap { dial.session.lookedUp($0.name, failure: $0.failure, now: now) }
        }
    }

    private static func byRequest(_ answers: [NameAnswer]) -> [(DialRequest, [NameAnswer])] {
        var groups: [(DialRequest, [NameAnswer])] = []
        for answer in answers {
            if let index = groups.firstIndex(where: { $0.0.options == answer.request.options }) {
                groups[index].1.append(answer)
            } else {
                groups.append((answer.request, [answer]))
            }
        }
        return groups
    }

    /// Whether the name comes from this node's side. A peer's own claim must not make us knock at doors in our own network.
    private func isTrusted(_ name: Multiaddr, _ request: DialRequest) -> Bool {
        if request.named.contains(name) { return true }
        switch self.peerStore.known(of: request.key.peer).first(where: { $0.address == name })?.source {
        case .configured, .lastGood: return true
        case .identify, .signedRecord, nil: return false
        }
    }

    // MARK: Attempts

    /// Changes a dial, unless it is over, does what its session says and sets the timer anew.
    private func withDial(
        _ number: UInt64, _ key: DialKey, _ body: (inout Dial, NIODeadline) -> [DialSession.Action]
    ) {
        guard var dial = self.dials[key], dial.number == number else { return }
        let actions = body(&dial, self.eventLoop.now)
        dial.timer?.cancel()
        dial.timer = dial.session.nextDeadline.map { deadline in
            self.eventLoop.scheduleTask(deadline: deadline) {
                self.withDial(number, key) { dial, now in dial.session.advance(to: now) }
            }
        }
        self.dials[key] = dial
        for action in actions {
            switch action {
            case .start(let address):
                let ticket = DialTicket(key: key, number: number, address: address)
                if self.slots.enter(ticket) { self.attempt(ticket) }
            case .fail(let attempts): self.finish(key, .failure(DialError.allAttemptsFailed(attempts)))
            }
        }
    }

    private func attempt(_ ticket: DialTicket) {
        let (key, number, address) = (ticket.key, ticket.number, ticket.address)
        guard let dial = self.dials[key], dial.number == number else { return self.leave(ticket) }
        guard let transport = self.transports.first(where: { $0.canDial(address) }) else {
            self.leave(ticket)
            return self.failed(ticket, TransportError.unsupportedAddress(address))
        }
        let start = self.eventLoop.now
        let name = dial.names[address]
        transport.dial(address, expecting: key.peer, cancellation: dial.cancellation.futureResult) { _ in
            self.run {
                self.withDial(number, key) { dial, now in
                    dial.session.reached(address, now: now)
                    return []
                }
            }
        }.hop(to: self.eventLoop).whenComplete { result in
            self.leave(ticket)
            switch result {
            case .success(let connection):
                self.blackHoles.record(address, succeeded: true)
                let attempt = FinishedAttempt(address: address, time: self.eventLoop.now - start, name: name)
                if let refusal = self.insert(connection, by: attempt) { self.failed(ticket, refusal) }
            case .failure(let error):
                if case TransportError.peerMismatch(_, found: self.localPeer) = error {
                    self.emit(.refused(self.localPeer, address, .ownIdentity))
                }
                self.keep(error, address, name, of: key.peer)
                self.failed(ticket, error)
            }
        }
    }

    private func leave(_ ticket: DialTicket) {
        for next in self.slots.leave(ticket) { self.attempt(next) }
    }

    private func failed(_ ticket: DialTicket, _ error: any Error) {
        self.withDial(ticket.number, ticket.key) { dial, now in
            dial.session.failed(ticket.address, error, now: now)
        }
    }

    /// Remembers a failure that says something about the address, not only about this moment.
    private func keep(_ error: any Error, _ address: Multiaddr, _ name: Multiaddr?, of peer: PeerID) {
        switch error {
        case TransportError.cancelled, TransportError.yieldedToRemote, TransportError.simultaneousOpen: return
        case TransportError.peerMismatch: self.blackHoles.record(address, succeeded: true)
        default: self.blackHoles.record(address, succeeded: false)
        }
        self.peerStore.recordFailure(
            address, of: peer, reason: String(describing: error), name: name, now: self.eventLoop.now,
            random: self.random())
    }

    /// The budget is used up: what is under way by now does not answer.
    private func runOut(_ number: UInt64, _ key: DialKey) {
        guard let dial = self.dials[key], dial.number == number else { return }
        for address in dial.session.addressesUnderWay {
            guard !self.slots.isWaiting(DialTicket(key: key, number: number, address: address)) else { continue }
            self.keep(TransportError.timedOut, address, dial.names[address], of: key.peer)
        }
        self.withDial(number, key) { dial, _ in dial.session.timedOut() }
    }

    func finish(_ key: DialKey, _ result: Result<any Connection, any Error>) {
        guard var dial = self.dials.removeValue(forKey: key) else { return }
        dial.session.connected()
        dial.timer?.cancel()
        dial.answerTimer?.cancel()
        dial.budget.cancel()
        self.slots.withdraw(dial.number)
        if case .failure(let error as DialError) = result { self.emit(.dialFailed(key.peer, error)) }
        dial.promise.completeWith(result)
        // After the promise: an attempt that is cancelled must not be taken for one that failed.
        dial.cancellation.succeed()
    }
}
