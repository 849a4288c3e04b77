import CLinux
import Glibc
import Testing

@Suite struct SocketShimTests {
    @Test func tellsWhoIsAtTheFarEndOfAUnixSocket() {
        var pair: [Int32] = [0, 0]
        #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &pair) == 0)
        defer { pair.forEach { close($0) } }
        var peer = clinux_credentials()
        #expect(clinux_peer_credentials(pair[0], &peer) == 0)
        #expect(peer.pid == getpid())
        #expect(peer.uid == geteuid())
        #expect(peer.gid == getegid())
    }

    @Test func aSocketWithoutPeerHasNoCredentials() {
        let socket = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(socket) }
        var peer = clinux_credentials()
        #expect(clinux_peer_credentials(socket, &peer) == -ENOTCONN)
    }

    @Test func readsBackTheCongestionControl() {
        let socket = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(socket) }
        var name = [CChar](repeating: 1, count: 16)
        // Reno is built into every kernel and allowed to everybody.
        #expect(clinux_tcp_set_congestion(socket, "reno") == 0)
        #expect(clinux_tcp_congestion(socket, &name, name.count) == 0)
        #expect(String(decoding: name.prefix { $0 != 0 }.map { UInt8($0) }, as: UTF8.self) == "reno")
        #expect(clinux_tcp_set_congestion(socket, "no-such-control") == -ENOENT)
        #expect(clinux_tcp_congestion(socket, &name, 0) == -EINVAL)
    }

    @Test func setsTheUnsentLimit() {
        let socket = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(socket) }
        #expect(clinux_tcp_set_notsent_lowat(socket, 131_072) == 0)
        var value: UInt32 = 0
        var length = socklen_t(MemoryLayout<UInt32>.size)
        #expect(getsockopt(socket, Int32(IPPROTO_TCP), TCP_NOTSENT_LOWAT, &value, &length) == 0)
        #expect(value == 131_072)
    }

    /// Marking needs a capability: with it the mark must read back, without it the reason must be told.
    @Test func marksASocketOrSaysWhyNot() {
        let socket = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
        defer { close(socket) }
        let code = clinux_set_mark(socket, 0x2057)
        var value: UInt32 = 0
        var length = socklen_t(MemoryLayout<UInt32>.size)
        #expect(getsockopt(socket, SOL_SOCKET, SO_MARK, &value, &length) == 0)
        #expect((code == 0 && value == 0x2057) || (code == -EPERM && value == 0))
    }

    @Test func readsTheStateOfAConnection() throws {
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        let dialer = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer {
            close(listener)
            close(dialer)
        }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let connected = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(listener, $0, length) == 0 && listen(listener, 1) == 0 && getsockname(listener, $0, &length) == 0
                    && connect(dialer, $0, length) == 0
            }
        }
        try #require(connected)
        var info = clinux_tcp_info()
        #expect(clinux_tcp_info(dialer, &info) == 0)
        #expect(info.rtt_microseconds > 0)
        #expect(info.segment_bytes > 0)
        #expect(info.congestion_window_segments > 0)
        #expect(info.unsent_bytes == 0)
    }

    @Test func refusesWhatIsNotASocket() {
        var peer = clinux_credentials()
        var info = clinux_tcp_info()
        #expect(clinux_peer_credentials(-1, &peer) == -EBADF)
        #expect(clinux_tcp_info(-1, &info) == -EBADF)
        #expect(clinux_set_mark(-1, 1) == -EBADF)
        #expect(clinux_tcp_set_notsent_lowat(-1, 1) == -EBADF)
    }
}

@Suite struct DescriptorShimTests {
    @Test func anEventDescriptorIsReadableBetweenSignalAndDrain() {
        let event = clinux_eventfd()
        defer { close(event) }
        var wait = pollfd(fd: event, events: Int16(POLLIN), revents: 0)
        #expect(poll(&wait, 1, 0) == 0)
        #expect(clinux_eventfd_signal(event) == 0)
        #expect(clinux_eventfd_signal(event) == 0)
        #expect(poll(&wait, 1, 0) == 1)
        #expect(clinux_eventfd_drain(event) == 0)
        #expect(poll(&wait, 1, 0) == 0)
        #expect(clinux_eventfd_drain(event) == 0)
    }

    @Test func writesTwoPiecesAsOneDatagram() {
        var pair: [Int32] = [0, 0]
        #expect(socketpair(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0, &pair) == 0)
        defer { pair.forEach { close($0) } }
        #expect(clinux_write_pair(pair[0], [1, 2] as [UInt8], 2, [3, 4, 5] as [UInt8], 3) == 5)
        var buffer = [UInt8](repeating: 0, count: 16)
        #expect(clinux_read(pair[1], &buffer, buffer.count) == 5)
        #expect(buffer.prefix(5) == [1, 2, 3, 4, 5])
        #expect(clinux_read(-1, &buffer, 1) == -Int(EBADF))
        #expect(clinux_write_pair(-1, buffer, 1, buffer, 1) == -Int(EBADF))
    }

    @Test func knowsTheMTUOfLoopback() {
        #expect(clinux_interface_mtu("lo") >= 1280)
        #expect(clinux_interface_mtu("no-such-if") == -ENODEV)
        #expect(clinux_interface_mtu("a-name-of-sixteen") == -ENAMETOOLONG)
    }

    @Test func namesErrors() {
        var text = [CChar](repeating: 1, count: 64)
        clinux_error_text(ENOENT, &text, text.count)
        #expect(
            String(decoding: text.prefix { $0 != 0 }.map { UInt8($0) }, as: UTF8.self) == "No such file or directory")
        clinux_error_text(ENOENT, &text, 4)
        #expect(text.prefix(4).map { UInt8($0) } == Array("No \0".utf8))
    }
}
