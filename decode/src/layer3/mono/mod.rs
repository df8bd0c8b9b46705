//! Decodes the mean of both channels, the only signal that features are computed from: its whole band or the lower
//! part.
//!
//! All steps after the Huffman codes are linear, so left and right are mixed as soon as their windows are equal, and
//! the remaining steps run once. For the whole band the codes of a side channel that the mean does not need are skipped
//! only where they cannot be damaged, so a frame decodes if and only if [`FrameDecoder`](super::FrameDecoder) decodes it.
//!
//! For a part of the band, the output is mono at half or a quarter of the stream's sample rate, synthesised directly
//! from the spectra. Everything that does not affect these samples is skipped: lines and sub-bands above the edge, the
//! side channel if the mean of left and right is the middle channel, and the samples in between. Other rates are
//! reached by resampling this output.
//!
//! **The upper edge.** Adjacent filters of the synthesis overlap from the middle of one sub-band to the middle of the
//! next one. An alias that one filter passes is cancelled by its neighbour, except in the highest sub-band, whose upper
//! neighbour is left out. With every second sample, the highest sub-band ends at the new Nyquist frequency. It contains
//! an alias from half a sub-band above that frequency, which decimation folds back to exactly where it came from: no
//! tone changes its frequency, but in the upper half of the highest sub-band (1/32 of the band, from 0.969 of the new
//! Nyquist frequency on; with every fourth sample 1/16, from 0.938 on) tones are louder or softer than they should be.
//! One more sub-band would cancel that alias, but would also fold back everything that it contains above the new
//! Nyquist frequency, down to 0.906 of that frequency. The resampler of the whole band passes tones only up to 0.913.
//! So the extra sub-band is left out, and up to 0.913 the part and the whole band are equal.
//!
//! The anti-aliasing butterflies of the hybrid transform have no such error: the lines above the edge that they need
//! are read.

mod decoder;
mod half;
#[cfg(test)]
mod joint_tests;
mod quarter;
#[cfg(test)]
mod tests;

pub use decoder::MonoDecoder;

use super::{LINES, SUB_BAND_LINES, SUB_BANDS};

/// The part of an MP3 stream's frequency range that is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Band {
    /// Whether every sample of the stream, every second or every fourth one is computed.
    step: Step,
    /// Number of sub-bands that affect the output, counted from the lowest one.
    n_sub_bands: usize,
}

/// Number of stream samples per output sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    One,
    Two,
    Four,
}

impl Band {
    /// The whole frequency range of a stream.
    pub const WHOLE: Self = Self {
        step: Step::One,
        n_sub_bands: SUB_BANDS,
    };

    /// Returns the band that must be decoded for output at `to_hz`, or `None` if `to_hz` is zero or more than half of
    /// the stream's rate, or if the stream's rate is odd.
    pub fn new(from_hz: u32, to_hz: u32) -> Option<Self> {
        if to_hz == 0 {
            return None;
        }
        let step = if from_hz >= to_hz.checked_mul(4)? && from_hz.is_multiple_of(4) {
            Step::Four
        } else if from_hz >= 2 * to_hz && from_hz.is_multiple_of(2) {
            Step::Two
        } else {
            return None;
        };

        // Sub-band `k` is `from_hz / 64` wide, and its filter reaches half of that width below its lower edge.
        // Frequencies at or above the new Nyquist frequency do not pass.
        let below = (u64::from(to_hz) * SUB_BANDS as u64).div_ceil(u64::from(from_hz)) as usize;
        let reaches_in = u64::from(to_hz) * 64 > u64::from(from_hz) * (2 * below as u64 - 1);
        let n_outputs = SUB_BANDS / step.n_samples();
        let n_sub_bands = n_outputs.min(below + usize::from(reaches_in));
        Some(Self { step, n_sub_bands })
    }

    /// Returns the number of stream samples per output sample: 1, 2 or 4.
    pub fn step(&self) -> usize {
        self.step.n_samples()
    }

    /// Returns the number of spectral lines that are needed: those up to the band's edge, and those above it that
    /// butterflies mix with them.
    fn n_lines(&self) -> usize {
        LINES.min(self.n_sub_bands * SUB_BAND_LINES + super::antialias::REACH)
    }
}

impl Step {
    const fn n_samples(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
        }
    }
}
