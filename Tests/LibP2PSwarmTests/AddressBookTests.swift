import Multiformats
import NIOCore
import Testing

@testable import LibP2PSwarm

@Suite struct AddressBookTests {
    static func address(_ number: Int) -> Multiaddr { PeerStoreTests.address(number) }
    static func at(_ seconds: Int64) -> NIODeadline { .uptimeNanoseconds(0) + .seconds(seconds) }

    /// 5 s, then 5 s + n² s, at most 5 min.
    @Test(
        arguments: [
            (1, 5), (2, 6), (3, 9), (4, 14), (10, 86), (17, 261), (18, 294), (19, 300), (1000, 300), (Int.max, 300),
            (0, 5), (-1, 5),
        ] as [(Int, Int64)])
    func backsOff(failures: Int, seconds: Int64) {
        let whole = TimeAmount.seconds(seconds)
        #expect(AddressBook.backoff(failures: failures, random: 0) == whole)
        for random in [1, 12_345_678_901, UInt64.max] {
            let wait = AddressBook.backoff(failures: failures, random: random)
            #expect(wait <= whole && wait.nanoseconds >= whole.nanoseconds / 5 * 4)
        }
    }

    @Test func keepsHowDialsWent() {
        var book = AddressBook()
        book.failed(Self.address(1), reason: "refused", name: nil, at: 1000, now: Self.at(0), random: 0)
        book.failed(Self.address(1), reason: "timed out", name: nil, at: 2000, now: Self.at(10), random: 0)
        var record = book.record(of: Self.address(1))
        #expect(record?.failures == 2 && record?.failure == "timed out" && record?.failedAt == 2000)
        #expect(record?.retryAt == Self.at(16) && record?.reachedAt == nil && record?.handshake == nil)
        book.succeeded(Self.address(1), handshake: .milliseconds(31), name: nil, at: 3000)
        record = book.record(of: Self.address(1))
        #expect(record?.failures == 0 && record?.retryAt == nil && record?.reachedAt == 3000)
        // What has happened stays.
        #expect(record?.failure == "timed out" && record?.handshake == .milliseconds(31))
        // A success without a time keeps the last one.
        book.succeeded(Self.address(1), handshake: nil, name: nil, at: 4000)
        #expect(book.record(of: Self.address(1))?.handshake == .milliseconds(31))
        #expect(book.record(of: Self.address(2)) == nil)
    }

    @Test func aSuccessEndsAllWaiting() {
        var book = AddressBook()
        for number in 1...3 {
            book.failed(Self.address(number), reason: "", name: nil, at: 1, now: Self.at(0), random: 0)
        }
        book.succeeded(Self.address(2), handshake: nil, name: nil, at: 2)
        #expect(book.records.allSatisfy { $0.record.retryAt == nil })
        // Failures go on counting where nothing has succeeded.
        book.failed(Self.address(1), reason: "", name: nil, at: 3, now: Self.at(0), random: 0)
        #expect(book.record(of: Self.address(1))?.retryAt == Self.at(6))
        book.forgetBackoffs()
        #expect(book.record(of: Self.address(1))?.retryAt == nil)
        #expect(book.record(of: Self.address(1))?.failures == 2)
    }

    @Test func theLastGoodAddressIsTheLatestThatHasNotFailedSince() {
        var book = AddressBook()
        #expect(book.lastGood == nil)
        book.succeeded(Self.address(1), handshake: nil, name: nil, at: 10)
        book.succeeded(Self.address(2), handshake: nil, name: nil, at: 10)
        #expect(book.lastGood == Self.address(2))
        book.succeeded(Self.address(1), handshake: nil, name: nil, at: 11)
        #expect(book.lastGood == Self.address(1))
        book.failed(Self.address(2), reason: "", name: nil, at: 12, now: Self.at(0), random: 0)
        #expect(book.lastGood == Self.address(1))
        book.failed(Self.address(1), reason: "", name: nil, at: 12, now: Self.at(0), random: 0)
        #expect(book.lastGood == nil)
    }

    @Test func isBounded() {
        var book = AddressBook()
        book.succeeded(Self.address(0), handshake: nil, name: nil, at: 1)
        for number in 1...200 {
            book.failed(
                Self.address(number), reason: String(repeating: "é", count: 1000), name: nil, at: 2, now: Self.at(0),
                random: 0)
        }
        #expect(book.records.count == AddressBook.maximumAddresses)
        // What was reached once stays longest; of the rest the latest.
        #expect(book.records.first?.address == Self.address(0) && book.records.last?.address == Self.address(200))
        #expect(book.record(of: Self.address(200 - 62)) != nil && book.record(of: Self.address(200 - 63)) == nil)
        #expect(book.records.allSatisfy { $0.record.failure?.utf8.count ?? 0 <= AddressBook.maximumReasonBytes })
        #expect(book.records.last?.record.failure?.hasPrefix("éé") == true)
        for number in 300...500 { book.succeeded(Self.address(number), handshake: nil, name: nil, at: 3) }
        #expect(book.records.map(\.address) == (437...500).map { Self.address($0) })
    }

    @Test func aNameThatStandsForSomethingHasNotFailed() {
        var book = AddressBook()
        book.resolved(Self.address(1))
        #expect(book.records.isEmpty)
        book.failed(Self.address(1), reason: "no such name", name: nil, at: 1, now: Self.at(0), random: 0)
        book.resolved(Self.address(1))
        #expect(book.record(of: Self.address(1)) == DialRecord())
    }
}
