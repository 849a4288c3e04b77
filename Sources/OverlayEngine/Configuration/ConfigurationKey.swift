/// One key of the configuration file: where it stands, what it is when absent, and whether a reload takes it over.
///
/// The table is what the parser accepts, what a reload goes by, and what the comments in `etc/warren.yaml` say.
package struct ConfigurationKey: Hashable, Sendable {
    /// The path from the root, `<name>` for the name of any network and `[]` for any item of a list.
    package let path: String
    /// Whether a reload takes over a new value. Otherwise it waits for a restart.
    package let isReloadable: Bool
    /// The value when the key is absent, in words; `nil` where there must be one.
    package let defaultValue: String?

    /// Every key there is.
    package static let all: [ConfigurationKey] = [
        .init("name", reload: false, default: "the host name"),
        .init("listen", reload: false, default: "port 4117 on every address, TCP and QUIC"),
        .init("relay", reload: false, default: "members"),
        .init("operators", reload: true, default: "[ warren ]"),
        .init("tcpCongestion", reload: false, default: "bbr"),
        .init("protocolVersion", reload: false, default: "ipfs/0.1.0"),
        .init("networks", reload: false, default: "none"),
        .init("networks.<name>.interface", reload: false, default: "warren0, warren1, … in order"),
        .init("networks.<name>.mtu", reload: false, default: "1280"),
        .init("networks.<name>.ipv4Prefix", reload: false, default: "100.64.0.0/10"),
        .init("networks.<name>.networkSecret", reload: false, default: "none"),
        .init("networks.<name>.acceptRoutes", reload: true, default: "[]"),
        .init("networks.<name>.peers", reload: true, default: "[]"),
        .init("networks.<name>.peers[].name", reload: true, default: nil),
        .init("networks.<name>.peers[].id", reload: true, default: nil),
        .init("networks.<name>.peers[].addresses", reload: true, default: "[]"),
        .init("networks.<name>.peers[].ipv4", reload: true, default: "computed from the peer ID"),
        .init("networks.<name>.peers[].routes", reload: true, default: "[]"),
    ]

    /// The last part of the path: what stands in the file.
    package var name: String { self.path.split(separator: ".").last.map(String.init) ?? self.path }

    /// The names of the keys right below `parent`; the empty path is the root.
    static func names(under parent: String) -> [String] {
        let prefix = parent.isEmpty ? "" : parent + "."
        return Self.all.filter { $0.path.hasPrefix(prefix) && !$0.path.dropFirst(prefix.count).contains(".") }
            .map(\.name)
    }

    private init(_ path: String, reload: Bool, default defaultValue: String?) {
        self.path = path
        self.isReloadable = reload
        self.defaultValue = defaultValue
    }
}
