// OverlayCore
