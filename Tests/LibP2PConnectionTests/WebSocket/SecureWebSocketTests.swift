import Foundation
import LibP2PCore
import Multiformats
import NIOCore
import PeerIdentity
import TestKit
import Testing

@testable import LibP2PConnection

@Suite(.timeLimit(.minutes(1))) struct SecureWebSocketTests {
    let authority = Result { try TestAuthority() }

    /// A listener with this certificate, and where to dial it.
    private func listener(_ leaf: TestAuthority.Leaf, on text: String = "/ip4/127.0.0.1/tcp/0/tls/ws") async throws -> (
        WebSocketNode, any Listener
    ) {
        let node = try WebSocketNode(
            webSocket: WebSocketOptions(certificate: try self.authority.get().certificate(leaf)))
        return (node, try await node.listen(on: text))
    }

    private func dialer(acceptsSelfSigned: Bool = false) throws -> WebSocketNode {
        let trust = try self.authority.get().trust(acceptsSelfSigned: acceptsSelfSigned)
        return try WebSocketNode(webSocket: WebSocketOptions(trust: trust))
    }

    /// The listener's socket, by another name.
    private static func address(of listener: any Listener, _ suffix: String) throws -> Multiaddr {
        try Multiaddr("\(listener.address.tcp)\(suffix)")
    }

    static let spellings = [
        ("/tls/ws", "/tls/sni/a.example/ws"), ("/wss", "/sni/a.example/wss"), ("/tls/sni/a.example/ws", "/tls/ws"),
        ("/wss", "/tls/sni/B.A.Example/ws"), ("/tls/ws", "/wss"),
    ]

    @Test(arguments: spellings) func connectsBothEnds(listened: String, dialled: String) async throws {
        let leaf = TestAuthority.Leaf(names: ["a.example", "*.a.example"], addresses: [[127, 0, 0, 1]])
        let (b, there) = try await self.listener(leaf, on: "/ip4/127.0.0.1/tcp/0\(listened)")
        let a = try self.dialer()
        let target = try Self.address(of: there, dialled)
        let outbound = try await a.dial(target.appending(b.peerID), expecting: b.peerID)
        let inbound = await b.accepted.first { $0 }
        #expect(outbound.remotePeer == b.peerID && inbound.remotePeer == a.peerID)
        #expect(outbound.remoteAddress == target)
        #expect(outbound.details.transport == "wss" && inbound.details.transport == "wss")
        #expect(there.address == (try Self.address(of: there, listened)))
        try await WebSocketTransportTests.exchange(outbound, inbound)
        outbound.close(.none)
        _ = await inbound.closeFuture.result()
        while b.tcp.transport.handshakes.count > 0 { await Task.yield() }
        try await there.close().get()
    }

    /// What is wrong with a certificate, which name it is asked for by, and what that is called.
    static let refusals: [(leaf: TestAuthority.Leaf, suffix: String, acceptsSelfSigned: Bool, WebTLSError)] = [
        (.init(), "/tls/sni/b.example/ws", false, .wrongName),
        (.init(), "/tls/ws", false, .wrongName),
        (.init(addresses: [[127, 0, 0, 2]]), "/wss", false, .wrongName),
        (.init(names: ["*.example"]), "/tls/sni/a.b.example/ws", false, .wrongName),
        (.init(notAfter: TestAuthority.longAgo + 1), "/tls/sni/a.example/ws", false, .expired),
        (.init(notBefore: TestAuthority.farAhead - 1), "/tls/sni/a.example/ws", false, .notYetValid),
        (.init(isSelfSigned: true), "/tls/sni/a.example/ws", false, .selfSigned),
        (.init(isSelfSigned: true), "/tls/sni/b.example/ws", true, .wrongName),
        (.init(notAfter: TestAuthority.longAgo + 1, isSelfSigned: true), "/tls/sni/a.example/ws", true, .expired),
    ]

    @Test(arguments: refusals.indices) func badCertificatesAreNamed(index: Int) async throws {
        let row = Self.refusals[index]
        let (b, there) = try await self.listener(row.leaf)
        let a = try self.dialer(acceptsSelfSigned: row.acceptsSelfSigned)
        let target = try Self.address(of: there, row.suffix)
        await #expect(throws: row.3) { try await a.dial(target, expecting: b.peerID) }
        while b.tcp.transport.handshakes.count > 0 { await Task.yield() }
        #expect(b.accepted.entries.isEmpty)
        try await there.close().get()
    }

    @Test func anAuthorityThatNobodyKnowsIsNamed() async throws {
        let (b, there) = try await self.listener(.init())
        let target = try Self.address(of: there, "/tls/sni/a.example/ws")
        // Those of the system, and one more that is not it.
        let other = try WebTrust(roots: try TestAuthority().root, acceptsSelfSigned: true)
        for options in [WebSocketOptions(), WebSocketOptions(trust: other)] {
            let a = try WebSocketNode(webSocket: options)
            await #expect(throws: WebTLSError.unknownAuthority) { try await a.dial(target, expecting: b.peerID) }
        }
        try await there.close().get()
    }

    @Test func aSelfSignedCertificateCanBeAskedFor() async throws {
        let (b, there) = try await self.listener(.init(isSelfSigned: true))
        let a = try self.dialer(acceptsSelfSigned: true)
        let outbound = try await a.dial(
            try Self.address(of: there, "/tls/sni/a.example/ws"), expecting: b.peerID)
        #expect(outbound.remotePeer == b.peerID)
        outbound.close(.none)
        try await there.close().get()
    }

    @Test func whoShowsNothingDoesNotListen() async throws {
        let node = try WebSocketNode()
        let address = try Multiaddr("/ip4/127.0.0.1/tcp/0/wss")
        #expect(node.webSocket.canDial(try Multiaddr("/ip4/127.0.0.1/tcp/1/wss")))
        #expect(!node.webSocket.canListen(on: address))
        await #expect(throws: TransportError.unsupportedAddress(address)) {
            try await node.webSocket.listen(on: address) { _ in }.get()
        }
    }

    @Test(arguments: [true, false]) func aServerWithoutTLSIsNamed(answers: Bool) async throws {
        let (a, server) = (try self.dialer(), try await RawListener())
        let dial = Task { try await a.dial(try Multiaddr("\(server.address)/wss"), expecting: a.peerID) }
        let remote = try await server.connection()
        #expect(await remote.receiver.bytes(atLeast: 6).first == 0x16)
        if answers { try await remote.send(Array("HTTP/1.1 400 Bad Request\r\n\r\n".utf8)) }
        if !answers { try await remote.stream.onLoop { $0.closeWrite() } }
        let error = await #expect(throws: WebTLSError.self) { try await dial.value }
        switch error {
        case .handshake(.malformed): #expect(answers)
        case .cutOff: #expect(!answers)
        default: Issue.record("\(String(describing: error))")
        }
        await remote.ended()
        remote.close()
        try await server.channel.close().get()
    }

    // MARK: One port for everything

    static let orders = [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]]

    @Test(arguments: orders) func allThreeShareAPort(order: [Int]) async throws {
        let certificate = try self.authority.get().certificate(.init(addresses: [[127, 0, 0, 1]]))
        let b = try WebSocketNode(webSocket: WebSocketOptions(certificate: certificate))
        let a = try self.dialer()
        let (holder, plain) = try PortSharingTests.freePort()
        defer { holder.close() }
        let addresses = [plain, try Multiaddr("\(plain)/ws"), try Multiaddr("\(plain)/tls/ws")]
        var listeners: [(Multiaddr, any Listener)] = []
        for index in order { listeners.append((addresses[index], try await b.listen(on: addresses[index]))) }
        while let (address, listener) = listeners.popLast() {
            for (other, _) in listeners + [(address, listener)] {
                let outbound = try await a.dial(other, expecting: b.peerID)
                #expect(outbound.remoteAddress == other && outbound.remotePeer == b.peerID)
                outbound.close(.none)
            }
            try await listener.close().get()
            await #expect(throws: (any Error).self) { try await a.dial(address, expecting: b.peerID) }
        }
    }

    // MARK: Files

    @Test func certificatesComeFromFiles() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("warren-\(UUID())")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let (chain, key) = try self.authority.get().issue()
        let (chainFile, keyFile) = (folder.appendingPathComponent("chain"), folder.appendingPathComponent("key"))
        try Data((chain + "\n" + (try self.authority.get().root)).utf8).write(to: chainFile)
        try Data(key.utf8).write(to: keyFile)
        _ = try WebCertificate(chainFile: chainFile.path, keyFile: keyFile.path)
        #expect(
            throws: WebCertificateError.unreadable(path: folder.path + "/none", reason: "No such file or directory")
        ) {
            try WebCertificate(chainFile: folder.path + "/none", keyFile: keyFile.path)
        }
        #expect(throws: WebCertificateError.unreadable(path: folder.path, reason: "Is a directory")) {
            try WebCertificate(chainFile: chainFile.path, keyFile: folder.path)
        }
    }

    @Test func whatIsNoCertificateOrKeyIsNamed() throws {
        let authority = try self.authority.get()
        let ((chain, key), (otherChain, otherKey)) = (try authority.issue(), try authority.issue())
        #expect(throws: WebCertificateError.keyMismatch) { try WebCertificate(chain: chain, key: otherKey) }
        _ = try WebCertificate(chain: chain + "\n" + otherChain, key: key)
        for chain in ["", "no PEM", key, String(chain.dropLast(100)), chain + chain.dropLast(100)] {
            #expect(throws: WebCertificateError.self) { try WebCertificate(chain: chain, key: key) }
        }
        for key in ["", "no PEM", chain, String(key.dropLast(60)), Self.encryptedKey] {
            #expect(throws: WebCertificateError.self) { try WebCertificate(chain: chain, key: key) }
        }
        #expect(throws: WebCertificateError.self) { try WebTrust(usesSystemRoots: false, roots: "no PEM") }
    }

    /// `openssl pkey -aes128 -passout pass:test` of a key that nobody uses. It is not asked for its password.
    static let encryptedKey = """
        -----BEGIN ENCRYPTED PRIVATE KEY-----
        MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAgn8C2E+6pGjgICCAAw
        DAYIKoZIhvcNAgkFADAdBglghkgBZQMEAQIEEIwge5hiiLjGBGhpgQiHrTYEgZCP
        Eh62EVM/iFXANoVfoSI477J8xHXhrafFE9k652uBomuGjDzn5vHv9qKccCVBJ2jN
        WkRdPJXWnYmPt04AfSmMnO4UJlt6gxqgL4OgyPhtdQZfCnrag0XmvPdV6Xtlyogi
        5C+phtal+UR+zwwV0c76SSpvgEEKPamIUosY+2KEvQFJAdHHu3Yi5JibcrtDrg4=
        -----END ENCRYPTED PRIVATE KEY-----
        """
}
