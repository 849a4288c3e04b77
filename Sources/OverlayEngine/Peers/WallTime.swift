internal import Foundation

/// A point of the wall clock, for people.
struct WallTime: Sendable {
    private let date: Date

    static var now: WallTime { WallTime(date: Date()) }

    /// RFC 3339, UTC.
    var rfc3339: String { self.date.formatted(.iso8601) }
}
