//! What can go wrong between PCM and bytes.

use crate::level::Level;
use crate::pack::Dtype;

/// An argument that cannot work, a clip that has no features, or a value that a stored type cannot hold.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// An argument outside of what is allowed.
    #[error("{key} = {value}: must be {allowed}")]
    Argument {
        /// librosa's name of the argument.
        key: &'static str,
        /// What was asked for.
        value: String,
        /// What would have worked.
        allowed: String,
    },
    /// The instruction set level was asked for by name and this machine lacks it.
    #[error("level {level}: this machine lacks its instructions")]
    Level {
        /// The level asked for.
        level: Level,
    },
    /// A sample that is NaN, infinite or absurdly large: nothing computed from it would mean anything.
    #[error("sample {index} is {value}: PCM must be finite and within ±{limit}", limit = crate::stft::SAMPLE_MAX)]
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
    Resample(#[from] crate::resample::ResampleError),
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
