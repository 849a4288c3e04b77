import Testing

@testable import LibP2PConnection

@Suite struct YamuxModelTests {
    @Test(arguments: 1...30) func bytesArriveInOrderAndComplete(seed: UInt64) {
        MuxerModel.check(YamuxMuxer(), seed: seed)
    }
}
