//! Beats: frames with strong onsets at intervals near that of the tempo.
//!
//! Shape: `[n_mels, n_frames]` → `[1, n_frames]`, 1 for frames with a beat and else 0. Source: `librosa.beat.beat_track`
//! with `sparse = False`, version 0.11, after Ellis, "Beat tracking by dynamic programming", 2007.

mod cpu;
#[cfg(test)]
pub(crate) mod reference;

pub(crate) use cpu::BeatPlan;
