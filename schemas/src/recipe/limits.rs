//! How large a recipe's numbers may be; the options of features have their limits in `wavemill-options`. Each limit is
//! far above any use that we know of, and keeps what a run must hold or compute within what a machine has: beyond it a
//! number is a slip, and is told before any work.

/// Longest clip that is decoded, seconds: three hours. A day's recording is better cut before it is a data set.
pub(super) const CLIP_S_MAX: f64 = 10_800.0;

/// Shortest length of a clip or a segment, seconds: eight samples at the lowest rate.
pub(super) const LENGTH_S_MIN: f64 = 0.001;

/// Rows that one clip may give: segments of 0.11 s of the longest clip, side by side.
pub(super) const SEGMENTS_MAX: f64 = 100_000.0;

/// Largest row of one feature while it is computed, bytes: f32, and mel bands where MFCC are made of them. It is what
/// one value of Arrow's binary columns can hold.
pub(super) const ROW_BYTES_MAX: f64 = i32::MAX as f64;

/// Most bytes of a clip's file: over three hours at 320 kbit/s. A worker holds a clip whole, so this also bounds what a zip
/// bomb or a file that never stops growing can take.
pub const FILE_BYTES_MAX: u64 = 512 << 20;

/// Most clips a shard and rows a row group.
pub(super) const ROWS_MAX: usize = 1 << 20;
