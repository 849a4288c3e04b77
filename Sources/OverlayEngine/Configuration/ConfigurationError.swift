package import ControlAPI

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// A mistake in the configuration: one line with file, line, key, what is wrong and the fix. The process ends with
/// exit code 2 before anything on the machine has changed.
package struct ConfigurationError: OperatorError, Equatable {
    /// The file, as it was named.
    package let file: String
    /// The line, from 1; nothing when the file as a whole is at fault.
    package let line: Int?
    /// The path of the key, `networks.home.peers[1].id`; empty when no key is at fault.
    package let key: String
    /// What is wrong.
    package let fault: ConfigurationFault

    /// Wrong configuration.
    package var exitStatus: ExitStatus { .usage }

    /// `file:line: key: fact: fix`.
    package var description: String {
        let place = self.line.map { "\(self.file):\($0)" } ?? self.file
        let parts = [place, self.key, self.fault.fact, self.fault.fix].filter { !$0.isEmpty }
        return OperatorText.singleLine(parts.joined(separator: ": "), limit: 2048)
    }
}

/// Something in the configuration that this build skips.
package struct ConfigurationWarning: Equatable, Sendable, CustomStringConvertible {
    /// The file, as it was named.
    package let file: String
    /// The line, from 1.
    package let line: Int
    /// The path of the key.
    package let key: String
    /// What is skipped, and why.
    package let text: String

    /// `file:line: key: text`.
    package var description: String {
        OperatorText.singleLine("\(self.file):\(self.line): \(self.key): \(self.text)", limit: 2048)
    }
}

/// What can be wrong in the configuration. Lines are those of the other place that matters.
package enum ConfigurationFault: Equatable, Sendable {
    // The file
    case cannotOpen(errno: Int32)
    case notARegularFile
    case tooLarge(maximumBytes: Int)
    case notUTF8
    case notYAML(String)
    case tooManyAliases(maximum: Int)

    // Keys and shapes
    case unknownKey(suggestion: String?, known: [String])
    case duplicateKey
    case missingKey(fix: String)
    case noValue
    case wrongShape(expected: String)
    case tooMany(maximum: Int)
    case notOneOf(String, [String])
    case outOfRange(ClosedRange<Int>)
    case badText(String, rule: String)
    /// The secret itself is never shown.
    case badSecretLength(maximumBytes: Int)

    // Values
    case badLabel(String)
    case badPeerID(reason: String)
    case badMultiaddr(reason: String)
    case cannotListen(reason: String)
    case cannotDial(reason: String)
    case addressOfAnotherPeer(String)
    case badPrefix(String, suggestion: String?)
    case badIPv4Address(String)
    case prefixLengthOutOfRange(Int, ClosedRange<Int>)
    case addressOutsidePrefix(String, prefix: String)
    case addressReserved(String, prefix: String)
    case badInterface(String)

    // What does not go together
    case duplicateName(String, line: Int)
    case duplicatePeerID(name: String, line: Int)
    case duplicateAddress(line: Int)
    case duplicateInterface(String, network: String, line: Int)
    case duplicateIPv4(String, owner: String, line: Int)
    case ownEntryHasOtherName(String, ownName: String)
    case ownNameOfAnotherPeer(String, ownID: String?)
    case defaultRoute(String)
    case unroutablePrefix(String)
    case routeOverlapsOverlay(String, prefix: String, network: String)
    case routeOverlaps(String, other: String, owner: String, line: Int)
    case routeTwice(String, line: Int)

    // What the machine does not agree with
    case portBusy(String)
    case cannotBind(String, reason: String)
    case addressPlan(String)
    case addressCollision(String)
}

