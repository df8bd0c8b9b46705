//! The mean of both channels, which is all that features are made of: as a whole, or a part of its band.
//!
//! All steps behind the codes are sums, so left and right are mixed as early as their windows are equal, and what follows
//! is computed once. For the whole band each code of both channels is read, so a frame decodes if and only if it does for
//! [`FrameDecoder`](super::FrameDecoder).
//!
//! A part of the band is mono at half or a quarter of the stream's rate, straight from its spectra. Nothing is computed that
//! does not reach these samples: lines and sub-bands above, the side channel where the mean of left and right is the middle
//! one, and the samples in between. Other rates are converted from there.
//!
//! **The upper edge.** The filters of the synthesis overlap, each with its two neighbours: from the middle of one sub-band
//! to the middle of the next one. An alias that a filter lets through is cancelled by the neighbour's, but for the highest
//! sub-band, whose upper neighbour is left out. If every second sample is wanted, the highest one ends at the new Nyquist
//! frequency. So it has its alias from half a sub-band above that frequency, which comes down, by leaving out samples, just
//! to where it came from: no tone gets another frequency, and in the upper half of the highest sub-band (1/32 of the band,
//! from 0.969 of the new Nyquist frequency on; of every fourth sample 1/16, from 0.938 on) tones are louder or softer than
//! they should be. To carry one more sub-band would cancel that alias, but would also bring down all that this sub-band
//! has above the new Nyquist frequency, down to 0.906 of it. The resampler of the whole band passes tones up to 0.913 only.
//! So it is left out, and up to there a part and the whole are equal.
//!
//! The butterflies against aliases of the hybrid transform have no such edge: the lines above it that they need are read.

mod decoder;
mod synthesis;
#[cfg(test)]
mod tests;

pub use decoder::MonoDecoder;

use super::{LINES, SUB_BAND_LINES, SUB_BANDS};

/// How much of a stream is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Band {
    /// Every sample, every second, or every fourth one.
    step: Step,
    /// The sub-bands that reach the output, from the lowest on.
    n_sub_bands: usize,
}

/// Samples of the stream from one output to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    One,
    Two,
    Four,
}

impl Band {
    /// All of a stream.
    pub const WHOLE: Self = Self {
        step: Step::One,
        n_sub_bands: SUB_BANDS,
    };

    /// The part that reaches samples at `to_hz`. `None` where that is zero or more than half of the stream's rate, or where
    /// the rate cannot be divided.
    pub fn of(from_hz: u32, to_hz: u32) -> Option<Self> {
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

        // Sub-band `k` is `from_hz / 64` wide and reaches half of its width further down. What lies at the new Nyquist
        // frequency and above it does not pass.
        let below = (u64::from(to_hz) * SUB_BANDS as u64).div_ceil(u64::from(from_hz)) as usize;
        let reaches_in = u64::from(to_hz) * 64 > u64::from(from_hz) * (2 * below as u64 - 1);
        let n_outputs = SUB_BANDS / step.n_samples();
        let n_sub_bands = n_outputs.min(below + usize::from(reaches_in));
        Some(Self { step, n_sub_bands })
    }

    /// Samples of the stream from one output to the next: 1, 2 or 4.
    pub fn step(&self) -> usize {
        self.step.n_samples()
    }

    /// Lines up to the edge, and those above it that butterflies mix with them.
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
