internal import Multiformats

extension [UInt8] {
    /// Appends `field` behind its length as an unsigned varint.
    mutating func appendLengthPrefixed(_ field: some Collection<UInt8>) {
        Varint.append(UInt64(field.count), to: &self)
        self.append(contentsOf: field)
    }
}
