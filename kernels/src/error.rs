//! What can go wrong between PCM and bytes. It lies below all operations, each of which returns it.

use wavemill_options::{Dtype, Fault, MAX_FROM_HZ, MAX_TO_HZ, MIN_HZ};

use crate::level::Level;

/// Largest sample that is taken for audio. PCM is within ±1, decoders overshoot a little; the bound keeps every power
/// finite in f32: (n_fft · scale · sample)² ≤ (2^16 · 2^15 · 2^20)² = 2^102.
pub(crate) const SAMPLE_MAX: f32 = 1_048_576.0;

/// An argument that cannot work, a clip that has no features, or a value that a stored type cannot hold.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// An argument outside of what is allowed.
    #[error("{key} = {value}: must be {allowed}")]
    Argument {
        /// Name of the argument.
        key: &'static str,
        /// What was asked for.
        value: String,
        /// What would have worked.
        allowed: String,
    },
    /// An option of a feature that cannot work.
    #[error(transparent)]
    Options(#[from] Fault),
    /// The instruction set level was asked for by name and this machine lacks it.
    #[error("level {level}: this machine lacks its instructions")]
    Level {
        /// The level asked for.
        level: Level,
    },
    /// A sample that is NaN, infinite or absurdly large: nothing computed from it would mean anything.
    #[error("sample {index} is {value}: PCM must be finite and within ±{limit}", limit = SAMPLE_MAX)]
    Sample {
        /// Position in the PCM.
        index: usize,
        /// The sample.
        value: f32,
    },
    /// Deltas need a whole window of frames.
    #[error("{frames} frames: deltas need at least {needed}")]
    TooFewFrames {
        /// Frames that the clip has.
        frames: usize,
        /// Frames that the window spans.
        needed: usize,
    },
    /// A rate that cannot be converted.
    #[error(transparent)]
    Resample(#[from] ResampleError),
    /// A device that failed, or is not there.
    #[error("{device}: {action}: {detail}")]
    Device {
        /// Which one.
        device: String,
        /// What was asked of it.
        action: &'static str,
        /// Its answer, and the remedy where one is known.
        detail: String,
    },
    /// A feature that no device computes.
    #[error("op = \"{op}\" is computed on the CPU alone")]
    CpuOnly {
        /// What is derived: `statistics`, `picture`.
        op: &'static str,
    },
    /// What is wrong with one feature of a plan.
    #[error("feature {place}")]
    Feature {
        /// Its place in the plan.
        place: usize,
        /// What it is.
        source: Box<KernelError>,
    },
    /// A value that the stored type cannot hold.
    #[error("value {index} is {value}: {dtype} cannot hold it")]
    Pack {
        /// Position in the feature.
        index: usize,
        /// The value.
        value: f32,
        /// The stored type.
        dtype: Dtype,
    },
}

impl KernelError {
    /// An [`KernelError::Argument`] from anything that prints.
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

    /// A [`KernelError::Device`] from anything that prints.
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
