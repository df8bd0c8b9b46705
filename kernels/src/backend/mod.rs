//! Where features are computed: one seam for all devices.
//!
//! A backend makes a plan for all features of a recipe at once. A plan holds tables and buffers; running it allocates
//! nothing but the bytes that it hands out, once its buffers have grown to size.

mod choose;
#[cfg(test)]
mod counts;
mod cpu;
mod cuda;
mod derived;
mod device;
#[cfg(feature = "emulated")]
mod emulated;
mod feature;
mod timing;

pub use choose::{BackendChoice, ChosenBackend};
pub(crate) use cpu::downmix;
pub use cpu::{Cpu, CpuPlan};
pub use cuda::{Cuda, ResidentBatch, Work};
#[cfg(feature = "emulated")]
pub use emulated::Emulation;
pub use timing::{WARM_UP, median, median_s, warm_up};

use wavemill_options::FeatureArgs;

pub use crate::clip::{Clip, Samples};
use crate::error::KernelError;
use crate::samples::SampleBuffer;

/// One kind of device, opened.
pub trait Backend: Send + Sync {
    /// `cpu`, `cuda` or `emulated`; what manifests call the engine's backend.
    fn kind(&self) -> &'static str;

    /// What else decides the bits: an instruction set level, or an architecture and the versions of its libraries.
    fn level(&self) -> String;

    /// Clips that a plan's `run` takes best at a time. 1: a clip is computed where it was decoded.
    fn batch_clips(&self) -> usize;

    /// Plans that run side by side: streams of all devices. Of no matter where `batch_clips` is 1.
    fn lanes(&self) -> usize;

    /// An empty buffer for a clip's samples, in memory that the devices copy from at full speed.
    fn sample_buffer(&self) -> SampleBuffer {
        SampleBuffer::default()
    }

    /// Makes tables and buffers on a lane. All `features` take PCM of one rate. Errors: an impossible argument, or a
    /// device that cannot be used.
    fn plan(&self, lane: usize, features: &[FeatureArgs]) -> Result<Box<dyn Plan>, KernelError>;
}

/// The features of one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Every sample is exactly 0.
    pub silent: bool,
    /// A tensor a feature: [`FeatureArgs::shape`] of the row's length, row-major, packed as
    /// [`FeatureArgs::packing`] says, little-endian; empty where the row is too short for one frame.
    pub tensors: Vec<Vec<u8>>,
}

/// Tables and buffers for some features, ready to run.
pub trait Plan: Send {
    /// Computes every feature of every row of every clip, in order.
    ///
    /// Errors of a row: a sample that is no number, fewer frames than deltas need, [`KernelError::Feature`] for a value
    /// that the feature's stored type cannot hold. The outer error is the device's: nothing is known of any row.
    fn run(&mut self, clips: &[Clip<'_>]) -> Result<Vec<Result<Row, KernelError>>, KernelError>;

    /// Gives up memory that grew with the last clips and that the next one may not need.
    fn forget_scratch(&mut self) {}
}
