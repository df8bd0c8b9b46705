//! How large a recipe's numbers may be. Each limit is far above any use that we know of, and keeps what a run must hold
//! or compute within what a machine has: beyond it a number is a slip, and is told before any work.

/// Longest clip that is decoded, seconds: three hours. A day's recording is better cut before it is a data set.
pub(super) const CLIP_S_MAX: f64 = 10_800.0;

/// Shortest length of a clip or a segment, seconds: eight samples at the lowest rate.
pub(super) const LENGTH_S_MIN: f64 = 0.001;

/// Rows that one clip may give: segments of 0.11 s of the longest clip, side by side.
pub(super) const SEGMENTS_MAX: f64 = 100_000.0;

/// Longest FFT, samples: 3 s at 22,050 Hz. Tables and buffers of a worker grow with it: 5 MB a feature at this length.
pub(super) const N_FFT_MAX: usize = 1 << 16;

/// Longest hop, samples. Longer hops than frames leave samples out, which may be meant.
pub(super) const HOP_LENGTH_MAX: usize = 1 << 20;

/// Most mel bands: as many as a tenth of the longest FFT's bins.
pub(super) const N_MELS_MAX: usize = 2_048;

/// Most cepstral coefficients: their matrix has this many rows of up to [`N_MELS_MAX`] values, 8 MB a worker.
pub(super) const N_MFCC_MAX: usize = 1_024;

/// Most frames of a row: three hours at 10 ms.
pub(super) const FRAMES_MAX: usize = 1 << 20;

/// Largest row of one feature while it is computed, bytes: f32, and mel bands where MFCC are made of them. It is what
/// one value of Arrow's binary columns can hold.
pub(super) const ROW_BYTES_MAX: f64 = i32::MAX as f64;

/// Most clips a shard and rows a row group.
pub(super) const ROWS_MAX: usize = 1 << 20;
