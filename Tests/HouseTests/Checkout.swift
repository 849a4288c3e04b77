import Foundation

/// The files of this checkout, as text.
enum Checkout {
    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    /// A text file and where it lies, from the root.
    struct File: Sendable, CustomStringConvertible {
        let path: String
        let text: String

        var description: String { self.path }
        var lines: [Substring] { self.text.split(separator: "\n", omittingEmptySubsequences: false) }
        var name: String { String(self.path.split(separator: "/").last ?? "") }
        var isGenerated: Bool { self.path.hasSuffix(".pb.swift") }

        /// The text without comments. String literals that hold `//` lose their end, which no check here minds.
        var code: String {
            self.lines.map { line in
                line.range(of: "//").map { line[..<$0.lowerBound] } ?? line
            }.joined(separator: "\n")
        }
    }

    /// All text files below the root, except what is built or fetched. Links are not followed.
    static let files: [File] = {
        let skipped: Set = [".build", ".git", "__pycache__", "FailCases"]
        var files: [File] = []
        let keys: [URLResourceKey] = [.isRegularFileKey]
        guard let all = FileManager.default.enumerator(at: Self.root, includingPropertiesForKeys: keys) else {
            return []
        }
        let prefix = Self.root.path(percentEncoded: false)
        for case let url as URL in all {
            let name = url.lastPathComponent
            if skipped.contains(name) || name.hasPrefix(".build-") {
                all.skipDescendants()
                continue
            }
            guard (try? url.resourceValues(forKeys: [.isRegularFileKey]).isRegularFile) == true,
                let data = try? Data(contentsOf: url), let text = String(validating: data, as: UTF8.self),
                !text.utf8.contains(0)
            else { continue }
            files.append(File(path: String(url.path(percentEncoded: false).dropFirst(prefix.utf8.count)), text: text))
        }
        return files.sorted { $0.path < $1.path }
    }()

    /// The Swift files below these folders, or these files themselves.
    static func swift(_ places: String...) -> [File] {
        self.files.filter { file in
            file.path.hasSuffix(".swift") && places.contains { file.path == $0 || file.path.hasPrefix($0 + "/") }
        }
    }

    /// `path:line` of every line of `files` that `pattern` matches. Any dot ends a word.
    static func places<Output>(of pattern: Regex<Output>, in files: [File], code: Bool = true) -> [String] {
        let pattern = pattern.wordBoundaryKind(.simple)
        return files.flatMap { file in
            let lines = code ? file.code.split(separator: "\n", omittingEmptySubsequences: false) : file.lines
            return lines.enumerated().compactMap { index, line in
                line.contains(pattern) ? "\(file.path):\(index + 1)" : nil
            }
        }
    }
}
