//! Spectral contrast: in each octave, the difference between the largest and the smallest magnitudes.
//!
//! Shape: `[n_bins]` → peaks and valleys, `[2 · (n_bands + 1)]` → differences, `[n_bands + 1]`, for each frame. Source:
//! `librosa.feature.spectral_contrast`, version 0.11, after Jiang et al., "Music type classification by spectral
//! contrast feature", 2002. The decibels of peaks and valleys are limited to 80 dB below the loudest ones of the clip.

mod cpu;
#[cfg(test)]
pub(crate) mod reference;

pub(crate) use cpu::{ContrastPlan, difference};
