//! Power spectra of short frames: the first step of every feature, which takes most of the time.
//!
//! Framing follows librosa (`center`, `pad_mode`), or Kaldi's `snip_edges`; DC removal and pre-emphasis are applied to
//! a frame before its window, as in Kaldi. Frames are computed eight at a time, so that all later steps work on eight
//! lanes. For the length that most recipes use, the transform does so too (`eight.rs`); other lengths are transformed
//! frame by frame.

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
pub(crate) use fft::{RealFft, Transform, plan as fft_plan};
pub(crate) use signal::{FramePlace, Signal};
pub use window::values as window_values;

// Device backends reject samples beyond the same limit.
pub(crate) use crate::error::SAMPLE_MAX;
