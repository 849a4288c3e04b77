import Multiformats

extension FuzzTarget {
    /// A varint is read only if it is the encoding of its value, and any cut of one is called truncated.
    static let varint = FuzzTarget(
        name: "varint", maximumBytes: 16,
        seeds: {
            let valid = try Vectors.libp2p.get()["uvarint"].members ?? [:]
            return try valid.values.map { try $0.bytes } + [
                [0x81, 0x00], [UInt8](repeating: 0xff, count: 9) + [1], Varint.encode(Varint.maximumValue),
            ]
        },
        run: { input in
            var index = 0
            let decoded = Result { () throws(VarintError) in try Varint.decode(input, at: &index) }
            switch decoded {
            case .success(let value):
                try hold(value <= Varint.maximumValue)
                try holdEqual(Varint.encode(value), Array(input[..<index]))
                try holdEqual(Varint.encodedLength(of: value), index)
                for length in 0..<index {
                    var position = 0
                    let cut = Result { () throws(VarintError) in try Varint.decode(input[..<length], at: &position) }
                    try holdEqual(cut, .failure(.truncated))
                }
            case .failure(let error):
                try holdEqual(index, 0)
                try hold(error != .truncated || input.count < Varint.maximumBytes)
            }
        })

    /// Multihashes, CIDs and their text in every base come back the same.
    static let cid = FuzzTarget(
        name: "cid", maximumBytes: 512,
        seeds: {
            guard case .list(let items) = try Vectors.multiformats.get()["cid"]["items"] else { return [] }
            let texts = items.flatMap { ($0.members ?? [:]).values.compactMap(\.text) }
            let binary = texts.compactMap { try? CID($0).bytes }
            guard case .list(let hashes) = try Vectors.multiformats.get()["multihash"]["items"] else { return [] }
            return try texts.map { Array($0.utf8) } + binary + hashes.map { try $0["multihash_hex"].bytes }
        },
        run: { input in
            if let hash = try? Multihash(bytes: input) {
                try holdEqual(hash.bytes, input)
            }
            if let cid = try? CID(bytes: input) {
                try holdEqual(cid.bytes, input)
                try holdEqual(try CID(cid.description), cid)
            }
            guard let text = String(validating: input, as: UTF8.self) else { return }
            if let cid = try? CID(text) {
                try holdEqual(try CID(bytes: cid.bytes), cid)
                try holdEqual(try CID(cid.description), cid)
            }
            if let (base, bytes) = try? Multibase.decode(text) {
                let (again, same) = try Multibase.decode(base.encode(bytes))
                try hold(again == base && same == bytes)
            }
            if let bytes = try? Base58.decode(text) {
                try holdEqual(Base58.encode(bytes), text)
            }
        })

    /// A binary address that is accepted comes back the same from its text and from its components.
    static let multiaddrBytes = FuzzTarget(
        name: "multiaddr-bytes", maximumBytes: 2100,
        seeds: {
            let first = try Vectors.libp2p.get()["multiaddr_valid"]["pairs"].members ?? [:]
            let second = try Vectors.multiformats.get()["multiaddr"]["pairs"].members ?? [:]
            let past = try Vectors.multiformats.get()["multiaddr_fuzz"]["bytes_hex"].texts.compactMap(hex)
            return try (Array(first.values) + second.values).map { try $0.bytes } + past
        },
        run: { input in
            guard let address = try? Multiaddr(bytes: input) else { return }
            try holdEqual(address.bytes, input)
            try checkStability(of: address)
        })

    /// The text of an address, canonical or not, leads to bytes that lead to its canonical text.
    static let multiaddrText = FuzzTarget(
        name: "multiaddr-text", maximumBytes: 1024,
        seeds: {
            let first = try Vectors.libp2p.get()["multiaddr_parse_ok"].texts
            let second = try Vectors.multiformats.get()["multiaddr"]["valid"].texts
            let invalid = try Vectors.libp2p.get()["multiaddr_invalid"]["items"].texts
            let past = try Vectors.multiformats.get()["multiaddr_fuzz"]["text_hex"].texts.compactMap(hex)
            return ((first + second + invalid).map { Array($0.utf8) } + past).filter { $0.count <= 1024 }
        },
        run: { input in
            do {
                let address = try Multiaddr(String(decoding: input, as: UTF8.self))
                try holdEqual(try Multiaddr(bytes: address.bytes), address)
                try checkStability(of: address)
            } catch let error as MultiaddrError {
                // What an operator or a log is shown stays short, whatever the remote has sent.
                try hold(error.description.utf8.count < 512, error.description)
            }
        })

    private static func checkStability(of address: Multiaddr) throws {
        try hold(!address.isEmpty)
        try holdEqual(try Multiaddr(address.description), address)
        let components = address.components
        try holdEqual(Multiaddr(components: components), address)
        for component in components {
            try holdEqual(try Multiaddr.Component(component.protocol, value: component.value), component)
        }
        try holdEqual(address.protocols, components.map(\.protocol))
        let (rest, peer) = address.removingTrailingP2P()
        try hold((peer == nil) == (rest == address))
        _ = (address.ipAddress, address.tcpPort, address.udpPort)
    }
}
