import Foundation
import Testing

/// The built executable, run with its files in a directory of its own.
final class Command {
    struct Result: Equatable {
        var status: Int32
        var output: String
        var errors: String
    }

    let directory: String
    var config: String { "\(self.directory)/etc/warren.yaml" }
    var key: String { "\(self.directory)/state/identity.key" }
    var socket: String { "\(self.directory)/s.sock" }
    var locations: [String] {
        ["--config", self.config, "--state", "\(self.directory)/state", "--socket", self.socket]
    }

    init() throws {
        // Short, as a socket's path must be.
        self.directory = "/tmp/warren-test-\(UUID().uuidString.prefix(8))"
        try FileManager.default.createDirectory(atPath: self.directory, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: self.directory) }

    /// Runs `warren` with these arguments, then with the three locations.
    func run(_ arguments: String...) throws -> Result { try self.runAlone(arguments + self.locations) }

    /// Runs `warren` with these arguments and no others.
    func runAlone(_ arguments: [String]) throws -> Result {
        // The products lie beside the program that runs the tests.
        let tests = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        let process = Process()
        process.executableURL = URL(fileURLWithPath: tests).deletingLastPathComponent().appendingPathComponent("warren")
        process.arguments = arguments
        let output = "\(self.directory)/out"
        let errors = "\(self.directory)/err"
        for path in [output, errors] { try Data().write(to: URL(fileURLWithPath: path)) }
        process.standardOutput = try FileHandle(forWritingTo: URL(fileURLWithPath: output))
        process.standardError = try FileHandle(forWritingTo: URL(fileURLWithPath: errors))
        process.standardInput = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        return Result(
            status: process.terminationStatus, output: try String(contentsOfFile: output, encoding: .utf8),
            errors: try String(contentsOfFile: errors, encoding: .utf8))
    }

    /// Puts a configuration where the command looks for it.
    func write(config: String) throws {
        try FileManager.default.createDirectory(atPath: "\(self.directory)/etc", withIntermediateDirectories: true)
        try config.write(toFile: self.config, atomically: true, encoding: .utf8)
    }

    /// Every file and directory with its size and time of change, so that a command that changes nothing can be told.
    func snapshot() throws -> [String] {
        let paths = try #require(FileManager.default.enumerator(atPath: self.directory)).compactMap { $0 as? String }
        return try paths.filter { $0 != "out" && $0 != "err" }.sorted().map { path in
            let attributes = try FileManager.default.attributesOfItem(atPath: "\(self.directory)/\(path)")
            return
                "\(path) \(attributes[.size] ?? "") \(attributes[.modificationDate] ?? "") \(attributes[.posixPermissions] ?? "")"
        }
    }
}
