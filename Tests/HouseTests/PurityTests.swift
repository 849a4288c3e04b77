import Testing

/// The protocol machines and the VPN's decisions: bytes, events and `now` in, actions out.
@Suite struct PurityTests {
    static let pure = [
        "Sources/Multiformats",
        "Sources/LibP2PConnection/Multistream/MultistreamDialer.swift",
        "Sources/LibP2PConnection/Multistream/MultistreamListener.swift",
        "Sources/LibP2PConnection/Multistream/MultistreamMessage.swift",
        "Sources/LibP2PConnection/Noise/NoiseXX.swift",
        "Sources/LibP2PConnection/Noise/NoiseHandshake.swift",
        "Sources/LibP2PConnection/Noise/NoisePayload.swift",
        "Sources/LibP2PConnection/Noise/NoiseRecords.swift",
        "Sources/LibP2PConnection/Mplex/MplexFrame.swift",
        "Sources/LibP2PConnection/Mplex/MplexSession.swift",
        "Sources/LibP2PConnection/Mplex/MplexSession+Streams.swift",
        "Sources/LibP2PConnection/PNet/PreSharedKey+File.swift",
        "Sources/LibP2PConnection/Yamux/YamuxFrame.swift",
        "Sources/LibP2PConnection/Yamux/YamuxSession.swift",
        "Sources/LibP2PConnection/Yamux/YamuxSession+FlowControl.swift",
        "Sources/LibP2PConnection/Yamux/YamuxSession+Liveness.swift",
        "Sources/LibP2PConnection/Yamux/YamuxSession+Streams.swift",
        "Sources/LibP2PConnection/Opening/OpeningMachine.swift",
        "Sources/LibP2PConnection/Opening/PortService.swift",
        "Sources/LibP2PConnection/Proxy",
        "Sources/LibP2PConnection/WebSocket/HTTPHead.swift",
        "Sources/LibP2PConnection/WebSocket/WebSocketFrame.swift",
        "Sources/LibP2PConnection/WebSocket/WebSocketOpening.swift",
        "Sources/LibP2PConnection/WebSocket/WebSocketReader.swift",
        "Sources/LibP2PSwarm/AddressBook.swift",
        "Sources/LibP2PSwarm/BlackHoleFilter.swift",
        "Sources/LibP2PSwarm/DialPlanner.swift",
        "Sources/LibP2PSwarm/DialSession.swift",
        "Sources/LibP2PSwarm/DialSlots.swift",
        "Sources/LibP2PSwarm/NameLookup.swift",
        "Sources/LibP2PSwarm/PathUpgrade.swift",
        "Sources/LibP2PProtocols/Identify/IdentifyInfo.swift",
        "Sources/LibP2PProtocols/Perf/PerfSession.swift",
        "Sources/OverlayCore",
        "Sources/ControlAPI/HTTPResponseParser.swift",
        "Sources/OverlayEngine/Configuration/ConfigurationParser.swift",
    ]

    @Test(arguments: pure)
    func keepsNoClockNoChanceAndNoChannel(_ place: String) {
        let files = Checkout.swift(place).filter { !$0.isGenerated }
        #expect(!files.isEmpty, "the place has moved")
        let clocks =
            /\b(ContinuousClock|SuspendingClock|Date|DispatchTime|clock_gettime|gettimeofday|sleep|nanosleep)\b|\bnow\(\)/
        #expect(Checkout.places(of: clocks, in: files).isEmpty, "time comes in as `now`")
        let chance =
            /\b(RandomNumberGenerator|SystemRandomNumberGenerator|getrandom|arc4random|UUID)\b|\.(random\(|shuffled?\(|randomElement\()/
        #expect(Checkout.places(of: chance, in: files).isEmpty, "chance comes in as a number")
        let machinery =
            /\b(Channel|EventLoop|EventLoopFuture|Task|Thread|DispatchQueue|Socket|FileHandle|Logger)\b|\b(async|await)\b/
        #expect(Checkout.places(of: machinery, in: files).isEmpty, "the driver does this")
    }

    /// What nobody holds on to is not worth a lock or an actor per packet.
    @Test func thePacketPathHasNoTasks() {
        let files = Checkout.swift("Sources/OverlayEngine/DataPath", "Sources/OverlayCore").filter { !$0.isGenerated }
        #expect(files.count > 20)
        #expect(Checkout.places(of: /\b(Task|AsyncStream|actor)\b/, in: files).isEmpty)
    }
}
