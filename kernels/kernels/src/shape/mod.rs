//! The shape of a spectrum in one number per frame: centroid, bandwidth, flatness and roll-off.
//!
//! Shape: `[n_bins]` → `[1]` for each frame. Units: Hz, except for the flatness. Source: `librosa.feature`, version 0.11.
//! A frame of zeros has a centroid, bandwidth and roll-off of 0, and a flatness of 1.

mod cpu;
#[cfg(test)]
pub(crate) mod reference;

pub(crate) use cpu::ShapePlan;
