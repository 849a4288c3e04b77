import Foundation
import Testing

@testable import PeerIdentity

@Suite struct IdentityFileTests {
    @Test func createsOnceAndLoadsTheSame() throws {
        try Self.withDirectory { directory in
            let file = IdentityFile(path: directory + "/identity.key")
            #expect(throws: IdentityFileError.notFound(path: file.path)) { try file.load() }
            let (created, isNew) = try file.loadOrCreate()
            #expect(isNew)
            #expect(created.type == .ed25519)
            let again = try file.loadOrCreate()
            #expect(!again.isNew)
            #expect(again.key.encoded == created.encoded)
            #expect(throws: IdentityFileError.alreadyExists(path: file.path)) { try file.create() }
            #expect(try file.load().encoded == created.encoded)
            #expect(try Data(contentsOf: URL(fileURLWithPath: file.path)).elementsEqual(created.encoded))
            #expect(try Self.mode(of: file.path) == 0o600)
            #expect(try FileManager.default.contentsOfDirectory(atPath: directory) == ["identity.key"])
        }
    }

    @Test func loadsKeysOfAnyType() throws {
        try Self.withDirectory { directory in
            for (name, vector) in try Vectors.load().keys.items {
                let file = IdentityFile(path: "\(directory)/\(name)")
                try file.store(PrivateKey(encoded: vector.private.bytes))
                #expect(try file.load().encoded == vector.private.bytes)
            }
        }
    }

    @Test func overwritesNothing() throws {
        try Self.withDirectory { directory in
            let file = IdentityFile(path: directory + "/identity.key")
            // A link to nowhere takes the name too.
            try FileManager.default.createSymbolicLink(atPath: file.path, withDestinationPath: directory + "/elsewhere")
            #expect(throws: IdentityFileError.alreadyExists(path: file.path)) { try file.create() }
            #expect(throws: IdentityFileError.notFound(path: file.path)) { try file.loadOrCreate() }
            #expect(try FileManager.default.contentsOfDirectory(atPath: directory) == ["identity.key"])
        }
    }

    @Test func allWhoRaceGetTheSameKey() async throws {
        let directory = try Self.makeDirectory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let file = IdentityFile(path: directory + "/identity.key")
        let results = try await withThrowingTaskGroup(of: (key: PrivateKey, isNew: Bool).self) { group in
            for _ in 0..<16 { group.addTask { try file.loadOrCreate() } }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        #expect(Set(results.map(\.key.encoded)).count == 1)
        #expect(results.filter(\.isNew).count == 1)
        #expect(try FileManager.default.contentsOfDirectory(atPath: directory) == ["identity.key"])
    }

    @Test func refusesFilesThatOthersCanRead() throws {
        try Self.withDirectory { directory in
            let file = IdentityFile(path: directory + "/identity.key")
            let key = try file.create()
            for mode in [0o644, 0o640, 0o604, 0o660, 0o601, 0o777] {
                try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: file.path)
                let error = #expect(throws: IdentityFileError.self) { try file.load() }
                #expect(error == .accessibleToOthers(path: file.path, mode: UInt16(mode)))
                #expect("\(String(describing: error))".contains(String(mode, radix: 8)))
                #expect(throws: IdentityFileError.self) { try file.loadOrCreate() }
            }
            try FileManager.default.setAttributes([.posixPermissions: 0o400], ofItemAtPath: file.path)
            #expect(try file.load().encoded == key.encoded)
        }
    }

    @Test func saysWhatIsWrongWithTheContent() throws {
        try Self.withDirectory { directory in
            let path = directory + "/identity.key"
            let whole = try PrivateKey.generate().encoded
            let cases: [(bytes: [UInt8], error: KeyError)] = [
                ([], .malformedEncoding),
                (Array(whole.dropLast()), .malformedEncoding),
                (whole + [0], .malformedEncoding),
                (Array("-----BEGIN PRIVATE KEY-----".utf8), .malformedEncoding),
                ([UInt8](repeating: 0, count: 100_000), .tooLong(bytes: 8193, maximum: 8192)),
            ]
            for (bytes, error) in cases {
                let attributes: [FileAttributeKey: Any] = [.posixPermissions: 0o600]
                #expect(
                    FileManager.default.createFile(atPath: path, contents: Data(bytes), attributes: attributes))
                #expect(throws: IdentityFileError.malformed(path: path, error)) { try IdentityFile(path: path).load() }
                #expect(throws: IdentityFileError.malformed(path: path, error)) {
                    try IdentityFile(path: path).loadOrCreate()
                }
                #expect(try Data(contentsOf: URL(fileURLWithPath: path)).elementsEqual(bytes))
            }
        }
    }

    @Test func saysWhatIsWrongWithThePath() throws {
        try Self.withDirectory { directory in
            #expect(throws: IdentityFileError.notRegularFile(path: directory)) {
                try IdentityFile(path: directory).load()
            }
            let fifo = directory + "/fifo"
            #expect(mkfifo(fifo, 0o600) == 0)
            #expect(throws: IdentityFileError.notRegularFile(path: fifo)) { try IdentityFile(path: fifo).load() }
            let missing = directory + "/missing/identity.key"
            let error = #expect(throws: IdentityFileError.self) { try IdentityFile(path: missing).loadOrCreate() }
            #expect(error == .system(path: missing, operation: "create", errno: ENOENT))
            #expect(error?.description == "\(missing): cannot create: No such file or directory")
        }
    }

    private static func mode(of path: String) throws -> Int {
        let attributes = try FileManager.default.attributesOfItem(atPath: path)
        return try #require(attributes[.posixPermissions] as? NSNumber).intValue
    }

    private static func makeDirectory() throws -> String {
        let path = NSTemporaryDirectory() + "/identity-file-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        return path
    }

    private static func withDirectory(_ body: (String) throws -> Void) throws {
        let directory = try self.makeDirectory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try body(directory)
    }
}
