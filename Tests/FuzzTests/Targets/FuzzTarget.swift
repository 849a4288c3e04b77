/// One decoder or machine, fed with whatever a fuzzer makes up.
///
/// The same targets run under libFuzzer (`Tests/Fuzz/run`) and, over seeds and past findings, in `swift test`.
struct FuzzTarget: Sendable, CustomStringConvertible {
    /// What `Tests/Fuzz/run` calls it.
    let name: String
    /// The longest input that is of use, in bytes.
    let maximumBytes: Int
    /// Inputs to start from.
    let seeds: @Sendable () throws -> [[UInt8]]
    /// Feeds one input. Throws ``Violation`` where something that must always hold does not.
    let run: @Sendable ([UInt8]) throws -> Void

    var description: String { self.name }

    static let all: [FuzzTarget] = [
        .varint, .cid, .multiaddrBytes, .multiaddrText,
        .multistreamDialer, .multistreamListener, .noisePayload, .noiseHandshake, .noiseRecords, .yamux,
        .mplex, .preSharedKey, .keyStream, .plaintext, .perfServer,
        .webSocketFrames, .webSocketOpening, .openings,
        .certificate, .tlsHandshake,
        .publicKey, .privateKey, .peerID, .envelope, .peerRecord, .identify,
        .frames, .datagram, .hello, .packet, .packetChecksummed, .localOffload, .coalescer,
        .configuration, .httpResponse,
    ]
}

/// Something that must hold for every input did not.
struct Violation: Error, CustomStringConvertible {
    let description: String
}

/// Fails the target unless `condition` is true.
func hold(
    _ condition: Bool, _ fact: @autoclosure () -> String = "", file: StaticString = #fileID, line: UInt = #line
) throws {
    guard !condition else { return }
    throw Violation(description: "\(file):\(line): \(fact())")
}

/// Fails the target unless both are equal.
func holdEqual<Value: Equatable>(
    _ a: Value, _ b: Value, file: StaticString = #fileID, line: UInt = #line
) throws {
    try hold(a == b, "\(a) is not \(b)", file: file, line: line)
}

/// Reads an input from its beginning. Beyond the end everything is zero.
struct Choices {
    private(set) var rest: ArraySlice<UInt8>

    init(_ input: [UInt8]) { self.rest = input[...] }

    var isEmpty: Bool { self.rest.isEmpty }

    mutating func byte() -> UInt8 { self.rest.popFirst() ?? 0 }

    mutating func uint16() -> UInt16 { UInt16(self.byte()) << 8 | UInt16(self.byte()) }

    mutating func uint32() -> UInt32 { UInt32(self.uint16()) << 16 | UInt32(self.uint16()) }

    mutating func bytes(atMost count: Int) -> [UInt8] {
        defer { self.rest = self.rest.dropFirst(count) }
        return Array(self.rest.prefix(count))
    }

    mutating func remainder() -> [UInt8] {
        defer { self.rest = [] }
        return Array(self.rest)
    }

    /// Takes four bytes as piece lengths, which repeat; the rest of the input is cut into such pieces. A length of 0 stands for all
    /// that is left.
    mutating func pieces() -> (whole: [UInt8], pieces: [[UInt8]]) {
        let lengths = (0..<4).map { _ in Int(self.byte()) }
        let whole = self.remainder()
        return (whole, cut(whole, lengths: lengths))
    }
}

/// Cuts `bytes` into pieces of these lengths, over and over; 0 stands for all that is left.
func cut(_ bytes: [UInt8], lengths: [Int]) -> [[UInt8]] {
    var rest = bytes[...]
    var pieces: [[UInt8]] = []
    while !rest.isEmpty {
        let length = lengths[pieces.count % lengths.count]
        let piece = rest.prefix(length == 0 ? rest.count : length)
        pieces.append(Array(piece))
        rest = rest.dropFirst(piece.count)
    }
    return pieces
}
