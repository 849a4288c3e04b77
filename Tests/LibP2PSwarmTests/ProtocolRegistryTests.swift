import LibP2PCore
import LibP2PSwarm
import PeerIdentity
import Testing

@Suite struct ProtocolRegistryTests {
    @Test func admitsWhoMayAndNamesThemWhatTheyMay() throws {
        let (member, stranger) = (try PeerStoreTests.peer(1), try PeerStoreTests.peer(2))
        let registry = ProtocolRegistry()
        registry.accept("/b") { _ in }
        registry.accept("/a", from: { $0 == member }) { _ in }
        #expect(registry.protocols(for: member) == ["/a", "/b"])
        #expect(registry.protocols(for: stranger) == ["/b"])
        #expect(registry.handler(of: "/a", for: member) != nil)
        #expect(registry.handler(of: "/a", for: stranger) == nil)
        #expect(registry.handler(of: "/c", for: member) == nil)
        registry.remove("/a")
        #expect(registry.protocols(for: member) == ["/b"])
        registry.accept("/b", from: { _ in false }) { _ in }
        #expect(registry.protocols(for: member) == [])
    }
}
