import LibP2PCore
import NIOCore
import NIOEmbedded
import Testing

@testable import LibP2PConnection

/// Two sessions of one muxer under random operations on several streams at once, with the pipe cut into random pieces, against the
/// simplest account of what must happen: the bytes that one side flushed arrive at the other in order, all of them where nobody reset the
/// stream, and both sides agree when it is over.
enum MuxerModel {
    static func check(_ muxer: any MuxerUpgrader, seed: UInt64) {
        var random = SplitMix(seed: seed)
        let world = World(&random, muxer: muxer)
        for _ in 0..<400 { world.step(&random) }
        world.finish()
        for line in world.lines { line.check() }
        #expect(world.pair.dialer.streamCount == 0)
        #expect(world.pair.listener.streamCount == 0)
        #expect(world.lines.count > 5)
        world.pair.end()
    }

    /// All that happens in one test.
    final class World {
        let pair: SessionPair
        var lines: [Line] = []

        init(_ random: inout SplitMix, muxer: any MuxerUpgrader) {
            let lengths = (0..<40).map { _ in
                Bool.random(using: &random)
                    ? Int.random(in: 1...20, using: &random) : .random(in: 1...70_000, using: &random)
            }
            self.pair = SessionPair(
                muxer: muxer, capacity: .random(in: 1...150_000, using: &random), pieces: .lengths(lengths))
        }

        func step(_ random: inout SplitMix) {
            let isNear = Bool.random(using: &random)
            switch Int.random(in: 0..<20, using: &random) {
            case 0 where self.lines.count(where: { !$0.isOver }) < 12:
                self.open(fromDialer: isNear)
            case 1...2:
                (isNear ? self.pair.dialerPipe : self.pair.listenerPipe).isStalled.toggle()
            case 3...5:
                self.pair.loop.run()
            case 6:
                self.pair.loop.advanceTime(by: .milliseconds(.random(in: 0...20, using: &random)))
            default:
                let end = self.lines.randomElement(using: &random).map { isNear ? $0.opener : $0.acceptor }
                end?.step(&random)
            }
        }

        private func open(fromDialer: Bool) {
            guard let stream = try? (fromDialer ? self.pair.dialer : self.pair.listener).openStream() else { return }
            let line = Line(opener: stream)
            self.lines.append(line)
            let delegate = fromDialer ? self.pair.farDelegate : self.pair.nearDelegate
            delegate.onAccepted = { [unowned self] stream in
                // Announced in any order: the number tells which stream it is.
                self.lines.first { $0.opener.stream?.id == stream.id }?.acceptor.attach(stream)
            }
        }

        /// Lets everything in flight arrive, and ends what is still open.
        func finish() {
            self.pair.dialerPipe.isStalled = false
            self.pair.listenerPipe.isStalled = false
            // A stream that is announced late is ended late.
            for _ in 0..<4 {
                for line in self.lines {
                    for end in [line.opener, line.acceptor] { end.finish() }
                }
                self.pair.loop.run()
            }
        }
    }

    /// One stream, from both sides.
    final class Line {
        let opener: End
        let acceptor = End()

        init(opener stream: any MuxedStream) {
            self.opener = End()
            self.opener.attach(stream)
        }

        var isOver: Bool { self.opener.isClosed && (self.acceptor.isClosed || !self.acceptor.isAttached) }

        func check() {
            #expect(self.isOver)
            for (from, to) in [(self.opener, self.acceptor), (self.acceptor, self.opener)] where to.isAttached {
                #expect(to.received <= from.flushed)
                #expect(to.isInOrder)
                let wasReset = from.didReset || to.didReset
                if wasReset {
                    #expect(from.error == nil || from.error is StreamResetError)
                } else {
                    #expect(to.received == from.flushed)
                    #expect(to.hasEnded && from.error == nil)
                }
            }
        }
    }

    /// One side of a stream. It sends the byte sequence 0, 1, 2 … in the remainder of 251, and checks that it gets just that.
    final class End: ByteStreamReceiver {
        private(set) var isAttached = false
        private(set) var isClosed = false
        private(set) var hasEnded = false
        private(set) var didReset = false
        private(set) var error: (any Error)?
        private(set) var received = 0
        private(set) var isInOrder = true
        private(set) var flushed = 0
        private var written = 0
        private var hasClosedWrite = false
        private(set) var stream: (any MuxedStream)?

        func attach(_ stream: any MuxedStream) {
            self.isAttached = true
            self.stream = stream
            stream.receiver = self
            stream.setReading(stream.id % 3 != 0)
        }

        func step(_ random: inout SplitMix) {
            guard let stream = self.stream, !self.isClosed else { return }
            switch Int.random(in: 0..<100, using: &random) {
            case 0..<45:
                guard stream.isWritable else { return }
                let count = Bool.random(using: &random) ? 1 : Int.random(in: 1...100_000, using: &random)
                self.write(count)
            case 45..<65:
                self.flush()
            case 65..<90:
                stream.setReading(Bool.random(using: &random))
            case 90..<94:
                self.closeWrite()
            case 94:
                self.didReset = true
                stream.reset(.rateLimited)
            default:
                stream.setReading(true)
            }
        }

        func finish() {
            guard let stream = self.stream, !self.isClosed else { return }
            stream.setReading(true)
            self.closeWrite()
        }

        private static let pattern = ByteBuffer(bytes: (0..<100_251).map { UInt8($0 % 251) })

        private func write(_ count: Int) {
            guard !self.hasClosedWrite, let bytes = Self.pattern.getSlice(at: self.written % 251, length: count) else {
                return
            }
            self.written += count
            self.stream?.write(bytes)
        }

        private func flush() {
            self.flushed = self.written
            self.stream?.flush()
        }

        private func closeWrite() {
            guard !self.hasClosedWrite else { return }
            self.hasClosedWrite = true
            self.flushed = self.written
            self.stream?.closeWrite()
        }

        func received(_ bytes: ByteBuffer) {
            self.isInOrder =
                self.isInOrder && !self.hasEnded && !self.isClosed && bytes.readableBytes <= 100_000
                && bytes == Self.pattern.getSlice(at: self.received % 251, length: bytes.readableBytes)
            self.received += bytes.readableBytes
        }

        func receiveComplete() {}

        func writabilityChanged() {}

        func inputEnded() {
            self.isInOrder = self.isInOrder && !self.hasEnded && !self.isClosed
            self.hasEnded = true
        }

        func closed(_ error: (any Error)?) {
            self.isInOrder = self.isInOrder && !self.isClosed
            self.isClosed = true
            self.error = error
        }
    }
}
