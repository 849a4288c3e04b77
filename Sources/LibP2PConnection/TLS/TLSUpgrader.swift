package import LibP2PCore
package import NIOCore
package import PeerIdentity

/// A stream secured with TLS.
typealias TLSStream = RecordStream<TLSSession>

/// Secures connections with TLS 1.3: `/tls/1.0.0`.
///
/// One certificate for a fresh key serves all connections of the upgrader. There is no time-out here: whoever starts the handshake
/// closes the stream when it takes too long, and the future fails.
///
/// Fails with ``TLSError``, or ``TransportError/peerMismatch(expected:found:)`` when somebody else is there. In TLS 1.3 a dialer is done
/// before the listener has looked at its certificate: a dialer that the listener refuses learns it from the secured stream's end.
///
/// Spec: `tls/tls.md`, `connections/inlined-muxer-negotiation.md`.
package struct TLSUpgrader: SecurityUpgrader {
    package let protocolID: ProtocolID = "/tls/1.0.0"

    private let context: Result<TLSContext, TLSError>

    /// - Parameter identity: Who we are. Should it not be able to vouch for a certificate, every handshake fails.
    package init(identity: PrivateKey) {
        self.context = Self.context(for: identity)
    }

    init(_ context: TLSContext) {
        self.context = .success(context)
    }

    package func secure(
        _ stream: any ByteStream, role: Role, expecting expected: PeerID?, muxers: [ProtocolID]
    ) -> EventLoopFuture<SecuredStream> {
        do {
            let session = try TLSSession(self.context.get(), role: role, expecting: expected, muxers: muxers)
            return HandshakeDriver(stream, handshake: session).run()
        } catch {
            stream.close(error)
            return stream.eventLoop.makeFailedFuture(error)
        }
    }

    private static func context(for identity: PrivateKey) -> Result<TLSContext, TLSError> {
        let certificate: PeerCertificate
        do {
            certificate = try PeerCertificate.make(identity: identity)
        } catch {
            return .failure(.badCertificate(error))
        }
        do {
            return .success(try TLSContext(certificate: certificate))
        } catch {
            return .failure(error)
        }
    }
}
