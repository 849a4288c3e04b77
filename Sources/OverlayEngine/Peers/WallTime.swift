internal import Foundation

/// A point of the wall clock, for people.
struct WallTime: Sendable {
    private let date: Date

    private init(date: Date) { self.date = date }

    init(millisecondsSince1970 milliseconds: UInt64) {
        self.date = Date(timeIntervalSince1970: Double(milliseconds) / 1000)
    }

    static var now: WallTime { WallTime(date: Date()) }

    /// RFC 3339, UTC.
    var rfc3339: String { self.date.formatted(.iso8601) }
}
