//! Power spectra of short frames: where every feature begins, and where most of its time goes.
//!
//! Framing follows librosa (`center`, `pad_mode`), or Kaldi's `snip_edges`; DC removal and pre-emphasis act on a frame
//! before its window, as in Kaldi. Frames are computed eight at a time, so that all later steps work on eight lanes.

mod args;
mod cpu;
mod device;
mod fft;
mod fused;
#[cfg(test)]
pub(crate) mod reference;
mod window;

pub(crate) use args::Signal;
pub use args::{Framing, PadMode, StftArgs};
pub(crate) use cpu::{SAMPLE_MAX, StftPlan, check_samples};
pub(crate) use device::{Batch, Ranges, SpectrumDevice};
pub use window::Window;

/// Frames that are computed side by side.
pub(crate) const LANES: usize = 8;

/// One value of [`LANES`] consecutive frames.
pub(crate) type Lane = [f32; LANES];
