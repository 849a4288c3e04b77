import ControlAPI
import Yams

/// A value in the file, with its place: every error it gives rise to has file, line and key.
struct ConfigurationNode {
    let node: Node
    let file: String
    /// The path from the root as the file has it: `networks.home.peers[1].id`.
    let key: String
    let line: Int

    /// Parses the whole file. A file without content is an empty mapping.
    static func parse(_ text: String, file: String) throws(ConfigurationError) -> ConfigurationNode {
        func error(_ line: Int?, _ fault: ConfigurationFault, key: String = "") -> ConfigurationError {
            ConfigurationError(file: file, line: line, key: key, fault: fault)
        }
        guard countOfAliases(in: text) <= DaemonConfiguration.maximumAliases else {
            throw error(nil, .tooManyAliases(maximum: DaemonConfiguration.maximumAliases))
        }
        do {
            let root = try Yams.compose(yaml: text, .default, .default, .utf8).flatMap { $0.isNull ? nil : $0 }
            return ConfigurationNode(
                node: root ?? .mapping(Node.Mapping([])), file: file, key: "", line: root?.mark?.line ?? 1)
        } catch YamlError.scanner(_, let problem, let mark, _), YamlError.parser(_, let problem, let mark, _),
            YamlError.composer(_, let problem, let mark, _)
        {
            throw error(mark.line, .notYAML(problem))
        } catch YamlError.reader(let problem, let offset, _, _) {
            let before = text.prefix(offset ?? 0)
            throw error(1 + before.utf8.count { $0 == UInt8(ascii: "\n") }, .notYAML(problem))
        } catch YamlError.duplicatedKeysInMapping(let duplicates, let context) {
            let key = duplicates.first ?? ""
            throw error(lineOfRepetition(of: key, after: context.mark, in: text), .duplicateKey, key: key)
        } catch let other {
            throw error(nil, .notYAML("\(other)"))
        }
    }

    func error(_ fault: ConfigurationFault) -> ConfigurationError {
        ConfigurationError(file: self.file, line: self.line, key: self.key, fault: fault)
    }

    /// A key that must be here and is not.
    func error(missing name: String, fix: String) -> ConfigurationError {
        ConfigurationError(file: self.file, line: self.line, key: "\(self.key).\(name)", fault: .missingKey(fix: fix))
    }

    // MARK: Shapes

    /// Whether there is no value: nothing, `~` or `null`.
    var isEmpty: Bool { self.node.isNull }

    /// The values of a mapping whose keys ``ConfigurationKey`` knows under `path`. Any other key is an error.
    func fields(of path: String) throws(ConfigurationError) -> [String: ConfigurationNode] {
        let known = ConfigurationKey.names(under: path)
        var fields: [String: ConfigurationNode] = [:]
        for (name, value, line) in try self.entries() {
            guard known.contains(name) else {
                let suggestion = known.min { Self.distance(name, $0) < Self.distance(name, $1) }
                    .flatMap { Self.distance(name, $0) <= 2 ? $0 : nil }
                throw ConfigurationError(
                    file: self.file, line: line, key: value.key,
                    fault: .unknownKey(suggestion: suggestion, known: known))
            }
            fields[name] = value
        }
        return fields
    }

    /// The keys of a mapping, in the order of the file, each with its value and its own line.
    func entries() throws(ConfigurationError) -> [(name: String, value: ConfigurationNode, line: Int)] {
        guard case .mapping(let mapping) = self.node else {
            throw self.error(.wrongShape(expected: "a mapping of keys to values"))
        }
        var entries: [(String, ConfigurationNode, Int)] = []
        for (key, value) in mapping {
            let line = key.mark?.line ?? self.line
            guard case .scalar(let scalar) = key else {
                throw ConfigurationError(
                    file: self.file, line: line, key: self.key,
                    fault: .wrongShape(expected: "a mapping with plain keys"))
            }
            let path = self.key.isEmpty ? scalar.string : "\(self.key).\(scalar.string)"
            // An aliased value has the place of its anchor, which is of no use to who reads about this key.
            let isAliased = (value.mark?.line ?? line) < line
            let child = ConfigurationNode(
                node: value, file: self.file, key: path, line: isAliased ? line : value.mark?.line ?? line)
            entries.append((scalar.string, child, line))
        }
        return entries
    }

