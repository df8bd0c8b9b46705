//! Sample rates that can be converted.

/// Lowest rate on both sides, Hz: the lowest of MPEG-2.5.
pub const MIN_HZ: u32 = 8_000;
/// Highest rate of a file, Hz: what FLAC files of music have at most.
pub const MAX_FROM_HZ: u32 = 96_000;
/// Highest rate of features, Hz.
pub const MAX_TO_HZ: u32 = 48_000;
