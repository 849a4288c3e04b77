public import Multiformats

/// Looks names up: for `/dns`, `/dns4`, `/dns6` and `/dnsaddr`.
///
/// What follows from the answers, and how many of them are believed, is not its business.
public protocol MultiaddrResolver: Sendable {
    /// The IP addresses of a host, of one family or both; the best first.
    /// - Throws: ``NameError``, or whatever else says it.
    func addresses(of name: String, _ family: IPAddress.Family?) async throws -> [IPAddress]

    /// The TXT records of a name, each as one text.
    /// - Throws: ``NameError``, or whatever else says it.
    func texts(of name: String) async throws -> [String]
}

/// Why a name could not be resolved.
public enum NameError: Error, Hashable, Sendable, CustomStringConvertible {
    /// There is no such name, or it has nothing of what was asked for.
    case notFound
    /// No name server has answered.
    case noAnswer
    /// What the name server said cannot be read.
    case malformed
    /// So many names are being looked up already.
    case busy(limit: Int)
    /// The system said this.
    case failed(String)

    /// For people.
    public var description: String {
        switch self {
        case .notFound: "no such name"
        case .noAnswer: "no name server has answered"
        case .malformed: "the name server's answer cannot be read"
        case .busy(let limit): "\(limit) names are being looked up already"
        case .failed(let text): text
        }
    }
}

extension Multiaddr {
    /// Whether it must be resolved before it can be dialled.
    package var beginsWithName: Bool {
        switch self.protocols.first {
        case .dns, .dns4, .dns6, .dnsaddr: true
        default: false
        }
    }
}
