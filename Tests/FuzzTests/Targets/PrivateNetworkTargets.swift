@testable import LibP2PConnection

extension FuzzTarget {
    /// A file either holds a key, which written anew is the same, or the place of the mistake is one that the file may have.
    static let preSharedKey = FuzzTarget(
        name: "pre-shared-key", maximumBytes: 1100,
        seeds: {
            let key = [UInt8](repeating: 0x5a, count: 32)
            let file = try PreSharedKey(bytes: key).file
            let base64 = "/key/swarm/psk/1.0.0/\n/base64/\nWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlo=\n"
            let example = try Vectors.libp2p.get()["pnet_keyfile"]["file"].text ?? ""
            let texts = [
                file, base64, example, file.replacing("\n", with: "\r\n"), "/key/swarm/psk/1.0.0/\n/base16/\n",
            ]
            return texts.map { Array($0.utf8) } + [Array("/key/swarm/psk/1.0.0/\n/bin/\n".utf8) + key]
        },
        run: { input in
            let key: PreSharedKey
            do throws(PreSharedKeyError) {
                key = try PreSharedKey(file: input)
            } catch {
                switch error {
                case .missingLine(let line), .unknownFormat(let line), .unknownEncoding(let line),
                    .trailingBytes(let line), .wrongLength(let line, _, _):
                    try hold((1...4).contains(line))
                case .invalidDigit(let line, let column): try hold(line == 3 && (1...input.count).contains(column))
                case .fileTooLong(let bytes, _): try holdEqual(bytes, input.count)
                }
                return
            }
            try holdEqual(key.bytes.count, PreSharedKey.byteCount)
            try holdEqual(try PreSharedKey(file: key.file.utf8), key)
        })

    /// A key stream is the same however it is used up.
    static let keyStream = FuzzTarget(
        name: "key-stream", maximumBytes: 2048,
        seeds: {
            let text = (0..<200).map { UInt8($0) }
            return [[0, 0, 0, 0], [1, 1, 1, 1], [64, 63, 65, 1], [3, 0, 0, 0]].map { $0 + text }
        },
        run: { input in
            var choices = Choices(input)
            let (whole, pieces) = choices.pieces()
            let sealed = try apply(pieces)
            try holdEqual(sealed, try apply([whole]))
            try holdEqual(try apply([sealed]), whole)
        })

    private static func apply(_ pieces: [[UInt8]]) throws -> [UInt8] {
        let key = try PreSharedKey(bytes: [UInt8](repeating: 7, count: 32))
        var cipher = try XSalsa20(key: key, nonce: [UInt8](repeating: 8, count: XSalsa20.nonceBytes))
        var result: [UInt8] = []
        for var piece in pieces {
            piece.withUnsafeMutableBufferPointer { bytes in
                guard let start = bytes.baseAddress else { return }
                cipher.apply(start, into: start, count: bytes.count)
            }
            result += piece
        }
        return result
    }
}