    /// The items of a list. No value at all is an empty list.
    func items(atMost maximum: Int) throws(ConfigurationError) -> [ConfigurationNode] {
        if self.node.isNull { return [] }
        guard case .sequence(let sequence) = self.node else { throw self.error(.wrongShape(expected: "a list")) }
        guard sequence.count <= maximum else { throw self.error(.tooMany(maximum: maximum)) }
        return sequence.enumerated().map { index, item in
            ConfigurationNode(
                node: item, file: self.file, key: "\(self.key)[\(index)]", line: item.mark?.line ?? self.line)
        }
    }

    /// The text of a single value, as it is written: `off` and `0x10` too.
    func text() throws(ConfigurationError) -> String {
        guard !self.node.isNull else { throw self.error(.noValue) }
        guard case .scalar(let scalar) = self.node else { throw self.error(.wrongShape(expected: "a single value")) }
        return scalar.string
    }

    /// A decimal number.
    func integer(in range: ClosedRange<Int>) throws(ConfigurationError) -> Int {
        let text = try self.text()
        guard let value = Int(text), String(value) == text else { throw self.error(.wrongShape(expected: "a number")) }
        guard range.contains(value) else { throw self.error(.outOfRange(range)) }
        return value
    }

    /// A value whose bytes `isAllowed` and that is neither empty nor too long; `rule` says so in words.
    func text(
        atMost maximumBytes: Int, rule: String, _ isAllowed: (UInt8) -> Bool
    ) throws(ConfigurationError) -> String {
        let text = try self.text()
        guard (1...maximumBytes).contains(text.utf8.count), text.utf8.allSatisfy(isAllowed) else {
            throw self.error(.badText(text, rule: rule))
        }
        return text
    }

    // MARK: Helpers

    /// How many aliases the text can have at most. Lines that are comments do not count.
    ///
    /// An alias is a `*` at the start of a token. Aliases of aliases unfold exponentially when they are compared, as
    /// the parser does with mapping keys: the count must be bounded before it runs.
    private static func countOfAliases(in text: String) -> Int {
        var count = 0
        for line in text.utf8.split(whereSeparator: { $0 == UInt8(ascii: "\n") || $0 == UInt8(ascii: "\r") }) {
            let content = line.drop { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\t") }
            guard content.first != UInt8(ascii: "#") else { continue }
            count += content.count { $0 == UInt8(ascii: "*") }
        }
        return count
    }

    /// The parser reports where a repeated key stands first. Its next mention at the start of a line is the mistake.
    private static func lineOfRepetition(of key: String, after mark: Mark, in text: String) -> Int {
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        for (index, line) in lines.enumerated().dropFirst(mark.line) {
            let content = line.drop { $0 == " " || $0 == "-" }
            guard content.hasPrefix(key), content.dropFirst(key.count).first == ":",
                line.unicodeScalars.count - content.unicodeScalars.count == mark.column - 1
            else { continue }
            return index + 1
        }
        return mark.line
    }

    /// Edit distance (Levenshtein 1966) of two short words, for "did you mean".
    private static func distance(_ a: String, _ b: String) -> Int {
        let a = Array(a.lowercased().utf8.prefix(64))
        let b = Array(b.lowercased().utf8.prefix(64))
        var row = Array(0...b.count)
        for (i, x) in a.enumerated() {
            var diagonal = row[0]
            row[0] = i + 1
            for (j, y) in b.enumerated() {
                let substitution = diagonal + (x == y ? 0 : 1)
                diagonal = row[j + 1]
                row[j + 1] = min(substitution, row[j] + 1, diagonal + 1)
            }
        }
        return row[b.count]
    }
}

extension Node {
    /// Whether there is nothing: no value, `~` or `null`, unquoted.
    fileprivate var isNull: Bool {
        guard case .scalar(let scalar) = self, scalar.style == .plain || scalar.style == .any else { return false }
        return ["", "~", "null", "Null", "NULL"].contains(scalar.string)
    }
}
