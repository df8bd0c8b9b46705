//! The constant-Q transform: each bin is a filter whose length is a number of periods of its frequency.
//!
//! Shape: `[n_samples]` → powers `[n_bins, n_frames]`. Source: `librosa.cqt` and `librosa.vqt`, version 0.11, after
//! Schörkhuber and Klapuri (2010): the filters of an octave multiply the Fourier transforms of frames, and the sample rate
//! is halved from one octave to the next lower one. There are as many frames as in a centred short-time Fourier transform
//! of the same hop length.

mod basis;
mod cpu;
#[cfg(test)]
pub(crate) mod reference;

pub(crate) use cpu::ConstantQPlan;

use crate::resample::ResampleArgs;

/// Rates of a conversion that halves the sample rate. Only their ratio matters.
const HALF: ResampleArgs = ResampleArgs {
    from_hz: 44_100,
    to_hz: 22_050,
};
/// Part of the sum of a filter's magnitudes that is dropped, in the smallest bins: librosa's default `sparsity`.
const SPARSITY: f64 = 0.01;
