//! Power spectra of short frames: where every feature begins, and where most of its time goes.
//!
//! Framing follows librosa (`center`, `pad_mode`), or Kaldi's `snip_edges`; DC removal and pre-emphasis act on a frame
//! before its window, as in Kaldi. Frames are computed eight at a time, so that all later steps work on eight lanes. At
//! the length that most recipes have, the transform does so too (`eight.rs`); others are transformed frame by frame.

mod cpu;
mod device;
mod eight;
mod fft;
mod fused;
#[cfg(test)]
pub(crate) mod reference;
mod signal;
mod window;

pub(crate) use cpu::{StftPlan, check_samples};
pub(crate) use device::{Batch, Ranges, SpectrumDevice};
pub(crate) use fft::plan as fft_plan;
pub(crate) use signal::Signal;
pub(crate) use window::values as window_values;

// Backends refuse samples beyond it, too.
pub(crate) use crate::error::SAMPLE_MAX;
