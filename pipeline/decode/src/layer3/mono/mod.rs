//! Decodes the mean of both channels, the only signal that features are computed from: its whole band or the lower
//! part.
//!
//! All steps after the Huffman codes are linear, so left and right are mixed as soon as their windows are equal, and
//! the remaining steps run once. For the whole band the codes of a side channel that the mean does not need are skipped
//! only where they cannot be damaged, so a frame decodes if and only if [`FrameDecoder`](super::FrameDecoder) decodes it.
//!
//! For a part of the band, the output is mono at half of the stream's sample rate, synthesised directly from the
//! spectra. Everything that does not affect these samples is skipped: lines and sub-bands above the edge, the side
//! channel if the mean of left and right is the middle channel, and the samples in between. Other rates are reached by
//! resampling this output.
//!
//! **The upper edge.** Adjacent filters of the synthesis overlap from the middle of one sub-band to the middle of the
//! next one. An alias that one filter passes is cancelled by its neighbour, except in the highest sub-band. If the
//! output is resampled, the resampler removes that alias; if the output's rate is within 3 % of half of the stream's, it
//! attenuates it. If the edge is the new Nyquist frequency, the highest sub-bands have filters of their own, see
//! `edge.rs`.
//!
//! The anti-aliasing butterflies of the hybrid transform have no such error: the lines above the edge that they need
//! are read.

mod decoder;
mod edge;
mod half;
#[cfg(test)]
mod joint_tests;
#[cfg(test)]
mod tests;

pub use decoder::MonoDecoder;

use super::{LINES, SUB_BAND_LINES, SUB_BANDS};

/// The part of an MP3 stream's frequency range that is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Band {
    /// Number of stream samples per output sample, 1 or 2.
    step: usize,
    /// Number of sub-bands that affect the output, counted from the lowest one.
    n_sub_bands: usize,
}

impl Band {
    /// The whole frequency range of a stream.
    pub const WHOLE: Self = Self {
        step: 1,
        n_sub_bands: SUB_BANDS,
    };

    /// The band of an output at half of the stream's rate.
    pub const HALF: Self = Self {
        step: 2,
        n_sub_bands: edge::EDGE.end,
    };

    /// Returns the band that must be decoded for output at `to_hz`, or `None` if `to_hz` is zero or more than half of
    /// the stream's rate, or if the stream's rate is odd.
    pub fn new(from_hz: u32, to_hz: u32) -> Option<Self> {
        if to_hz == 0 || to_hz > from_hz / 2 || !from_hz.is_multiple_of(2) {
            return None;
        }
        if to_hz == from_hz / 2 {
            return Some(Self::HALF);
        }

        // Sub-band `k` is `from_hz / 64` wide, and its filter reaches half of that width below its lower edge.
        // Frequencies at or above the new Nyquist frequency do not pass.
        let below = (u64::from(to_hz) * SUB_BANDS as u64).div_ceil(u64::from(from_hz)) as usize;
        let reaches_in = u64::from(to_hz) * 64 > u64::from(from_hz) * (2 * below as u64 - 1);
        let n_sub_bands = half::HALF.min(below + usize::from(reaches_in));
        Some(Self {
            step: 2,
            n_sub_bands,
        })
    }

    /// Returns the number of stream samples per output sample: 1 or 2.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Returns the number of spectral lines that are needed: those up to the band's edge, and those above it that
    /// butterflies mix with them.
    fn n_lines(&self) -> usize {
        LINES.min(self.n_sub_bands * SUB_BAND_LINES + super::antialias::REACH)
    }
}
