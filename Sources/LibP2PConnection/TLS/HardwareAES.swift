import CLinux

/// Whether AES is the cheaper cipher here, and ChaCha20 where not.
package enum HardwareAES {
    /// Whether the processor has instructions for AES and for the multiplication that GCM authenticates with.
    package static let isFast = clinux_has_fast_aes()
}
