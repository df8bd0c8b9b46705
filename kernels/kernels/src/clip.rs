//! A decoded clip as the input of feature computation.

use std::ops::Range;

/// Samples as decoded: full scale is ±1 for f32 and ±32768 for integers.
#[derive(Clone, Copy, Debug)]
pub enum Samples<'a> {
    /// IEEE single precision.
    F32(&'a [f32]),
    /// Signed 16-bit integers.
    S16(&'a [i16]),
}

/// A decoded clip, and the ranges of its rows for which features are computed.
#[derive(Clone, Copy, Debug)]
pub struct Clip<'a> {
    /// The samples; two channels are interleaved, and features use their mean.
    pub samples: Samples<'a>,
    /// Number of channels, 1 or 2.
    pub channels: usize,
    /// Sample rate in Hz. If it differs from the features' rate, the clip is converted (see [`crate::resample`]).
    pub sample_rate_hz: u32,
    /// Ranges of the rows, in samples at the features' rate. Zeros follow the end of the clip.
    pub rows: &'a [Range<usize>],
}

impl Clip<'_> {
    /// Returns the number of samples per channel. A last sample without a partner in the other channel is ignored.
    pub(crate) const fn n_frames(&self) -> usize {
        let n_samples = match self.samples {
            Samples::F32(samples) => samples.len(),
            Samples::S16(samples) => samples.len(),
        };
        n_samples / self.channels
    }

    /// Returns the part of the clip in a range of sample frames, as a clip without rows.
    pub(crate) fn part(&self, frames: Range<usize>) -> Self {
        let range = frames.start * self.channels..frames.end * self.channels;
        let samples = match self.samples {
            Samples::F32(samples) => Samples::F32(&samples[range]),
            Samples::S16(samples) => Samples::S16(&samples[range]),
        };
        Self {
            samples,
            rows: &[],
            ..*self
        }
    }
}
