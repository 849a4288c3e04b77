import CNetlink

/// A message to the kernel's routing socket: a fixed structure, then attributes. Built with libnl, freed with the value.
struct NetlinkRequest: ~Copyable {
    /// libnl's `struct nl_msg`.
    let message: OpaquePointer
    /// What the message asks for; errors name it.
    let operation: NetworkOperation?

    /// A message of `type` (`RTM_…`). `NLM_F_REQUEST` and `NLM_F_ACK` are added when it is sent.
    init(
        type: Int, flags: Int32, operation: NetworkOperation? = nil, body: some BitwiseCopyable
    ) throws(NetlinkError) {
        self.init(message: try Self.allocate(type: type, flags: flags, body: body), operation: operation)
    }

    private init(message: OpaquePointer, operation: NetworkOperation?) {
        self.message = message
        self.operation = operation
    }

    private static func allocate(
        type: Int, flags: Int32, body: some BitwiseCopyable
    ) throws(NetlinkError) -> OpaquePointer {
        guard let message = nlmsg_alloc_simple(Int32(truncatingIfNeeded: type), flags) else { throw .outOfMemory }
        var body = body
        let code = withUnsafeMutableBytes(of: &body) {
            nlmsg_append(message, $0.baseAddress, $0.count, Int32(NLMSG_ALIGNTO))
        }
        if code < 0 {
            nlmsg_free(message)
            throw .outOfMemory
        }
        return message
    }

    deinit { nlmsg_free(self.message) }

    /// Adds an attribute of raw bytes.
    func put(_ type: Int, bytes: [UInt8]) throws(NetlinkError) {
        let code = bytes.withUnsafeBytes {
            nla_put(
                self.message, Int32(truncatingIfNeeded: type), Int32(truncatingIfNeeded: $0.count), $0.baseAddress)
        }
        if code < 0 { throw .outOfMemory }
    }

    /// Adds an attribute of 32 bits, in the host's byte order.
    func put(_ type: Int, _ value: UInt32) throws(NetlinkError) {
        if nla_put_u32(self.message, Int32(truncatingIfNeeded: type), value) < 0 { throw .outOfMemory }
    }

    /// Adds an attribute of 8 bits.
    func put(_ type: Int, _ value: UInt8) throws(NetlinkError) {
        if nla_put_u8(self.message, Int32(truncatingIfNeeded: type), value) < 0 { throw .outOfMemory }
    }
}

/// A message from the kernel's routing socket. Borrowed from the buffer it arrived in.
struct NetlinkMessage {
    let header: UnsafeMutablePointer<nlmsghdr>

    /// `RTM_…` or `NLMSG_…`.
    var type: Int { Int(self.header.pointee.nlmsg_type) }

    /// The fixed structure behind the header; `nil` when the message is too short for it.
    func body<Body: BitwiseCopyable>(_: Body.Type = Body.self) -> Body? {
        guard nlmsg_valid_hdr(self.header, Int32(MemoryLayout<Body>.size)) != 0 else { return nil }
        return nlmsg_data(self.header)?.loadUnaligned(as: Body.self)
    }

    /// The attribute `type` behind a fixed structure of `Body`'s size, without its header. Borrowed.
    func attribute<Body>(_ type: Int, after _: Body.Type) -> UnsafeRawBufferPointer? {
        let attribute = nlmsg_find_attr(
            self.header, Int32(MemoryLayout<Body>.size), Int32(truncatingIfNeeded: type))
        guard let attribute, let data = nla_data(attribute) else { return nil }
        return UnsafeRawBufferPointer(start: data, count: max(0, Int(nla_len(attribute))))
    }

    /// A 32-bit attribute.
    func integer<Body>(_ type: Int, after body: Body.Type) -> UInt32? {
        guard let bytes = self.attribute(type, after: body), bytes.count >= 4 else { return nil }
        return bytes.loadUnaligned(as: UInt32.self)
    }

    /// An 8-bit attribute.
    func byte<Body>(_ type: Int, after body: Body.Type) -> UInt8? {
        self.attribute(type, after: body)?.first
    }

    /// A textual attribute, up to its NUL.
    func text<Body>(_ type: Int, after body: Body.Type) -> String? {
        self.attribute(type, after: body).map { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
}
