//! Errors of feature computation, from PCM to stored bytes. All operations return this error type.

use wavemill_options::{Dtype, Fault};
use wavemill_signal::Level;
use wavemill_signal::resample::ResampleError;

/// Largest magnitude of a sample that is accepted as audio. PCM is within ±1, or slightly above after decoding. The
/// limit keeps every power finite in f32: (n_fft · scale · sample)² ≤ (2^16 · 2^15 · 2^20)² = 2^102.
pub(crate) const SAMPLE_MAX: f32 = 1_048_576.0;

/// An error of feature computation: an invalid argument or sample, a failed device, or a value that cannot be stored.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages describe the fields
pub enum KernelError {
    /// An argument outside of the allowed range.
    #[error("{key} = {value}: must be {allowed}")]
    Argument {
        key: &'static str,
        value: String,
        allowed: String,
    },
    /// An impossible option of a feature.
    #[error(transparent)]
    Options(#[from] Fault),
    /// The requested instruction set level is not supported by this machine.
    #[error("level {level}: not supported by this CPU")]
    Level { level: Level },
    /// A sample that is NaN, infinite or extremely large: values computed from it would be meaningless.
    #[error("sample {index} is {value}: PCM must be finite and within ±{limit}", limit = SAMPLE_MAX)]
    Sample { index: usize, value: f32 },
    /// The clip has fewer frames than are needed to compute deltas, or than a model takes.
    #[error("{frames} frames: at least {needed} are needed")]
    TooFewFrames { frames: usize, needed: usize },
    /// A sample rate that cannot be converted.
    #[error(transparent)]
    Resample(#[from] ResampleError),
    /// A device that failed or is not available.
    #[error("{device}: {action}: {detail}")]
    Device {
        device: String,
        action: &'static str,
        detail: String,
    },
    /// Clips for which a device has no memory, or that exceed its 32-bit counts. Fewer or shorter clips may fit.
    #[error("{0}")]
    TooLarge(String),
    /// A feature that only the CPU can compute, requested for a GPU.
    #[error("op = \"{op}\" is computed only on the CPU")]
    CpuOnly { op: &'static str },
    /// An error while computing one feature of a plan.
    #[error("feature {place}")]
    Feature {
        place: usize,
        source: Box<KernelError>,
    },
    /// A value that the stored type cannot represent.
    #[error("value {index} is {value}: {dtype} cannot hold it")]
    Pack {
        index: usize,
        value: f32,
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
