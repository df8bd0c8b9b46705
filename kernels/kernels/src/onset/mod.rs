//! Onset strength: the mean or median increase of the log mel bands since an earlier frame.
//!
//! Shape: `[n_mels, n_frames]` → `[1, n_frames]`. Source: `librosa.onset.onset_strength`, version 0.11, with its defaults:
//! no maximum over neighbouring bands, and no detrending.

mod cpu;
#[cfg(test)]
pub(crate) mod reference;

pub(crate) use cpu::OnsetPlan;
