//! Chroma: the energy of each pitch class, relative to the strongest one of the frame.
//!
//! Shape: `[n_bins, n_frames]` → `[n_chroma, n_frames]`, 0 to 1. The bins are those of the spectrum (`cpu.rs`, source:
//! `librosa.feature.chroma_stft`, version 0.11, with its defaults of `librosa.filters.chroma`) or of a constant-Q transform
//! (`classes.rs`). A frame of zeros remains one.

mod cens;
mod classes;
mod cpu;
mod norm;
#[cfg(test)]
pub(crate) mod reference;
mod tonnetz;
mod tuning;

pub(crate) use cens::CensPlan;
pub(crate) use classes::ClassesPlan;
pub(crate) use cpu::ChromaPlan;
pub(crate) use tuning::TuningPlan;

/// Frequencies of the peaks from which the tuning is estimated, in Hz.
const PEAKS_HZ: std::ops::Range<f64> = 150.0..4000.0;
/// Part of the largest power of a frame that a peak exceeds.
const PEAK_MIN: f32 = 0.1;
/// Number of steps of the tuning in a pitch class.
const TUNING_STEPS: usize = 100;
/// The note A0 in Hz, with which octaves begin.
const OCTAVE_HZ: f64 = 27.5;
/// Octave in which the weights are largest, and the standard deviation of their decrease, in octaves.
const CENTER_OCTAVE: f64 = 5.0;
const OCTAVE_WIDTH: f64 = 2.0;

/// Returns the lower ends of the steps of the tuning, from -0.5, and the end of the last.
fn tuning_steps() -> Vec<f64> {
    let steps = 0..=TUNING_STEPS;
    steps
        .map(|step| step as f64 / TUNING_STEPS as f64 - 0.5)
        .collect()
}
