/// Finds the peer an operator means: a name, a peer ID, or a prefix of either that fits one peer only.
package enum PeerSelection {
    /// A peer that can be meant.
    package struct Candidate: Hashable, Sendable {
        /// The peer ID in text.
        package var id: String
        /// Its name.
        package var name: String

        /// Creates a candidate.
        package init(id: String, name: String) {
            self.id = id
            self.name = name
        }
    }

    /// Why no peer is meant.
    package enum SelectionError: Error, Equatable {
        /// Nobody has this name or peer ID.
        case unknownPeer(String)
        /// Several have.
        case ambiguousPeer(String, candidates: [String])
    }

    /// The one candidate `text` means. A whole name wins over a whole peer ID, and both over prefixes. The same peer
    /// listed twice (in two networks) counts once.
    package static func resolve(_ text: String, among candidates: [Candidate]) throws(SelectionError) -> Candidate {
        let matches: [(Candidate) -> Bool] = [
            { $0.name == text }, { $0.id == text },
            { !text.isEmpty && ($0.name.hasPrefix(text) || $0.id.hasPrefix(text)) },
        ]
        for matches in matches {
            let found = candidates.filter(matches)
            guard let first = found.first else { continue }
            guard found.allSatisfy({ $0.id == first.id }) else {
                throw .ambiguousPeer(text, candidates: Set(found).map { "\($0.name) (\($0.id))" }.sorted())
            }
            return first
        }
        throw .unknownPeer(text)
    }
}

extension PeerSelection.SelectionError: OperatorError {
    /// The command failed; its usage was right.
    package var exitStatus: ExitStatus { .failed }

    /// What is wrong.
    package var fact: String {
        switch self {
        case .unknownPeer(let text): "no peer \(OperatorText.quoted(text))"
        case .ambiguousPeer(let text, let candidates):
            "\(OperatorText.quoted(text)) fits \(candidates.prefix(4).joined(separator: ", "))"
                + (candidates.count > 4 ? " and \(candidates.count - 4) more" : "")
        }
    }

    /// What to do about it.
    package var fix: String {
        switch self {
        case .unknownPeer: "'warren peers' lists them"
        case .ambiguousPeer: "write more of it"
        }
    }

    /// Fact and fix.
    package var description: String { "\(self.fact): \(self.fix)" }
}
