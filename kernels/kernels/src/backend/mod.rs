//! Computation of features, with one interface for all devices.
//!
//! A backend creates a plan for all features of a recipe. A plan owns tables and buffers; after its buffers have
//! reached their final size, running it allocates only the returned bytes.

pub(crate) mod bands;
mod choose;
mod cpu;
mod cuda;
mod derived;
mod device;
#[cfg(feature = "emulated")]
mod emulated;
mod feature;
mod spare;
mod timing;

pub use choose::{BackendChoice, ChosenBackend};
pub(crate) use cpu::downmix;
pub use cpu::{Cpu, CpuPlan};
pub use cuda::{BatchWithoutRows, Cuda, ResidentBatch, Work};
#[cfg(feature = "emulated")]
pub use emulated::Emulation;
pub use spare::SpareTensors;
pub use timing::{WARM_UP, median, median_s, warm_up};

use std::sync::Arc;

use wavemill_options::FeatureArgs;
use wavemill_signal::SampleBuffer;

pub use crate::clip::{Clip, Samples};
use crate::error::KernelError;

/// An opened backend, which computes features on the CPU or on devices of one kind.
pub trait Backend: Send + Sync {
    /// Returns `cpu`, `cuda` or `emulated`; manifests contain this name as the engine's backend.
    fn kind(&self) -> &'static str;

    /// Returns the other properties that affect the bits of features: an instruction set level, or a GPU architecture
    /// and the versions of its libraries.
    fn level(&self) -> String;

    /// Returns the preferred number of clips per call of a plan's `run`. 1 means that a clip is computed on the thread
    /// that decoded it.
    fn batch_clips(&self) -> usize;

    /// Returns the number of plans that run in parallel: the streams of all devices. Not used if `batch_clips` is 1.
    fn lanes(&self) -> usize;

    /// Creates an empty buffer for a clip's samples, in memory from which the devices copy at full speed.
    fn sample_buffer(&self) -> SampleBuffer {
        SampleBuffer::default()
    }

    /// Creates the plan of all `features` on a lane. The features must have the same sample rate. Errors: an invalid
    /// argument, or a device that cannot be used.
    fn plan(&self, lane: usize, features: &[FeatureArgs]) -> Result<Box<dyn Plan>, KernelError>;
}

/// The computed features of one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Whether every sample of the row is exactly 0.
    pub silent: bool,
    /// One tensor per feature: [`FeatureArgs::shape`] for the row's length, row-major, packed according to
    /// [`FeatureArgs::packing`], little-endian; empty if the row is too short for one frame.
    pub tensors: Vec<Vec<u8>>,
}

/// Plan for computing a set of features: their tables and buffers.
pub trait Plan: Send {
    /// Computes every feature of every row of every clip, in order.
    ///
    /// Each inner error concerns one row: an invalid sample, fewer frames than deltas need, or [`KernelError::Feature`]
    /// for a value that the feature's stored type cannot represent. The outer error is a failure of the device; then no
    /// row has a result.
    fn run(&mut self, clips: &[Clip<'_>]) -> Result<Vec<Result<Row, KernelError>>, KernelError>;

    /// Writes tensors from now on to buffers of `spare`, to which the caller gives them back when it no longer needs
    /// them.
    fn reuse(&mut self, _spare: &Arc<SpareTensors>) {}

    /// Frees memory whose size depends on the last clips and which the next clip may not need.
    fn forget_scratch(&mut self) {}
}
