//! A clip on its way from a decoder to whatever computes it.

use std::ops::Range;

/// Samples as they come: full scale is ±1, or ±32768.
#[derive(Clone, Copy, Debug)]
pub enum Samples<'a> {
    /// IEEE single precision.
    F32(&'a [f32]),
    /// Signed 16-bit integers.
    S16(&'a [i16]),
}

/// A decoded clip and the rows that are wanted of it.
#[derive(Clone, Copy, Debug)]
pub struct Clip<'a> {
    /// Interleaved where there are two channels, which are averaged.
    pub samples: Samples<'a>,
    /// 1 or 2.
    pub channels: usize,
    /// Rate of the samples, Hz. Another rate than the features' is converted (see [`crate::resample`]).
    pub sample_rate_hz: u32,
    /// Where the rows lie, in samples at the features' rate. Zeros follow what is there.
    pub rows: &'a [Range<usize>],
}

impl Clip<'_> {
    /// Samples a channel. A last sample without its partner is none.
    pub(crate) const fn n_frames(&self) -> usize {
        let n_samples = match self.samples {
            Samples::F32(samples) => samples.len(),
            Samples::S16(samples) => samples.len(),
        };
        n_samples / self.channels
    }

    /// These of its frames, as a clip without rows.
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
