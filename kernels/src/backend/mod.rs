//! Where features are computed: one seam for all devices.
//!
//! A backend makes a plan for all features of a recipe at once, so that features of equal STFT arguments share one
//! spectrum. A plan holds tables and buffers; running it allocates nothing once its outputs have grown to size.

mod cpu;
mod feature;

pub use cpu::{Cpu, CpuPlan};

use crate::args::FeatureArgs;
use crate::error::KernelError;

/// A device.
pub trait Backend {
    /// As manifests name it: kind, then level.
    fn name(&self) -> String;

    /// Clips that a plan's `run` takes best at a time.
    fn batch_clips(&self) -> usize;

    /// Makes tables and buffers. Errors: an impossible argument, or a device that cannot be used.
    fn plan(&self, features: &[FeatureArgs]) -> Result<Box<dyn Plan>, KernelError>;
}

/// Tables and buffers for some features, ready to run.
pub trait Plan: Send {
    /// Computes every feature of every clip: `out[clip][feature]` becomes the tensor of
    /// [`FeatureArgs::shape`], row-major f32; it is empty where a clip is too short for one frame.
    ///
    /// Errors: a sample that is no number, or fewer frames than deltas need.
    fn run(&mut self, clips: &[&[f32]], out: &mut [Vec<Vec<f32>>]) -> Result<(), KernelError>;
}
