internal import LibP2PCore

/// The stream protocol that packets travel on.
enum PacketProtocol {
    /// Its name.
    static let id: ProtocolID = "/warren/packet/1.0.0"
}
