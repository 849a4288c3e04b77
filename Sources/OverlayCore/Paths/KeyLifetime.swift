/// When a connection whose keys nothing renews is to be replaced.
///
/// The end that accepted the connection waits a little longer, so that one end replaces it and not both.
package struct KeyLifetime: Equatable, Sendable {
    /// Bytes that may be encrypted under one key.
    package var bytes: UInt64
    /// How long a key may be used, in nanoseconds.
    package var nanoseconds: UInt64

    /// 256 GiB or 12 hours.
    package static let standard = KeyLifetime(bytes: 256 << 30, nanoseconds: 12 * 3_600 * 1_000_000_000)

    package init(bytes: UInt64, nanoseconds: UInt64) {
        self.bytes = bytes
        self.nanoseconds = nanoseconds
    }

    /// Whether a connection is to be replaced now.
    ///
    /// - Parameters:
    ///   - sealed: Bytes that this end has encrypted under its key.
    ///   - age: Since the connection was established, in nanoseconds.
    ///   - isDialer: Whether this end dialled it.
    package func isOver(sealed: UInt64, age: UInt64, isDialer: Bool) -> Bool {
        let grace: (UInt64) -> UInt64 = { isDialer ? $0 : $0.addingClamped($0 / 8) }
        return sealed >= grace(self.bytes) || age >= grace(self.nanoseconds)
    }
}
