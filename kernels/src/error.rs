//! Errors that can occur between PCM and bytes. All operations return the error type of this module.

use wavemill_options::{Dtype, Fault, MAX_FROM_HZ, MAX_TO_HZ, MIN_HZ};

use crate::level::Level;

/// Largest sample that is accepted as audio. PCM is within ±1, decoders overshoot slightly; this limit keeps every
/// power finite in f32: (n_fft · scale · sample)² ≤ (2^16 · 2^15 · 2^20)² = 2^102.
pub(crate) const SAMPLE_MAX: f32 = 1_048_576.0;

/// An impossible argument, a clip without features, or a value that a stored type cannot represent.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// An argument outside of the allowed range.
    #[error("{key} = {value}: must be {allowed}")]
    Argument {
        /// Name of the argument.
        key: &'static str,
        /// The given value.
        value: String,
        /// Description of the allowed values.
        allowed: String,
    },
    /// An impossible option of a feature.
    #[error(transparent)]
    Options(#[from] Fault),
    /// The requested instruction set level is not supported by this machine.
    #[error("level {level}: not supported by this CPU")]
    Level {
        /// The requested level.
        level: Level,
    },
    /// A sample that is NaN, infinite or extremely large: values computed from it would be meaningless.
    #[error("sample {index} is {value}: PCM must be finite and within ±{limit}", limit = SAMPLE_MAX)]
    Sample {
        /// Index in the PCM.
        index: usize,
        /// Value of the sample.
        value: f32,
    },
    /// Fewer frames than the window of deltas spans.
    #[error("{frames} frames: deltas need at least {needed}")]
    TooFewFrames {
        /// Frames of the clip.
        frames: usize,
        /// Frames of the window.
        needed: usize,
    },
    /// A rate that cannot be converted.
    #[error(transparent)]
    Resample(#[from] ResampleError),
    /// A device that failed or is not available.
    #[error("{device}: {action}: {detail}")]
    Device {
        /// Name of the device.
        device: String,
        /// The action that failed.
        action: &'static str,
        /// The device's message, and the remedy if one is known.
        detail: String,
    },
    /// A feature that no device computes.
    #[error("op = \"{op}\" is computed only on the CPU")]
    CpuOnly {
        /// The derived operation: `statistics`, `picture`.
        op: &'static str,
    },
    /// An error of one feature of a plan.
    #[error("feature {place}")]
    Feature {
        /// Index of the feature in the plan.
        place: usize,
        /// The error.
        source: Box<KernelError>,
    },
    /// A value that the stored type cannot represent.
    #[error("value {index} is {value}: {dtype} cannot hold it")]
    Pack {
        /// Index in the feature.
        index: usize,
        /// The value.
        value: f32,
        /// The stored type.
        dtype: Dtype,
    },
}

impl KernelError {
    /// Creates a [`KernelError::Argument`] from values that implement `ToString`.
    pub(crate) fn argument(
        key: &'static str,
        value: impl ToString,
        allowed: impl Into<String>,
    ) -> Self {
        Self::Argument {
            key,
            value: value.to_string(),
            allowed: allowed.into(),
        }
    }

    /// Creates a [`KernelError::Device`] from values that implement `ToString`.
    pub(crate) fn device(
        device: impl ToString,
        action: &'static str,
        detail: impl ToString,
    ) -> Self {
        Self::Device {
            device: device.to_string(),
            action,
            detail: detail.to_string(),
        }
    }
}

/// Error while planning a resampler.
#[derive(Debug, thiserror::Error)]
pub enum ResampleError {
    /// A rate that is not supported.
    #[error(
        "cannot resample {from_hz} Hz to {to_hz} Hz: from {MIN_HZ} to {MAX_FROM_HZ} Hz, to {MIN_HZ} to {MAX_TO_HZ} Hz"
    )]
    Rate {
        /// Rate of the input in Hz.
        from_hz: u32,
        /// Rate of the output in Hz.
        to_hz: u32,
    },
    /// This machine does not support the requested level.
    #[error("level {level:?} is not supported by this CPU")]
    Level {
        /// The level.
        level: Level,
    },
}
