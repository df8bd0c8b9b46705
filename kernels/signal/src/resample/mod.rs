//! Streaming sample rate conversion with linear phase and compensated delay.
//!
//! The filter is a Kaiser-windowed sinc, applied by overlap-save: a block's spectrum is multiplied by the filter's and
//! transformed back at the length of the output rate, so any ratio of whole rates costs two FFTs and the stop band
//! costs nothing. Blocks are at fixed positions of the signal, so that the bits do not depend on the division of the
//! input into pushes. Ratios without a short period (44,101 to 22,050 Hz) are computed sample by sample instead,
//! because their blocks would be long.

mod args;
mod cpu;
mod error;
mod phases;
mod plans;
pub mod reference;
#[cfg(test)]
mod tests;

pub use args::{PASS_BAND, Ratio, ResampleArgs, STOP_BAND_DB};
pub use cpu::{Filter, Resampler};
pub use error::ResampleError;
pub use plans::{PLANS_MAX, Resamplers};
pub use wavemill_options::{MAX_DEVICE_HZ, MAX_FROM_HZ, MAX_TO_HZ, MIN_HZ};
