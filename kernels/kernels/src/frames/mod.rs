//! One value per frame of samples, without a transform: the mean square, whose root is the RMS, and the rate of zero
//! crossings.
//!
//! Shape: `[n_samples]` → `[1, n_frames]`. Source: `librosa.feature.rms` and `zero_crossing_rate`, version 0.11.

mod cpu;
#[cfg(test)]
pub(crate) mod reference;

pub(crate) use cpu::FramesPlan;

/// Samples up to this size count as zero, which is positive: the default `threshold` of `librosa.zero_crossings`.
const ZERO_MAX: f32 = 1e-10;
