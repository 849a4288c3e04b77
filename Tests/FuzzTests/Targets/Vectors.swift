import Foundation

/// What seeds are made of: test vectors in `Tests/Vectors`, which name their sources.
enum Vectors {
    struct Missing: Error {
        let path: String
    }

    static let libp2p = Result { try Self.load("libp2p-vectors.json") }
    static let tls = Result { try Self.load("tls-vectors.json") }
    static let multiformats = Result { try Self.load("multiformats-vectors.json") }

    /// Keys, private and public, in the libp2p encoding.
    static func keys(_ half: String) throws -> [[UInt8]] {
        guard let keys = try Self.libp2p.get()["keys"]["items"].members else { throw Missing(path: "keys") }
        return try keys.values.map { try $0[half].bytes }
    }

    private static func load(_ name: String, file: String = #filePath) throws -> Vector {
        // Two packages compile this file, each from another folder below the tests.
        var folder = URL(fileURLWithPath: file)
        while folder.lastPathComponent != "Tests", folder.pathComponents.count > 1 { folder.deleteLastPathComponent() }
        let data = try Data(contentsOf: folder.appendingPathComponent("Vectors/\(name)"))
        return try JSONDecoder().decode(Vector.self, from: data)
    }
}

/// A value in a file of test vectors.
enum Vector: Decodable {
    case object([String: Vector])
    case list([Vector])
    case text(String)
    case other

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let members = try? container.decode([String: Vector].self) {
            self = .object(members)
        } else if let items = try? container.decode([Vector].self) {
            self = .list(items)
        } else if let text = try? container.decode(String.self) {
            self = .text(text)
        } else {
            self = .other
        }
    }

    subscript(_ key: String) -> Vector {
        get throws {
            guard case .object(let members) = self, let member = members[key] else {
                throw Vectors.Missing(path: key)
            }
            return member
        }
    }

    var members: [String: Vector]? {
        if case .object(let members) = self { members } else { nil }
    }

    /// The members of a list.
    var items: [Vector] {
        if case .list(let items) = self { items } else { [] }
    }

    /// The texts of a list; what is no text is left out.
    var texts: [String] {
        guard case .list(let items) = self else { return [] }
        return items.compactMap(\.text)
    }

    var text: String? {
        if case .text(let text) = self { text } else { nil }
    }

    /// The bytes that a hexadecimal text stands for.
    var bytes: [UInt8] {
        get throws {
            guard let text = self.text, let bytes = hex(text) else { throw Vectors.Missing(path: "hexadecimal text") }
            return bytes
        }
    }
}

/// The bytes that hexadecimal text stands for; `nil` when it is none.
func hex(_ text: String) -> [UInt8]? {
    let digits = text.compactMap { $0.hexDigitValue }
    guard digits.count == text.count, digits.count.isMultiple(of: 2) else { return nil }
    return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}
