import ControlAPI
import Foundation
import Multiformats
import PeerIdentity

/// A machine as it stands in a list of peers.
struct PeerEntry {
    var name: String
    var id: PeerID
    var addresses: [Multiaddr]

    /// The entry in YAML, every line indented by `indent` spaces.
    func yaml(indent: Int) -> String {
        var lines = ["- name: \(MachineName.yaml(self.name))", "  id: \(self.id)"]
        if !self.addresses.isEmpty {
            lines.append("  addresses: [ \(self.addresses.map(\.description).joined(separator: ", ")) ]")
        }
        return lines.map { String(repeating: " ", count: indent) + $0 }.joined(separator: "\n")
    }
}

/// What `warren init` writes.
enum InitialConfiguration {
    static func text(name: String, own: PeerEntry) -> String {
        """
        # The configuration of this machine's warren daemon. The example warren.yaml explains every key;
        # 'warren config check' looks for mistakes; 'systemctl reload warren' takes over new peers and routes.
        name: \(MachineName.yaml(name))
        networks:
          home:
            peers:                # one list can serve all machines: this machine's own entry is never dialled
        \(own.yaml(indent: 6))

        """
    }
}

/// The name of this machine.
enum MachineName {
    /// Lower-case letters, digits and inner hyphens, 1 to 63.
    static func isValid(_ name: String) -> Bool { Endpoint.isLabel(name) }

    /// The first label of the host name with everything else made a hyphen; `warren` when nothing is left.
    static func fromHostName() -> String {
        var buffer = [CChar](repeating: 0, count: 256)
        guard gethostname(&buffer, buffer.count - 1) == 0 else { return "warren" }
        let bytes = buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
        return Self.sanitised(String(decoding: bytes, as: UTF8.self))
    }

    static func sanitised(_ hostName: String) -> String {
        let label = hostName.lowercased().prefix { $0 != "." }
        let words = String(label.map { Endpoint.isLabel(String($0)) ? $0 : "-" }).split(separator: "-")
        var name = String(words.joined(separator: "-").prefix(63))
        while name.last == "-" { name.removeLast() }
        return name.isEmpty ? "warren" : name
    }

    /// The name as YAML text. Some labels (`null`, `on`, `1e3`) mean something else when they are not quoted.
    static func yaml(_ name: String) -> String {
        let isPlain =
            name.first?.isLetter == true
            && !["null", "true", "false", "yes", "no", "on", "off", "y", "n"].contains(name)
        return isPlain ? name : "'\(name)'"
    }
}

/// The addresses of this machine that others could dial.
enum GlobalAddresses {
    /// One multiaddr for each global address of an interface that is up: public ones first, at most 16.
    static func dialable(port: UInt16) -> [Multiaddr] {
        var first: UnsafeMutablePointer<ifaddrs>?
        guard getifaddrs(&first) == 0 else { return [] }
        defer { freeifaddrs(first) }
        var addresses: [IPAddress] = []
        for entry in sequence(first: first, next: { $0?.pointee.ifa_next }) {
            guard let interface = entry?.pointee, let socketAddress = interface.ifa_addr,
                interface.ifa_flags & UInt32(IFF_UP) != 0,
                let address = Self.address(socketAddress), Self.isGlobal(address), !addresses.contains(address)
            else { continue }
            addresses.append(address)
        }
        return addresses.prefix(16).map { .tcp($0, port: port) }
    }

    private static func address(_ pointer: UnsafeMutablePointer<sockaddr>) -> IPAddress? {
        switch Int32(pointer.pointee.sa_family) {
        case AF_INET:
            pointer.withMemoryRebound(to: sockaddr_in.self, capacity: 1) {
                IPAddress(ipv4: UInt32(bigEndian: $0.pointee.sin_addr.s_addr))
            }
        case AF_INET6:
            // Family, port and flow label come first: eight bytes.
            IPAddress(bytes: UnsafeRawBufferPointer(start: UnsafeRawPointer(pointer) + 8, count: 16))
        default: nil
        }
    }

    /// Neither loopback, link-local, unspecified nor multicast, nor of an overlay's default prefixes.
    static func isGlobal(_ address: IPAddress) -> Bool { !Self.unusable.contains { $0.contains(address) } }

    private static let unusable: [IPPrefix] = [
        "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/127", "fe80::/10", "ff00::/8",
    ].compactMap { IPPrefix($0) }
}
