//! Limits of the numbers in a recipe; the limits of feature options are in `wavemill-options`. Each limit is far above
//! any known use, and keeps memory and computation of a run within the capacity of a machine. A larger number is
//! probably a mistake and is reported before the run starts.

/// Maximum duration of a decoded clip in seconds: three hours. Longer recordings, such as of a day, should be cut
/// first.
pub(super) const CLIP_S_MAX: f64 = 10_800.0;

/// Minimum duration of a clip or a segment in seconds: eight samples at the lowest sample rate.
pub(super) const LENGTH_S_MIN: f64 = 0.001;

/// Maximum number of rows per clip: adjacent segments of 0.11 s of the longest clip.
pub(super) const SEGMENTS_MAX: f64 = 100_000.0;

/// Maximum size of a feature's row in bytes during computation, as f32; for MFCC this includes the mel bands. This is
/// the maximum size of a value in Arrow's binary columns.
pub(super) const ROW_BYTES_MAX: f64 = i32::MAX as f64;

/// Maximum size of a clip's file in bytes: over three hours at 320 kbit/s. A worker reads whole files into memory, so
/// this also limits the effect of zip bombs and files that never stop growing.
pub const FILE_BYTES_MAX: u64 = 512 << 20;

/// Maximum number of clips per shard and of rows per row group.
pub(super) const ROWS_MAX: usize = 1 << 20;
