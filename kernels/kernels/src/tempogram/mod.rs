//! Tempogram: the autocorrelation of the onset strength around each frame, relative to that without a lag.
//!
//! Shape: `[n_mels, n_frames]` → `[win_length, n_frames]`; row k is the lag of k frames. Source:
//! `librosa.feature.tempogram`, version 0.11, with its defaults: a Hann window around each frame, the onset strength
//! continued by ramps to 0, and the largest value of each frame 1.

mod autocorrelation;
mod cpu;
#[cfg(test)]
pub(crate) mod reference;

pub(crate) use autocorrelation::AutocorrelationPlan;
pub(crate) use cpu::TempogramPlan;
