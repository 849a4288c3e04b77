internal import Multiformats
internal import PeerIdentity

extension NameLookup {
    /// Queries of one lookup that run at the same time.
    private static let maximumConcurrent = 4

    /// Looks `address` up. Ends early, with what there is, when its task is cancelled and the resolver minds that.
    static func run(_ address: Multiaddr, of peer: PeerID, with resolver: any MultiaddrResolver) async -> NameLookup {
        var lookup = NameLookup(of: peer)
        var waiting = lookup.start(address)
        await withTaskGroup(of: (Query, Answer).self) { group in
            var running = 0
            while !Task.isCancelled {
                while running < Self.maximumConcurrent, !waiting.isEmpty {
                    let query = waiting.removeFirst()
                    running += 1
                    group.addTask { (query, await Self.ask(query, resolver)) }
                }
                guard let (query, answer) = await group.next() else { return }
                running -= 1
                waiting += lookup.answered(query, answer)
            }
            group.cancelAll()
        }
        return lookup
    }

    private static func ask(_ query: Query, _ resolver: any MultiaddrResolver) async -> Answer {
        do {
            switch query {
            case .addresses(let name, let family):
                return .addresses(try await resolver.addresses(of: name, family))
            case .texts(let name):
                return .texts(try await resolver.texts(of: name))
            }
        } catch is CancellationError {
            return .failure(NameError.noAnswer.description)
        } catch {
            return .failure(String(describing: error))
        }
    }
}
