import Multiformats

// Big-endian fields of a packet. The caller has checked the bounds; debug builds trap where it has not.

extension UnsafeRawBufferPointer {
    @inline(__always)
    func bigEndian16(at offset: Int) -> UInt16 {
        UInt16(bigEndian: self.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
    }

    @inline(__always)
    func bigEndian32(at offset: Int) -> UInt32 {
        UInt32(bigEndian: self.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }

    @inline(__always)
    func bigEndian64(at offset: Int) -> UInt64 {
        UInt64(bigEndian: self.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
    }

    /// The `count` bytes from `offset` on, without copying.
    @inline(__always)
    func part(from offset: Int, count: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: self[offset..<offset + count])
    }
}

extension UnsafeMutableRawBufferPointer {
    @inline(__always)
    func setBigEndian16(_ value: UInt16, at offset: Int) {
        self.storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt16.self)
    }

    @inline(__always)
    func setBigEndian32(_ value: UInt32, at offset: Int) {
        self.storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt32.self)
    }

    /// Writes the address in network order: 4 or 16 bytes.
    @inline(__always)
    func setAddress(_ address: IPAddress, at offset: Int) {
        switch address.family {
        case .ipv4:
            self.setBigEndian32(UInt32(truncatingIfNeeded: address.low), at: offset)
        case .ipv6:
            self.storeBytes(of: address.high.bigEndian, toByteOffset: offset, as: UInt64.self)
            self.storeBytes(of: address.low.bigEndian, toByteOffset: offset + 8, as: UInt64.self)
        }
    }
}
