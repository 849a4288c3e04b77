internal import LibP2PCore
internal import Multiformats
internal import NIOCore
internal import NIOPosix

/// Turns bound addresses into ones that others can dial: an unspecified IP stands for every address of the machine.
enum AnnouncedAddresses {
    /// Interfaces change rarely; asking costs a few system calls, and identify asks once per connection.
    static func expand(_ bound: [Multiaddr]) -> [Multiaddr] {
        guard bound.contains(where: { $0.ipAddress?.isUnspecified ?? false }) else { return bound }
        let own = ((try? System.enumerateDevices()) ?? []).compactMap {
            $0.address?.ipAddress.flatMap { IPAddress($0) }
        }
        .filter { !$0.isIPv6LinkLocal }
        return bound.flatMap { address -> [Multiaddr] in
            guard let ip = address.ipAddress, ip.isUnspecified else { return [address] }
            return own.filter { $0.family == ip.family }.map {
                Multiaddr(components: [.ip($0)] + address.components.dropFirst())
            }
        }
    }
}
