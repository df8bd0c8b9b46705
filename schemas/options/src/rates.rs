//! Sample rates supported by the resampler.

/// Minimum sample rate of files and features in Hz: the minimum of MPEG-2.5.
pub const MIN_HZ: u32 = 8_000;
/// Maximum sample rate of a file in Hz: the highest rate in use for music in FLAC files.
pub const MAX_FROM_HZ: u32 = 384_000;
/// Maximum sample rate of a file in Hz that a device converts. Files of higher rates are converted while they are
/// decoded, so that their samples take no more memory and no larger tables.
pub const MAX_DEVICE_HZ: u32 = 96_000;
/// Maximum sample rate of features in Hz.
pub const MAX_TO_HZ: u32 = 48_000;