extension ConfigurationFault {
    /// What is wrong.
    package var fact: String {
        switch self {
        case .cannotOpen(let errno): "cannot be read (\(String(cString: strerror(errno))))"
        case .notARegularFile: "is not a regular file"
        case .tooLarge(let maximum): "is longer than \(maximum) bytes"
        case .notUTF8: "is not UTF-8"
        case .notYAML(let problem): "not YAML (\(problem))"
        case .tooManyAliases(let maximum): "more than \(maximum) YAML aliases"

        case .unknownKey: "unknown key"
        case .duplicateKey: "given twice"
        case .missingKey: "missing"
        case .noValue: "has no value"
        case .wrongShape(let expected): "is not \(expected)"
        case .tooMany(let maximum): "has more than \(maximum) entries"
        case .notOneOf(let text, let values):
            "\(OperatorText.quoted(text)) is none of \(values.joined(separator: ", "))"
        case .outOfRange: "is not in range"
        case .badSecretLength: "is empty or too long"
        case .badText(let text, _): "\(OperatorText.quoted(text)) does not do"

        case .badLabel(let text): "\(OperatorText.quoted(text)) is not a name"
        case .badPeerID(let reason): "not a peer ID (\(reason))"
        case .badMultiaddr(let reason): "not a multiaddr (\(reason))"
        case .cannotListen(let reason): "cannot be listened on (\(reason))"
        case .cannotDial(let reason): "cannot be dialled (\(reason))"
        case .addressOfAnotherPeer(let id): "is an address of another peer (\(id))"
        case .badPrefix(let text, _): "\(OperatorText.quoted(text)) is not a prefix"
        case .badIPv4Address(let text): "\(OperatorText.quoted(text)) is not an IPv4 address"
        case .prefixLengthOutOfRange(let length, _): "a prefix length of \(length) does not do"
        case .addressOutsidePrefix(let address, let prefix): "\(address) is outside the network's ipv4Prefix \(prefix)"
        case .addressReserved(let address, let prefix): "\(address) is the first or last address of \(prefix)"
        case .badInterface(let text): "\(OperatorText.quoted(text)) is not an interface name"

        case .duplicateName(let name, let line): "'\(name)' is already the name of the peer in line \(line)"
        case .duplicatePeerID(let name, let line): "is already the ID of peer '\(name)' in line \(line)"
        case .duplicateAddress(let line): "is already in line \(line)"
        case .duplicateInterface(let name, let network, let line):
            "'\(name)' is already the interface of network '\(network)' in line \(line)"
        case .duplicateIPv4(let address, let owner, let line):
            "\(address) is already the address of '\(owner)' in line \(line)"
        case .ownEntryHasOtherName(let name, let ownName):
            "'\(name)' has this machine's ID, but this machine's name is '\(ownName)'"
        case .ownNameOfAnotherPeer(let name, _): "'\(name)' is this machine's name, but the ID is another's"
        case .defaultRoute(let route): "\(route) is the default route"
        case .unroutablePrefix(let route): "\(route) holds loopback, link-local or multicast addresses"
        case .routeOverlapsOverlay(let route, let prefix, let network):
            "\(route) overlaps \(prefix), the overlay addresses of network '\(network)'"
        case .routeOverlaps(let route, let other, let owner, let line):
            "\(route) overlaps \(other) of '\(owner)' in line \(line)"
        case .routeTwice(let route, let line): "\(route) is already in line \(line)"

        case .portBusy(let address): "\(address): the port is in use by another program"
        case .cannotBind(let address, let reason): "\(address) cannot be listened on (\(reason))"
        case .addressPlan(let reason): reason
        case .addressCollision(let text): text
        }
    }

    /// What to do about it.
    package var fix: String {
        switch self {
        case .cannotOpen(errno: ENOENT): "write one with 'warren init', or name yours with --config"
        case .cannotOpen: "check its permissions, or name another with --config"
        case .notARegularFile: "name the configuration with --config"
        case .tooLarge: "is it the right file?"
        case .notUTF8: "save it as UTF-8"
        case .notYAML: "check indentation, quotes and brackets here and in the line before"
        case .tooManyAliases: "write the values out"

        case .unknownKey(let suggestion?, _): "did you mean '\(suggestion)'?"
        case .unknownKey(nil, let known): "known here: \(known.joined(separator: ", "))"
        case .duplicateKey: "keep one"
        case .missingKey(let fix): fix
        case .noValue: "write one, or remove the key"
        case .wrongShape: "see the comments in the example warren.yaml"
        case .tooMany: "remove some"
        case .notOneOf: "write one of them"
        case .outOfRange(let range): "write a number from \(range.lowerBound) to \(range.upperBound)"
        case .badSecretLength(let maximum): "write 1 to \(maximum) bytes, or remove the key"
        case .badText(_, let rule): rule

        case .badLabel: "use 1 to 63 of a-z, 0-9 and inner hyphens"
        case .badPeerID: "paste the output of 'warren id' on that machine"
        case .badMultiaddr: "write it like /ip4/192.0.2.7/tcp/4117"
        case .cannotListen: "write it like /ip4/0.0.0.0/tcp/4117"
        case .cannotDial: "write it like /ip4/192.0.2.7/tcp/4117"
        case .addressOfAnotherPeer: "remove the /p2p part, or move the address to that peer"
        case .badPrefix(_, let suggestion?): "write \(suggestion)"
        case .badPrefix(_, nil): "write it like 192.168.7.0/24"
        case .badIPv4Address: "write it like 100.64.0.7"
        case .prefixLengthOutOfRange(_, let range): "use /\(range.lowerBound) to /\(range.upperBound)"
        case .addressOutsidePrefix: "choose one inside, or change ipv4Prefix on all machines"
        case .addressReserved: "choose another"
        case .badInterface: "use 1 to 15 of a-z, A-Z, 0-9, '-', '_' and '.'"

        case .duplicateName: "rename one of them"
        case .duplicatePeerID: "keep one entry per machine"
        case .duplicateAddress: "keep one"
        case .duplicateInterface: "choose another name, or leave it out"
        case .duplicateIPv4: "give one of them another address"
        case .ownEntryHasOtherName(let name, let ownName):
            "write 'name: \(ownName)' here, or 'name: \(name)' at the top"
        case .ownNameOfAnotherPeer(_, let ownID?): "rename one of them, or write this machine's ID \(ownID)"
        case .ownNameOfAnotherPeer(_, nil): "rename one of them, or write the output of 'warren id'"
        case .defaultRoute: "announce the prefixes you need instead"
        case .unroutablePrefix: "remove it"
        case .routeOverlapsOverlay: "remove it, or choose another ipv4Prefix on all machines"
        case .routeOverlaps: "let each address lie behind one peer"
        case .routeTwice: "keep one"

        case .portBusy: "stop that program, or listen on another port"
        case .cannotBind: "write an address that this machine has"
        case .addressPlan: "see the comments in the example warren.yaml"
        case .addressCollision: "give one of them another address with 'ipv4'"
        }
    }
}
