import CLinux
import Glibc
import Testing

@testable import TunnelDevice

@Suite struct LinuxTUNTests {
    @Test(arguments: ["warren0", "a", "fifteen-letters", "wg.1", "ünï"]) func acceptsNames(name: String) {
        #expect(InterfaceName.isValid(name))
    }

    @Test(arguments: ["", ".", "..", "sixteen-letters-", "a/b", "a:1", "a b", "a\tb", "warren%d", "a\u{7F}", "a\0"])
    func refusesNames(name: String) {
        #expect(!InterfaceName.isValid(name))
        #expect(throws: LinuxTUNError.invalidName(name)) { try LinuxTUN.open(name: name) }
    }

    static let failures: [(step: clinux_tun_step, errno: Int32, name: String, error: LinuxTUNError)] = [
        (CLINUX_TUN_STEP_OPEN, ENOENT, "w", .noDriver(interface: "w", errno: ENOENT)),
        (CLINUX_TUN_STEP_OPEN, ENODEV, "w", .noDriver(interface: "w", errno: ENODEV)),
        (CLINUX_TUN_STEP_OPEN, EACCES, "w", .notPermitted(interface: "w")),
        (CLINUX_TUN_STEP_ATTACH, EPERM, "w", .notPermitted(interface: "w")),
        (CLINUX_TUN_STEP_ATTACH, EBUSY, "w", .busy(interface: "w")),
        (CLINUX_TUN_STEP_ATTACH, EINVAL, "lo", .nameTaken(interface: "lo")),
        (
            CLINUX_TUN_STEP_ATTACH, EINVAL, "no-such-if",
            .failed(interface: "no-such-if", call: "TUNSETIFF", errno: EINVAL)
        ),
        (CLINUX_TUN_STEP_HEADER_SIZE, EINVAL, "w", .failed(interface: "w", call: "TUNSETVNETHDRSZ", errno: EINVAL)),
        (CLINUX_TUN_STEP_OPEN, EMFILE, "w", .failed(interface: "w", call: "open /dev/net/tun", errno: EMFILE)),
    ]

    @Test func namesWhatIsWrong() {
        for failure in Self.failures {
            let step = Int32(bitPattern: failure.step.rawValue)
            #expect(LinuxTUNError(name: failure.name, step: step, errno: failure.errno) == failure.error)
            #expect(failure.error.description.contains(failure.name))
        }
    }

    @Test func offloadBitsAreTheKernels() {
        let bits: [(OffloadFeatures, clinux_tun_offload)] = [
            (.checksum, CLINUX_TUN_CSUM), (.tcp4, CLINUX_TUN_TSO4), (.tcp6, CLINUX_TUN_TSO6),
            (.tcpECN, CLINUX_TUN_TSO_ECN), (.udp4, CLINUX_TUN_USO4), (.udp6, CLINUX_TUN_USO6),
        ]
        for (feature, bit) in bits { #expect(feature.rawValue == bit.rawValue) }
        #expect(OffloadFeatures.all.description == "csum tso4 tso6 tso-ecn uso4 uso6")
        #expect(OffloadFeatures().description == "none")
    }
}
