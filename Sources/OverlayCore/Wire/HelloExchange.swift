internal import Multiformats

/// What both ends of a packet stream hold to after their hellos.
package struct Agreement: Hashable, Sendable {
    /// The network whose packets the stream carries.
    package let networkID: NetworkID
    /// The lane's epoch, chosen by the opener.
    package let epoch: UInt64
    /// The other end's instance: a new one voids the older lanes of that peer.
    package let remoteInstance: UInt64
    /// The longest body of a packet or super-packet, in bytes: what the acceptor takes.
    package let packetBodyLimit: Int
    /// What the opener may send: what both ends can.
    package let capabilities: Capabilities
    /// The MTU inside the tunnel, in bytes.
    package let innerMTU: Int

    init(opener: Hello, acceptor: Hello, remoteInstance: UInt64) {
        self.networkID = opener.networkID
        self.epoch = opener.epoch
        self.remoteInstance = remoteInstance
        self.packetBodyLimit = min(opener.maximumBodyBytes, acceptor.maximumBodyBytes)
        self.capabilities = opener.capabilities.intersection(acceptor.capabilities)
        self.innerMTU = opener.innerMTU
    }
}

/// The opening half of a packet stream: says hello, waits for the answer.
///
/// Pure. Order of calls: ``start()`` once, then ``receive(_:)`` until it returns anything but `wait`.
package struct HelloOpener: Sendable {
    /// What the caller must do next.
    package enum Action: Equatable, Sendable {
        /// Write these bytes. Early packets may follow at once.
        case send([UInt8])
        /// More input is needed.
        case wait
        /// The stream is open; `leftover` are frames of the acceptor.
        case open(Agreement, leftover: [UInt8])
        /// The acceptor refused: close the stream.
        case refused(RefuseCode)
        /// The stream is unusable: reset it.
        case fail(HelloError)
    }

    private enum State: Sendable {
        case idle
        case awaitingAnswer(GreetingBuffer)
        case finished
    }

    private let hello: Hello
    private var state = State.idle

    package init(_ hello: Hello) { self.hello = hello }

    /// The hello to write.
    package mutating func start() -> Action {
        guard case .idle = self.state else { return self.fail(.outOfOrder) }
        do {
            let bytes = try Greeting.hello(self.hello).encoded()
            self.state = .awaitingAnswer(GreetingBuffer())
            return .send(bytes)
        } catch {
            return self.fail(error)
        }
    }

    /// Consumes bytes of the acceptor.
    package mutating func receive(_ bytes: [UInt8]) -> Action {
        guard case .awaitingAnswer(var buffer) = self.state else { return self.fail(.outOfOrder) }
        do {
            guard let (greeting, leftover) = try buffer.receive(bytes) else {
                self.state = .awaitingAnswer(buffer)
                return .wait
            }
            self.state = .finished
            switch greeting {
            case .refuse(let code):
                return .refused(code)
            case .hello(let answer):
                guard answer.networkID == self.hello.networkID else { return .fail(.otherNetwork(answer.networkID)) }
                guard answer.innerMTU == self.hello.innerMTU else {
                    return .fail(.mtuMismatch(ours: self.hello.innerMTU, theirs: answer.innerMTU))
                }
                let agreement = Agreement(opener: self.hello, acceptor: answer, remoteInstance: answer.instance)
                return .open(agreement, leftover: leftover)
            }
        } catch {
            return self.fail(error)
        }
    }

    private mutating func fail(_ error: HelloError) -> Action {
        self.state = .finished
        return .fail(error)
    }
}

/// The accepting half of a packet stream: reads the hello, asks its caller, answers.
///
/// Pure. Order of calls: ``receive(_:)`` until it returns anything but `wait`; after `decide` exactly one of
/// ``accept(_:)`` and ``refuse(_:)``. The caller looks the network and the peer's membership up; the machine compares the rest.
package struct HelloAcceptor: Sendable {
    /// What the caller must do next.
    package enum Action: Equatable, Sendable {
        /// More input is needed.
        case wait
        /// Accept or refuse; `leftover` are the opener's first frames, to be read only when the stream was accepted.
        case decide(Hello, leftover: [UInt8])
        /// Write these bytes. The stream is open.
        case open(Agreement, answer: [UInt8])
        /// Write these bytes, then close the stream.
        case refuse(answer: [UInt8], RefuseCode)
        /// The stream is unusable: write `answer` when there is one, then reset it.
        case fail(HelloError, answer: [UInt8])
    }

    private enum State: Sendable {
        case awaitingHello(GreetingBuffer)
        case deciding(Hello)
        case finished
    }

    private var state = State.awaitingHello(GreetingBuffer())

    package init() {}

    /// Consumes bytes of the opener.
    package mutating func receive(_ bytes: [UInt8]) -> Action {
        guard case .awaitingHello(var buffer) = self.state else { return self.fail(.outOfOrder) }
        do {
            guard let (greeting, leftover) = try buffer.receive(bytes) else {
                self.state = .awaitingHello(buffer)
                return .wait
            }
            guard case .hello(let hello) = greeting else { return self.fail(.outOfOrder) }
            self.state = .deciding(hello)
            return .decide(hello, leftover: leftover)
        } catch {
            return self.fail(error, answering: .malformed)
        }
    }

    /// Answers with our own hello for the same network. Refuses when the inner MTUs differ.
    ///
    /// - Parameter ours: Our hello; its epoch should repeat the opener's.
    package mutating func accept(_ ours: Hello) -> Action {
        guard case .deciding(let theirs) = self.state else { return self.fail(.outOfOrder) }
        guard ours.networkID == theirs.networkID else { return self.fail(.otherNetwork(ours.networkID)) }
        guard ours.innerMTU == theirs.innerMTU else { return self.refuse(.mtuMismatch) }
        do {
            let answer = try Greeting.hello(ours).encoded()
            self.state = .finished
            return .open(
                Agreement(opener: theirs, acceptor: ours, remoteInstance: theirs.instance), answer: answer)
        } catch {
            return self.fail(error)
        }
    }

    /// Answers with a refusal.
    package mutating func refuse(_ code: RefuseCode) -> Action {
        guard case .deciding = self.state else { return self.fail(.outOfOrder) }
        do {
            let answer = try Greeting.refuse(code).encoded()
            self.state = .finished
            return .refuse(answer: answer, code)
        } catch {
            return self.fail(error)
        }
    }

    private mutating func fail(_ error: HelloError, answering code: RefuseCode? = nil) -> Action {
        self.state = .finished
        let answer = code.flatMap { try? Greeting.refuse($0).encoded() } ?? []
        return .fail(error, answer: answer)
    }
}

/// Collects the bytes of one greeting, never more than its prefix and limit beyond one chunk.
private struct GreetingBuffer: Sendable {
    private var bytes: [UInt8] = []

    /// The greeting and what followed it, once it is complete.
    mutating func receive(_ chunk: [UInt8]) throws(HelloError) -> (Greeting, leftover: [UInt8])? {
        self.bytes.append(contentsOf: chunk)
        var start = self.bytes.startIndex
        let length: UInt64
        do throws(VarintError) {
            length = try Varint.decode(self.bytes, at: &start)
        } catch .truncated {
            // Nothing within the limit needs a third byte.
            guard self.bytes.count < 2 else { throw .badLength }
            return nil
        } catch {
            throw .badLength
        }
        guard length <= UInt64(FrameLimits.greetingBytes) else { throw .badLength }
        let end = start + Int(length)
        guard self.bytes.count >= end else { return nil }
        let greeting = try Greeting(body: self.bytes[start..<end])
        return (greeting, Array(self.bytes[end...]))
    }
}
