//! Sample rate conversion: linear phase, delay removed, streaming.
//!
//! The filter is a Kaiser-windowed sinc, applied by overlap-save: a block's spectrum is multiplied by the filter's and
//! transformed back at the length of the output rate, so any ratio of whole rates costs two FFTs and the stop band
//! costs nothing. Blocks lie at fixed places of the signal, hence equal bits however the input is cut into pushes.
//! Ratios without a short period (44,101 to 22,050 Hz) are summed sample by sample instead: their blocks would be long.

mod args;
mod cpu;
mod device;
#[cfg(test)]
mod device_tests;
mod phases;
mod plans;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub use args::{MAX_FROM_HZ, MAX_TO_HZ, MIN_HZ, PASS_BAND, ResampleArgs, STOP_BAND_DB};
pub use cpu::Resampler;
pub(crate) use device::{ClipBuffers, LevelsDevice, ResampleDevice, SourceClip, is_for_device};
pub use plans::{PLANS_MAX, Resamplers};

use crate::level::Level;

/// Why a resampler could not be planned.
#[derive(Debug, thiserror::Error)]
pub enum ResampleError {
    /// A rate that is not supported.
    #[error(
        "cannot resample {from_hz} Hz to {to_hz} Hz: from {MIN_HZ} to {MAX_FROM_HZ} Hz, to {MIN_HZ} to {MAX_TO_HZ} Hz"
    )]
    Rate {
        /// Rate of the input, Hz.
        from_hz: u32,
        /// Rate of the output, Hz.
        to_hz: u32,
    },
    /// This machine cannot run the level that was asked for.
    #[error("this machine lacks the instructions of level {level:?}")]
    Level {
        /// The level.
        level: Level,
    },
}
