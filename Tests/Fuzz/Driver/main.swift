import Foundation
import LibFuzzer

// fuzz list                          names the targets
// fuzz seeds DIRECTORY               writes DIRECTORY/TARGET/…, inputs to start from
// fuzz TARGET [libFuzzer arguments]  fuzzes until a finding, or as long as the arguments say

/// What libFuzzer calls cannot capture anything.
nonisolated(unsafe) var current: FuzzTarget?

var arguments = CommandLine.arguments
let command = arguments.count > 1 ? arguments.remove(at: 1) : ""
switch command {
case "list":
    for target in FuzzTarget.all { print(target.name, target.maximumBytes) }
case "seeds":
    guard arguments.count == 2 else { usage() }
    for target in FuzzTarget.all {
        let directory = URL(fileURLWithPath: arguments[1]).appendingPathComponent(target.name)
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        for (index, seed) in try target.seeds().enumerated() {
            try Data(seed).write(to: directory.appendingPathComponent("seed-\(index)"))
        }
    }
default:
    guard let target = FuzzTarget.all.first(where: { $0.name == command }) else { usage() }
    current = target
    var count = Int32(arguments.count)
    var pointers = arguments.map { strdup($0) } + [nil]
    pointers.withUnsafeMutableBufferPointer { buffer in
        var start = buffer.baseAddress
        let status = LLVMFuzzerRunDriver(&count, &start) { bytes, size in
            do {
                try current?.run(Array(UnsafeBufferPointer(start: bytes, count: size)))
            } catch {
                fatalError("\(error)")
            }
            return 0
        }
        exit(status)
    }
}

func usage() -> Never {
    let text = "usage: fuzz list | fuzz seeds DIRECTORY | fuzz TARGET [libFuzzer arguments]\n"
    FileHandle.standardError.write(Data(text.utf8))
    exit(2)
}
