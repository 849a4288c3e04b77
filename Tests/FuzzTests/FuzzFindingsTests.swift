import Foundation
import Testing

/// What the fuzzers start from and what they once found, without libFuzzer.
@Suite struct FuzzFindingsTests {
    /// An input that once broke something: `Tests/Fuzz/FailCases/TARGET/NAME`.
    struct Finding: Sendable, CustomStringConvertible {
        let target: FuzzTarget
        let file: URL

        var description: String { "\(self.target)/\(self.file.lastPathComponent)" }
    }

    static let findings: [Finding] = {
        let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("Fuzz/FailCases")
        return FuzzTarget.all.flatMap { target in
            let place = folder.appendingPathComponent(target.name)
            let files = try? FileManager.default.contentsOfDirectory(at: place, includingPropertiesForKeys: nil)
            return (files ?? []).map { Finding(target: target, file: $0) }
        }
    }()

    @Test(arguments: FuzzTarget.all)
    func holdsForItsSeeds(_ target: FuzzTarget) throws {
        let seeds = try target.seeds()
        #expect(!seeds.isEmpty)
        for seed in seeds {
            #expect(seed.count <= target.maximumBytes)
            try target.run(seed)
            // Cut short and with a byte changed, cheaply and always the same.
            for place in stride(from: 0, to: seed.count, by: max(1, seed.count / 16)) {
                try target.run(Array(seed[..<place]))
                var changed = seed
                changed[place] &+= UInt8(truncatingIfNeeded: 1 + place)
                try target.run(changed)
            }
        }
        try target.run([])
    }

    @Test(arguments: findings)
    func staysMended(_ finding: Finding) throws {
        try finding.target.run(Array(Data(contentsOf: finding.file)))
    }

    @Test func namesAreUnique() {
        #expect(Set(FuzzTarget.all.map(\.name)).count == FuzzTarget.all.count)
    }
}
