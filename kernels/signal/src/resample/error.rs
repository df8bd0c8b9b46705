//! Errors of resampling.

use wavemill_options::{MAX_FROM_HZ, MAX_TO_HZ, MIN_HZ};

use crate::level::Level;

/// Error while planning a resampler.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages describe the fields
pub enum ResampleError {
    /// A sample rate outside of the supported range.
    #[error(
        "cannot resample {from_hz} Hz to {to_hz} Hz: from {MIN_HZ} to {MAX_FROM_HZ} Hz, to {MIN_HZ} to {MAX_TO_HZ} Hz"
    )]
    Rate { from_hz: u32, to_hz: u32 },
    /// This machine does not support the requested instruction set level.
    #[error("level {level:?} is not supported by this CPU")]
    Level { level: Level },
}
