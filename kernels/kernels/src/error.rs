//! Errors of feature computation, from PCM to stored bytes. All operations return this error type.

use wavemill_options::{Dtype, Fault};
use wavemill_signal::Level;
use wavemill_signal::resample::ResampleError;

/// Largest magnitude of a sample that is accepted as audio. PCM is within ±1, or slightly above after decoding. The
/// limit keeps every power finite in f32: (n_fft · scale · sample)² ≤ (2^16 · 2^15 · 2^20)² = 2^102.
pub(crate) const SAMPLE_MAX: f32 = 1_048_576.0;

/// An error of feature computation: an invalid argument or sample, a failed device, or a value that cannot be stored.
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
        /// Index of the invalid sample in the PCM.
        index: usize,
        /// Value of the invalid sample.
        value: f32,
    },
    /// The clip has fewer frames than are needed to compute deltas, or than a model takes.
    #[error("{frames} frames: at least {needed} are needed")]
    TooFewFrames {
        /// Number of frames of the clip.
        frames: usize,
        /// Number of frames over which deltas are fitted, or of a window of the model.
        needed: usize,
    },
    /// A sample rate that cannot be converted.
    #[error(transparent)]
    Resample(#[from] ResampleError),
    /// A device that failed or is not available.
    #[error("{device}: {action}: {detail}")]
    Device {
        /// Name of the device.
        device: String,
        /// The action during which the device failed.
        action: &'static str,
        /// The device's message, and the remedy if one is known.
        detail: String,
    },
    /// A feature that only the CPU can compute, requested for a GPU.
    #[error("op = \"{op}\" is computed only on the CPU")]
    CpuOnly {
        /// The operation of the derived feature: `statistics` or `picture`.
        op: &'static str,
    },
    /// An error while computing one feature of a plan.
    #[error("feature {place}")]
    Feature {
        /// Index of the feature in the plan.
        place: usize,
        /// The error of this feature.
        source: Box<KernelError>,
    },
    /// A value that the stored type cannot represent.
    #[error("value {index} is {value}: {dtype} cannot hold it")]
    Pack {
        /// Index of the value in the feature's tensor.
        index: usize,
        /// The value that cannot be represented.
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
