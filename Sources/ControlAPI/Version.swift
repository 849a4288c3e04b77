/// What this build calls itself.
package enum BuildVersion {
    /// Semantic version, without a `v`.
    package static let version = "0.1.0"
    /// The agent string that identify and the status report carry.
    package static let agent = "warren/\(version)"
}
