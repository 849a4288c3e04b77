import CLinux
import Glibc

/// A TUN interface of the Linux kernel.
///
/// It exists while the object does, unless it was persistent before (`ip tuntap add`): then we used it and leave it.
/// It starts without addresses and down; ``LinkConfigurator`` does the rest.
package final class LinuxTUN: PacketDevice {
    package let name: String
    /// The interface's index, which survives renaming.
    package let index: Int32
    package let offload: OffloadFeatures
    package let descriptor: Int32

    /// Opens the interface `name`, creating it when it does not exist.
    ///
    /// - Parameters:
    ///   - name: 1…15 bytes, see ``InterfaceName/isValid(_:)``.
    ///   - offload: Whether the kernel may hand us super-packets and pending checksums. ``offload-swift.property`` tells what it granted:
    ///     an older kernel may grant less.
    package static func open(name: String, offload: Bool = true) throws(LinuxTUNError) -> LinuxTUN {
        guard InterfaceName.isValid(name) else { throw .invalidName(name) }
        var tun = clinux_tun()
        let code = clinux_tun_open(name, offload ? OffloadFeatures.all.rawValue : 0, &tun)
        if code < 0 { throw LinuxTUNError(name: name, step: tun.failed_step, errno: -code) }
        let actual = withUnsafeBytes(of: &tun.name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        return LinuxTUN(
            name: actual, index: Int32(truncatingIfNeeded: if_nametoindex(actual)),
            offload: OffloadFeatures(rawValue: tun.offload), descriptor: tun.fd)
    }

    /// A device that is no interface: packets come and go on `descriptor`, a socket that keeps packet borders. For whole nodes in one
    /// process. Takes ownership of the descriptor.
    package static func standIn(name: String, descriptor: Int32, offload: OffloadFeatures) -> LinuxTUN {
        LinuxTUN(name: name, index: 0, offload: offload, descriptor: descriptor)
    }

    private init(name: String, index: Int32, offload: OffloadFeatures, descriptor: Int32) {
        self.name = name
        self.index = index
        self.offload = offload
        self.descriptor = descriptor
    }

    deinit { close(self.descriptor) }

    package var mtu: Int { max(0, Int(clinux_interface_mtu(self.name))) }

    package func read(into buffer: UnsafeMutableRawBufferPointer) throws(PacketReadError) -> Int? {
        let count = clinux_read(self.descriptor, buffer.baseAddress, buffer.count)
        if count >= 0 { return count }
        switch Int32(truncatingIfNeeded: -count) {
        case EAGAIN: return nil
        case EBADFD, ENODEV: throw .deviceGone
        case let code: throw .failed(errno: code)
        }
    }

    package func write(header: UnsafeRawPointer, packet: UnsafeRawBufferPointer) -> PacketWriteResult {
        let count = clinux_write_pair(
            self.descriptor, header, PacketDeviceLimits.headerBytes, packet.baseAddress, packet.count)
        if count >= 0 { return .written }
        switch Int32(truncatingIfNeeded: -count) {
        case EAGAIN, ENOBUFS, ENOMEM: return .queueFull
        case EIO: return .linkDown
        case EBADFD, ENODEV: return .deviceGone
        case let code: return .rejected(errno: code)
        }
    }
}

/// What the kernel accepts as the name of an interface.
package enum InterfaceName {
    /// Whether `name` has 1…15 bytes, none of them `/`, `:`, `%`, white space or a control character, and is not `.` or `..`.
    ///
    /// `%` is legal to the kernel, which takes it as a place for a number: we want the name we asked for.
    package static func isValid(_ name: String) -> Bool {
        (1...15).contains(name.utf8.count) && name != "." && name != ".."
            && name.utf8.allSatisfy { $0 > 0x20 && $0 != 0x7F && !"/:%".utf8.contains($0) }
    }
}

/// Why a TUN interface could not be opened.
package enum LinuxTUNError: Error, Hashable, Sendable, CustomStringConvertible {
    /// Not a name an interface can have.
    case invalidName(String)
    /// `/dev/net/tun` is not there, or the kernel has no driver behind it.
    case noDriver(interface: String, errno: Int32)
    /// Creating interfaces is not allowed to this process.
    case notPermitted(interface: String)
    /// Another process holds the interface.
    case busy(interface: String)
    /// An interface of that name exists and is not a TUN.
    case nameTaken(interface: String)
    /// Any other failure; `call` names what was tried.
    case failed(interface: String, call: String, errno: Int32)

    init(name: String, step: Int32, errno code: Int32) {
        let call =
            switch UInt32(bitPattern: step) {
            case CLINUX_TUN_STEP_OPEN.rawValue: "open /dev/net/tun"
            case CLINUX_TUN_STEP_ATTACH.rawValue: "TUNSETIFF"
            case CLINUX_TUN_STEP_HEADER_SIZE.rawValue: "TUNSETVNETHDRSZ"
            default: "TUNSETOFFLOAD"
            }
        let attaching = step == Int32(bitPattern: CLINUX_TUN_STEP_ATTACH.rawValue)
        switch code {
        case ENOENT where !attaching, ENODEV where !attaching, ENXIO where !attaching:
            self = .noDriver(interface: name, errno: code)
        case EPERM, EACCES: self = .notPermitted(interface: name)
        case EBUSY: self = .busy(interface: name)
        case EINVAL where attaching && if_nametoindex(name) != 0: self = .nameTaken(interface: name)
        default: self = .failed(interface: name, call: call, errno: code)
        }
    }

    package var description: String {
        switch self {
        case .invalidName(let name):
            "\"\(name)\" cannot be the name of an interface: 1 to 15 characters, no space, '/', ':' or '%'"
        case .noDriver(let interface, let code):
            """
            cannot create \(interface): /dev/net/tun is missing (\(errnoText(code))). Load the driver with `modprobe tun`; \
            in a container pass `--device /dev/net/tun`
            """
        case .notPermitted(let interface):
            """
            cannot create \(interface): not permitted. Run as root or with CAP_NET_ADMIN \
            (systemd: AmbientCapabilities=CAP_NET_ADMIN, container: --cap-add NET_ADMIN)
            """
        case .busy(let interface):
            "cannot use \(interface): another process holds this interface. Stop it, or choose another name with `interface:`"
        case .nameTaken(let interface):
            "cannot use \(interface): an interface of this name exists and is not a TUN. Choose another with `interface:`"
        case .failed(let interface, let call, let code):
            "cannot create \(interface): \(call): \(errnoText(code))"
        }
    }
}
