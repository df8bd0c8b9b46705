//! Tempo: the lag at which a tempogram is strongest, weighted by how common its tempo is.
//!
//! Shape: `[win_length, n_frames]` → `[1]`, in beats per minute. Source: `librosa.feature.tempo`, version 0.11, with its
//! defaults: the mean over all frames, and weights of a log-normal distribution.

mod cpu;
#[cfg(test)]
pub(crate) mod reference;

pub(crate) use cpu::TempoPlan;
